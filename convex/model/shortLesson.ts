/**
 * A student with a history, and the short lesson that comes next for her.
 *
 * Whatever was learnt since goes when it is seeded again: the lesson can be held as often as wanted,
 * and each time it finds the same student before it.
 * @module
 */
import type { WithoutSystemFields } from "convex/server";
import type { Doc, Id, TableNames } from "../_generated/dataModel";
import type { MutationCtx } from "../_generated/server";
import type { SessionRecord } from "../validators";
import { foldBatch } from "./fold";
import { STUDENT_TABLES, rowsOf } from "./privacy";
import { settleDue } from "./settle";

const DAY_MS = 24 * 60 * 60 * 1000;

const STUDENT = {
  reference: "demo-short",
  name: "Ana",
  level: "A2",
  nativeLanguage: "es",
  targetLanguage: "en",
  timeZone: "Europe/Madrid",
  goals: ["Go shopping in English"],
  interests: ["cooking"],
  preferences: { speechRate: 1, nativeLanguageHelp: true, correctionStyle: "gentle" },
} satisfies WithoutSystemFields<Doc<"students">>;

const COURSE = {
  slug: "demo-in-town",
  title: "In town",
  language: "en",
  level: "A2",
  published: true,
} satisfies WithoutSystemFields<Doc<"courses">>;

type Content = Pick<
  WithoutSystemFields<Doc<"lessons">>,
  "slug" | "title" | "objectives" | "targetWords" | "exercises"
> & { slides: Doc<"slideSets">["slides"] };

/** In the order of the course. The second is the one that is held. */
const LESSONS: Content[] = [
  {
    slug: "demo-in-a-cafe",
    title: "In a café",
    objectives: ["Order breakfast and ask for the bill"],
    targetWords: ["bill", "breakfast"],
    slides: [{ title: "The bill", text: "Can I have the bill, please?" }],
  },
  {
    slug: "demo-paying",
    title: "Paying",
    objectives: ["Talk about money", "Buy a ticket"],
    targetWords: ["money", "ticket"],
    exercises: [
      {
        exerciseId: "two-apples",
        kind: "say",
        prompt: "Ask me for two apples, politely.",
        answers: ["Can I have two apples, please?", "I would like two apples, please."],
        slide: 1,
      },
    ],
    slides: [
      { title: "Money", text: "How much money do you have?\nI have ten euros." },
      { title: "A ticket", text: "Can I have a ticket, please?\nYes, of course." },
    ],
  },
  {
    slug: "demo-finding-the-way",
    title: "Finding the way",
    objectives: ["Ask for the way and understand the answer"],
    targetWords: ["left", "right", "corner"],
    slides: [{ title: "Where is it?", text: "Excuse me, where is the market?\nOn the left." }],
  },
];
const TAUGHT_BEFORE = 0;
const TAUGHT_NOW = 1;

/** Rows of one table that are deleted; one demo leaves fewer than a hundred. */
const MAX_ROWS = 500;

/** Brings back student, course, lessons and history; what was learnt since is gone. */
export async function seedShortLesson(
  ctx: MutationCtx,
): Promise<{ studentId: Id<"students">; lessonId: Id<"lessons"> }> {
  const courseId = await putCourse(ctx);
  const lessonIds: Id<"lessons">[] = [];
  for (const [position, content] of LESSONS.entries()) {
    lessonIds.push(await putLesson(ctx, courseId, position, content));
  }
  const [before, now] = [lessonIds[TAUGHT_BEFORE], lessonIds[TAUGHT_NOW]];
  if (before === undefined || now === undefined) throw new Error("the course lacks its lessons");
  const studentId = await putStudent(ctx, courseId);
  await foldHistory(ctx, studentId, before);
  // What these sessions add is told with them, not when the cron next runs.
  await settleDue(ctx, Date.now());
  return { studentId, lessonId: now };
}

async function putCourse(ctx: MutationCtx): Promise<Id<"courses">> {
  const course = await ctx.db
    .query("courses")
    .withIndex("by_slug", (q) => q.eq("slug", COURSE.slug))
    .unique();
  if (course === null) return await ctx.db.insert("courses", COURSE);
  await ctx.db.replace("courses", course._id, COURSE);
  return course._id;
}

async function putLesson(
  ctx: MutationCtx,
  courseId: Id<"courses">,
  position: number,
  { slides, ...content }: Content,
): Promise<Id<"lessons">> {
  const lesson = await ctx.db
    .query("lessons")
    .withIndex("by_slug", (q) => q.eq("slug", content.slug))
    .unique();
  const known = lesson?.slideSetId;
  const set = known === undefined ? null : await ctx.db.get("slideSets", known);
  const slideSet = { title: content.title, slides };
  const slideSetId = set?._id ?? (await ctx.db.insert("slideSets", slideSet));
  if (set !== null) await ctx.db.replace("slideSets", set._id, slideSet);
  const { level, language, published } = COURSE;
  const row = {
    ...content,
    ...{ level, language, published },
    kind: "guided" as const,
    slideSetId,
    courseId,
    position,
  };
  if (lesson === null) return await ctx.db.insert("lessons", row);
  await ctx.db.replace("lessons", lesson._id, row);
  return lesson._id;
}

async function putStudent(ctx: MutationCtx, courseId: Id<"courses">): Promise<Id<"students">> {
  const row = { ...STUDENT, courseId };
  const student = await ctx.db
    .query("students")
    .withIndex("by_reference", (q) => q.eq("reference", STUDENT.reference))
    .unique();
  if (student === null) return await ctx.db.insert("students", row);
  await forget(ctx, student._id);
  await ctx.db.replace("students", student._id, row);
  return student._id;
}

/**
 * Deletes what the student's lessons left, without the block of an erasure: she comes again.
 *
 * One demo's rows, not a life's: there is no next page.
 */
async function forget(ctx: MutationCtx, studentId: Id<"students">): Promise<void> {
  for (const table of STUDENT_TABLES) {
    // Who may see her is no part of what she learnt.
    if (table === "studentAccess") continue;
    const rows: { _id: Id<TableNames> }[] =
      (await rowsOf(ctx.db, table, { studentId })?.take(MAX_ROWS)) ?? [];
    for (const { _id } of rows) await ctx.db.delete(table, _id as Id<typeof table>);
  }
}

/**
 * Three lessons, 18, 15 and 3 days ago, through the fold itself.
 *
 * By FSRS `bill` is mastered since the last; `cheap` is due since yesterday, and is mastered when it
 * is known today. The same kind of error was noted in two of them.
 */
async function foldHistory(
  ctx: MutationCtx,
  studentId: Id<"students">,
  lessonId: Id<"lessons">,
): Promise<void> {
  const now = Date.now();
  await foldSession(ctx, studentId, 1, now - 18 * DAY_MS, [
    said("assistant", "Hello Ana. What do you buy every day?"),
    said("user", "I buy bread. How many bread do you want?"),
    corrected("How many bread do you want?", "How much bread do you want?", true),
    met("cheap", "barato", "These tomatoes are cheap."),
    met("bill", "cuenta", "Can I have the bill, please?"),
    reviewed("cheap"),
    reviewed("bill"),
  ]);
  await foldSession(ctx, studentId, 2, now - 15 * DAY_MS, [
    said("assistant", "Hello Ana. Where do you eat when you are out?"),
    said("user", "I eat in a bar. It is cheap, and the bill is small."),
    reviewed("cheap"),
    reviewed("bill"),
  ]);
  const inCafe = [
    said("assistant", "Hello Ana. Today we go to a café."),
    said("user", "There are too much people. Can I have the bill, please?"),
    corrected("There are too much people.", "There are too many people.", false),
    reviewed("bill"),
    { kind: "lessonFinished" } satisfies Noted,
  ];
  await foldSession(ctx, studentId, 3, now - 3 * DAY_MS, inCafe, {
    lessonId,
    summary: {
      forStudent: "You ordered breakfast and asked for the bill. Remember: too many people.",
      forTeacher: "Ana ordered breakfast and asked for the bill. Mixes much and many.",
    },
  });
}

type Placed = "seq" | "createdAt";
type Without<R, K extends string> = R extends unknown ? Omit<R, K> : never;
/** A record before it has its place. */
type Noted = Without<SessionRecord, Placed>;

const LENGTH_MS = 8 * 60_000;

async function foldSession(
  ctx: MutationCtx,
  studentId: Id<"students">,
  number: number,
  startedAt: number,
  noted: Noted[],
  taught: {
    lessonId?: Id<"lessons">;
    summary?: { forStudent: string; forTeacher: string };
  } = {},
): Promise<void> {
  const sessionKey = `${STUDENT.reference}:${number}`;
  const { lessonId, summary } = taught;
  const all: Noted[] = [
    {
      kind: "sessionStarted",
      sessionKey,
      room: sessionKey,
      jobId: sessionKey,
      agentName: "emma",
      ...(lessonId === undefined ? {} : { lessonId }),
    },
    ...noted,
    { kind: "sessionEnded", reason: "user_initiated" },
    ...(summary === undefined
      ? []
      : [{ kind: "sessionSummary" as const, ...summary, source: "records" as const }]),
    { kind: "runEnded", reason: "completed" },
  ];
  const records = all.map((each, seq) => {
    // What comes after the talk comes with its end.
    const createdAt = startedAt + Math.round(LENGTH_MS * Math.min(1, seq / (noted.length + 1)));
    const itemId = each.kind === "message" ? { itemId: `${sessionKey}:${seq}` } : {};
    const correctionId = each.kind === "correction" ? { correctionId: `c_${seq}` } : {};
    return { ...each, ...itemId, ...correctionId, seq, createdAt };
  });
  const caller = {
    role: "agent" as const,
    subject: `student:${studentId}`,
    studentId,
    claimedStudentId: studentId,
  };
  await foldBatch(ctx, caller, { version: 1, runId: sessionKey, records });
}

function said(role: "user" | "assistant", text: string): Noted {
  return { kind: "message", itemId: "", role, text, interrupted: false };
}

function corrected(said: string, target: string, repaired: boolean): Noted {
  return {
    kind: "correction",
    correctionId: "",
    said,
    target,
    errorType: "word_choice",
    severity: "minor",
    repaired,
  };
}

function met(word: string, meaning: string, example: string): Noted {
  return { kind: "wordIntroduced", word, language: STUDENT.targetLanguage, meaning, example };
}

function reviewed(word: string): Noted {
  return { kind: "wordReviewed", word, language: STUDENT.targetLanguage, rating: 3 };
}
