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
  sessionSums,
  vCard,
  vErrorKind,
  vErrorType,
  vProgressStatus,
  vRating,
  vSeverity,
  vStep,
  vSummarySource,
  vWordState,
} from "./learningValidators";
import {
  vConsent,
  vExercise,
  vLessonKind,
  vLevel,
  vPreferences,
  vRelation,
  vSlide,
  vTalkingHead,
  vTeachingStyle,
  vTotals,
  vUserRole,
} from "./schoolValidators";
import {
  vEnd,
  vEventData,
  vEventType,
  vMessageMetrics,
  vModelUsage,
  vPlace,
  vRole,
  vSessionStatus,
  vTombstoneCause,
} from "./validators";

/** Of whom a row tells: a student, or a guest of whom nothing is known. */
const studentOrGuest = {
  studentId: v.optional(v.id("students")),
  /** `guest:<session key>`, or `unknown:<id>` where the token named a student who does not exist. */
  guest: v.optional(v.string()),
};

export default defineSchema({
  // The people of the school beside its students: teachers, guardians, administrators. Written by
  // administrators (users.ts) and, once, by the person who accepts the invitation. Read with each
  // call of such a person. A row stays for the school's own memory, marked `removedAt` and without
  // its identity, once the person is removed.
  users: defineTable({
    /** The identity that accepted the invitation; absent until then. */
    tokenIdentifier: v.optional(v.string()),
    role: vUserRole,
    name: v.string(),
    /** In lower case; of those who are not removed, one has it. */
    email: v.string(),
    /** SHA-256 of the invitation's code, hexadecimal; the code itself is told once. */
    invitationHash: v.optional(v.string()),
    invitationExpiresAt: v.optional(v.number()),
    removedAt: v.optional(v.number()),
  })
    .index("by_tokenIdentifier", ["tokenIdentifier"])
    .index("by_invitationHash", ["invitationHash"])
    .index("by_email_and_removedAt", ["email", "removedAt"]),

  // Which user may see which student, and a guardian's consent. Written by administrators, the
  // consent by the guardian. Read with each call about a student. A row goes when the two are
  // unlinked, and with the student's data.
  studentAccess: defineTable({
    userId: v.id("users"),
    studentId: v.id("students"),
    relation: vRelation,
    since: v.number(),
    consent: v.optional(vConsent),
  })
    .index("by_userId_and_studentId", ["userId", "studentId"])
    .index("by_studentId", ["studentId"]),

  // Written by the school, `preferences` also by the student and `totals` when a session is settled:
  // rarely and not by the fold, since `sessions:plan` reads the preferences and shall not rerun for
  // what the agent writes.
  // Read by the agent at the start of a lesson, and by the student's and the teacher's pages. A row
  // stays until the student is erased.
  students: defineTable({
    /** The school's own name for the student; seeding and imports find the row by it. */
    reference: v.optional(v.string()),
    name: v.string(),
    level: vLevel,
    nativeLanguage: v.string(),
    targetLanguage: v.string(),
    timeZone: v.string(),
    /** At most 8 each. */
    goals: v.array(v.string()),
    interests: v.array(v.string()),
    preferences: vPreferences,
    courseId: v.optional(v.id("courses")),
    avatarId: v.optional(v.id("avatars")),
    /** Absent until the first session is settled. */
    totals: v.optional(vTotals),
  }).index("by_reference", ["reference"]),

  // Who Emma is in a lesson. Written by teachers. Read with the lesson. A row stays until a teacher
  // deletes it; lessons and students that point to it go on with the plain Emma.
  avatars: defineTable({
    slug: v.string(),
    name: v.string(),
    /** Who she is, in the second person, for the prompt: at most 8 KiB. */
    persona: v.string(),
    /** As the speech model names it. */
    voice: v.string(),
    language: v.string(),
    teachingStyle: vTeachingStyle,
    talkingHead: v.optional(vTalkingHead),
    published: v.boolean(),
  }).index("by_slug", ["slug"]),

  // An order of lessons. Written by teachers. Read by teachers, and to say what comes next. A row
  // stays until a teacher deletes it, its lessons with it or not.
  courses: defineTable({
    slug: v.string(),
    title: v.string(),
    language: v.string(),
    level: vLevel,
    published: v.boolean(),
  }).index("by_slug", ["slug"]),

  // Written by teachers, by hand or by import. Read by the agent for the lesson it teaches, and by
  // the student's and the teacher's pages. A row stays until a teacher deletes it; sessions that
  // point to it go on without.
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
    /** At most 32; absent means none. */
    exercises: v.optional(v.array(vExercise)),
    slideSetId: v.optional(v.id("slideSets")),
    courseId: v.optional(v.id("courses")),
    /** Place in the course; ties are broken by age. */
    position: v.optional(v.number()),
    avatarId: v.optional(v.id("avatars")),
    /** Students are offered only what is published; absent means no. */
    published: v.optional(v.boolean()),
  })
    .index("by_slug", ["slug"])
    .index("by_courseId_and_position", ["courseId", "position"])
    .index("by_courseId_and_published_and_position", ["courseId", "published", "position"]),

  // Written by teachers. Read with the lesson that points to it. A row goes with its lesson.
  slideSets: defineTable({
    title: v.string(),
    /** At most 32. */
    slides: v.array(vSlide),
  }),

  // One row per lesson held. Written by the fold, when a session starts, is resumed, ends or is
  // superseded: never per message, so that lists of sessions rerun seldom; `settleDueAt` also by
  // `settle`. Read by the student, those who may see them, the agent and the fold. A row goes with
  // the student's data; a guest's go together, when retention says so.
  //
  // `status`, `endedAt`, `endReason` and `provisionalEnd` follow from the facts beside them and from
  // the student's runs (model/sessionState.ts), whatever the order in which those arrived.
  sessions: defineTable({
    /** As its first run named it; that run's id where its resume came too late, or where the name was
     * somebody else's already. */
    sessionKey: v.string(),
    /** Where its first run could not have the key that it asked for: which one that was. */
    calledKey: v.optional(v.string()),
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
    /** When the lesson's objectives were reached: the earliest record that says so. */
    completedAt: v.optional(v.number()),
    /**
     * Present while something changed that `settle` has not seen: when that is due, unless the session
     * ended as it was meant to and is settled at once.
     */
    settleDueAt: v.optional(v.number()),
  })
    .index("by_sessionKey", ["sessionKey"])
    .index("by_subject_and_calledKey_and_lastRunStartedAt", [
      "subject",
      "calledKey",
      "lastRunStartedAt",
    ])
    .index("by_studentId_and_startedAt", ["studentId", "startedAt"])
    .index("by_studentId_and_lessonId_and_startedAt", ["studentId", "lessonId", "startedAt"])
    .index("by_studentId_and_lessonId_and_completedAt", ["studentId", "lessonId", "completedAt"])
    .index("by_guest_and_startedAt", ["guest", "startedAt"])
    .index("by_settleDueAt", ["settleDueAt"]),

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
    .index("by_studentId_and_startedAt_and_runId", ["studentId", "startedAt", "runId"])
    .index("by_guest", ["guest"]),

  // One row per session, with what changes all the time while it runs. Written by the fold in the
  // mutation that writes the rows it counts; the lease also by the cron that ends sessions. Read for
  // one session, by no list. Goes with the session.
  sessionLive: defineTable({
    sessionId: v.id("sessions"),
    ...studentOrGuest,
    /** Committed messages; a repeated item counts once, a provisional transcript not at all. */
    messageCount: v.number(),
    toolCallCount: v.number(),
    errorCount: v.number(),
    errorsDetected: v.number(),
    /** Corrections whose target the student then said. */
    errorsCorrected: v.number(),
    /** Answers by time to their first word (model/histogram.ts); a message counts once. */
    latency: v.array(v.number()),
    errorKinds: v.array(vErrorKind),
    /** The slide that is on, and the record that says so. */
    slide: v.optional(v.object({ slide: v.number(), from: vPlace })),
    /** The part of the lesson that is on, and the record that says so; before it, the greeting. */
    step: v.optional(v.object({ step: vStep, from: vPlace })),
    /** The latest `createdAt` of a record that a living run makes. */
    lastRecordAt: v.number(),
    /** While the session is active: when it is taken for dead if no further record comes. */
    leaseUntil: v.optional(v.number()),
    /** Sums over the runs, by model: at most 64, further ones are summed as one called "other". */
    usage: v.array(vModelUsage),
  })
    .index("by_sessionId", ["sessionId"])
    .index("by_leaseUntil", ["leaseUntil"])
    .index("by_studentId", ["studentId"])
    .index("by_guest", ["guest"]),

  // One row per settled session: what it added to the sums of its day, so that settling again adds
  // the difference. Written by `settle`; `rolledUp` by the cron that folds rows into `schoolDays`.
  // Read by these two. Goes with the session; the school's sums keep what it added.
  sessionStats: defineTable({
    sessionId: v.id("sessions"),
    ...studentOrGuest,
    lessonId: v.optional(v.id("lessons")),
    /** `YYYY-MM-DD` where the student lives (UTC for guests) when the session started. */
    day: v.string(),
    ...sessionSums,
    /** `rolledUp` is not what stands above. */
    pending: v.boolean(),
    /** What `schoolDays` has of it. */
    rolledUp: v.optional(
      v.object({ day: v.string(), lessonId: v.optional(v.id("lessons")), ...sessionSums }),
    ),
  })
    .index("by_sessionId", ["sessionId"])
    .index("by_pending", ["pending"])
    .index("by_studentId", ["studentId"])
    .index("by_guest", ["guest"]),

  // One row per chat item, and one per transcript that no item contains yet (`provisional`).
  // Written by the fold alone. Read by the student, those who may see them and the agent, a page at a
  // time. Provisional rows go when their message comes; all go with the student's data, or earlier
  // when retention says so.
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
    .index("by_runId_and_provisional_and_seq", ["runId", "provisional", "seq"])
    .index("by_studentId", ["studentId"])
    .index("by_guest", ["guest"]),

  // One row per student and lesson. Written when a session is settled. Read by the agent at the
  // start of a lesson, and by the student's and the teacher's pages. Goes with the student's data.
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

  // One row per error that Emma noted. Written by the fold. Read by the student, those who may see
  // them and the agent: which errors keep coming back, which were overcome. Goes with the student's
  // data, or earlier when retention says so.
  corrections: defineTable({
    sessionId: v.id("sessions"),
    ...studentOrGuest,
    correctionId: v.string(),
    /** LiveKit's id of the message that has the error. */
    itemId: v.optional(v.string()),
    said: v.string(),
    target: v.string(),
    errorType: vErrorType,
    severity: vSeverity,
    explanation: v.optional(v.string()),
    repaired: v.boolean(),
    /** Of the earliest record of this correction; what it says is from the latest. */
    createdAt: v.number(),
    from: vPlace,
  })
    .index("by_sessionId_and_correctionId", ["sessionId", "correctionId"])
    .index("by_sessionId_and_createdAt", ["sessionId", "createdAt"])
    .index("by_studentId_and_createdAt", ["studentId", "createdAt"])
    .index("by_studentId_and_errorType_and_createdAt", ["studentId", "errorType", "createdAt"])
    .index("by_guest", ["guest"]),

  // One row per session of which something was said in summary. Written by the fold. Read by the
  // student and those who may see them, the teacher's text by teachers, administrators and the agent
  // alone; an export has both, as everything that is held. Goes with the student's data, or earlier
  // when retention says so.
  sessionSummaries: defineTable({
    sessionId: v.id("sessions"),
    ...studentOrGuest,
    forStudent: v.string(),
    forTeacher: v.string(),
    source: vSummarySource,
    createdAt: v.number(),
    /** The record: the latest of the session. */
    from: vPlace,
  })
    .index("by_sessionId", ["sessionId"])
    .index("by_studentId", ["studentId"])
    .index("by_guest", ["guest"]),

  // One row per answer to an exercise. Written by the fold. Read by the student and those who may
  // see them. Goes with the student's data, or earlier when retention says so.
  exerciseResults: defineTable({
    sessionId: v.id("sessions"),
    ...studentOrGuest,
    runId: v.string(),
    seq: v.number(),
    exerciseId: v.string(),
    score: v.number(),
    answer: v.string(),
    createdAt: v.number(),
  })
    .index("by_sessionId_and_createdAt", ["sessionId", "createdAt"])
    .index("by_studentId_and_createdAt", ["studentId", "createdAt"])
    .index("by_guest", ["guest"]),

  // One row per student and word, with its FSRS card. Written by the fold and by the student's page
  // (`vocabulary:review`). Read by all three sides: words due, words by state. Goes with the
  // student's data. Guests have none.
  vocabulary: defineTable({
    studentId: v.id("students"),
    /** BCP 47. */
    language: v.string(),
    /** The word as it compares: model/text.ts, `normaliseWords`. */
    wordKey: v.string(),
    word: v.string(),
    meaning: v.optional(v.string()),
    example: v.optional(v.string()),
    /** The earliest record that tells of it decides how it is written and what it means. */
    introducedBy: v.optional(vPlace),
    /** The session of that record. */
    introducedIn: v.optional(v.id("sessions")),
    firstMetAt: v.number(),
    state: vWordState,
    dueAt: v.number(),
    /** State `review` with a stability of 21 days or more. */
    mastered: v.boolean(),
    card: vCard,
  })
    .index("by_studentId_and_language_and_wordKey", ["studentId", "language", "wordKey"])
    .index("by_studentId_and_dueAt", ["studentId", "dueAt"])
    .index("by_introducedIn_and_firstMetAt", ["introducedIn", "firstMetAt"])
    .index("by_studentId_and_state_and_dueAt", ["studentId", "state", "dueAt"])
    .index("by_studentId_and_mastered_and_dueAt", ["studentId", "mastered", "dueAt"]),

  // One row per review of a word: the history that a card is rebuilt from. Written with the card,
  // read by nobody else. Goes with the student's data.
  vocabularyReviews: defineTable({
    studentId: v.id("students"),
    vocabularyId: v.id("vocabulary"),
    /** The run, or `page:<student id>:<review id>` where the student reviewed it on their page. */
    runId: v.string(),
    seq: v.number(),
    reviewedAt: v.number(),
    rating: vRating,
    /** `YYYY-MM-DD` where the student lives. */
    day: v.string(),
    /** Whether the word was mastered once this review was counted. */
    masteredAfter: v.boolean(),
  })
    .index("by_vocabularyId_and_reviewedAt_and_runId_and_seq", [
      "vocabularyId",
      "reviewedAt",
      "runId",
      "seq",
    ])
    .index("by_runId_and_seq", ["runId", "seq"])
    .index("by_studentId_and_reviewedAt", ["studentId", "reviewedAt"]),

  // One row per student and day on which something happened. Written when a session is settled and,
  // for words, with each review. Read for charts, and by the cron that counts the school's active
  // students. Goes with the student's data.
  dailyStats: defineTable({
    studentId: v.id("students"),
    /** `YYYY-MM-DD` where the student lives. */
    day: v.string(),
    /** Of settled sessions that started on this day. */
    sessions: v.number(),
    durationMs: v.number(),
    messages: v.number(),
    errorsDetected: v.number(),
    errorsCorrected: v.number(),
    reviews: v.number(),
    /** Words mastered when the day was over, of all words. */
    wordsMastered: v.number(),
    /** Whether `schoolDays` counts the student as active on this day, and whether it should. */
    countedActive: v.boolean(),
    pending: v.boolean(),
  })
    .index("by_studentId_and_day", ["studentId", "day"])
    .index("by_pending", ["pending"]),

  // One row per day for the whole school (without `lessonId`), and one per day and lesson. Written
  // by one cron alone, so that no row is written by all lessons at once. Read by administrators and
  // teachers. Names no student; a row goes when retention says so.
  schoolDays: defineTable({
    day: v.string(),
    lessonId: v.optional(v.id("lessons")),
    sessions: v.number(),
    /** Of the whole school only; 0 on a lesson's row. */
    activeStudents: v.number(),
    ...sessionSums,
  })
    .index("by_lessonId_and_day", ["lessonId", "day"])
    .index("by_day", ["day"]),

  // Tool calls, handoffs, errors and, where recorded, states of sessions, each exactly once, written
  // by the fold, which finds a call by its record when its result comes; and telemetry, which may
  // miss some, written by `analytics:track`. Read by administrators, by type and time. A tool's
  // arguments may hold what a student said: rows go with the student's data, or earlier when
  // retention says so.
  analyticsEvents: defineTable({
    eventType: vEventType,
    createdAt: v.number(),
    /** Absent where telemetry tells of no session that is there. */
    sessionId: v.optional(v.id("sessions")),
    ...studentOrGuest,
    /** The record; absent for telemetry. */
    runId: v.optional(v.string()),
    seq: v.optional(v.number()),
    eventData: vEventData,
  })
    .index("by_eventType_and_createdAt", ["eventType", "createdAt"])
    .index("by_runId_and_seq", ["runId", "seq"])
    .index("by_studentId", ["studentId"])
    .index("by_guest", ["guest"]),

  // One row per student who was erased, or is being: the block that outlives the rows. Written by
  // `students:erase`. Read by the fold where a token names a student who is not there, and for the
  // receipt. Names nobody once it is finished: the student is a keyed hash. A row stays for good.
  erasures: defineTable({
    /** HMAC-SHA-256 of the student's id with ERASURE_KEY, hexadecimal. */
    studentHash: v.string(),
    /** While rows are left: whose. Here and not in a scheduled call, which Convex keeps for days. */
    studentId: v.optional(v.id("students")),
    requestedAt: v.number(),
    finishedAt: v.optional(v.number()),
    /** Rows deleted so far, by table: one entry for each table that names a student. */
    deleted: v.record(v.string(), v.number()),
  }).index("by_studentHash", ["studentHash"]),

  // One row where records of a run are missing: lost on the worker's disk, refused for good, or
  // erased with their student, or with a guest who is kept no longer. Written by the fold, by erasure
  // and by retention. Read by operators, by the fold before it makes a run, and by the mending of a
  // refused record. A row stays as long as its run; that of an erased run for good, and names nobody.
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
  })
    .index("by_runId_and_fromSeq", ["runId", "fromSeq"])
    .index("by_studentId", ["studentId"])
    .index("by_guest", ["guest"]),
});
