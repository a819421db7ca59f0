/**
 * Limits of what a session may record, held equal to the plugin's `limits.py` by a test.
 *
 * Sizes are UTF-8 bytes, instants are milliseconds since the epoch.
 * @module
 */

/** Record versions that `sessions:record` folds, newest last: the current one and the one before. */
export const RECORD_VERSIONS = [1];

/** Records in one call of `sessions:record`. */
export const MAX_BATCH_RECORDS = 64;

/**
 * Bytes of one encoded batch. The worker cuts its batches here, far below the backend's own
 * limit of 16 MiB of arguments per call, so that a retry after a lost reply stays cheap.
 */
export const MAX_BATCH_BYTES = 524_288;

/** Bytes of one encoded record: a quarter of the 1 MiB that Convex allows a document. */
export const MAX_RECORD_BYTES = 262_144;

/** Bytes of each text a person or a tool may fill: what was said, a tool's arguments and output. */
export const MAX_TEXT_BYTES = 65_536;

/** Bytes of every other string: keys, names, reasons, codes. */
export const MAX_NAME_BYTES = 1_024;

/** Models in one usage snapshot. */
export const MAX_USAGE_MODELS = 16;

/** 2020-01-01. An instant in seconds instead of milliseconds falls below it. */
export const MIN_INSTANT_MS = 1_577_836_800_000;

/** 2100-01-01. An instant in microseconds instead of milliseconds lies above it. */
export const MAX_INSTANT_MS = 4_102_444_800_000;

/** What only Convex has to know; times are milliseconds, sizes UTF-8 bytes. */
export const SCHOOL = {
  /** Slides in one set. */
  maxSlides: 32,
  /** Bytes of a slide's text, and of its notes: a full set stays far below Convex's 1 MiB. */
  maxSlideBytes: 8_192,
  maxObjectives: 16,
  maxTargetWords: 64,
  maxExercises: 32,
  /** Accepted answers of one exercise. */
  maxAnswers: 8,
  /** Bytes of a lesson as JSON, without its slides: a course's lessons can be read at once. */
  maxLessonBytes: 65_536,
  /** Lessons in one course. */
  maxCourseLessons: 200,
  /** Bytes of an avatar's persona. */
  maxPersonaBytes: 8_192,
  /** Bytes of the stable name of a lesson, a course or an avatar. */
  maxSlugBytes: 64,
  /** Files in one import, the bytes of all of them, and the problems that are told of them. */
  maxImportFiles: 16,
  maxImportBytes: 4 * 1_048_576,
  maxImportProblems: 20,
  /**
   * A session is resumed within this time of what was last seen of it, and settled after it; one that
   * ended as it was meant to, at once.
   */
  resumeGraceMs: 15 * 60_000,
  /** Without a record for this long, an active session is taken for dead: provisionally. */
  leaseMs: 10 * 60_000,
  /** Events in one call of `analytics:track`. */
  maxEvents: 100,
  /** Events in one page: a tool call may be 130 KiB, and one answer holds at most 16 MiB. */
  maxPageEvents: 50,
  /** Rows that one page of an erasure deletes, and the bytes after which it deletes no further. */
  maxRowsRemoved: 200,
  maxBytesRemoved: 4 * 1_048_576,
  /** Rows that one page of retention deletes; all of them may be as large as a record. */
  maxRowsExpired: 50,
  /** Rows in one page of `students:exportData`, and their bytes but for the last. */
  maxRowsExported: 100,
  maxBytesExported: 4 * 1_048_576,
  /** Rows in one page of a list, whatever the caller asks for. */
  maxPageItems: 200,
  /** An invitation that nobody accepted is worth nothing after this. */
  invitationMs: 14 * 24 * 60 * 60_000,
  /** Users who are linked to one student. */
  maxUsersPerStudent: 32,
  /** A student's goals, and as many interests. */
  maxGoals: 8,
  /** How fast a voice may be asked to speak: 1 is its own pace. */
  minSpeechRate: 0.5,
  maxSpeechRate: 2,
  /** Reviews of one word that a late one is counted among; a word is rarely reviewed 30 times. */
  maxReviewsReplayed: 200,
  /** Days in one chart. */
  maxChartDays: 366,
  /** Words in one answer of `vocabulary:due`, and in the tutor's context. */
  maxWordsDue: 50,
  maxWordsDueInContext: 20,
  /** The newest corrections that "which errors keep coming back" is told from. */
  maxCorrectionsRead: 200,
  /** The newest corrections of one type that "was overcome" is told from. */
  maxCorrectionsOfType: 20,
  /** Kinds of recurring errors in the tutor's context. */
  maxRecurringInContext: 5,
  /** Bytes of each text of a session's summary. */
  maxSummaryBytes: 2_048,
  /** What a lesson that goes on is told of itself: the newest of each. */
  maxMessagesResumed: 24,
  maxCorrectionsResumed: 50,
  maxWordsResumed: 40,
  maxAnswersResumed: 32,
  /** Sessions that took the place of one another under the key of the first: looked through. */
  maxSessionsCalled: 8,
  /** An error that did not come back in so many sessions is overcome. */
  sessionsToOvercome: 5,
} as const;
