/**
 * Fills a deployment with a school's history, for benchmarks and tests; never part of one that is
 * in use. `benchmarks/filled_school.py` copies this file beside the functions of `convex/` and calls
 * it with the admin key.
 *
 * Rows are written as the fold and the crons leave them when all is settled: nothing is due.
 * @module
 */
import type { WithoutSystemFields } from "convex/server";
import { v } from "convex/values";
import type { Doc, Id } from "../convex/_generated/dataModel";
import { internalMutation } from "../convex/_generated/server";
import type { MutationCtx } from "../convex/_generated/server";
import type { ErrorType } from "../convex/learningValidators";
import { addDays, dayOf } from "../convex/model/days";
import { emptyHistogram } from "../convex/model/histogram";

const MINUTE_MS = 60_000;
const DAY_MS = 24 * 60 * MINUTE_MS;

const ERROR_TYPES: ErrorType[] = [
  "tense",
  "verb_form",
  "agreement",
  "article",
  "preposition",
  "plural",
  "word_order",
  "word_choice",
];
/** Of each, more than a run is told of a session that it goes on with. */
const LEARNT_IN_LONG_SESSION = 60;
const WORD_STATES = ["new", "learning", "review", "relearning"] as const;

const SAID = "Yesterday I have gone to the market and I buyed two kilos of tomatoes, very cheap.";

/** The people of the school, its courses and its lessons. */
export const school = internalMutation({
  args: {
    now: v.number(),
    students: v.number(),
    lessons: v.number(),
    /** How many lessons the first student has completed; the others are begun. */
    completed: v.number(),
    /** Who teaches all students, who is the first one's guardian, who administers. */
    teacher: v.string(),
    guardian: v.string(),
    administrator: v.string(),
  },
  returns: v.object({
    students: v.array(v.id("students")),
    lessons: v.array(v.id("lessons")),
    courseId: v.id("courses"),
    avatarId: v.id("avatars"),
    userId: v.id("users"),
  }),
  handler: async (ctx, args) => {
    const avatarId = await ctx.db.insert("avatars", avatar(0));
    for (let i = 1; i < args.lessons; i++) await ctx.db.insert("avatars", avatar(i));
    const courseId = await ctx.db.insert("courses", course(0));
    for (let i = 1; i < args.lessons; i++) await ctx.db.insert("courses", course(i));
    const lessons: Id<"lessons">[] = [];
    for (let position = 0; position < args.lessons; position++) {
      const slideSetId = await ctx.db.insert("slideSets", slideSet(position));
      lessons.push(
        await ctx.db.insert("lessons", { ...lesson(position), courseId, slideSetId, avatarId }),
      );
    }
    const teacherId = await ctx.db.insert("users", user("teacher", args.teacher));
    const guardianId = await ctx.db.insert("users", user("guardian", args.guardian));
    await ctx.db.insert("users", user("administrator", args.administrator));
    const students: Id<"students">[] = [];
    for (let i = 0; i < args.students; i++) {
      const studentId = await ctx.db.insert("students", { ...student(i), courseId, avatarId });
      students.push(studentId);
      const since = args.now - DAY_MS;
      await ctx.db.insert("studentAccess", {
        userId: teacherId,
        studentId,
        relation: "teacher",
        since,
      });
      // Further people of the school and of the first student, as many as there are lessons.
      if (i < args.lessons) {
        const userId = await ctx.db.insert("users", user("guardian", `${args.guardian}-${i}`));
        const link = { userId, relation: "guardian" as const, since };
        await ctx.db.insert("studentAccess", { ...link, studentId });
        if (i > 0) await ctx.db.insert("studentAccess", { ...link, studentId: students[0]! });
      }
    }
    const consent = { textVersion: "2026-01", givenAt: args.now - DAY_MS };
    await ctx.db.insert("studentAccess", {
      userId: guardianId,
      studentId: students[0]!,
      relation: "guardian",
      since: args.now - DAY_MS,
      consent,
    });
    for (const [i, lessonId] of lessons.entries()) {
      await ctx.db.insert("progress", {
        studentId: students[0]!,
        lessonId,
        status: i < args.completed ? "completed" : "started",
        timesStudied: 1 + i,
        lastStudiedAt: args.now - i * DAY_MS,
        ...(i < args.completed ? { completedAt: args.now - i * DAY_MS } : {}),
      });
    }
    return { students, lessons, courseId, avatarId, userId: teacherId };
  },
});

/** That a student was erased, whose rows are gone. */
export const erasure = internalMutation({
  args: { studentHash: v.string(), now: v.number() },
  returns: v.null(),
  handler: async (ctx, { studentHash, now }) => {
    const times = { requestedAt: now - DAY_MS, finishedAt: now };
    await ctx.db.insert("erasures", { studentHash, ...times, deleted: { students: 1 } });
    return null;
  },
});

const vHistory = {
  studentId: v.id("students"),
  lessonIds: v.array(v.id("lessons")),
  /** Names the student in keys of sessions, runs and words. */
  name: v.string(),
  /** The newest session began `gapMs` before this, each older one as much earlier again. */
  now: v.number(),
  gapMs: v.number(),
  messages: v.number(),
  from: v.number(),
  to: v.number(),
};

/** Sessions `from` to `to` of one student, counted from the newest, with all that was learnt. */
export const sessions = internalMutation({
  args: vHistory,
  returns: v.null(),
  handler: async (ctx, args) => {
    for (let i = args.from; i < args.to; i++) {
      const held = {
        studentId: args.studentId,
        lessonId: args.lessonIds[i % args.lessonIds.length]!,
        key: `${args.name}-${i}`,
        startedAt: args.now - (i + 1) * args.gapMs,
        messages: args.messages,
      };
      const sessionId = await insertSession(ctx, held);
      await insertMessages(ctx, { ...held, sessionId, from: 0, to: args.messages });
      await insertLearnt(ctx, { ...held, sessionId, index: i });
    }
    return null;
  },
});

/** Messages `from` to `to` of one session that is longer than any other; begun with `from` 0. */
export const longSession = internalMutation({
  args: {
    studentId: v.id("students"),
    lessonId: v.id("lessons"),
    key: v.string(),
    startedAt: v.number(),
    messages: v.number(),
    from: v.number(),
    to: v.number(),
  },
  returns: v.null(),
  handler: async (ctx, args) => {
    if (args.from === 0) {
      const sessionId = await insertSession(ctx, args);
      for (let i = 0; i < LEARNT_IN_LONG_SESSION; i++) {
        await insertCorrection(ctx, { ...args, sessionId }, i, ERROR_TYPES[0]!);
        await insertWord(ctx, { ...args, sessionId }, i);
        await insertAnswer(ctx, { ...args, sessionId }, i);
      }
    }
    const session = await ctx.db
      .query("sessions")
      .withIndex("by_sessionKey", (q) => q.eq("sessionKey", args.key))
      .unique();
    await insertMessages(ctx, { ...args, sessionId: session!._id });
    return null;
  },
});

/** The sums of days `from` to `to` before `now`: the student's, and with `lessonIds` the school's. */
export const days = internalMutation({
  args: {
    now: v.number(),
    studentId: v.id("students"),
    lessonIds: v.array(v.id("lessons")),
    from: v.number(),
    to: v.number(),
  },
  returns: v.null(),
  handler: async (ctx, args) => {
    const today = dayOf(args.now, "UTC");
    for (let i = args.from; i < args.to; i++) {
      const day = addDays(today, -i);
      await ctx.db.insert("dailyStats", {
        studentId: args.studentId,
        day,
        sessions: 1,
        durationMs: 10 * MINUTE_MS,
        messages: 10,
        errorsDetected: 8,
        errorsCorrected: 4,
        reviews: 4,
        wordsMastered: Math.max(0, 2_000 - i),
        countedActive: true,
        pending: false,
      });
      for (const lessonId of [undefined, ...args.lessonIds]) {
        await ctx.db.insert("schoolDays", {
          day,
          sessions: 1,
          activeStudents: lessonId === undefined ? 1 : 0,
          ...sums(10),
          ...(lessonId === undefined ? {} : { lessonId }),
        });
      }
    }
    return null;
  },
});

type Held = {
  studentId: Id<"students">;
  lessonId: Id<"lessons">;
  key: string;
  startedAt: number;
  messages: number;
};

async function insertSession(ctx: MutationCtx, held: Held): Promise<Id<"sessions">> {
  const { studentId, lessonId, key, startedAt, messages } = held;
  const endedAt = startedAt + 10 * MINUTE_MS;
  const subject = `student:${studentId}`;
  const sessionId = await ctx.db.insert("sessions", {
    sessionKey: key,
    subject,
    studentId,
    lessonId,
    lessonNamedBy: { runStartedAt: startedAt, runId: key, seq: 0 },
    placeholder: false,
    startedAt,
    lastRunId: key,
    lastRunStartedAt: startedAt,
    runs: 1,
    announcedEnd: { at: endedAt, reason: "user_initiated", runId: key },
    status: "ended",
    endedAt,
    endReason: "user_initiated",
    provisionalEnd: false,
    completedAt: endedAt,
  });
  await ctx.db.insert("sessionRuns", {
    runId: key,
    subject,
    studentId,
    seq: messages + 20,
    sessionId,
    startedAt,
    room: key,
    jobId: key,
    agentName: "emma",
    runEnd: { at: endedAt, reason: "completed" },
    usage: [],
    lostRecords: 0,
    setAsideRecords: 0,
  });
  await ctx.db.insert("sessionLive", {
    sessionId,
    studentId,
    messageCount: messages,
    toolCallCount: 1,
    errorCount: 1,
    errorsDetected: 8,
    errorsCorrected: 4,
    latency: emptyHistogram(),
    errorKinds: [],
    slide: { slide: 2, from: { runStartedAt: startedAt, runId: key, seq: 5 } },
    lastRecordAt: endedAt,
    usage: [],
  });
  await ctx.db.insert("sessionSummaries", {
    sessionId,
    studentId,
    forStudent: "You bought tomatoes. Remember: I bought.",
    forTeacher: "Says buyed for bought; prices are no trouble any more.",
    source: "model",
    createdAt: endedAt,
    from: { runStartedAt: startedAt, runId: key, seq: messages + 19 },
  });
  await ctx.db.insert("sessionStats", {
    sessionId,
    studentId,
    lessonId,
    day: dayOf(startedAt, "UTC"),
    ...sums(messages),
    pending: false,
  });
  return sessionId;
}

async function insertMessages(
  ctx: MutationCtx,
  { sessionId, studentId, key, startedAt, from, to }: InSession & { from: number; to: number },
): Promise<void> {
  for (let seq = from; seq < to; seq++) {
    await ctx.db.insert("messages", {
      sessionId,
      studentId,
      runId: key,
      itemId: `item_${key}_${seq}`,
      seq,
      runStartedAt: startedAt,
      createdAt: startedAt + seq * 100,
      role: seq % 2 === 0 ? "assistant" : "user",
      text: SAID,
      interrupted: false,
      provisional: false,
      language: "en",
      metrics: { llmTtftMs: 420, ttsTtfbMs: 180, e2eLatencyMs: 900 },
    });
  }
}

type InSession = Held & { sessionId: Id<"sessions"> };

async function insertAnswer(
  ctx: MutationCtx,
  { sessionId, studentId, key, startedAt }: Learning,
  index: number,
): Promise<void> {
  await ctx.db.insert("exerciseResults", {
    sessionId,
    studentId,
    runId: key,
    seq: 30 + index,
    exerciseId: `exercise_${index + 1}`,
    score: 0.5,
    answer: "Have you got any eggs?",
    createdAt: startedAt + 5000 + index,
  });
}

async function insertLearnt(
  ctx: MutationCtx,
  { sessionId, studentId, key, startedAt, index }: InSession & { index: number },
): Promise<void> {
  const ofSession = { sessionId, studentId };
  // The latter half of the types was overcome: it is in none of the latest sessions.
  const types = index < 10 ? ERROR_TYPES.length / 2 : ERROR_TYPES.length;
  const inSession = { sessionId, studentId, key, startedAt };
  for (let i = 0; i < 8; i++) await insertCorrection(ctx, inSession, i, ERROR_TYPES[i % types]!);
  await insertAnswer(ctx, inSession, 0);
  for (let i = 0; i < 4; i++) await insertWord(ctx, inSession, 4 * index + i);
  const event = { ...ofSession, runId: key, createdAt: startedAt + 6000 };
  await ctx.db.insert("analyticsEvents", {
    ...event,
    seq: 31,
    eventType: "tool_call",
    eventData: {
      callId: "call_1",
      name: "note_error",
      arguments: '{"said":"I buyed"}',
      isError: false,
    },
  });
  await ctx.db.insert("analyticsEvents", {
    ...event,
    seq: 32,
    eventType: "error",
    eventData: { source: "llm", errorType: "APITimeoutError", recoverable: true },
  });
}

type Learning = Pick<InSession, "sessionId" | "studentId" | "key" | "startedAt">;

async function insertCorrection(
  ctx: MutationCtx,
  { sessionId, studentId, key, startedAt }: Learning,
  i: number,
  errorType: ErrorType,
): Promise<void> {
  await ctx.db.insert("corrections", {
    sessionId,
    studentId,
    correctionId: `correction_${i}`,
    itemId: `item_${key}_${2 * i + 1}`,
    said: "I buyed",
    target: "I bought",
    errorType,
    severity: "moderate",
    repaired: i % 2 === 0,
    createdAt: startedAt + i * 1000,
    from: { runStartedAt: startedAt, runId: key, seq: i },
  });
}

async function insertWord(
  ctx: MutationCtx,
  { sessionId, studentId, key, startedAt }: Learning,
  index: number,
): Promise<void> {
  const state = WORD_STATES[index % WORD_STATES.length]!;
  const mastered = state === "review" && index % 8 < 4;
  const word = `word ${key} ${index}`;
  // Every other four are due.
  const dueAt = startedAt + (index % 16 < 8 ? 1 : 4_000) * DAY_MS;
  const vocabularyId = await ctx.db.insert("vocabulary", {
    studentId,
    language: "en",
    wordKey: word,
    word,
    meaning: "una palabra",
    example: "A word in a sentence.",
    introducedBy: { runStartedAt: startedAt, runId: key, seq: 7 },
    introducedIn: sessionId,
    firstMetAt: startedAt,
    state,
    dueAt: Math.min(dueAt, 4_000_000_000_000),
    mastered,
    card: {
      stability: mastered ? 30 : 2,
      difficulty: 5,
      scheduledDays: 1,
      learningSteps: 0,
      reps: 1,
      lapses: 0,
      lastReviewedAt: startedAt + 2000,
    },
  });
  await ctx.db.insert("vocabularyReviews", {
    studentId,
    vocabularyId,
    runId: key,
    seq: 100 + index,
    reviewedAt: startedAt + 2000,
    rating: 3,
    day: dayOf(startedAt, "UTC"),
    masteredAfter: mastered,
  });
}

function sums(messages: number) {
  return {
    durationMs: 10 * MINUTE_MS,
    messages,
    errorsDetected: 8,
    errorsCorrected: 4,
    latency: emptyHistogram().map((_, bucket) => (bucket === 33 ? 5 : 0)),
    errorKinds: [{ source: "llm", errorType: "APITimeoutError", count: 1 }],
  };
}

function user(
  role: Doc<"users">["role"],
  tokenIdentifier: string,
): WithoutSystemFields<Doc<"users">> {
  const name = tokenIdentifier.split("|").at(-1) ?? role;
  return { role, tokenIdentifier, name, email: `${name.toLowerCase()}@school.invalid` };
}

function student(i: number): WithoutSystemFields<Doc<"students">> {
  return {
    reference: `student-${i}`,
    name: `Student ${i}`,
    level: "A2",
    nativeLanguage: "es",
    targetLanguage: "en",
    timeZone: "UTC",
    goals: ["Order food and shop without switching to Spanish"],
    interests: ["cooking"],
    preferences: { speechRate: 0.9, nativeLanguageHelp: true, correctionStyle: "gentle" },
    totals: { sessions: 10, durationMs: 6_000_000, messages: 100, streakDays: 3 },
  };
}

function avatar(i: number): WithoutSystemFields<Doc<"avatars">> {
  return {
    slug: `avatar-${i}`,
    name: "Emma",
    persona: "You are patient and you like to laugh.",
    voice: "coral",
    language: "en",
    teachingStyle: "patient",
    published: true,
  };
}

function course(i: number): WithoutSystemFields<Doc<"courses">> {
  const title = `Everyday English ${i}`;
  return { slug: `course-${i}`, title, language: "en", level: "A2", published: true };
}

function lesson(position: number): WithoutSystemFields<Doc<"lessons">> {
  return {
    slug: `lesson-${position}`,
    title: `At the market, part ${position}`,
    level: "A2",
    language: "en",
    kind: "guided",
    objectives: ["Ask for food and say how much of it"],
    targetWords: ["apple", "bread", "tomato"],
    exercises: [{ exerciseId: "exercise_1", kind: "say", prompt: "Ask for eggs.", answers: [] }],
    position,
    published: true,
  };
}

function slideSet(i: number): WithoutSystemFields<Doc<"slideSets">> {
  const slides = ["What would you like?", "How much is it?", "Your turn"];
  return {
    title: `At the market, part ${i}`,
    slides: slides.map((title) => ({ title, text: "I would like two kilos of apples, please." })),
  };
}
