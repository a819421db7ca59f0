/**
 * Lessons, and the courses that order them.
 * @module
 */
import { paginationOptsValidator, paginationResultValidator } from "convex/server";
import { v } from "convex/values";
import { internalMutation } from "./_generated/server";
import { requireStudent, studentQuery, teacherMutation, teacherQuery } from "./functions";
import {
  vCourse,
  vCourseContent,
  vLessonChanges,
  vLessonDetails,
  vLessonSummary,
  vNewLesson,
  vNextLesson,
} from "./lessonValidators";
import type { NextLesson } from "./lessonValidators";
import {
  checkCourse,
  courseOf,
  lessonsOf,
  orderLessons,
  publishedLessons,
  requireCourse,
  toCourse,
} from "./model/courses";
import { refuseFirst, togetherProblems } from "./model/lessonChecks";
import { importFiles, vImportFile, vImported } from "./model/lessonImport";
import {
  createLesson,
  removeLesson,
  requireLesson,
  slidesOf,
  toLessonDetails,
  toLessonSummary,
  updateLesson,
} from "./model/lessons";
import { pageOf } from "./model/pages";

const vLessonId = { lessonId: v.id("lessons") };
const vCourseId = { courseId: v.id("courses") };

/**
 * Makes a lesson, not yet published and without slides: those are `presentations:create`'s.
 *
 * A course takes it as its last.
 *
 * @throws ConvexError `already_exists` (slug), `not_found` (course, avatar), `too_many_items`,
 *   `field_too_long`, `number_out_of_range`, `invalid_value`.
 */
export const create = teacherMutation({
  args: vNewLesson.fields,
  returns: v.object(vLessonId),
  handler: async (ctx, lesson) => ({ lessonId: await createLesson(ctx, lesson) }),
});

/**
 * Changes a lesson: what is absent stays as it is, null takes it away.
 *
 * @throws ConvexError as `create`; `not_found` for an exercise's slide that is not there.
 */
export const update = teacherMutation({
  args: { ...vLessonId, changes: vLessonChanges },
  returns: v.null(),
  handler: async (ctx, { lessonId, changes }) => {
    await updateLesson(ctx, lessonId, changes);
    return null;
  },
});

/**
 * Deletes a lesson with its slides. Sessions held, progress and results stay.
 *
 * @throws ConvexError `not_found`.
 */
export const remove = teacherMutation({
  args: vLessonId,
  returns: v.null(),
  handler: async (ctx, { lessonId }) => {
    await removeLesson(ctx, await requireLesson(ctx, lessonId));
    return null;
  },
});

/**
 * Offers the lesson to the students of its course.
 *
 * @throws ConvexError `not_found`; `invalid_value` for a guided lesson without slides.
 */
export const publish = teacherMutation({
  args: vLessonId,
  returns: v.null(),
  handler: async (ctx, { lessonId }) => {
    const lesson = await requireLesson(ctx, lessonId);
    const published = { ...lesson, published: true };
    refuseFirst(togetherProblems("", published, (await slidesOf(ctx, lesson)).length));
    await ctx.db.patch("lessons", lessonId, { published: true });
    return null;
  },
});

/**
 * Offers the lesson no more. A session that is being held with it goes on.
 *
 * @throws ConvexError `not_found`.
 */
export const unpublish = teacherMutation({
  args: vLessonId,
  returns: v.null(),
  handler: async (ctx, { lessonId }) => {
    await requireLesson(ctx, lessonId);
    await ctx.db.patch("lessons", lessonId, { published: false });
    return null;
  },
});

/**
 * A lesson with all but its slides: those are `presentations:get`'s.
 *
 * @throws ConvexError `not_found`.
 */
export const get = teacherQuery({
  args: vLessonId,
  returns: vLessonDetails,
  handler: async (ctx, { lessonId }) => toLessonDetails(await requireLesson(ctx, lessonId)),
});

/** A page of lessons, at most 200: those of a course in its order, else all, the oldest first. */
export const list = teacherQuery({
  args: { courseId: v.optional(v.id("courses")), paginationOpts: paginationOptsValidator },
  returns: paginationResultValidator(vLessonSummary),
  handler: async (ctx, { courseId, paginationOpts }) => {
    const lessons = ctx.db.query("lessons");
    const listed =
      courseId === undefined
        ? lessons
        : lessons.withIndex("by_courseId_and_position", (q) => q.eq("courseId", courseId));
    const result = await listed.paginate(pageOf(paginationOpts));
    return { ...result, page: result.page.map(toLessonSummary) };
  },
});

/**
 * Puts the lessons of a course into the given order, all in one.
 *
 * @param lessonIds - Every lesson of the course, each once; at most 200.
 * @throws ConvexError `not_found`, `too_many_items`; `invalid_value` for a lesson that is missing,
 *   is there twice, or is not of the course.
 */
export const order = teacherMutation({
  args: { ...vCourseId, lessonIds: v.array(v.id("lessons")) },
  returns: v.null(),
  handler: async (ctx, { courseId, lessonIds }) => {
    await requireCourse(ctx, courseId);
    await orderLessons(ctx, courseId, lessonIds);
    return null;
  },
});

/**
 * The published lessons of the student's course, in their order, at most 200.
 *
 * None where the student takes no course, or one that is not published.
 *
 * @throws ConvexError `student_unknown` for a guest.
 */
export const published = studentQuery({
  args: {},
  returns: v.array(vLessonSummary),
  handler: async (ctx) => {
    const taken = await courseOf(ctx, requireStudent(ctx.about));
    if (!("course" in taken)) return [];
    const lessons = [];
    for await (const lesson of publishedLessons(ctx, taken.course._id)) {
      lessons.push(toLessonSummary(lesson));
    }
    return lessons;
  },
});

/**
 * The first published lesson of the student's course that they have not completed.
 *
 * Reads the lessons up to it, each with the student's progress in it.
 *
 * @returns `lesson` null with the reason, where there is none.
 * @throws ConvexError `student_unknown` for a guest.
 */
export const next = studentQuery({
  args: {},
  returns: vNextLesson,
  handler: async (ctx): Promise<NextLesson> => {
    const studentId = requireStudent(ctx.about);
    const taken = await courseOf(ctx, studentId);
    if (!("course" in taken)) return { lesson: null, reason: taken.reason };
    let anyLesson = false;
    for await (const lesson of publishedLessons(ctx, taken.course._id)) {
      anyLesson = true;
      const progress = await ctx.db
        .query("progress")
        .withIndex("by_studentId_and_lessonId", (q) =>
          q.eq("studentId", studentId).eq("lessonId", lesson._id),
        )
        .unique();
      if (progress?.status !== "completed") return { lesson: toLessonSummary(lesson) };
    }
    return { lesson: null, reason: anyLesson ? "all_completed" : "no_lessons" };
  },
});

/**
 * Makes a course.
 *
 * @throws ConvexError `already_exists` (slug), `field_too_long`, `invalid_value`.
 */
export const createCourse = teacherMutation({
  args: vCourseContent.fields,
  returns: v.object(vCourseId),
  handler: async (ctx, course) => {
    await checkCourse(ctx, course);
    return { courseId: await ctx.db.insert("courses", course) };
  },
});

/**
 * Changes a course: what is absent stays as it is.
 *
 * @throws ConvexError `not_found`, and as `createCourse`.
 */
export const updateCourse = teacherMutation({
  args: { ...vCourseId, changes: vCourseContent.partial() },
  returns: v.null(),
  handler: async (ctx, { courseId, changes }) => {
    const { _id, _creationTime, ...course } = await requireCourse(ctx, courseId);
    await checkCourse(ctx, { ...course, ...changes }, courseId);
    await ctx.db.patch("courses", courseId, changes);
    return null;
  },
});

/**
 * Deletes a course. Students who take it then take none.
 *
 * @param withLessons - Whether its lessons go too; else they stay, of no course.
 * @throws ConvexError `not_found`.
 */
export const removeCourse = teacherMutation({
  args: { ...vCourseId, withLessons: v.boolean() },
  returns: v.null(),
  handler: async (ctx, { courseId, withLessons }) => {
    await requireCourse(ctx, courseId);
    for (const lesson of await lessonsOf(ctx, courseId)) {
      if (withLessons) await removeLesson(ctx, lesson);
      else await ctx.db.patch("lessons", lesson._id, { courseId: undefined, position: undefined });
    }
    await ctx.db.delete("courses", courseId);
    return null;
  },
});

/** A page of courses, at most 200, the oldest first. */
export const listCourses = teacherQuery({
  args: { paginationOpts: paginationOptsValidator },
  returns: paginationResultValidator(vCourse),
  handler: async (ctx, { paginationOpts }) => {
    const result = await ctx.db.query("courses").paginate(pageOf(paginationOpts));
    return { ...result, page: result.page.map(toCourse) };
  },
});

/**
 * Writes what the files hold: avatars, courses and lessons with their slides, found by slug.
 *
 * Repeatable; called by `python -m emma_agent import-lessons`. All or nothing, over all the files.
 *
 * @param files - At most 16, of 4 MiB together; `name` stands in front of what is wrong in it.
 * @throws ConvexError `invalid_value` with `problems`, at most 20: `a.json: lessons[0].title: …`.
 */
export const importAll = internalMutation({
  args: { files: v.array(vImportFile) },
  returns: vImported,
  handler: async (ctx, { files }) => await importFiles(ctx, files),
});
