/**
 * Lessons with their slides.
 * @module
 */
import type { Doc, Id } from "../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../_generated/server";
import { fail } from "../errors";
import type { LessonChanges, LessonDetails, LessonSummary, NewLesson } from "../lessonValidators";
import type { Lesson, Slide } from "../schoolValidators";
import { addToCourse, courseEnd, requireCourse } from "./courses";
import { lessonProblems, refuseFirst, togetherProblems } from "./lessonChecks";

/** The lesson of that id, or null: unknown, deleted, or an id of another table or deployment. */
export async function findLesson(
  ctx: QueryCtx,
  lessonId: string | undefined,
): Promise<Doc<"lessons"> | null> {
  const id = lessonId === undefined ? null : ctx.db.normalizeId("lessons", lessonId);
  return id === null ? null : await ctx.db.get("lessons", id);
}

/** A lesson as the tutor holds it, with its slides. */
export async function toTaughtLesson(ctx: QueryCtx, lesson: Doc<"lessons">): Promise<Lesson> {
  const { _id, title, level, language, kind, objectives, targetWords, exercises } = lesson;
  return {
    lessonId: _id,
    title,
    level,
    language,
    kind,
    objectives,
    targetWords,
    slides: await slidesOf(ctx, lesson),
    exercises: exercises ?? [],
  };
}

/** The lesson's slides; none where it has no set. */
export async function slidesOf(ctx: QueryCtx, lesson: Doc<"lessons">): Promise<Slide[]> {
  if (lesson.slideSetId === undefined) return [];
  return (await ctx.db.get("slideSets", lesson.slideSetId))?.slides ?? [];
}

/** @throws ConvexError `not_found`. */
export async function requireLesson(ctx: QueryCtx, lessonId: Id<"lessons">): Promise<Doc<"lessons">> {
  const lesson = await ctx.db.get("lessons", lessonId);
  if (lesson === null) {
    fail({ code: "not_found", message: "There is no such lesson.", field: "lessonId" });
  }
  return lesson;
}

/**
 * Keeps a new lesson, not yet published, as the last of its course.
 *
 * @throws ConvexError `already_exists`, `not_found`, and what `lessonProblems` tells.
 */
export async function createLesson(ctx: MutationCtx, lesson: NewLesson): Promise<Id<"lessons">> {
  refuseFirst(lessonProblems("", lesson), togetherProblems("", lesson, 0));
  await requireFreeSlug(ctx, lesson.slug, undefined);
  await requireAvatar(ctx, lesson.avatarId);
  const { courseId } = lesson;
  return await ctx.db.insert("lessons", {
    ...lesson,
    ...(courseId === undefined ? {} : { position: await placeIn(ctx, courseId) }),
    published: false,
  });
}

/**
 * Changes a lesson as a whole: what results is checked, with its slides.
 *
 * @throws ConvexError as `createLesson`.
 */
export async function updateLesson(
  ctx: MutationCtx,
  lessonId: Id<"lessons">,
  changes: LessonChanges,
): Promise<void> {
  const lesson = await requireLesson(ctx, lessonId);
  const { slug, courseId, avatarId, ...content } = changes;
  const { _id, _creationTime, ...kept } = lesson;
  const changed = { ...kept, ...content };
  if (slug !== undefined) changed.slug = slug ?? undefined;
  if (avatarId !== undefined) changed.avatarId = avatarId ?? undefined;
  refuseFirst(
    lessonProblems("", contentOf(changed)),
    togetherProblems("", changed, (await slidesOf(ctx, lesson)).length),
  );
  await requireFreeSlug(ctx, changed.slug, lessonId);
  if (changed.avatarId !== kept.avatarId) await requireAvatar(ctx, changed.avatarId);
  if (courseId !== undefined && courseId !== (lesson.courseId ?? null)) {
    changed.courseId = courseId ?? undefined;
    changed.position = courseId === null ? undefined : await placeIn(ctx, courseId);
  }
  await ctx.db.replace("lessons", lessonId, changed);
}

/** Deletes a lesson with its slides; sessions, progress and students go on without. */
export async function removeLesson(ctx: MutationCtx, lesson: Doc<"lessons">): Promise<void> {
  const { slideSetId } = lesson;
  if (slideSetId !== undefined && (await ctx.db.get("slideSets", slideSetId)) !== null) {
    await ctx.db.delete("slideSets", slideSetId);
  }
  await ctx.db.delete("lessons", lesson._id);
}

/** A row as lists show it. */
export function toLessonSummary(lesson: Doc<"lessons">): LessonSummary {
  const { _id, slug, title, level, language, kind, objectives, courseId, position } = lesson;
  return {
    lessonId: _id,
    ...(slug === undefined ? {} : { slug }),
    title,
    level,
    language,
    kind,
    objectives,
    ...(courseId === undefined ? {} : { courseId }),
    ...(position === undefined ? {} : { position }),
    published: lesson.published === true,
  };
}

/** A row as its teacher reads it. */
export function toLessonDetails(lesson: Doc<"lessons">): LessonDetails {
  const { targetWords, exercises, avatarId, slideSetId } = lesson;
  return {
    ...toLessonSummary(lesson),
    targetWords,
    exercises: exercises ?? [],
    ...(avatarId === undefined ? {} : { avatarId }),
    hasSlides: slideSetId !== undefined,
  };
}

function contentOf(lesson: Omit<Doc<"lessons">, "_id" | "_creationTime">) {
  const { slug, title, level, language, kind, objectives, targetWords, exercises } = lesson;
  return { slug, title, level, language, kind, objectives, targetWords, exercises };
}

async function placeIn(ctx: MutationCtx, courseId: Id<"courses">): Promise<number> {
  await requireCourse(ctx, courseId);
  return addToCourse(await courseEnd(ctx, courseId));
}

async function requireFreeSlug(
  ctx: MutationCtx,
  slug: string | undefined,
  own: Id<"lessons"> | undefined,
): Promise<void> {
  if (slug === undefined) return;
  const named = await ctx.db
    .query("lessons")
    .withIndex("by_slug", (q) => q.eq("slug", slug))
    .unique();
  if (named === null || named._id === own) return;
  fail({ code: "already_exists", message: `Another lesson has the slug ${slug}.`, field: "slug" });
}

async function requireAvatar(ctx: QueryCtx, avatarId: Id<"avatars"> | undefined): Promise<void> {
  if (avatarId === undefined || (await ctx.db.get("avatars", avatarId)) !== null) return;
  fail({ code: "not_found", message: "There is no such avatar.", field: "avatarId" });
}
