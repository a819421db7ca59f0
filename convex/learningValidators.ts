/**
 * Shapes of what a student learns: corrections, words, exercises, progress, and the sums of them.
 *
 * Instants are milliseconds since the epoch, durations are milliseconds and end in `Ms`.
 * An optional field that has no value is an absent key.
 * @module
 */
import { v } from "convex/values";
import type { Infer } from "convex/values";
import { vLesson, vLevel, vNextLesson, vPreferences, vTutorAvatar } from "./schoolValidators";

// ---------------------------------------------------------------------------------------------
// Records: what the tutor notes beside the talk itself

const recordFields = { seq: v.number(), createdAt: v.number() };

/** Kinds of error, closed, so that what keeps coming back can be counted. */
export const vErrorType = v.union(
  v.literal("tense"),
  v.literal("verb_form"),
  v.literal("agreement"),
  v.literal("article"),
  v.literal("preposition"),
  v.literal("pronoun"),
  v.literal("plural"),
  v.literal("word_order"),
  v.literal("word_choice"),
  v.literal("false_friend"),
  v.literal("missing_word"),
  v.literal("register"),
  v.literal("pronunciation"),
  v.literal("other"),
);
export type ErrorType = Infer<typeof vErrorType>;

/** How much an error hurts: the ear, the sense, or being understood at all. */
export const vSeverity = v.union(v.literal("minor"), v.literal("moderate"), v.literal("major"));

/** 1 again, 2 hard, 3 good, 4 easy, as FSRS rates. */
export const vRating = v.union(v.literal(1), v.literal(2), v.literal(3), v.literal(4));
export type Rating = Infer<typeof vRating>;

/** The same `correctionId` again is a newer snapshot; `repaired`: the student then said it right. */
export const vCorrectionRecord = v.object({
  kind: v.literal("correction"),
  ...recordFields,
  correctionId: v.string(),
  itemId: v.optional(v.string()),
  said: v.string(),
  target: v.string(),
  errorType: vErrorType,
  severity: vSeverity,
  explanation: v.optional(v.string()),
  repaired: v.boolean(),
});

/** A word that the student meets, perhaps not for the first time. `language` is BCP 47. */
export const vWordIntroducedRecord = v.object({
  kind: v.literal("wordIntroduced"),
  ...recordFields,
  word: v.string(),
  language: v.string(),
  meaning: v.optional(v.string()),
  example: v.optional(v.string()),
});

/** How well the student knew a word. */
export const vWordReviewedRecord = v.object({
  kind: v.literal("wordReviewed"),
  ...recordFields,
  word: v.string(),
  language: v.string(),
  rating: vRating,
});

/** One answer to an exercise of the lesson; `score` from 0 to 1. */
export const vExerciseRecord = v.object({
  kind: v.literal("exerciseResult"),
  ...recordFields,
  exerciseId: v.string(),
  score: v.number(),
  answer: v.string(),
});

/** The slide that is on, counted from 0. */
export const vSlideShownRecord = v.object({
  kind: v.literal("slideShown"),
  ...recordFields,
  slide: v.number(),
});

/** The parts of a lesson, closed: a guided one has all but `conversation`. */
export const vStep = v.union(
  v.literal("greeting"),
  v.literal("warm_up"),
  v.literal("presentation"),
  v.literal("practice"),
  v.literal("conversation"),
  v.literal("feedback"),
  v.literal("farewell"),
);
export type Step = Infer<typeof vStep>;

/** The part of the lesson that begins. */
export const vStepEnteredRecord = v.object({
  kind: v.literal("stepEntered"),
  ...recordFields,
  step: vStep,
});

/** The lesson's objectives were reached. */
export const vLessonFinishedRecord = v.object({
  kind: v.literal("lessonFinished"),
  ...recordFields,
});

/** Who put a summary into words: a model, or nobody: it is composed of what the lesson noted. */
export const vSummarySource = v.union(v.literal("model"), v.literal("records"));

/**
 * What remains of the session in words, at most 2 KiB each; a further one replaces it. The teacher's
 * is what the tutor knows of the lesson next time; the student does not see it.
 */
export const vSessionSummaryRecord = v.object({
  kind: v.literal("sessionSummary"),
  ...recordFields,
  forStudent: v.string(),
  forTeacher: v.string(),
  source: vSummarySource,
});

/** A record that the tutor writes beside the talk itself. */
export const vTutoringRecord = v.union(
  vCorrectionRecord,
  vWordIntroducedRecord,
  vWordReviewedRecord,
  vExerciseRecord,
  vSlideShownRecord,
  vStepEnteredRecord,
  vLessonFinishedRecord,
  vSessionSummaryRecord,
);
export type TutoringRecord = Infer<typeof vTutoringRecord>;
/** The record of one kind, as `TutoringRecordOf<"correction">`. */
export type TutoringRecordOf<Kind extends TutoringRecord["kind"]> = Extract<
  TutoringRecord,
  { kind: Kind }
>;

// ---------------------------------------------------------------------------------------------
// Vocabulary

/** As ts-fsrs names them: 0 new, 1 learning, 2 review, 3 relearning. */
export const vWordState = v.union(
  v.literal("new"),
  v.literal("learning"),
  v.literal("review"),
  v.literal("relearning"),
);
export type WordState = Infer<typeof vWordState>;

/** An FSRS card without what stands in columns of its own (state, due). */
export const vCard = v.object({
  stability: v.number(),
  difficulty: v.number(),
  scheduledDays: v.number(),
  learningSteps: v.number(),
  reps: v.number(),
  lapses: v.number(),
  lastReviewedAt: v.optional(v.number()),
});

// ---------------------------------------------------------------------------------------------
// Sums

/** Errors of models and services, by where they came from. */
export const vErrorKind = v.object({
  source: v.string(),
  errorType: v.string(),
  count: v.number(),
});
export type ErrorKind = Infer<typeof vErrorKind>;

/** What one session adds to the sums of its day. */
export const sessionSums = {
  durationMs: v.number(),
  messages: v.number(),
  errorsDetected: v.number(),
  errorsCorrected: v.number(),
  /** Answers by time to their first word, in the buckets of model/histogram.ts. */
  latency: v.array(v.number()),
  /** At most 32, further ones are counted as one called "other". */
  errorKinds: v.array(vErrorKind),
};
/** The same, as a shape of its own. */
export const vSessionSums = v.object(sessionSums);
export type SessionSums = Infer<typeof vSessionSums>;

// ---------------------------------------------------------------------------------------------
// What readers see

/** A word of a student. `reviews` and `lapses` are counts of its FSRS card. */
export const vWord = v.object({
  language: v.string(),
  word: v.string(),
  meaning: v.optional(v.string()),
  example: v.optional(v.string()),
  state: vWordState,
  dueAt: v.number(),
  mastered: v.boolean(),
  firstMetAt: v.number(),
  reviews: v.number(),
  lapses: v.number(),
});
export type Word = Infer<typeof vWord>;

/** One error that Emma noted; `itemId` is the message that has it. */
export const vCorrection = v.object({
  correctionId: v.string(),
  itemId: v.optional(v.string()),
  said: v.string(),
  target: v.string(),
  errorType: vErrorType,
  severity: vSeverity,
  explanation: v.optional(v.string()),
  repaired: v.boolean(),
  createdAt: v.number(),
});
export type Correction = Infer<typeof vCorrection>;

/** Errors of one type: how many, in how many sessions, how many of them then said right. */
export const vErrorPattern = v.object({
  errorType: vErrorType,
  count: v.number(),
  sessions: v.number(),
  repaired: v.number(),
  lastSeenAt: v.number(),
  /** The newest, at most 3. */
  examples: v.array(v.object({ said: v.string(), target: v.string() })),
});
export type ErrorPattern = Infer<typeof vErrorPattern>;

/** One answer to an exercise; `score` from 0 to 1. */
export const vExerciseResult = v.object({
  exerciseId: v.string(),
  score: v.number(),
  answer: v.string(),
  createdAt: v.number(),
});

/** What remains of a session in words. */
export const vSummary = v.object({
  forStudent: v.string(),
  /** For teachers, administrators and the tutor alone. */
  forTeacher: v.optional(v.string()),
  source: vSummarySource,
  createdAt: v.number(),
});
export type Summary = Infer<typeof vSummary>;

/** `completed` once the objectives were reached, in whichever session. */
export const vProgressStatus = v.union(v.literal("started"), v.literal("completed"));

/** How far a student is in one lesson. */
export const vProgress = v.object({
  lessonId: v.id("lessons"),
  status: vProgressStatus,
  timesStudied: v.number(),
  lastStudiedAt: v.number(),
  completedAt: v.optional(v.number()),
});
export type Progress = Infer<typeof vProgress>;

/** What the tutor knows before the first word. */
export const vTutoringContext = v.object({
  student: v.object({
    studentId: v.id("students"),
    name: v.string(),
    level: vLevel,
    nativeLanguage: v.string(),
    targetLanguage: v.string(),
    /** IANA name. */
    timeZone: v.string(),
    /** At most 8. */
    goals: v.array(v.string()),
    /** At most 8. */
    interests: v.array(v.string()),
  }),
  preferences: vPreferences,
  lesson: v.union(vLesson, v.null()),
  /** These two as in the plan. */
  nextLesson: vNextLesson,
  avatar: v.optional(vTutorAvatar),
  progress: v.union(
    v.object({
      /** Counted up to 200. */
      lessonsCompleted: v.number(),
      /** The progress in the lesson asked for; absent when it was never studied. */
      thisLesson: v.optional(
        v.object({
          status: vProgressStatus,
          timesStudied: v.number(),
          lastStudiedAt: v.number(),
        }),
      ),
    }),
    v.null(),
  ),
  lastSession: v.union(
    v.object({
      sessionKey: v.string(),
      startedAt: v.number(),
      endedAt: v.optional(v.number()),
      lessonTitle: v.optional(v.string()),
      messageCount: v.number(),
      /** The teacher's; absent until one is written. */
      summary: v.optional(v.string()),
    }),
    v.null(),
  ),
  /** Those that the lesson teaches, then the longest due; at most 20. */
  wordsDue: v.array(
    v.object({
      language: v.string(),
      word: v.string(),
      meaning: v.optional(v.string()),
      example: v.optional(v.string()),
    }),
  ),
  /** What helps most first, at most 5. */
  recurringErrors: v.array(vErrorPattern),
});
export type TutoringContext = Infer<typeof vTutoringContext>;
