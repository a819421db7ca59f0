/**
 * The student of the short lesson: her history, and that it comes back.
 * @module
 */
import { describe, expect, test } from "vitest";
import { api, internal } from "../../convex/_generated/api.js";
import type { Id } from "../../convex/_generated/dataModel.js";
import { agentOf, contents, deployment, dump, record, reviewed, rows, started } from "./helpers.ts";
import type { Deployment } from "./helpers.ts";

async function seed(t: Deployment) {
  return await t.mutation(internal.seed.shortLesson, {});
}

const ALL = { numItems: 50, cursor: null };

/** Her page of numbers. */
async function page(t: Deployment, studentId: Id<"students">) {
  const agent = agentOf(t, studentId);
  const today = new Date().toISOString().slice(0, 10);
  const words = async (state: "mastered" | "review" | "learning" | "new") =>
    (await agent.query(api.vocabulary.byState, { state, paginationOpts: ALL })).page.map(
      ({ word }) => word,
    );
  const corrections = await agent.query(api.progress.corrections, { paginationOpts: ALL });
  const { totals } = await agent.query(api.students.profile, { today });
  return {
    mastered: await words("mastered"),
    known: [...(await words("review")), ...(await words("learning")), ...(await words("new"))],
    corrections: corrections.page.length,
    repaired: corrections.page.filter(({ repaired }) => repaired).length,
    totals,
  };
}

describe("seed:shortLesson", () => {
  test("gives a lesson with slides, a word that is due, and a last lesson", async () => {
    const t = deployment();
    const { studentId, lessonId } = await seed(t);
    const context = await agentOf(t, studentId).query(api.students.tutoringContext, { lessonId });
    expect(context.student.name).toBe("Ana");
    expect(context.lesson).toMatchObject({ title: "Paying", kind: "guided" });
    expect(context.lesson?.slides).toHaveLength(2);
    expect(context.wordsDue).toEqual([
      { word: "cheap", language: "en", meaning: "barato", example: "These tomatoes are cheap." },
    ]);
    expect(context.lastSession).toMatchObject({ lessonTitle: "In a café", messageCount: 2 });
    expect(context.lastSession?.summary).toMatch(/^Ana ordered breakfast/);
    expect(context.recurringErrors).toMatchObject([{ errorType: "word_choice", count: 2 }]);
    expect(context.progress?.lessonsCompleted).toBe(1);
  });

  test("has told her page of her lessons", async () => {
    const t = deployment();
    const { studentId } = await seed(t);
    const { totals, ...learnt } = await page(t, studentId);
    expect(learnt).toEqual({
      mastered: ["bill"],
      known: ["cheap", "bill"],
      corrections: 2,
      repaired: 1,
    });
    expect(totals).toMatchObject({ sessions: 3, durationMs: 3 * 8 * 60_000, streakDays: 0 });
  });

  test("the word that is due is mastered when it is known today", async () => {
    const t = deployment();
    const { studentId } = await seed(t);
    const now = Date.now();
    await record(agentOf(t, studentId), "today", [
      { ...started(0, 0, "today"), createdAt: now },
      { ...reviewed(1, 0, "cheap", 3), createdAt: now },
    ]);
    expect((await page(t, studentId)).mastered).toContain("cheap");
  });

  test("again brings everything back, and takes nothing of other students", async () => {
    const t = deployment();
    await t.mutation(internal.seed.demo, { sessionKeyPrefix: "other" });
    const first = await seed(t);
    const before = await page(t, first.studentId);
    const names = Object.keys(await contents(t));
    const counts = await countRows(t, names);
    const now = Date.now();
    await record(agentOf(t, first.studentId), "today", [
      { ...started(0, 0, "today"), createdAt: now },
      { ...reviewed(1, 0, "cheap", 3), createdAt: now },
    ]);
    await t.run(async (ctx) => ctx.db.patch("students", first.studentId, { name: "Renamed" }));

    expect(await seed(t)).toEqual(first);

    expect(await page(t, first.studentId)).toEqual(before);
    expect(await countRows(t, names)).toEqual(counts);
    const students = await rows(t, "students");
    expect(students.map(({ name }) => name).sort()).toEqual(["Ana", "Carlos"]);
  });
});

async function countRows(t: Deployment, names: string[]): Promise<Record<string, number>> {
  const tables = await dump(t);
  return Object.fromEntries(names.map((name) => [name, tables[name]?.length ?? 0]));
}
