/**
 * The tables. Over each: who writes it, who reads it, when its rows go.
 *
 * "The fold" is `sessions:record`. Every row that comes from a student's lesson names the student,
 * also where the session would tell, so that a student's rows are found through the schema.
 * @module
 */
import { defineSchema, defineTable } from "convex/server";
import { v } from "convex/values";
import {
  vEnd,
  vEventData,
  vEventType,
  vLessonKind,
  vLevel,
  vMessageMetrics,
  vModelUsage,
  vPlace,
  vPreferences,
  vProgressStatus,
  vRole,
  vSessionStatus,
  vSlide,
  vTombstoneCause,
} from "./validators";

/** Of whom a row tells: a student, or a guest of whom nothing is known. */
const studentOrGuest = {
  studentId: v.optional(v.id("students")),
  /** `guest:<session key>`, or `unknown:<id>` where the token named a student who does not exist. */
  guest: v.optional(v.string()),
};

export default defineSchema({
  // Written by the school (here: by seeding) and never by the fold, so that `sessions:plan`, which
  // reads the preferences, does not rerun for what the agent writes. Read by the agent at the start
  // of a lesson. A row stays until the student is erased.
  students: defineTable({
    /** The school's own name for the student; seeding finds its row by it. */
    reference: v.optional(v.string()),
    name: v.string(),
    level: vLevel,
    nativeLanguage: v.string(),
    targetLanguage: v.string(),
    timeZone: v.string(),
    goals: v.array(v.string()),
    interests: v.array(v.string()),
    preferences: vPreferences,
  }).index("by_reference", ["reference"]),

  // Written by the school (here: by seeding). Read by the agent for the lesson it teaches. A row
  // stays until the school deletes it; sessions that point to it go on without.
  lessons: defineTable({
    /** Stable name in imports and seeds. */
    slug: v.optional(v.string()),
    title: v.string(),
    level: vLevel,
    language: v.string(),
    kind: vLessonKind,
    /** At most 16. */
    objectives: v.array(v.string()),
    /** At most 64. */
    targetWords: v.array(v.string()),
    slideSetId: v.optional(v.id("slideSets")),
  }).index("by_slug", ["slug"]),

  // Written by the school (here: by seeding). Read with the lesson that points to it. A row goes
  // with its lesson.
  slideSets: defineTable({
    title: v.string(),
    /** At most 32. */
    slides: v.array(vSlide),
  }),

  // One row per lesson held. Written by the fold, when a session starts, is resumed, ends or is
  // superseded: never per message, so that lists of sessions rerun seldom. Read by the student, the
  // agent and the fold. A row goes with the student's data.
  //
  // `status`, `endedAt`, `endReason` and `provisionalEnd` follow from the facts beside them and from
  // the student's runs (model/sessionState.ts), whatever the order in which those arrived.
  sessions: defineTable({
    /** As its first run named it; that run's id where the name was somebody else's already. */
    sessionKey: v.string(),
    /** The `sub` of the tokens that may write to it. */
    subject: v.string(),
    ...studentOrGuest,
    lessonId: v.optional(v.id("lessons")),
    /** The record that named the lesson: the earliest one that does decides. */
    lessonNamedBy: v.optional(vPlace),
    /** Only resumes have been folded: the record that started it is still on its way. */
    placeholder: v.boolean(),
    /** Start of its first run. */
    startedAt: v.number(),
    /** Its latest run, and when that began. */
    lastRunId: v.string(),
    lastRunStartedAt: v.number(),
    runs: v.number(),
    /** The latest end that a run announced with `sessionEnded`. */
    announcedEnd: v.optional(vEnd),
    status: vSessionStatus,
    endedAt: v.optional(v.number()),
    endReason: v.optional(v.string()),
    provisionalEnd: v.boolean(),
  })
    .index("by_sessionKey", ["sessionKey"])
    .index("by_studentId_and_startedAt", ["studentId", "startedAt"]),

  // One row per run, the fold's own memory: up to where a run's journal is folded and whose it is.
  // Written by the fold with every batch, read by nobody else. A row must outlive the run's journal,
  // or a journal that comes late would be folded twice; it goes with the student's data.
  sessionRuns: defineTable({
    runId: v.string(),
    /** The `sub` that wrote the first batch; no other may continue. */
    subject: v.string(),
    ...studentOrGuest,
    /** The highest `seq` that is folded. */
    seq: v.number(),
    /** Absent until the first record that tells of a session. */
    sessionId: v.optional(v.id("sessions")),
    /** When it began: its ordinal among the runs of the session and of the student. */
    startedAt: v.optional(v.number()),
    room: v.optional(v.string()),
    jobId: v.optional(v.string()),
    agentName: v.optional(v.string()),
    participantIdentity: v.optional(v.string()),
    /** What `runEnded` said, until a later record of the run shows that it lives. */
    runEnd: v.optional(v.object({ at: v.number(), reason: v.string() })),
    /** The last usage snapshot, at most 16 models. */
    usage: v.array(vModelUsage),
    /** Records of this run that are gone, and that were refused for good. */
    lostRecords: v.number(),
    setAsideRecords: v.number(),
  })
    .index("by_runId", ["runId"])
    .index("by_studentId_and_startedAt_and_runId", ["studentId", "startedAt", "runId"]),

  // One row per session, with what changes all the time while it runs. Written by the fold in the
  // mutation that writes the rows it counts. Read for one session, by no list. Goes with the session.
  sessionLive: defineTable({
    sessionId: v.id("sessions"),
    ...studentOrGuest,
    /** Committed messages; a repeated item counts once, a provisional transcript not at all. */
    messageCount: v.number(),
    toolCallCount: v.number(),
    errorCount: v.number(),
    /** The latest `createdAt` of a record that a living run makes. */
    lastRecordAt: v.number(),
    /** Sums over the runs, by model: at most 64, further ones are summed as one called "other". */
    usage: v.array(vModelUsage),
  }).index("by_sessionId", ["sessionId"]),

  // One row per chat item, and one per transcript that no item contains yet (`provisional`).
  // Written by the fold alone. Read by the student and the agent, a page at a time. Provisional rows
  // go when their message comes; all go with the student's data.
  messages: defineTable({
    sessionId: v.id("sessions"),
    ...studentOrGuest,
    runId: v.string(),
    /** LiveKit's id of the item; `transcript:<runId>:<seq>` where provisional. */
    itemId: v.string(),
    seq: v.number(),
    runStartedAt: v.number(),
    createdAt: v.number(),
    role: vRole,
    text: v.string(),
    interrupted: v.boolean(),
    provisional: v.boolean(),
    /** Where provisional: the item that the transcript belongs to, if the recogniser said so. */
    transcriptOf: v.optional(v.string()),
    speakerId: v.optional(v.string()),
    language: v.optional(v.string()),
    transcriptConfidence: v.optional(v.number()),
    startedSpeakingAt: v.optional(v.number()),
    stoppedSpeakingAt: v.optional(v.number()),
    metrics: v.optional(vMessageMetrics),
    /** The records that words and timings come from, where the item was repeated. */
    contentFrom: v.optional(vPlace),
    timingsFrom: v.optional(vPlace),
  })
    .index("by_sessionId_and_runStartedAt_and_createdAt_and_seq", [
      "sessionId",
      "runStartedAt",
      "createdAt",
      "seq",
    ])
    .index("by_sessionId_and_itemId", ["sessionId", "itemId"])
    .index("by_sessionId_and_transcriptOf", ["sessionId", "transcriptOf"])
    .index("by_runId_and_provisional_and_seq", ["runId", "provisional", "seq"]),

  // One row per student and lesson. Written when a session is settled (here: by seeding), read by
  // the agent at the start of a lesson. Goes with the student's data.
  progress: defineTable({
    studentId: v.id("students"),
    lessonId: v.id("lessons"),
    status: vProgressStatus,
    timesStudied: v.number(),
    lastStudiedAt: v.number(),
    completedAt: v.optional(v.number()),
  })
    .index("by_studentId_and_lessonId", ["studentId", "lessonId"])
    .index("by_studentId_and_status", ["studentId", "status"]),

  // Tool calls and errors of sessions, each exactly once. Written by the fold, read by analysis by
  // type and time. A tool's arguments may hold what a student said: rows go with the student's data.
  analyticsEvents: defineTable({
    eventType: vEventType,
    createdAt: v.number(),
    sessionId: v.id("sessions"),
    ...studentOrGuest,
    runId: v.string(),
    seq: v.number(),
    eventData: vEventData,
  }).index("by_eventType_and_createdAt", ["eventType", "createdAt"]),

  // One row where records of a run are missing: lost on the worker's disk, or refused for good.
  // Written by the fold. Read by operators, and by the mending of a refused record. A row stays as
  // long as its run.
  tombstones: defineTable({
    runId: v.string(),
    fromSeq: v.number(),
    toSeq: v.number(),
    ...studentOrGuest,
    cause: vTombstoneCause,
    /** Why it was lost, or the code of the refusal. */
    reason: v.string(),
    field: v.optional(v.string()),
    ofKind: v.optional(v.string()),
    createdAt: v.number(),
  }).index("by_runId_and_fromSeq", ["runId", "fromSeq"]),
});
