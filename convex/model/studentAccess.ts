/**
 * Who may see which student, and what guardians consent to.
 * @module
 */
import type { Doc, Id } from "../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../_generated/server";
import { fail } from "../errors";
import { requireAccess } from "../functions";
import type { UserCaller } from "../functions";
import { SCHOOL } from "../limits";
import type { Access } from "../schoolValidators";
import { checkCount, checkName, invalid } from "./fields";

/**
 * Lets the user see the student, as what they are: teacher or guardian. Repeatable.
 *
 * @throws ConvexError `invalid_value` for an administrator, who needs no link; `too_many_items`
 *   once 32 users see the student.
 */
export async function link(
  ctx: MutationCtx,
  user: Doc<"users">,
  studentId: Id<"students">,
): Promise<void> {
  if (user.role === "administrator") {
    invalid("userId", "is an administrator's, who may see every student");
  }
  if ((await accessOf(ctx, user._id, studentId)) !== null) return;
  const others = await accessTo(ctx, studentId);
  checkCount("studentId", others.length + 1, SCHOOL.maxUsersPerStudent);
  await ctx.db.insert("studentAccess", {
    userId: user._id,
    studentId,
    relation: user.role,
    since: Date.now(),
  });
}

/** Ends it from this transaction on, a guardian's consent with it. Repeatable. */
export async function unlink(
  ctx: MutationCtx,
  userId: Id<"users">,
  studentId: Id<"students">,
): Promise<void> {
  const access = await accessOf(ctx, userId, studentId);
  if (access !== null) await ctx.db.delete("studentAccess", access._id);
}

/** Teachers and guardians who may see the student, with their names. */
export async function listAccess(ctx: QueryCtx, studentId: Id<"students">): Promise<Access[]> {
  const list: Access[] = [];
  for (const { userId, relation, since, consent } of await accessTo(ctx, studentId)) {
    const user = await ctx.db.get("users", userId);
    // Links of a removed user go in steps.
    if (user === null || user.removedAt !== undefined) continue;
    const { name, email } = user;
    list.push({ userId, name, email, relation, since, ...(consent && { consent }) });
  }
  return list;
}

/**
 * Notes that the guardian agrees to this text. Repeatable: the first time it was given counts.
 *
 * @throws ConvexError `forbidden` unless the caller is the student's guardian; `invalid_value`,
 *   `field_too_long`.
 */
export async function recordConsent(
  ctx: MutationCtx,
  caller: UserCaller,
  { studentId, textVersion }: { studentId: Id<"students">; textVersion: string },
): Promise<void> {
  const { _id, consent } = await guardianAccess(ctx, caller, studentId);
  checkName("textVersion", textVersion);
  if (consent?.textVersion === textVersion && consent.withdrawnAt === undefined) return;
  await ctx.db.patch("studentAccess", _id, { consent: { textVersion, givenAt: Date.now() } });
}

/**
 * Notes that the guardian agrees no more. Repeatable: the first time it was withdrawn counts.
 *
 * @throws ConvexError `forbidden` unless the caller is the student's guardian; `not_found` where
 *   none was given.
 */
export async function withdrawConsent(
  ctx: MutationCtx,
  caller: UserCaller,
  studentId: Id<"students">,
): Promise<void> {
  const { _id, consent } = await guardianAccess(ctx, caller, studentId);
  if (consent === undefined) {
    fail({ code: "not_found", message: "No consent was given.", field: "studentId" });
  }
  if (consent.withdrawnAt !== undefined) return;
  await ctx.db.patch("studentAccess", _id, { consent: { ...consent, withdrawnAt: Date.now() } });
}

async function guardianAccess(
  ctx: MutationCtx,
  caller: UserCaller,
  studentId: Id<"students">,
): Promise<Doc<"studentAccess">> {
  const isGuardian = caller.role === "guardian";
  const access = isGuardian ? await requireAccess(ctx, caller, studentId) : null;
  if (access === null) {
    fail({ code: "forbidden", message: "Consent is the guardian's to give." });
  }
  return access;
}

async function accessOf(
  ctx: QueryCtx,
  userId: Id<"users">,
  studentId: Id<"students">,
): Promise<Doc<"studentAccess"> | null> {
  return await ctx.db
    .query("studentAccess")
    .withIndex("by_userId_and_studentId", (q) => q.eq("userId", userId).eq("studentId", studentId))
    .unique();
}

async function accessTo(
  ctx: QueryCtx,
  studentId: Id<"students">,
): Promise<Doc<"studentAccess">[]> {
  return await ctx.db
    .query("studentAccess")
    .withIndex("by_studentId", (q) => q.eq("studentId", studentId))
    .take(SCHOOL.maxUsersPerStudent);
}
