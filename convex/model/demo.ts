/**
 * The demo's student and lesson.
 * @module
 */
import type { WithoutSystemFields } from "convex/server";
import type { Doc, Id } from "../_generated/dataModel";
import type { MutationCtx } from "../_generated/server";
import type { SessionRecord } from "../validators";
import { foldBatch } from "./fold";

const DAY_MS = 24 * 60 * 60 * 1000;

const STUDENT = {
  reference: "demo",
  name: "Carlos",
  level: "A2",
  nativeLanguage: "es",
  targetLanguage: "en",
  timeZone: "America/Mexico_City",
  goals: ["Order food and shop without switching to Spanish", "Understand prices and quantities"],
  interests: ["cooking", "football"],
  preferences: { speechRate: 0.9, nativeLanguageHelp: true, correctionStyle: "gentle" },
} satisfies WithoutSystemFields<Doc<"students">>;

const SLIDES = {
  title: "At the market",
  slides: [
    {
      title: "What would you like?",
      text: "I would like two kilos of apples, please.\nCan I have a loaf of bread?",
    },
    {
      title: "How much is it?",
      text: "How much are the tomatoes?\nThey are three euros a kilo.\nThat is cheap. That is expensive.",
    },
    {
      title: "Some and any",
      text: "Have you got any eggs?\nYes, I have got some eggs.\nNo, I have not got any eggs.",
    },
    { title: "Your turn", text: "Buy fruit for a salad. You have ten euros." },
  ],
} satisfies WithoutSystemFields<Doc<"slideSets">>;

const LESSON = {
  slug: "demo-at-the-market",
  title: "At the market",
  level: "A2",
  language: "en",
  kind: "guided",
  objectives: [
    "Ask for food and say how much of it",
    "Ask for a price and understand the answer",
    "Use some and any",
  ],
  targetWords: ["apple", "bread", "tomato", "egg", "kilo", "loaf", "price", "cheap", "expensive"],
  exercises: [
    {
      exerciseId: "ask-for-apples",
      kind: "say",
      prompt: "Ask for two kilos of apples, politely.",
      answers: [
        "I would like two kilos of apples, please.",
        "Can I have two kilos of apples, please?",
      ],
      slide: 0,
    },
    {
      exerciseId: "how-much",
      kind: "fill_in",
      prompt: "How ___ are the tomatoes?",
      answers: ["much"],
      slide: 1,
    },
    {
      exerciseId: "some-or-any",
      kind: "choose",
      prompt: "Have you got some eggs, or: have you got any eggs?",
      answers: ["any", "Have you got any eggs?"],
      slide: 2,
    },
    {
      exerciseId: "fruit-salad",
      kind: "answer",
      prompt: "What do you buy for your salad, and how much is it?",
      answers: [],
      slide: 3,
    },
  ],
  published: true,
} satisfies WithoutSystemFields<Doc<"lessons">>;

/** Inserts what is missing and puts back what was changed, but not what was learned meanwhile. */
export async function seedDemo(
  ctx: MutationCtx,
  sessionKeyPrefix: string | undefined,
): Promise<{ studentId: Id<"students">; lessonId: Id<"lessons"> }> {
  const lessonId = await seedLesson(ctx);
  const studentId = await seedStudent(ctx);
  if (sessionKeyPrefix === undefined) {
    await seedProgress(ctx, studentId, lessonId);
  } else {
    // Its progress comes when it is settled.
    await foldPreviousSession(ctx, `${sessionKeyPrefix}:previous`, studentId, lessonId);
  }
  return { studentId, lessonId };
}

async function seedLesson(ctx: MutationCtx): Promise<Id<"lessons">> {
  const lesson = await ctx.db
    .query("lessons")
    .withIndex("by_slug", (q) => q.eq("slug", LESSON.slug))
    .unique();
  const known = lesson?.slideSetId;
  const slideSet = known === undefined ? null : await ctx.db.get("slideSets", known);
  const slideSetId = slideSet?._id ?? (await ctx.db.insert("slideSets", SLIDES));
  if (slideSet !== null) await ctx.db.replace("slideSets", slideSet._id, SLIDES);
  if (lesson === null) return await ctx.db.insert("lessons", { ...LESSON, slideSetId });
  await ctx.db.patch("lessons", lesson._id, { ...LESSON, slideSetId });
  return lesson._id;
}

async function seedStudent(ctx: MutationCtx): Promise<Id<"students">> {
  const student = await ctx.db
    .query("students")
    .withIndex("by_reference", (q) => q.eq("reference", STUDENT.reference))
    .unique();
  if (student === null) return await ctx.db.insert("students", STUDENT);
  // `totals` stay: they are sums over the sessions held.
  await ctx.db.patch("students", student._id, STUDENT);
  return student._id;
}

async function seedProgress(
  ctx: MutationCtx,
  studentId: Id<"students">,
  lessonId: Id<"lessons">,
): Promise<void> {
  const progress = await ctx.db
    .query("progress")
    .withIndex("by_studentId_and_lessonId", (q) =>
      q.eq("studentId", studentId).eq("lessonId", lessonId),
    )
    .unique();
  if (progress !== null) return;
  await ctx.db.insert("progress", {
    studentId,
    lessonId,
    status: "started",
    timesStudied: 1,
    lastStudiedAt: Date.now() - 2 * DAY_MS,
  });
}

/** A short lesson through the fold itself: a repeated call finds its `seq`s folded and skips. */
async function foldPreviousSession(
  ctx: MutationCtx,
  sessionKey: string,
  studentId: Id<"students">,
  lessonId: Id<"lessons">,
): Promise<void> {
  const startedAt = Date.now() - 2 * DAY_MS;
  const records: SessionRecord[] = [
    {
      kind: "sessionStarted",
      seq: 0,
      createdAt: startedAt,
      sessionKey,
      room: sessionKey,
      jobId: sessionKey,
      agentName: "emma",
      lessonId,
    },
    said(1, startedAt + 4_000, "assistant", "Hello Carlos! What would you like from the market?"),
    said(2, startedAt + 9_000, "user", "I want two kilos of apple, please."),
    said(3, startedAt + 14_000, "assistant", "Two kilos of apples: here you are!"),
    { kind: "sessionEnded", seq: 4, createdAt: startedAt + 600_000, reason: "user_initiated" },
    {
      kind: "sessionSummary",
      seq: 5,
      createdAt: startedAt + 600_000,
      forStudent: "We went shopping at the market. You can ask for things politely.",
      forTeacher:
        "Bought apples at the market, politely and without help. Says the singular after a quantity: " +
        "two kilos of apple.",
      source: "records",
    },
    { kind: "runEnded", seq: 6, createdAt: startedAt + 600_000, reason: "completed" },
  ];
  const caller = {
    role: "agent" as const,
    subject: `student:${studentId}`,
    studentId,
    claimedStudentId: studentId,
  };
  await foldBatch(ctx, caller, { version: 1, runId: sessionKey, records });
}

function said(
  seq: number,
  createdAt: number,
  role: "user" | "assistant",
  text: string,
): SessionRecord {
  return { kind: "message", seq, createdAt, itemId: `demo_${seq}`, role, text, interrupted: false };
}
