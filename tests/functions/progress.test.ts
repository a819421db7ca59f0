/** What a student has behind them, and what the tutor notes of a lesson beside words and errors. */
import { describe, expect, test } from "vitest";
import { api } from "../../convex/_generated/api.js";
import type { Step } from "../../convex/learningValidators.ts";
import {
  T0,
  addStudent,
  agentOf,
  agentOfGuest,
  correction,
  deployment,
  introduced,
  make,
  record,
  refusal,
  rows,
  seed,
  started,
  student,
} from "./helpers.ts";

const PAGE = { numItems: 10, cursor: null };
const DAY = 24 * 60 * 60_000;

async function school() {
  const t = deployment();
  const { studentId, lessonId } = await seed(t);
  return { t, studentId, lessonId, agent: agentOf(t, studentId), page: student(t, studentId) };
}

describe("progress:list and progress:ofLesson", () => {
  test("are the student's rows, by lesson", async () => {
    const { t, lessonId, page } = await school();
    await t.run(async (ctx) => {
      for (const row of await ctx.db.query("progress").collect()) {
        await ctx.db.patch("progress", row._id, {
          status: "completed",
          timesStudied: 2,
          lastStudiedAt: T0,
          completedAt: T0 + 1,
        });
      }
    });
    const progress = {
      lessonId,
      status: "completed",
      timesStudied: 2,
      lastStudiedAt: T0,
      completedAt: T0 + 1,
    };
    expect(await page.query(api.progress.ofLesson, { lessonId })).toEqual(progress);
    const list = await page.query(api.progress.list, { paginationOpts: PAGE });
    expect(list).toMatchObject({ page: [progress], isDone: true });

    const other = student(t, await addStudent(t));
    expect(await other.query(api.progress.ofLesson, { lessonId })).toBeNull();
    expect(await other.query(api.progress.list, { paginationOpts: PAGE })).toMatchObject({ page: [] });
  });

  test("refuses an id of another table with the validator's own error", async () => {
    const { studentId, page } = await school();
    const call = page.query(api.progress.ofLesson, { lessonId: studentId as never });
    await expect(call).rejects.toThrow(/[Vv]alidat/);
  });
});

describe("an answer to an exercise", () => {
  test("is one row, however often its batch is sent; the newest comes first", async () => {
    const { t, studentId, agent, page } = await school();
    const batch = [
      started(0, 0, "s1"),
      make("exerciseResult", 1, 1_000, { exerciseId: "e1", score: 0, answer: "some eggs" }),
      make("exerciseResult", 2, 2_000, { exerciseId: "e1", score: 1, answer: "any eggs" }),
    ];
    await record(agent, "run_a", batch);
    await record(agent, "run_a", batch);
    expect(await rows(t, "exerciseResults")).toMatchObject([
      { studentId, runId: "run_a", seq: 1 },
      { studentId, runId: "run_a", seq: 2 },
    ]);
    const { page: found } = await page.query(api.progress.exerciseResults, { paginationOpts: PAGE });
    expect(found).toEqual([
      { exerciseId: "e1", score: 1, answer: "any eggs", createdAt: T0 + 2_000 },
      { exerciseId: "e1", score: 0, answer: "some eggs", createdAt: T0 + 1_000 },
    ]);
  });
});

test("the slide that is on is the latest shown, whichever run comes first", async () => {
  const { t, agent } = await school();
  const slide = (runId: string, at: number, shown: number[]) =>
    record(agent, runId, [
      started(0, at, "s1"),
      ...shown.map((each, i) => make("slideShown", i + 1, at + i, { slide: each })),
    ]);
  await slide("run_b", 60_000, [3, 2]);
  await slide("run_a", 0, [0, 1]);
  const from = { runStartedAt: T0 + 60_000, runId: "run_b", seq: 2 };
  expect(await rows(t, "sessionLive")).toMatchObject([{ slide: { slide: 2, from } }]);
});

test("the step that is on is the latest entered, whichever run comes first", async () => {
  const { t, agent } = await school();
  const steps = (runId: string, at: number, entered: Step[]) =>
    record(agent, runId, [
      started(0, at, "s1"),
      ...entered.map((step, i) => make("stepEntered", i + 1, at + i, { step })),
    ]);
  await steps("run_b", 60_000, ["presentation", "practice"]);
  await steps("run_a", 0, ["greeting", "warm_up"]);
  const from = { runStartedAt: T0 + 60_000, runId: "run_b", seq: 2 };
  expect(await rows(t, "sessionLive")).toMatchObject([{ step: { step: "practice", from } }]);
});

test("a lesson is finished when the earliest record says so", async () => {
  const { t, agent } = await school();
  for (const [runId, at] of [
    ["run_b", 60_000],
    ["run_a", 0],
    ["run_c", 90_000],
  ] as const) {
    await record(agent, runId, [started(0, at, "s1"), make("lessonFinished", 1, at + 1_000, {})]);
  }
  expect(await rows(t, "sessions")).toMatchObject([{ sessionKey: "s1", completedAt: T0 + 1_000 }]);
});

describe("students:tutoringContext", () => {
  test("has at most 20 words due, and at most 5 types of error that recur", async () => {
    const { agent } = await school();
    const words = Array.from({ length: 22 }, (_, i) =>
      introduced(i + 1, i, `word ${i}`, i === 0 ? { meaning: "m", example: "e" } : {}),
    );
    await record(agent, "run_a", [started(0, 0, "s1"), ...words]);
    const types = ["tense", "article", "plural", "pronoun", "register", "agreement"] as const;
    for (const session of ["s2", "s3"]) {
      await record(agent, `run_${session}`, [
        started(0, DAY, session),
        ...types.map((errorType, i) => correction(i + 1, DAY + i, errorType, { errorType })),
      ]);
    }

    const now = T0 + DAY;
    const context = await agent.query(api.students.tutoringContext, { now });
    expect(context.wordsDue).toHaveLength(20);
    expect(context.wordsDue.slice(0, 2)).toEqual([
      { language: "en", word: "word 0", meaning: "m", example: "e" },
      { language: "en", word: "word 1" },
    ]);
    expect(context.recurringErrors).toHaveLength(5);
    expect(context.recurringErrors[0]).toMatchObject({ count: 2, sessions: 2, repaired: 0 });

    const before = await agent.query(api.students.tutoringContext, { now: T0 - 1 });
    expect(before.wordsDue).toEqual([]);
  });

  test("has first the words due that the lesson teaches, however long others are due", async () => {
    const { t, agent, lessonId } = await school();
    const taught = ["Late!", "word 30", "not yet due", "never met", "…"];
    const language = await t.run(async (ctx) => {
      await ctx.db.patch("lessons", lessonId, { targetWords: taught });
      return (await ctx.db.get("lessons", lessonId))?.language ?? "";
    });
    const words = Array.from({ length: 40 }, (_, i) =>
      introduced(i + 1, i, `word ${i}`, { language }),
    );
    await record(agent, "run_a", [
      started(0, 0, "s1"),
      ...words,
      introduced(41, 50, "late", { language }),
      introduced(42, 2 * DAY, "not yet due", { language }),
    ]);
    const asked = { now: T0 + DAY, lessonId };
    const { wordsDue } = await agent.query(api.students.tutoringContext, asked);
    const found = wordsDue.map(({ word }) => word);
    expect(found).toHaveLength(20);
    expect(found.slice(0, 4)).toEqual(["late", "word 30", "word 0", "word 1"]);
    const { wordsDue: untaught } = await agent.query(api.students.tutoringContext, {
      now: T0 + DAY,
    });
    expect(untaught[0]).toMatchObject({ word: "word 0" });
  });

  test("asks for what is due at this moment where it is told none", async () => {
    const { agent } = await school();
    const ago = Date.now() - 60_000 - T0;
    await record(agent, "run_a", [
      started(0, ago, "s1"),
      introduced(1, ago, "due"),
      introduced(2, ago + DAY, "tomorrow"),
    ]);
    const { wordsDue } = await agent.query(api.students.tutoringContext, {});
    expect(wordsDue.map(({ word }) => word)).toEqual(["due"]);
  });

  test("refuses an instant in seconds", async () => {
    const { agent } = await school();
    const call = agent.query(api.students.tutoringContext, { now: T0 / 1_000 });
    expect(await refusal(call)).toMatchObject({ code: "instant_out_of_range", field: "now" });
  });
});

test("the agent of a guest has nothing behind them", async () => {
  const t = deployment();
  const { lessonId } = await seed(t);
  const guest = agentOfGuest(t, "g1");
  await record(guest, "run_g", [
    started(0, 0, "g1"),
    correction(1, 0, "c1"),
    make("exerciseResult", 2, 0, { exerciseId: "e1", score: 1, answer: "any eggs" }),
  ]);
  for (const query of [api.progress.list, api.progress.corrections, api.progress.exerciseResults]) {
    expect(await guest.query(query, { paginationOpts: PAGE })).toMatchObject({ page: [] });
  }
  expect(await guest.query(api.progress.ofLesson, { lessonId })).toBeNull();
  expect(await guest.query(api.progress.recurringErrors, { now: T0 })).toEqual([]);
  expect(await guest.query(api.progress.overcomeErrors, {})).toEqual([]);
});
