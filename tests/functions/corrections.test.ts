/** Errors that Emma noted: once each, counted, which keep coming back, which were overcome. */
import { describe, expect, test } from "vitest";
import { api } from "../../convex/_generated/api.js";
import type { Id } from "../../convex/_generated/dataModel.js";
import { MIN_INSTANT_MS } from "../../convex/limits.ts";
import {
  T0,
  addStudent,
  agentOf,
  agentOfGuest,
  contents,
  correction,
  deployment,
  message,
  record,
  refusal,
  rows,
  sessionEnded,
  started,
  student,
} from "./helpers.ts";
import type { Deployment } from "./helpers.ts";

const DAY = 24 * 60 * 60_000;
const PAGE = { numItems: 10, cursor: null };

type Error = Parameters<typeof correction>[3];

async function school() {
  const t = deployment();
  const studentId = await addStudent(t);
  return { t, studentId, agent: agentOf(t, studentId), page: student(t, studentId) };
}

/** A lesson on that day with these errors. */
async function lesson(
  t: Deployment,
  studentId: Id<"students">,
  day: number,
  errors: Error[],
): Promise<void> {
  await record(agentOf(t, studentId), `run_${day}`, [
    started(0, day * DAY, `s_${day}`),
    ...errors.map((error, i) => correction(i + 1, day * DAY + i, `c${i}`, error)),
    sessionEnded(errors.length + 1, day * DAY + 60_000),
  ]);
}

describe("a correction", () => {
  test("is a row, counted as detected, and as corrected once the student said it right", async () => {
    const { t, studentId, agent } = await school();
    const counts = async () => {
      const [live] = await rows(t, "sessionLive");
      return [live?.errorsDetected, live?.errorsCorrected];
    };
    await record(agent, "run_a", [
      started(0, 0, "s1"),
      message(1, 1_000, "i1", "I goed home"),
      correction(2, 2_000, "c1", { itemId: "i1", explanation: "irregular" }),
      correction(3, 3_000, "c2", { repaired: true }),
    ]);
    expect(await counts()).toEqual([2, 1]);
    expect((await rows(t, "corrections"))[0]).toMatchObject({
      studentId,
      correctionId: "c1",
      itemId: "i1",
      said: "I goed",
      target: "I went",
      errorType: "tense",
      severity: "moderate",
      explanation: "irregular",
      repaired: false,
      createdAt: T0 + 2_000,
    });

    await record(agent, "run_a", [correction(4, 4_000, "c1", { itemId: "i1", repaired: true })]);
    expect(await counts()).toEqual([2, 2]);
    const [mended] = await rows(t, "corrections");
    expect(mended).toMatchObject({ repaired: true, createdAt: T0 + 2_000 });
    // A newer snapshot replaces the whole.
    expect(mended).not.toHaveProperty("explanation");

    await record(agent, "run_a", [correction(5, 5_000, "c2", { repaired: false })]);
    expect(await counts()).toEqual([2, 1]);
  });

  test("is what its latest record says, whichever comes first", async () => {
    const early = [started(0, 0, "s1"), correction(1, 1_000, "c1", { said: "early" })];
    const late = [
      started(0, 60_000, "s1"),
      correction(1, 61_000, "c1", { said: "late", repaired: true }),
    ];
    const ends: unknown[] = [];
    for (const order of [
      [["run_a", early] as const, ["run_b", late] as const],
      [["run_b", late] as const, ["run_a", early] as const],
    ]) {
      const { t, agent } = await school();
      for (const [runId, records] of order) await record(agent, runId, records);
      expect(await rows(t, "corrections")).toMatchObject([
        { said: "late", repaired: true, createdAt: T0 + 1_000, from: { runId: "run_b", seq: 1 } },
      ]);
      expect(await rows(t, "sessionLive")).toMatchObject([{ errorsDetected: 1, errorsCorrected: 1 }]);
      ends.push(await contents(t));
    }
    expect(ends[1]).toEqual(ends[0]);
  });

  test("of the same id in another session is another one; a guest has them too", async () => {
    const { t, agent } = await school();
    await record(agent, "run_a", [started(0, 0, "s1"), correction(1, 1_000, "c1")]);
    await record(agent, "run_b", [started(0, 60_000, "s2"), correction(1, 61_000, "c1")]);
    await record(agentOfGuest(t, "g1"), "run_g", [started(0, 0, "g1"), correction(1, 1_000, "c1")]);
    const found = await rows(t, "corrections");
    expect(found).toHaveLength(3);
    expect(found[2]).toMatchObject({ guest: "guest:g1" });
  });
});

describe("progress:corrections", () => {
  test("is a page of the student's own errors, newest first", async () => {
    const { t, studentId, page } = await school();
    await lesson(t, studentId, 1, [{ said: "old", explanation: "why", itemId: "i1" }]);
    await lesson(t, studentId, 2, [{ said: "new" }, { said: "newest" }]);
    await lesson(t, await addStudent(t, "Ben"), 3, [{ said: "somebody else's" }]);

    const found = await page.query(api.progress.corrections, { paginationOpts: PAGE });
    expect(found.page.map(({ said }) => said)).toEqual(["newest", "new", "old"]);
    expect(found.page[2]).toEqual({
      correctionId: "c0",
      itemId: "i1",
      said: "old",
      target: "I went",
      errorType: "tense",
      severity: "moderate",
      explanation: "why",
      repaired: false,
      createdAt: T0 + DAY,
    });
    const paginationOpts = { numItems: 2, cursor: null };
    const first = await page.query(api.progress.corrections, { paginationOpts });
    expect(first).toMatchObject({ page: [{ said: "newest" }, { said: "new" }], isDone: false });
  });
});

describe("progress:recurringErrors", () => {
  test("has the types with two errors in two sessions, with their numbers", async () => {
    const { t, studentId, page } = await school();
    await lesson(t, studentId, 1, [
      { errorType: "article", said: "a1", repaired: true },
      { errorType: "plural" },
      { errorType: "plural" },
    ]);
    await lesson(t, studentId, 2, [{ errorType: "article", said: "a2" }, { errorType: "tense" }]);
    await lesson(t, studentId, 3, [
      { errorType: "article", said: "a3" },
      { errorType: "article", said: "a4", target: "the fourth" },
    ]);

    expect(await page.query(api.progress.recurringErrors, { now: T0 + 3 * DAY })).toEqual([
      {
        errorType: "article",
        count: 4,
        sessions: 3,
        repaired: 1,
        lastSeenAt: T0 + 3 * DAY + 1,
        examples: [
          { said: "a4", target: "the fourth" },
          { said: "a3", target: "I went" },
          { said: "a2", target: "I went" },
        ],
      },
    ]);
  });

  test.each<[what: string, first: Error[], second: Error[], order: string[]]>([
    [
      "the more frequent",
      [{ errorType: "tense" }, { errorType: "article" }, { errorType: "article" }],
      [{ errorType: "article" }, { errorType: "tense" }],
      ["article", "tense"],
    ],
    [
      "the more severe",
      [{ errorType: "article", severity: "major" }, { errorType: "tense" }],
      [{ errorType: "article", severity: "major" }, { errorType: "tense", severity: "moderate" }],
      ["article", "tense"],
    ],
    [
      "what is not said right afterwards",
      [{ errorType: "article" }, { errorType: "tense" }],
      [{ errorType: "article" }, { errorType: "tense", repaired: true }],
      ["article", "tense"],
    ],
  ])("puts %s first", async (_, first, second, order) => {
    const { t, studentId, page } = await school();
    await lesson(t, studentId, 1, first);
    await lesson(t, studentId, 2, second);
    const found = await page.query(api.progress.recurringErrors, { now: T0 + 2 * DAY });
    expect(found.map(({ errorType }) => errorType)).toEqual(order);
  });

  test("halves what an error weighs every 14 days", async () => {
    const { t, studentId, page } = await school();
    // Three a month ago weigh less than two of yesterday: 3 × 2 / 4 < 2 × 2.
    const old: Error = { errorType: "article" };
    await lesson(t, studentId, 0, [old, old]);
    await lesson(t, studentId, 1, [old]);
    await lesson(t, studentId, 28, [{ errorType: "tense" }]);
    await lesson(t, studentId, 29, [{ errorType: "tense" }]);
    const ordered = async (now: number) => {
      const found = await page.query(api.progress.recurringErrors, { now });
      return found.map(({ errorType }) => errorType);
    };
    expect(await ordered(T0 + 29 * DAY)).toEqual(["tense", "article"]);
    // Errors of the future weigh as those of now: the more frequent first.
    expect(await ordered(T0 - DAY)).toEqual(["article", "tense"]);
  });

  test("looks at the newest 200 corrections alone", async () => {
    const { t, studentId, page } = await school();
    const filling = Array<Error>(50).fill({ errorType: "tense" });
    await lesson(t, studentId, 1, [{ errorType: "article" }]);
    for (const day of [2, 3, 4, 5]) await lesson(t, studentId, day, filling);
    await lesson(t, studentId, 6, [{ errorType: "article" }]);
    const found = await page.query(api.progress.recurringErrors, { now: T0 + 6 * DAY });
    expect(found).toMatchObject([{ errorType: "tense", count: 199, sessions: 4 }]);
  });

  test("refuses an instant in seconds", async () => {
    const { page } = await school();
    const call = page.query(api.progress.recurringErrors, { now: T0 / 1_000 });
    const limit = MIN_INSTANT_MS;
    expect(await refusal(call)).toMatchObject({ code: "instant_out_of_range", field: "now", limit });
  });
});

describe("progress:overcomeErrors", () => {
  test("has what recurred and was not seen in the latest five lessons that are over", async () => {
    const { t, studentId, page, agent } = await school();
    const both: Error[] = [{ errorType: "article" }, { errorType: "tense" }];
    await lesson(t, studentId, 1, [...both, { errorType: "plural" }, { errorType: "plural" }]);
    await lesson(t, studentId, 2, [...both, { errorType: "pronoun" }]);
    const overcome = async () => await page.query(api.progress.overcomeErrors, {});
    for (const day of [3, 4, 5, 6]) await lesson(t, studentId, day, []);
    // Four lessons without, and the fifth that is on does not count yet.
    await record(agent, "run_now", [started(0, 7 * DAY, "s_now")]);
    expect(await overcome()).toEqual([]);

    await record(agent, "run_now", [sessionEnded(1, 7 * DAY + 60_000)]);
    expect(await overcome()).toMatchObject([
      { errorType: "tense", count: 2, sessions: 2, lastSeenAt: T0 + 2 * DAY + 1 },
      { errorType: "article", count: 2, sessions: 2, lastSeenAt: T0 + 2 * DAY },
    ]);

    // It is back: in a lesson that still runs.
    await record(agent, "run_next", [
      started(0, 8 * DAY, "s_next"),
      correction(1, 8 * DAY, "c1", { errorType: "tense" }),
    ]);
    expect(await overcome()).toMatchObject([{ errorType: "article" }]);
  });

  test("of a student with fewer than five lessons is nothing", async () => {
    const { t, studentId, page } = await school();
    for (const day of [1, 2]) await lesson(t, studentId, day, [{}]);
    for (const day of [3, 4]) await lesson(t, studentId, day, []);
    expect(await page.query(api.progress.overcomeErrors, {})).toEqual([]);
  });
});
