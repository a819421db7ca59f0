/**
 * Courses: which lesson comes after which.
 * @module
 */
import type { Doc, Id } from "../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../_generated/server";
import { fail } from "../errors";
import type { Course, CourseContent } from "../lessonValidators";
import { SCHOOL } from "../limits";
import { checkCount, invalid } from "./fields";
import { courseProblems, refuseFirst } from "./lessonChecks";

/** A row as readers see it. */
export function toCourse(course: Doc<"courses">): Course {
  const { _id, slug, title, language, level, published } = course;
  return { courseId: _id, slug, title, language, level, published };
}

/** @throws ConvexError `not_found`. */
export async function requireCourse(ctx: QueryCtx, courseId: Id<"courses">): Promise<Doc<"courses">> {
  const course = await ctx.db.get("courses", courseId);
  if (course === null) {
    fail({ code: "not_found", message: "There is no such course.", field: "courseId" });
  }
  return course;
}

/** @throws ConvexError `already_exists`, and what `courseProblems` tells. */
export async function checkCourse(
  ctx: QueryCtx,
  course: CourseContent,
  own?: Id<"courses">,
): Promise<void> {
  refuseFirst(courseProblems("", course));
  const { slug } = course;
  const named = await ctx.db
    .query("courses")
    .withIndex("by_slug", (q) => q.eq("slug", slug))
    .unique();
  if (named === null || named._id === own) return;
  fail({ code: "already_exists", message: `Another course has the slug ${slug}.`, field: "slug" });
}

/** How far a course goes: lessons in it, and the place behind the last. */
export type CourseEnd = { lessons: number; position: number };

/** Reads all lessons of the course: once for each that is added would be too often. */
export async function courseEnd(ctx: QueryCtx, courseId: Id<"courses">): Promise<CourseEnd> {
  const lessons = await lessonsOf(ctx, courseId);
  return { lessons: lessons.length, position: (lessons.at(-1)?.position ?? -1) + 1 };
}

/**
 * The place of one lesson more, at `position` or as the last; moves the end.
 *
 * @throws ConvexError `too_many_items` where it has no room.
 */
export function addToCourse(end: CourseEnd, position = end.position): number {
  end.lessons += 1;
  checkCount("courseId", end.lessons, SCHOOL.maxCourseLessons);
  end.position = Math.max(end.position, position + 1);
  return position;
}

/** All lessons of the course, in their order. */
export async function lessonsOf(ctx: QueryCtx, courseId: Id<"courses">): Promise<Doc<"lessons">[]> {
  return await ctx.db
    .query("lessons")
    .withIndex("by_courseId_and_position", (q) => q.eq("courseId", courseId))
    .take(SCHOOL.maxCourseLessons);
}

/** The published lessons of the course, in their order, read one after the other; at most 200. */
export function publishedLessons(
  ctx: QueryCtx,
  courseId: Id<"courses">,
): AsyncIterable<Doc<"lessons">> {
  return ctx.db
    .query("lessons")
    .withIndex("by_courseId_and_published_and_position", (q) =>
      q.eq("courseId", courseId).eq("published", true),
    );
}

/** The published lesson that comes after this one in its course; null where there is none. */
export async function lessonAfter(
  ctx: QueryCtx,
  { courseId, position, _creationTime }: Doc<"lessons">,
): Promise<Doc<"lessons"> | null> {
  if (courseId === undefined || position === undefined) return null;
  const course = await ctx.db.get("courses", courseId);
  if (course?.published !== true) return null;
  const samePlace = await ctx.db
    .query("lessons")
    .withIndex("by_courseId_and_published_and_position", (q) =>
      q
        .eq("courseId", courseId)
        .eq("published", true)
        .eq("position", position)
        .gt("_creationTime", _creationTime),
    )
    .first();
  if (samePlace !== null) return samePlace;
  return await ctx.db
    .query("lessons")
    .withIndex("by_courseId_and_published_and_position", (q) =>
      q.eq("courseId", courseId).eq("published", true).gt("position", position),
    )
    .first();
}

/**
 * Puts the course's lessons into the given order.
 *
 * @param lessonIds - Every lesson of the course, each once.
 * @throws ConvexError `too_many_items`; `invalid_value` for one that is missing, is there twice, or
 *   is not of the course.
 */
export async function orderLessons(
  ctx: MutationCtx,
  courseId: Id<"courses">,
  lessonIds: Id<"lessons">[],
): Promise<void> {
  checkCount("lessonIds", lessonIds.length, SCHOOL.maxCourseLessons);
  const lessons = new Map((await lessonsOf(ctx, courseId)).map((lesson) => [lesson._id, lesson]));
  for (const [position, lessonId] of lessonIds.entries()) {
    const field = `lessonIds[${position}]`;
    const lesson = lessons.get(lessonId);
    if (lesson === undefined) invalid(field, "is no lesson of the course, or is there twice");
    lessons.delete(lessonId);
    if (lesson.position !== position) await ctx.db.patch("lessons", lessonId, { position });
  }
  const [missing] = lessons.values();
  if (missing !== undefined) invalid("lessonIds", `lacks a lesson of the course: ${missing.title}`);
}

/** The course that the student takes, or why lessons of none are offered. */
export async function courseOf(
  ctx: QueryCtx,
  studentId: Id<"students">,
): Promise<{ course: Doc<"courses"> } | { reason: "no_course" | "course_not_published" }> {
  const courseId = (await ctx.db.get("students", studentId))?.courseId;
  const course = courseId === undefined ? null : await ctx.db.get("courses", courseId);
  if (course === null) return { reason: "no_course" };
  return course.published ? { course } : { reason: "course_not_published" };
}
