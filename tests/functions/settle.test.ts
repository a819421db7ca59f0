/** What follows from sessions that are over: days, totals, streaks, progress, the school's sums. */
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { api } from "../../convex/_generated/api.js";
import type { Doc, Id } from "../../convex/_generated/dataModel.js";
import { SCHOOL } from "../../convex/limits.ts";
import { closeExpired } from "../../convex/model/leases.ts";
import { rollUp } from "../../convex/model/rollUp.ts";
import { settleDue } from "../../convex/model/settle.ts";
import type { SessionRecord } from "../../convex/validators.ts";
import {
  T0,
  addStudent,
  agentOf,
  agentOfGuest,
  contents,
  correction,
  deployment,
  make,
  message,
  record,
  resumed,
  reviewed,
  rows,
  runEnded,
  seed,
  sessionEnded,
  started,
  student,
} from "./helpers.ts";
import type { Client, Deployment } from "./helpers.ts";
import { random } from "./random.ts";
import type { Random } from "./random.ts";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
/** After all leases and graces of these tests. */
const FAR = T0 + 1_000 * DAY;

beforeEach(() => {
  // What is scheduled runs when the test says so.
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

/** What the functions scheduled, and no cron. */
async function scheduled(t: Deployment): Promise<void> {
  await t.finishAllScheduledFunctions(vi.runAllTimers);
}

/** The demo's student lives in Mexico City, where T0 is 3 o'clock at night on 2 November. */
async function school() {
  const t = deployment();
  const { studentId, lessonId } = await seed(t);
  const otherId = await t.run(async (ctx) => {
    // The demo's progress is dated when it is seeded.
    for (const row of await ctx.db.query("progress").collect()) await ctx.db.delete(row._id);
    return await ctx.db.insert("lessons", {
      title: "Other",
      level: "B1",
      language: "en",
      kind: "conversation",
      objectives: [],
      targetWords: [],
    });
  });
  return { t, agent: agentOf(t, studentId), studentId, lessonId, otherId };
}

async function settleAll(t: Deployment, now = FAR): Promise<void> {
  while (await t.run(async (ctx) => await closeExpired(ctx, now)));
  while (await t.run(async (ctx) => await settleDue(ctx, now)));
  while (await t.run(async (ctx) => await rollUp(ctx)));
}

async function totals(t: Deployment): Promise<Doc<"students">["totals"]> {
  return (await rows(t, "students"))[0]?.totals;
}

/** A lesson of ten minutes with two messages. */
async function hold(
  agent: Client,
  runId: string,
  at: number,
  rest: { lessonId?: string; between?: SessionRecord[] } = {},
): Promise<void> {
  const { between = [], ...named } = rest;
  await record(agent, runId, [
    started(0, at, `key_${runId}`, named),
    message(1, at + 1_000, `${runId}_1`, "Hello", {
      role: "assistant",
      metrics: { e2eLatencyMs: 800 },
    }),
    message(2, at + 2_000, `${runId}_2`, "Hi"),
    ...between,
    sessionEnded(3 + between.length, at + 10 * MINUTE),
    runEnded(4 + between.length, at + 10 * MINUTE),
  ]);
}

describe("a session that is over", () => {
  test("is settled once nobody may resume it any more", async () => {
    const { t, agent } = await school();
    await hold(agent, "a", 0);
    const due = T0 + 10 * MINUTE + SCHOOL.resumeGraceMs;

    await settleAll(t, due - 1);
    expect(await totals(t)).toBeUndefined();
    expect((await rows(t, "sessions"))[0]?.settleDueAt).toBe(due);

    await settleAll(t, due);
    expect(await totals(t)).toEqual({
      sessions: 1,
      durationMs: 10 * MINUTE,
      messages: 2,
      streakDays: 1,
      lastDay: "2026-11-02",
    });
    expect((await rows(t, "sessions"))[0]).not.toHaveProperty("settleDueAt");
  });

  test("adds to its day, its lesson's progress, and the school", async () => {
    const { t, agent, studentId, lessonId } = await school();
    const between = [
      correction(3, 3_000, "c1", { repaired: true }),
      correction(4, 4_000, "c2"),
      make("error", 5, 5_000, { source: "TTS", errorType: "APITimeoutError", recoverable: true }),
      make("lessonFinished", 6, 6_000, {}),
    ];
    await hold(agent, "a", 0, { lessonId, between });

    await settleAll(t);

    const sums = { durationMs: 10 * MINUTE, messages: 2, errorsDetected: 2, errorsCorrected: 1 };
    expect(await rows(t, "dailyStats")).toMatchObject([
      { studentId, day: "2026-11-02", sessions: 1, ...sums, countedActive: true, pending: false },
    ]);
    expect(await rows(t, "progress")).toMatchObject([
      {
        studentId,
        lessonId,
        status: "completed",
        timesStudied: 1,
        lastStudiedAt: T0,
        completedAt: T0 + 6_000,
      },
    ]);
    const [whole, ofLesson] = await rows(t, "schoolDays");
    const errorKinds = [{ source: "TTS", errorType: "APITimeoutError", count: 1 }];
    expect(whole).toMatchObject({ sessions: 1, activeStudents: 1, ...sums, errorKinds });
    expect(whole).not.toHaveProperty("lessonId");
    expect(ofLesson).toMatchObject({ lessonId, sessions: 1, activeStudents: 0, ...sums, errorKinds });
    expect(ofLesson?.latency.filter((count) => count > 0)).toEqual([1]);
  });

  test("is on the day on which it began where the student lives", async () => {
    const { t, agent } = await school();
    // 23:55 in Mexico City.
    await hold(agent, "a", 20 * HOUR + 55 * MINUTE);
    await settleAll(t);
    expect((await rows(t, "dailyStats"))[0]?.day).toBe("2026-11-02");
  });

  test("of a guest adds to the school alone, by the day in UTC", async () => {
    const { t } = await school();
    await hold(agentOfGuest(t, "g1"), "a", 15 * HOUR);
    await settleAll(t);
    expect(await rows(t, "dailyStats")).toEqual([]);
    expect(await rows(t, "progress")).toEqual([]);
    expect(await rows(t, "schoolDays")).toMatchObject([
      { day: "2026-11-03", sessions: 1, activeStudents: 0, messages: 2 },
    ]);
  });

  test("of a student who is being erased brings nothing back", async () => {
    const { t, agent, studentId } = await school();
    await hold(agent, "a", 0);
    await t.run(async (ctx) => {
      await ctx.db.delete(studentId);
    });
    await settleAll(t);
    expect(await rows(t, "sessionStats")).toEqual([]);
    expect(await rows(t, "dailyStats")).toEqual([]);
  });

  test("settled again, changes nothing", async () => {
    const { t, agent } = await school();
    await hold(agent, "a", 0);
    await settleAll(t);
    const before = await contents(t);
    await t.run(async (ctx) => {
      for (const { _id } of await ctx.db.query("sessions").collect()) {
        await ctx.db.patch(_id, { settleDueAt: T0 });
      }
    });
    await settleAll(t);
    expect(await contents(t)).toEqual(before);
  });

  test("adds the difference when a message comes late", async () => {
    const { t, agent } = await school();
    await hold(agent, "a", 0);
    await settleAll(t);
    await record(agent, "a", [message(5, 9 * MINUTE, "late", "Bye")]);
    expect((await totals(t))?.messages).toBe(2);
    await settleAll(t);
    expect(await totals(t)).toMatchObject({ sessions: 1, messages: 3 });
    expect((await rows(t, "schoolDays"))[0]).toMatchObject({ sessions: 1, messages: 3 });
  });

  test("keeps what it had while it goes on, and then adds the rest", async () => {
    const { t, agent } = await school();
    await hold(agent, "a", 0);
    await settleAll(t);
    await record(agent, "b", [resumed(0, 20 * MINUTE, "key_a")]);
    await settleAll(t, T0 + 25 * MINUTE);
    expect(await totals(t)).toMatchObject({ sessions: 1, durationMs: 10 * MINUTE });
    await record(agent, "b", [sessionEnded(1, 30 * MINUTE)]);
    await settleAll(t);
    expect(await totals(t)).toMatchObject({ sessions: 1, durationMs: 30 * MINUTE });
  });

  test("leaves its day and its lesson when an earlier run tells of others", async () => {
    const { t, agent, lessonId, otherId } = await school();
    await record(agent, "b", [
      resumed(0, 0, "s1", { lessonId: otherId }),
      sessionEnded(1, 5 * MINUTE),
    ]);
    await settleAll(t);
    expect((await rows(t, "progress"))[0]?.lessonId).toBe(otherId);

    await record(agent, "a", [started(0, -4 * HOUR, "s1", { lessonId })]);
    await settleAll(t);

    expect(await rows(t, "dailyStats")).toMatchObject([{ day: "2026-11-01", sessions: 1 }]);
    expect(await rows(t, "progress")).toMatchObject([{ lessonId, timesStudied: 1 }]);
    expect((await rows(t, "schoolDays")).map(({ day, ...row }) => [day, row.lessonId])).toEqual([
      ["2026-11-01", undefined],
      ["2026-11-01", lessonId],
    ]);
    expect(await totals(t)).toMatchObject({ sessions: 1, lastDay: "2026-11-01" });
  });
});

test("instants that are no whole milliseconds add up in any order", async () => {
  const lasted = [0.7, HOUR + 0.375, 20.1];
  for (const order of [[0, 1, 2], [2, 1, 0]]) {
    const { t, agent } = await school();
    for (const i of order) {
      const at = i * DAY + 0.3;
      const records = [started(0, at, `s${i}`), sessionEnded(1, at + (lasted[i] ?? 0))];
      await record(agent, `run_${i}`, records);
      await settleAll(t);
    }
    expect((await totals(t))?.durationMs).toBe(HOUR + 21);
  }
});

test("a day that lost its session before the school heard of it leaves no row", async () => {
  const { t, agent } = await school();
  await record(agent, "b", [resumed(0, 0, "s1"), sessionEnded(1, 5 * MINUTE)]);
  await t.run(async (ctx) => await settleDue(ctx, FAR));
  await record(agent, "a", [started(0, -4 * HOUR, "s1")]);
  await t.run(async (ctx) => await settleDue(ctx, FAR));
  expect((await rows(t, "dailyStats")).map(({ day }) => day)).toEqual(["2026-11-01"]);
});

describe("the progress of a lesson", () => {
  test("counts its sessions; the latest says when, the first that reached the goal says that", async () => {
    const { t, agent, lessonId } = await school();
    const finished = (at: number) => [make("lessonFinished", 3, at, {})];
    await hold(agent, "b", DAY, { lessonId, between: finished(DAY + 3_000) });
    await settleAll(t);
    await hold(agent, "c", 2 * DAY, { lessonId });
    await settleAll(t);
    await hold(agent, "a", 0, { lessonId });
    await settleAll(t);
    expect(await rows(t, "progress")).toMatchObject([
      {
        status: "completed",
        timesStudied: 3,
        lastStudiedAt: T0 + 2 * DAY,
        completedAt: T0 + DAY + 3_000,
      },
    ]);
  });

  test("forgets a session that turns out to be of another one before it is settled", async () => {
    const { t, agent, lessonId, otherId } = await school();
    await hold(agent, "a", 0, { lessonId });
    await record(agent, "c", [
      resumed(0, DAY, "s1", { lessonId }),
      make("lessonFinished", 1, DAY, {}),
    ]);
    await settleAll(t, T0 + DAY);
    expect(await rows(t, "progress")).toMatchObject([
      { lessonId, status: "completed", lastStudiedAt: T0 + DAY },
    ]);

    await record(agent, "b", [started(0, DAY - MINUTE, "s1", { lessonId: otherId })]);
    await settleAll(t);

    expect(await rows(t, "progress")).toMatchObject([
      { lessonId, status: "started", timesStudied: 1, lastStudiedAt: T0 },
      { lessonId: otherId, status: "completed", timesStudied: 1 },
    ]);
  });

  test("is completed by a word of it that comes after the end", async () => {
    const { t, agent, lessonId } = await school();
    await hold(agent, "a", 0, { lessonId });
    await settleAll(t);
    expect((await rows(t, "progress"))[0]?.status).toBe("started");
    await record(agent, "a", [make("lessonFinished", 5, 9 * MINUTE, {})]);
    await settleAll(t);
    expect((await rows(t, "progress"))[0]?.status).toBe("completed");
  });
});

describe("the streak", () => {
  const DAYS: [name: string, days: number[], streakDays: number, lastDay: string][] = [
    ["grows day by day", [0, 1, 2], 3, "2026-11-04"],
    ["counts a day once", [0, 0.1, 1], 2, "2026-11-03"],
    ["begins anew after a day without", [0, 1, 3], 1, "2026-11-05"],
    ["is mended by a day that comes late", [0, 1, 3, 2], 4, "2026-11-05"],
    ["does not care for a late day before a gap", [4, 5, 0], 2, "2026-11-07"],
  ];
  test.each(DAYS)("%s", async (_name, days, streakDays, lastDay) => {
    const { t, agent } = await school();
    for (const [i, day] of days.entries()) {
      await hold(agent, `run_${i}`, 12 * HOUR + day * DAY);
      await settleAll(t);
    }
    expect(await totals(t)).toMatchObject({ sessions: days.length, streakDays, lastDay });
  });

  test("is not kept alive by words reviewed on the page", async () => {
    const { t, agent, studentId } = await school();
    await hold(agent, "a", 0);
    await t.run(async (ctx) => {
      await ctx.db.insert("dailyStats", reviewsOn(studentId, "2026-11-03"));
    });
    await hold(agent, "b", 2 * DAY);
    await settleAll(t);
    expect(await totals(t)).toMatchObject({ streakDays: 1, lastDay: "2026-11-04" });
  });
});

function reviewsOn(studentId: Id<"students">, day: string) {
  const none = { sessions: 0, durationMs: 0, messages: 0, errorsDetected: 0, errorsCorrected: 0 };
  const row = { studentId, day, ...none, reviews: 3, wordsMastered: 0 };
  return { ...row, countedActive: false, pending: false };
}

test("more sessions than a page holds are settled and rolled up page by page", async () => {
  const { t, agent } = await school();
  for (let i = 0; i < 20; i++) await hold(agent, `run_${i}`, i * 30 * MINUTE);
  expect(await t.run(async (ctx) => await settleDue(ctx, FAR))).toBe(true);
  expect(await rows(t, "sessionStats")).toHaveLength(16);
  await settleAll(t);
  expect(await totals(t)).toMatchObject({ sessions: 20 });
});

describe("a lesson that ended as it was meant to", () => {
  const completed = [make("lessonFinished", 3, 5 * MINUTE, {})];
  const inFarewell = [make("stepEntered", 3, 5 * MINUTE, { step: "farewell" })];

  test.each([
    ["completed", completed],
    ["in its farewell", inFarewell],
  ])("%s, is on the student's page without waiting for the grace", async (_, between) => {
    const { t, agent, studentId, lessonId } = await school();
    await hold(agent, "a", 0, { lessonId, between });
    await scheduled(t);
    const profile = await student(t, studentId).query(api.students.profile, {
      today: "2026-11-02",
    });
    expect(profile.totals).toMatchObject({ sessions: 1, durationMs: 10 * MINUTE, messages: 2 });
    expect(await rows(t, "progress")).toMatchObject([{ lessonId, timesStudied: 1 }]);
    expect((await rows(t, "sessions"))[0]).not.toHaveProperty("settleDueAt");
  });

  test.each([
    ["in the middle", [make("stepEntered", 3, 5 * MINUTE, { step: "practice" })]],
    ["before its first part", []],
  ])("but one that broke off %s is not", async (_, between) => {
    const { t, agent, lessonId } = await school();
    await hold(agent, "a", 0, { lessonId, between });
    await scheduled(t);
    expect(await totals(t)).toBeUndefined();
    expect((await rows(t, "sessions"))[0]).toHaveProperty("settleDueAt");
  });

  test("nor one whose worker died in the farewell", async () => {
    const { t, agent } = await school();
    await record(agent, "a", [
      started(0, 0, "s1"),
      make("stepEntered", 1, 10, { step: "farewell" }),
      runEnded(2, 20, "recovered"),
    ]);
    await scheduled(t);
    expect(await totals(t)).toBeUndefined();
  });

  test("is settled as it stands by then, and again when something comes late", async () => {
    const { t, agent } = await school();
    await hold(agent, "a", 0, { between: completed });
    await record(agent, "a", [message(6, 9 * MINUTE, "late", "Bye")]);
    await scheduled(t);
    expect(await totals(t)).toMatchObject({ sessions: 1, messages: 3 });

    await record(agent, "a", [message(7, 9 * MINUTE, "later", "Bye bye")]);
    await scheduled(t);
    expect(await totals(t)).toMatchObject({ sessions: 1, messages: 4 });
  });

  test("is not settled if it was resumed before it could be", async () => {
    const { t, agent } = await school();
    await hold(agent, "a", 0, { between: completed });
    await record(agent, "b", [resumed(0, 11 * MINUTE, "key_a")]);
    await scheduled(t);
    expect(await totals(t)).toBeUndefined();

    await record(agent, "b", [sessionEnded(1, 15 * MINUTE)]);
    await scheduled(t);
    expect(await totals(t)).toMatchObject({ sessions: 1, durationMs: 15 * MINUTE });
  });

  test("brings nothing back of a student who was erased meanwhile", async () => {
    const { t, agent, studentId } = await school();
    await hold(agent, "a", 0, { between: completed });
    await t.run(async (ctx) => {
      await ctx.db.delete(studentId);
      for (const { _id } of await ctx.db.query("sessions").collect()) await ctx.db.delete(_id);
    });
    await scheduled(t);
    expect(await rows(t, "sessionStats")).toEqual([]);
    expect(await rows(t, "dailyStats")).toEqual([]);
    const jobs = await t.run(async (ctx) => await ctx.db.system.query("_scheduled_functions").collect());
    expect(jobs.map(({ state }) => state.kind)).not.toContain("failed");
  });
});

// ---------------------------------------------------------------------------------------------
// Whatever runs between whichever arrivals

const ROUNDS = 16;
const ARRIVALS_PER_ROUND = 3;

const WHO = ["student", "guest", "unknown"] as const;
/** Whose a run is: the student's, a guest's, or that of a student whom the school does not have. */
type Who = (typeof WHO)[number];
type Journals = Map<string, { who: Who; records: SessionRecord[] }>;

/** A few runs over a few sessions, minutes, leases and days apart, most of them one student's. */
function journalsOf({ below, chance }: Random, lessonIds: string[]): Journals {
  const journals: Journals = new Map();
  const pauses = [0, MINUTE, 4 * MINUTE, SCHOOL.leaseMs, 12 * MINUTE, 20 * MINUTE];
  const runs = 2 + below(4);
  for (let i = 0; i < runs; i++) {
    const runId = `run_${"dbcea"[i] ?? "x"}`;
    let at = below(4) * 10 * HOUR + below(4) * 7 * MINUTE;
    const lessonId = chance(0.7) ? lessonIds[below(lessonIds.length)] : undefined;
    const named = lessonId === undefined ? {} : { lessonId };
    const who = chance(0.8) ? "student" : (WHO[below(3)] ?? "guest");
    // A key is one subject's: whose, the order of arrival would decide.
    const sessionKey = who === "guest" ? "g" : `${who}_${below(3)}`;
    const lastSeenAt = T0 + at - (pauses[below(pauses.length)] ?? 0);
    const records = [
      chance(0.4)
        ? started(0, at, sessionKey, named)
        : resumed(0, at, sessionKey, chance(0.5) ? { ...named, lastSeenAt } : named),
    ];
    const length = below(12);
    for (let seq = 1; seq <= length; seq++) {
      at += pauses[below(chance(0.7) ? 3 : pauses.length)] ?? 0;
      records.push(anyRecord({ below, chance }, runId, seq, at));
    }
    if (chance(0.4)) records.push(sessionEnded(records.length, at + MINUTE, `by_${runId}`));
    if (chance(0.5)) records.push(runEnded(records.length, at + 2 * MINUTE, `done_${runId}`));
    if (chance(0.2)) records.push(message(records.length, at, `late_${runId}`, "one more"));
    journals.set(runId, { who, records });
  }
  return journals;
}

function anyRecord(
  { below, chance }: Random,
  runId: string,
  seq: number,
  at: number,
): SessionRecord {
  switch (below(12)) {
    case 0:
      return chance(0.5)
        ? make("lessonFinished", seq, at, {})
        : make("stepEntered", seq, at, { step: chance(0.5) ? "farewell" : "practice" });
    case 1:
      return correction(seq, at, `c${below(3)}`, { repaired: chance(0.5) });
    case 2:
      return make("error", seq, at, {
        source: "LLM",
        errorType: `E${below(3)}`,
        recoverable: true,
      });
    case 3:
      return make("usage", seq, at, { models: [] });
    case 4:
      return make("setAside", seq, at, { code: "text_too_long", ofKind: "message" });
    case 5:
    case 6:
    case 7:
      // Days apart and in an order of their own, but for some that are of this moment.
      return reviewed(
        seq,
        chance(0.5) ? at : below(5) * 20 * DAY,
        ["loaf", "loaf", "loaf", "bread"][below(4)] ?? "",
        ([1, 4, 4, 4] as const)[below(4)] ?? 4,
      );
    default:
      // Some items are repeated, by other runs too, with other timings.
      return message(seq, at, chance(0.5) ? `item_${below(3)}` : `${runId}_${seq}`, `said ${seq}`, {
        role: chance(0.8) ? "assistant" : "user",
        ...(chance(0.7) ? { metrics: { e2eLatencyMs: 100 * (1 + below(20)) } } : {}),
      });
  }
}

type Arrival = { runId: string; who: Who; records: SessionRecord[]; now: number };

/** Each record when it is made. */
function punctual(journals: Journals): Arrival[] {
  const arrivals = [...journals].flatMap(([runId, { who, records }]) => {
    let now = 0;
    return records.map((one) => {
      now = Math.max(now, one.createdAt);
      return { runId, who, records: [one], now };
    });
  });
  return arrivals.sort((a, b) => a.now - b.now);
}

/** Batches of all journals in one order that keeps each run's own, days after they were made. */
function late(journals: Journals, { below }: Random): Arrival[] {
  const left = [...journals].map(([runId, journal]) => ({ runId, ...journal, at: 0 }));
  const arrivals: Arrival[] = [];
  while (left.length > 0) {
    const i = below(left.length);
    const journal = left[i];
    if (journal === undefined) continue;
    const to = journal.at + 1 + below(4);
    arrivals.push({
      runId: journal.runId,
      who: journal.who,
      records: journal.records.slice(journal.at, to),
      now: below(2) === 0 ? FAR : T0 + below(48) * HOUR,
    });
    journal.at = to;
    if (journal.at >= journal.records.length) left.splice(i, 1);
  }
  return arrivals;
}

test.each(Array.from({ length: ROUNDS }, (_, round) => round))(
  "settling between any arrivals ends in the same rows (round %d)",
  async (round) => {
    let expected: unknown;
    for (let n = 0; n <= ARRIVALS_PER_ROUND; n++) {
      const { t, agent, lessonId, otherId } = await school();
      const goneId = await addStudent(t);
      await t.run(async (ctx) => ctx.db.delete(goneId));
      const agents: Record<Who, Client> = {
        student: agent,
        guest: agentOfGuest(t, "g"),
        unknown: agentOf(t, goneId),
      };
      const journals = journalsOf(random(round), [lessonId, otherId]);
      const chances = random(round * 100 + n);
      const arrivals = n === 0 ? punctual(journals) : late(journals, chances);
      for (const { runId, who, records, now } of arrivals) {
        if (n === 0 || chances.chance(0.3)) await settleAll(t, now);
        await record(agents[who], runId, records);
        if (chances.chance(0.2)) await scheduled(t);
        if (chances.chance(0.2)) await t.run(async (ctx) => await settleDue(ctx, now));
        if (chances.chance(0.2)) await t.run(async (ctx) => await closeExpired(ctx, now));
      }
      await settleAll(t);
      const settled = await contents(t);
      expect(settled.sessionStats?.length).toBe(settled.sessions?.length);
      expected ??= settled;
      expect(settled).toEqual(expected);
    }
  },
);
