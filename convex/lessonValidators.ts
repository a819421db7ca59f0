/**
 * Shapes of lessons, courses, slide sets and avatars as teachers write them and readers see them.
 *
 * An optional field that has no value is an absent key. Limits: `SCHOOL` in limits.ts.
 * @module
 */
import { v } from "convex/values";
import type { Infer } from "convex/values";
import { vExercise, vLessonKind, vLevel, vSlide, vTalkingHead, vTeachingStyle } from "./schoolValidators";

/** The stable name of a lesson, a course or an avatar: `a-trip-to-london`. */
const vSlug = v.string();

// ---------------------------------------------------------------------------------------------
// Lessons

/** What a lesson teaches. `language` is BCP 47. */
export const vLessonContent = v.object({
  slug: v.optional(vSlug),
  title: v.string(),
  level: vLevel,
  language: v.string(),
  kind: vLessonKind,
  objectives: v.array(v.string()),
  targetWords: v.array(v.string()),
  exercises: v.optional(v.array(vExercise)),
});
export type LessonContent = Infer<typeof vLessonContent>;

/** What a teacher says of a new lesson; a course takes it as its last. */
export const vNewLesson = vLessonContent.extend({
  courseId: v.optional(v.id("courses")),
  avatarId: v.optional(v.id("avatars")),
});
export type NewLesson = Infer<typeof vNewLesson>;

/** What changes of a lesson: absent stays as it is, null takes it away. */
export const vLessonChanges = v.object({
  ...vLessonContent.omit("slug").partial().fields,
  slug: v.optional(v.union(vSlug, v.null())),
  courseId: v.optional(v.union(v.id("courses"), v.null())),
  avatarId: v.optional(v.union(v.id("avatars"), v.null())),
});
export type LessonChanges = Infer<typeof vLessonChanges>;

/** A lesson in a list. */
export const vLessonSummary = v.object({
  lessonId: v.id("lessons"),
  slug: v.optional(vSlug),
  title: v.string(),
  level: vLevel,
  language: v.string(),
  kind: vLessonKind,
  objectives: v.array(v.string()),
  courseId: v.optional(v.id("courses")),
  position: v.optional(v.number()),
  published: v.boolean(),
});
export type LessonSummary = Infer<typeof vLessonSummary>;

/** A lesson as its teacher edits it: with everything but the slides. */
export const vLessonDetails = vLessonSummary.extend({
  targetWords: v.array(v.string()),
  exercises: v.array(vExercise),
  avatarId: v.optional(v.id("avatars")),
  hasSlides: v.boolean(),
});
export type LessonDetails = Infer<typeof vLessonDetails>;

/** The lesson that comes next, or why there is none. */
export const vNextLesson = v.union(
  v.object({ lesson: vLessonSummary }),
  v.object({
    lesson: v.null(),
    reason: v.union(
      v.literal("no_course"),
      v.literal("course_not_published"),
      v.literal("no_lessons"),
      v.literal("all_completed"),
    ),
  }),
);
export type NextLesson = Infer<typeof vNextLesson>;

// ---------------------------------------------------------------------------------------------
// Slides

/** A lesson's slides as its teacher edits them. */
export const vSlideSet = v.object({ title: v.string(), slides: v.array(vSlide) });
export type SlideSet = Infer<typeof vSlideSet>;

/** The slide that is on in a session; null where none was shown yet, or it is not in the set. */
export const vCurrentSlide = v.object({
  /** Counted from 0; null before the first. */
  index: v.union(v.number(), v.null()),
  /** Slides in the set; 0 where the lesson has none. */
  count: v.number(),
  slide: v.union(v.object({ title: v.string(), text: v.string() }), v.null()),
});
export type CurrentSlide = Infer<typeof vCurrentSlide>;

// ---------------------------------------------------------------------------------------------
// Courses

/** What a teacher says of a course. */
export const vCourseContent = v.object({
  slug: vSlug,
  title: v.string(),
  /** BCP 47. */
  language: v.string(),
  level: vLevel,
  /** Students are offered lessons of a published course alone. */
  published: v.boolean(),
});
export type CourseContent = Infer<typeof vCourseContent>;

/** A course as its teacher reads it. */
export const vCourse = vCourseContent.extend({ courseId: v.id("courses") });
export type Course = Infer<typeof vCourse>;

// ---------------------------------------------------------------------------------------------
// Avatars

/** What a teacher says of an avatar. */
export const vAvatarContent = v.object({
  slug: vSlug,
  name: v.string(),
  /** Who she is, in the second person, for the prompt. */
  persona: v.string(),
  /** As the speech model names it. */
  voice: v.string(),
  /** BCP 47. */
  language: v.string(),
  teachingStyle: vTeachingStyle,
  /** Absent: a voice alone. */
  talkingHead: v.optional(vTalkingHead),
});
export type AvatarContent = Infer<typeof vAvatarContent>;

/** An avatar as teachers read it. */
export const vAvatar = vAvatarContent.extend({
  avatarId: v.id("avatars"),
  published: v.boolean(),
});
export type Avatar = Infer<typeof vAvatar>;
