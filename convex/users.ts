/**
 * The people of the school: invitations, who may see whom, consent.
 * @module
 */
import { paginationOptsValidator, paginationResultValidator } from "convex/server";
import { v } from "convex/values";
import { internalMutation } from "./_generated/server";
import { fail } from "./errors";
import { adminMutation, adminQuery, signedInMutation, userMutation, userQuery } from "./functions";
import { pageOf } from "./model/pages";
import * as studentAccess from "./model/studentAccess";
import * as users from "./model/users";
import { vAccess, vUser, vUserRole } from "./schoolValidators";

const vInvitation = v.object({ userId: v.id("users"), invitationCode: v.string() });
const aboutStudent = { studentId: v.id("students") };
const aboutLink = { userId: v.id("users"), ...aboutStudent };

/**
 * Invites a person, or renews the code of one who has not accepted yet.
 *
 * @returns The code to send them, told this once: whoever has it within 14 days becomes this user.
 * @throws ConvexError `invalid_value`, `field_too_long`; `already_exists` where the e-mail is a
 *   user's, or was invited in another role.
 */
export const invite = adminMutation({
  args: { name: v.string(), email: v.string(), role: vUserRole },
  returns: vInvitation,
  handler: async (ctx, person) => await users.invite(ctx, person),
});

/**
 * Invites an administrator without one, on the command line: the way in for the first.
 *
 * `npx convex run users:addAdministrator '{"name": "…", "email": "…"}'` prints the code.
 *
 * @throws ConvexError as `users:invite`.
 */
export const addAdministrator = internalMutation({
  args: { name: v.string(), email: v.string() },
  returns: vInvitation,
  handler: async (ctx, person) => await users.invite(ctx, { ...person, role: "administrator" }),
});

/**
 * Makes the caller the user who was invited. Who the caller is comes from the token alone.
 *
 * @throws ConvexError `forbidden` to agents and students; `already_exists` where the caller is a
 *   user; `invitation_invalid` alike for a code that is unknown, used, renewed or too old.
 */
export const accept = signedInMutation({
  args: { code: v.string() },
  returns: vUser,
  handler: async (ctx, { code }) => users.toUser(await users.accept(ctx, ctx.identity, code)),
});

/** The caller. */
export const me = userQuery({
  args: {},
  returns: vUser,
  handler: (ctx) => users.toUser(ctx.caller.user),
});

/** A page of the school's users, at most 200, in the order in which they were invited; those who
 * were removed are among them, marked. */
export const list = adminQuery({
  args: { paginationOpts: paginationOptsValidator },
  returns: paginationResultValidator(vUser),
  handler: async (ctx, { paginationOpts }) => {
    const result = await ctx.db.query("users").paginate(pageOf(paginationOpts));
    return { ...result, page: result.page.map(users.toUser) };
  },
});

/**
 * Takes everything from a user: their next call, and an invitation they have not accepted, is
 * refused. The same person may be invited again, and is a new user then.
 *
 * @throws ConvexError `not_found`; `invalid_value` for oneself.
 */
export const remove = adminMutation({
  args: { userId: v.id("users") },
  returns: v.null(),
  handler: async (ctx, { userId }) => {
    await users.remove(ctx, ctx.caller.user, userId);
    return null;
  },
});

/** Goes on with the links of a user who was removed, 200 at a time. */
export const dropRemovedLinks = internalMutation({
  args: { userId: v.id("users") },
  returns: v.null(),
  handler: async (ctx, { userId }) => {
    await users.dropLinks(ctx, userId);
    return null;
  },
});

/**
 * Lets a teacher or a guardian see a student. Repeatable.
 *
 * @throws ConvexError `not_found` for the user or the student; `invalid_value` for an
 *   administrator, who needs no link; `too_many_items` once 32 users see the student.
 */
export const link = adminMutation({
  args: aboutLink,
  returns: v.null(),
  handler: async (ctx, { userId, studentId }) => {
    const user = await users.presentUser(ctx, userId);
    if ((await ctx.db.get("students", studentId)) === null) {
      fail({ code: "not_found", message: "There is no such student.", field: "studentId" });
    }
    await studentAccess.link(ctx, user, studentId);
    return null;
  },
});

/** Ends what `users:link` began: the user's next call about the student is refused. Repeatable. */
export const unlink = adminMutation({
  args: aboutLink,
  returns: v.null(),
  handler: async (ctx, { userId, studentId }) => {
    await studentAccess.unlink(ctx, userId, studentId);
    return null;
  },
});

/** The teachers and guardians who may see a student, at most 32; administrators see all. */
export const accessTo = adminQuery({
  args: aboutStudent,
  returns: v.array(vAccess),
  handler: async (ctx, { studentId }) => await studentAccess.listAccess(ctx, studentId),
});

/**
 * Notes that the calling guardian agrees to their child's lessons being recorded. Repeatable.
 *
 * @param textVersion - Which text they were shown.
 * @throws ConvexError `forbidden` unless they are the student's guardian; `invalid_value`,
 *   `field_too_long`.
 */
export const recordConsent = userMutation({
  args: { ...aboutStudent, textVersion: v.string() },
  returns: v.null(),
  handler: async (ctx, consent) => {
    await studentAccess.recordConsent(ctx, ctx.caller, consent);
    return null;
  },
});

/**
 * Notes that the calling guardian agrees no more. Repeatable.
 *
 * @throws ConvexError `forbidden` unless they are the student's guardian; `not_found` where they
 *   gave none.
 */
export const withdrawConsent = userMutation({
  args: aboutStudent,
  returns: v.null(),
  handler: async (ctx, { studentId }) => {
    await studentAccess.withdrawConsent(ctx, ctx.caller, studentId);
    return null;
  },
});
