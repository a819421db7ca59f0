/**
 * Shapes of what a school keeps: people, students, lessons, slides, avatars, courses.
 *
 * Instants are milliseconds since the epoch. An optional field that has no value is an absent key.
 * @module
 */
import { v } from "convex/values";
import type { Infer } from "convex/values";

/** CEFR level. */
export const vLevel = v.union(
  v.literal("A1"),
  v.literal("A2"),
  v.literal("B1"),
  v.literal("B2"),
  v.literal("C1"),
  v.literal("C2"),
);
export type Level = Infer<typeof vLevel>;

// ---------------------------------------------------------------------------------------------
// People

/** What a person of the school may do; students and agents are told by their tokens. */
export const vUserRole = v.union(
  v.literal("teacher"),
  v.literal("guardian"),
  v.literal("administrator"),
);
export type UserRole = Infer<typeof vUserRole>;

/** As which a user may see a student. */
export const vRelation = v.union(v.literal("teacher"), v.literal("guardian"));

/** A guardian's consent to lessons being recorded: to which text, when, and until when. */
export const vConsent = v.object({
  textVersion: v.string(),
  givenAt: v.number(),
  withdrawnAt: v.optional(v.number()),
});

/** A user as administrators see them. */
export const vUser = v.object({
  userId: v.id("users"),
  role: vUserRole,
  name: v.string(),
  email: v.string(),
  /** Whether somebody came in with the invitation. */
  accepted: v.boolean(),
  /** Until when they may, if nobody did. */
  invitationExpiresAt: v.optional(v.number()),
  removedAt: v.optional(v.number()),
});
export type User = Infer<typeof vUser>;

/** One who may see a student. */
export const vAccess = v.object({
  userId: v.id("users"),
  name: v.string(),
  email: v.string(),
  relation: vRelation,
  since: v.number(),
  consent: v.optional(vConsent),
});
export type Access = Infer<typeof vAccess>;

// ---------------------------------------------------------------------------------------------
// Lessons

/** `guided` goes through slides, `conversation` has none or few. */
export const vLessonKind = v.union(v.literal("guided"), v.literal("conversation"));

/** `notes` are for the tutor alone. */
export const vSlide = v.object({
  title: v.string(),
  text: v.string(),
  notes: v.optional(v.string()),
});
export type Slide = Infer<typeof vSlide>;

/** What the student is asked to do. */
export const vExerciseKind = v.union(
  v.literal("say"),
  v.literal("fill_in"),
  v.literal("choose"),
  v.literal("answer"),
);

/** `answers` are the accepted ones, none where any sensible answer is; `slide` counts from 0. */
export const vExercise = v.object({
  /** Unique in its lesson. */
  exerciseId: v.string(),
  kind: vExerciseKind,
  prompt: v.string(),
  /** At most 8. */
  answers: v.array(v.string()),
  slide: v.optional(v.number()),
});
export type Exercise = Infer<typeof vExercise>;

/** A lesson with its slides, as the tutor holds it in memory. `language` is BCP 47. */
export const vLesson = v.object({
  lessonId: v.id("lessons"),
  title: v.string(),
  level: vLevel,
  language: v.string(),
  kind: vLessonKind,
  /** At most 16. */
  objectives: v.array(v.string()),
  /** At most 64. */
  targetWords: v.array(v.string()),
  /** At most 32. */
  slides: v.array(vSlide),
  /** At most 32. */
  exercises: v.array(vExercise),
});
export type Lesson = Infer<typeof vLesson>;

/** A face that speaks with Emma's voice: a provider of LiveKit's, and its own name for the face. */
export const vTalkingHead = v.object({ provider: v.string(), face: v.string() });

/** How an avatar teaches. */
export const vTeachingStyle = v.union(
  v.literal("patient"),
  v.literal("lively"),
  v.literal("formal"),
  v.literal("playful"),
);

// ---------------------------------------------------------------------------------------------
// Students

/** How a student likes to be taught; `speechRate` 1 is the voice's own pace. */
export const vPreferences = v.object({
  speechRate: v.number(),
  nativeLanguageHelp: v.boolean(),
  correctionStyle: v.union(
    v.literal("gentle"),
    v.literal("every_error"),
    v.literal("at_the_end"),
  ),
});
export type Preferences = Infer<typeof vPreferences>;

/**
 * A student's sums over settled sessions.
 *
 * The streak is the row of days with a lesson that ends on `lastDay`, in the student's own time
 * zone; it is broken for whoever reads it later than the day after.
 */
export const vTotals = v.object({
  sessions: v.number(),
  durationMs: v.number(),
  messages: v.number(),
  streakDays: v.number(),
  /** `YYYY-MM-DD`. */
  lastDay: v.optional(v.string()),
});
export type Totals = Infer<typeof vTotals>;

const profileFields = {
  name: v.string(),
  level: vLevel,
  /** Languages are BCP 47, the time zone IANA. */
  nativeLanguage: v.string(),
  targetLanguage: v.string(),
  timeZone: v.string(),
  /** At most 8 each. */
  goals: v.array(v.string()),
  interests: v.array(v.string()),
};

/** What is said of a student who is new. */
export const vNewStudent = v.object({
  ...profileFields,
  /** The school's own name for the student. */
  reference: v.optional(v.string()),
  /** Absent: the plain ones. */
  preferences: v.optional(vPreferences),
  courseId: v.optional(v.id("courses")),
  avatarId: v.optional(v.id("avatars")),
});
export type NewStudent = Infer<typeof vNewStudent>;

/** What changes of a student: absent stays as it is, null takes it away. */
export const vStudentChanges = v.object({
  ...vNewStudent.omit("reference", "courseId", "avatarId").partial().fields,
  reference: v.optional(v.union(v.string(), v.null())),
  courseId: v.optional(v.union(v.id("courses"), v.null())),
  avatarId: v.optional(v.union(v.id("avatars"), v.null())),
});
export type StudentChanges = Infer<typeof vStudentChanges>;

/** A student as they and those who may see them read of them. */
export const vStudentProfile = v.object({
  studentId: v.id("students"),
  ...profileFields,
  reference: v.optional(v.string()),
  preferences: vPreferences,
  courseId: v.optional(v.id("courses")),
  avatarId: v.optional(v.id("avatars")),
  totals: vTotals,
});
export type StudentProfile = Infer<typeof vStudentProfile>;

/** A student in the list of those whom a user may see. */
export const vStudentSummary = v.object({
  studentId: v.id("students"),
  name: v.string(),
  level: vLevel,
  /** The streak as it stood on `lastDay`. */
  totals: vTotals,
  /** The caller's own, where they are the student's guardian. */
  consent: v.optional(vConsent),
});
export type StudentSummary = Infer<typeof vStudentSummary>;

/** What became of a student's rows: how many were deleted so far, by table. */
export const vErasureReceipt = v.object({
  requestedAt: v.number(),
  /** Absent while rows are left. */
  finishedAt: v.optional(v.number()),
  deleted: v.record(v.string(), v.number()),
});
export type ErasureReceipt = Infer<typeof vErasureReceipt>;

/** Tables whose rows a school may let go by their age. */
export const vRetainedTable = v.union(
  v.literal("messages"),
  v.literal("corrections"),
  v.literal("sessionSummaries"),
  v.literal("exerciseResults"),
  v.literal("analyticsEvents"),
  v.literal("schoolDays"),
);
export type RetainedTable = Infer<typeof vRetainedTable>;

/** Who Emma is in a lesson. */
export const vTutorAvatar = v.object({
  name: v.string(),
  persona: v.string(),
  voice: v.string(),
  language: v.string(),
  teachingStyle: vTeachingStyle,
  talkingHead: v.optional(vTalkingHead),
});
export type TutorAvatar = Infer<typeof vTutorAvatar>;

/** The published lesson after one, in the order of its course; null where there is none. */
export const vNextLesson = v.union(
  v.object({ lessonId: v.id("lessons"), title: v.string() }),
  v.null(),
);

/** What others may change while a lesson runs. */
export const vPlan = v.object({
  preferences: vPreferences,
  lesson: v.union(vLesson, v.null()),
  nextLesson: vNextLesson,
  /** The lesson's, else the student's; absent: the plain Emma. */
  avatar: v.optional(vTutorAvatar),
});
export type Plan = Infer<typeof vPlan>;
