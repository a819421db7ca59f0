/** What goes when the school keeps it no longer, and what stays. */
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { internal } from "../../convex/_generated/api.js";
import type { TableNames } from "../../convex/_generated/dataModel.js";
import { SCHOOL } from "../../convex/limits.ts";
import {
  T0,
  agentOf,
  agentOfGuest,
  correction,
  deployment,
  dump,
  make,
  message,
  record,
  refusal,
  resumed,
  rows,
  seed,
  started,
  summary,
} from "./helpers.ts";
import type { Client, Deployment } from "./helpers.ts";
import { insertSample } from "./samples.ts";

const DAY_MS = 24 * 60 * 60_000;

beforeEach(() => {
  vi.useFakeTimers({ now: T0 });
});
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllEnvs();
  vi.restoreAllMocks();
});

/** What the cron does `days` after the lessons, until nothing is scheduled any more. */
async function passes(t: Deployment, days: number): Promise<void> {
  vi.setSystemTime(T0 + days * DAY_MS);
  await t.mutation(internal.retention.begin, {});
  await t.finishAllScheduledFunctions(vi.runAllTimers);
}

async function lesson(client: Client, runId: string, sessionKey: string): Promise<void> {
  await record(client, runId, [
    started(0, 0, sessionKey),
    message(1, 1, "item_1", "I goed"),
    correction(2, 2, "c1"),
    make("exerciseResult", 3, 3, { exerciseId: "e1", score: 1, answer: "a loaf" }),
    make("toolCall", 4, 4, { callId: "c", name: "note", arguments: "{}", isError: false }),
    summary(5, 5, "bread"),
  ]);
}

/** A school in which a student and a guest have had a lesson. */
async function school() {
  const t = deployment();
  const { studentId } = await seed(t);
  const agent = agentOf(t, studentId);
  await lesson(agent, "run_a", "s1");
  await lesson(agentOfGuest(t, "g1"), "run_g", "g1");
  return { t, agent, studentId };
}

async function count(t: Deployment): Promise<Partial<Record<TableNames, number>>> {
  const tables = Object.entries(await dump(t));
  return Object.fromEntries(tables.map(([table, found]) => [table, found.length]));
}

/** Rows that tell of a guest, by table. */
async function ofGuests(t: Deployment): Promise<string[]> {
  const tables = Object.entries(await dump(t));
  return tables.filter(([, found]) => found.some((row) => "guest" in row)).map(([table]) => table);
}

describe("without a word from the school", () => {
  test("a student's rows are kept, a guest's go after 30 days", async () => {
    const { t } = await school();
    const before = await count(t);
    expect(await ofGuests(t)).toHaveLength(8);

    await passes(t, 29.9);
    expect(await count(t)).toEqual(before);

    await passes(t, 30.1);
    expect(await ofGuests(t)).toEqual([]);
    expect(await count(t)).toMatchObject({ messages: 1, sessions: 1, sessionRuns: 1, students: 1 });
  });

  test("a journal of a guest who is gone brings nothing back", async () => {
    const { t } = await school();
    await passes(t, 31);
    const before = await dump(t);
    expect(before.tombstones).toMatchObject([
      { runId: "run_g", fromSeq: 0, toSeq: Number.MAX_SAFE_INTEGER, cause: "erased" },
    ]);

    const late = record(agentOfGuest(t, "g1"), "run_g", [message(6, 6, "item_2", "late")]);

    expect(await refusal(late)).toMatchObject({ code: "erased" });
    expect(await dump(t)).toEqual(before);
  });

  test("a guest's rows stay together while a lesson of theirs is young", async () => {
    const { t } = await school();
    const unknown = agentOf(t, "nobody");
    await lesson(unknown, "run_old", "u1");
    await record(unknown, "run_new", [
      { ...started(0, 0, "u2"), createdAt: T0 + 20 * DAY_MS },
      { ...message(1, 0, "item_1", "hi"), createdAt: T0 + 20 * DAY_MS + 1 },
    ]);

    await passes(t, 31);

    const kept = (await rows(t, "sessions")).filter(({ guest }) => guest !== undefined);
    expect(kept.map(({ sessionKey }) => sessionKey)).toEqual(["u1", "u2"]);
    expect(await rows(t, "messages")).toHaveLength(3);
    // Nothing is broken: the lesson goes on.
    const next = { ...message(2, 0, "item_2", "more"), createdAt: T0 + 31 * DAY_MS };
    expect(await record(unknown, "run_new", [next])).toBe(2);
    await passes(t, 51);
    expect(await ofGuests(t)).toEqual([]);
  });

  test("a guest who comes back after that has a session anew", async () => {
    const { t } = await school();
    await passes(t, 31);

    const again = { ...resumed(0, 0, "g1"), createdAt: T0 + 31 * DAY_MS };
    expect(await record(agentOfGuest(t, "g1"), "run_again", [again])).toBe(0);

    const guests = (await rows(t, "sessions")).filter(({ guest }) => guest !== undefined);
    expect(guests).toMatchObject([{ sessionKey: "g1", lastRunId: "run_again" }]);
  });

  test("a guest with more rows than one page has goes as well, and the next one after them", async () => {
    const { t } = await school();
    await lesson(agentOfGuest(t, "g2"), "run_h", "g2");
    const [session] = (await rows(t, "sessions")).filter(({ guest }) => guest === "guest:g1");
    await t.run(async (ctx) => {
      for (let n = 0; n < SCHOOL.maxRowsRemoved + 1; n += 1) {
        await insertSample(ctx, "messages", { guest: "guest:g1", sessionId: session?._id });
      }
    });

    await passes(t, 31);

    expect(await ofGuests(t)).toEqual([]);
    expect(await rows(t, "messages")).toHaveLength(1);
  });
});

describe("a number of days", () => {
  test.each([
    ["RETENTION_DAYS_MESSAGES", "messages"],
    ["RETENTION_DAYS_CORRECTIONS", "corrections"],
    ["RETENTION_DAYS_SESSION_SUMMARIES", "sessionSummaries"],
    ["RETENTION_DAYS_EXERCISE_RESULTS", "exerciseResults"],
    ["RETENTION_DAYS_ANALYTICS_EVENTS", "analyticsEvents"],
  ] as const)("%s is how long %s are kept, and nothing else", async (variable, table) => {
    const { t, agent } = await school();
    vi.stubEnv(variable, "10");
    const before = await count(t);
    await passes(t, 9);
    expect(await count(t)).toEqual(before);

    await passes(t, 11);

    expect(await count(t)).toEqual({ ...before, [table]: 0 });
    // The session is whole: its lesson goes on, and a repeat is not folded twice.
    await lesson(agent, "run_a", "s1");
    expect(await record(agent, "run_a", [message(6, 6, "item_2", "more")])).toBe(6);
    expect((await rows(t, "sessionLive"))[0]).toMatchObject({ messageCount: 2 });
  });

  test("RETENTION_DAYS_SCHOOL_DAYS is how long the school's sums are kept", async () => {
    const t = deployment();
    vi.stubEnv("RETENTION_DAYS_SCHOOL_DAYS", "10");
    await t.run(async (ctx) => {
      for (const day of ["2026-11-01", "2026-11-02", "2026-11-03"]) {
        await insertSample(ctx, "schoolDays", { day });
      }
    });

    await passes(t, 10);

    expect((await rows(t, "schoolDays")).map(({ day }) => day)).toEqual([
      "2026-11-02",
      "2026-11-03",
    ]);
  });

  test("is done a page at a time", async () => {
    const { t } = await school();
    vi.stubEnv("RETENTION_DAYS_ANALYTICS_EVENTS", "1");
    await t.run(async (ctx) => {
      for (let n = 0; n < 2 * SCHOOL.maxRowsExpired; n += 1) {
        await insertSample(ctx, "analyticsEvents", {});
      }
    });
    const before = T0 + DAY_MS;

    vi.setSystemTime(before + 1);
    await t.mutation(internal.retention.removeRows, { table: "analyticsEvents", before });

    expect(await rows(t, "analyticsEvents")).toHaveLength(SCHOOL.maxRowsExpired + 2);
    await t.finishAllScheduledFunctions(vi.runAllTimers);
    expect(await rows(t, "analyticsEvents")).toEqual([]);
  });

  test.each(["0", "-3", "thirty", "30 days", "NaN", "Infinity"])(
    "that is %j is an error, and nothing is deleted",
    async (value) => {
      const { t } = await school();
      const logged = vi.spyOn(console, "error").mockReturnValue(undefined);
      vi.stubEnv("RETENTION_DAYS_MESSAGES", value);
      vi.stubEnv("RETENTION_DAYS_GUESTS", value);
      const before = await count(t);

      await passes(t, 365);

      expect(await count(t)).toEqual(before);
      expect(logged.mock.calls.flat()).toEqual([
        expect.stringContaining("RETENTION_DAYS_MESSAGES is not a positive number of days"),
        expect.stringContaining("RETENTION_DAYS_GUESTS is not a positive number of days"),
      ]);
    },
  );

  test("may be another for guests", async () => {
    const { t } = await school();
    vi.stubEnv("RETENTION_DAYS_GUESTS", "2");

    await passes(t, 3);

    expect(await ofGuests(t)).toEqual([]);
  });
});
