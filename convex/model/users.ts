/**
 * The people of the school: how they get in, and how they leave.
 * @module
 */
import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex, utf8ToBytes } from "@noble/hashes/utils.js";
import type { UserIdentity } from "convex/server";
import { internal } from "../_generated/api";
import type { Doc, Id } from "../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../_generated/server";
import { fail } from "../errors";
import { findUser, tokenRole } from "../functions";
import { SCHOOL } from "../limits";
import type { User, UserRole } from "../schoolValidators";
import { checkName, invalid } from "./fields";

/** What is said of a person who is invited. */
export type Invitee = { name: string; email: string; role: UserRole };

/** Links deleted in one go when a user is removed. */
const LINKS_PER_STEP = 200;

/**
 * Makes the user, or renews the code of one who has not accepted yet.
 *
 * @returns The code, which is stored nowhere: whoever has it becomes this user.
 * @throws ConvexError `invalid_value`, `field_too_long`; `already_exists` where the e-mail is a
 *   user's, or was invited in another role.
 */
export async function invite(
  ctx: MutationCtx,
  { role, ...said }: Invitee,
): Promise<{ userId: Id<"users">; invitationCode: string }> {
  checkName("name", said.name);
  checkName("email", said.email);
  const [name, email] = [said.name.trim(), said.email.trim().toLowerCase()];
  if (!/^[^@\s]+@[^@\s]+$/.test(email)) invalid("email", "is no e-mail address");
  const invitationCode = crypto.randomUUID();
  const invitation = {
    invitationHash: hashOf(invitationCode),
    invitationExpiresAt: Date.now() + SCHOOL.invitationMs,
  };
  const known = await ctx.db
    .query("users")
    .withIndex("by_email_and_removedAt", (q) => q.eq("email", email).eq("removedAt", undefined))
    .unique();
  if (known === null) {
    const userId = await ctx.db.insert("users", { role, name, email, ...invitation });
    return { userId, invitationCode };
  }
  if (known.tokenIdentifier !== undefined || known.role !== role) {
    fail({
      code: "already_exists",
      message: "email is that of another user of the school: remove them first",
      field: "email",
    });
  }
  await ctx.db.patch("users", known._id, { name, ...invitation });
  return { userId: known._id, invitationCode };
}

/**
 * Makes the identity that of the invited user; the code is worth nothing then.
 *
 * @throws ConvexError `forbidden` to agents and students; `already_exists` where the identity is a
 *   user's; `invitation_invalid` alike for a code that is unknown, used, renewed or too old.
 */
export async function accept(
  ctx: MutationCtx,
  identity: UserIdentity,
  code: string,
): Promise<Doc<"users">> {
  if (tokenRole(identity) !== null) {
    fail({ code: "forbidden", message: "Agents and students are no users of the school." });
  }
  if ((await findUser(ctx, identity)) !== null) {
    fail({ code: "already_exists", message: "You are a user of the school already." });
  }
  const user = await ctx.db
    .query("users")
    .withIndex("by_invitationHash", (q) => q.eq("invitationHash", hashOf(code)))
    .unique();
  if (user === null || (user.invitationExpiresAt ?? 0) <= Date.now()) {
    fail({
      code: "invitation_invalid",
      message: "The invitation was used, is too old or is none: ask the school for another one.",
      field: "code",
    });
  }
  const { invitationHash: _hash, invitationExpiresAt: _expiresAt, ...kept } = user;
  const accepted = { ...kept, tokenIdentifier: identity.tokenIdentifier };
  await ctx.db.replace("users", user._id, accepted);
  return accepted;
}

/**
 * Takes the identity, the invitation and the links from the user.
 *
 * They are refused from this transaction on: the next call finds no user of that identity. It is
 * free then, so that the same person may be invited once more.
 *
 * @throws ConvexError `not_found`; `invalid_value` for oneself, so that the school is never left
 *   without an administrator.
 */
export async function remove(
  ctx: MutationCtx,
  caller: Doc<"users">,
  userId: Id<"users">,
): Promise<void> {
  const { role, name, email } = await presentUser(ctx, userId);
  if (userId === caller._id) invalid("userId", "is your own: another administrator may remove you");
  await ctx.db.replace("users", userId, { role, name, email, removedAt: Date.now() });
  await dropLinks(ctx, userId);
}

/** Deletes a removed user's links, some now and the rest in transactions of their own. */
export async function dropLinks(ctx: MutationCtx, userId: Id<"users">): Promise<void> {
  const links = await ctx.db
    .query("studentAccess")
    .withIndex("by_userId_and_studentId", (q) => q.eq("userId", userId))
    .take(LINKS_PER_STEP);
  for (const { _id } of links) await ctx.db.delete("studentAccess", _id);
  if (links.length < LINKS_PER_STEP) return;
  await ctx.scheduler.runAfter(0, internal.users.dropRemovedLinks, { userId });
}

/** The user, if they were not removed. @throws ConvexError `not_found`. */
export async function presentUser(ctx: QueryCtx, userId: Id<"users">): Promise<Doc<"users">> {
  const user = await ctx.db.get("users", userId);
  if (user === null || user.removedAt !== undefined) {
    fail({ code: "not_found", message: "There is no such user.", field: "userId" });
  }
  return user;
}

/** The user as administrators see them. */
export function toUser(user: Doc<"users">): User {
  const { _id, role, name, email, tokenIdentifier, invitationExpiresAt, removedAt } = user;
  return {
    userId: _id,
    role,
    name,
    email,
    accepted: tokenIdentifier !== undefined,
    ...(invitationExpiresAt === undefined ? {} : { invitationExpiresAt }),
    ...(removedAt === undefined ? {} : { removedAt }),
  };
}

function hashOf(code: string): string {
  return bytesToHex(sha256(utf8ToBytes(code)));
}
