/**
 * Who Emma is in a lesson.
 * @module
 */
import { paginationOptsValidator, paginationResultValidator } from "convex/server";
import { v } from "convex/values";
import type { Doc, Id } from "./_generated/dataModel";
import type { MutationCtx, QueryCtx } from "./_generated/server";
import { fail } from "./errors";
import { teacherMutation, teacherQuery } from "./functions";
import { vAvatar, vAvatarContent } from "./lessonValidators";
import type { Avatar, AvatarContent } from "./lessonValidators";
import { avatarProblems, refuseFirst } from "./model/lessonChecks";
import { pageOf } from "./model/pages";

const vAvatarId = { avatarId: v.id("avatars") };

async function requireAvatar(ctx: QueryCtx, avatarId: Id<"avatars">): Promise<Doc<"avatars">> {
  const avatar = await ctx.db.get("avatars", avatarId);
  if (avatar === null) {
    fail({ code: "not_found", message: "There is no such avatar.", field: "avatarId" });
  }
  return avatar;
}

async function checkAvatar(
  ctx: MutationCtx,
  avatar: AvatarContent,
  own?: Id<"avatars">,
): Promise<void> {
  refuseFirst(avatarProblems("", avatar));
  const { slug } = avatar;
  const named = await ctx.db
    .query("avatars")
    .withIndex("by_slug", (q) => q.eq("slug", slug))
    .unique();
  if (named === null || named._id === own) return;
  fail({ code: "already_exists", message: `Another avatar has the slug ${slug}.`, field: "slug" });
}

async function setPublished(
  ctx: MutationCtx,
  avatarId: Id<"avatars">,
  published: boolean,
): Promise<null> {
  await requireAvatar(ctx, avatarId);
  await ctx.db.patch("avatars", avatarId, { published });
  return null;
}

function toAvatar({ _id, _creationTime, ...avatar }: Doc<"avatars">): Avatar {
  return { avatarId: _id, ...avatar };
}

/**
 * Makes an avatar, not yet published.
 *
 * @param persona - At most 8 KiB.
 * @throws ConvexError `already_exists` (slug), `text_too_long`, `field_too_long`, `invalid_value`.
 */
export const create = teacherMutation({
  args: vAvatarContent.fields,
  returns: v.object(vAvatarId),
  handler: async (ctx, avatar) => {
    await checkAvatar(ctx, avatar);
    return { avatarId: await ctx.db.insert("avatars", { ...avatar, published: false }) };
  },
});

/**
 * Changes an avatar: what is absent stays as it is.
 *
 * @throws ConvexError `not_found`, and as `create`.
 */
export const update = teacherMutation({
  args: { ...vAvatarId, changes: vAvatarContent.partial() },
  returns: v.null(),
  handler: async (ctx, { avatarId, changes }) => {
    const { _id, _creationTime, published, ...avatar } = await requireAvatar(ctx, avatarId);
    await checkAvatar(ctx, { ...avatar, ...changes }, avatarId);
    await ctx.db.patch("avatars", avatarId, changes);
    return null;
  },
});

/**
 * Deletes an avatar; lessons and students that have it go on with the plain Emma.
 *
 * @throws ConvexError `not_found`.
 */
export const remove = teacherMutation({
  args: vAvatarId,
  returns: v.null(),
  handler: async (ctx, { avatarId }) => {
    await requireAvatar(ctx, avatarId);
    await ctx.db.delete("avatars", avatarId);
    return null;
  },
});

/**
 * Offers the avatar.
 *
 * @throws ConvexError `not_found`.
 */
export const publish = teacherMutation({
  args: vAvatarId,
  returns: v.null(),
  handler: async (ctx, { avatarId }) => await setPublished(ctx, avatarId, true),
});

/**
 * Offers the avatar no more; who has it goes on with the plain Emma, until it is offered again.
 *
 * @throws ConvexError `not_found`.
 */
export const unpublish = teacherMutation({
  args: vAvatarId,
  returns: v.null(),
  handler: async (ctx, { avatarId }) => await setPublished(ctx, avatarId, false),
});

/** A page of avatars, at most 200, the oldest first. */
export const list = teacherQuery({
  args: { paginationOpts: paginationOptsValidator },
  returns: paginationResultValidator(vAvatar),
  handler: async (ctx, { paginationOpts }) => {
    const result = await ctx.db.query("avatars").paginate(pageOf(paginationOpts));
    return { ...result, page: result.page.map(toAvatar) };
  },
});
