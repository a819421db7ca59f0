/** The school's numbers, and telemetry. */
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { api, internal } from "../../convex/_generated/api.js";
import type { TelemetryEvent } from "../../convex/analyticsValidators.ts";
import { SCHOOL } from "../../convex/limits.ts";
import {
  T0,
  addStudent,
  addUser,
  agentOf,
  agentOfGuest,
  deployment,
  make,
  message,
  record,
  refusal,
  rows,
  seed,
  sessionEnded,
  started,
  student,
} from "./helpers.ts";
import type { Client, Deployment } from "./helpers.ts";

const MINUTE = 60_000;
const DAY = 24 * 60 * MINUTE;
const WEEK = { from: "2026-11-01", to: "2026-11-07" };

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

/** What the crons do, once everything is over. */
async function afterwards(t: Deployment): Promise<void> {
  vi.setSystemTime(T0 + 100 * DAY);
  for (const cron of [
    internal.sessions.closeExpired,
    internal.sessions.settleDue,
    internal.analytics.rollUp,
  ]) {
    await t.mutation(cron, {});
    await t.finishAllScheduledFunctions(vi.runAllTimers);
  }
}

/** A lesson of ten minutes whose answers took so long. */
async function hold(
  agent: Client,
  runId: string,
  at: number,
  waits: number[],
  lessonId?: string,
): Promise<void> {
  const answers = waits.map((e2eLatencyMs, i) =>
    message(i + 1, at + i, `${runId}_${i}`, "Yes?", {
      role: "assistant",
      metrics: { e2eLatencyMs },
    }),
  );
  await record(agent, runId, [
    started(0, at, runId, lessonId === undefined ? {} : { lessonId }),
    ...answers,
    sessionEnded(answers.length + 1, at + 10 * MINUTE),
  ]);
}

describe("analytics:days", () => {
  test("has sessions, minutes, messages, students, errors and latencies of each day", async () => {
    const t = deployment();
    const { studentId, lessonId } = await seed(t);
    const { client: teacher } = await addUser(t, "teacher");
    const agent = agentOf(t, studentId);
    await hold(agent, "a", 0, [800, 900], lessonId);
    await hold(agent, "b", 60 * MINUTE, [5_000]);
    await hold(agentOf(t, await addStudent(t)), "c", DAY, []);
    await record(agent, "a", [
      make("error", 4, 5_000, { source: "STT", errorType: "APIError", recoverable: true }),
    ]);
    await afterwards(t);

    const days = await teacher.query(api.analytics.days, WEEK);

    expect(days).toMatchObject([
      {
        day: "2026-11-02",
        sessions: 2,
        minutes: 20,
        messages: 3,
        activeStudents: 1,
        errors: [{ source: "STT", errorType: "APIError", count: 1 }],
        latency: { answers: 3 },
      },
      {
        day: "2026-11-03",
        sessions: 1,
        minutes: 10,
        messages: 0,
        activeStudents: 1,
        errors: [],
        latency: { answers: 0, p50Ms: null, p95Ms: null, p99Ms: null },
      },
    ]);
    const [monday] = await teacher.query(api.analytics.days, { ...WEEK, lessonId });
    expect(monday).toMatchObject({ sessions: 1, minutes: 10, latency: { answers: 2 } });
    expect(monday).not.toHaveProperty("activeStudents");
  });

  test("counts a student of two lessons on one day once", async () => {
    const t = deployment();
    const agent = agentOf(t, (await seed(t)).studentId);
    const { client: teacher } = await addUser(t, "teacher");
    await hold(agent, "a", 0, []);
    await afterwards(t);
    await hold(agent, "b", 60 * MINUTE, []);
    await afterwards(t);
    expect(await teacher.query(api.analytics.days, WEEK)).toMatchObject([
      { sessions: 2, activeStudents: 1 },
    ]);
  });

  test.each([
    [{ from: "2026-11-31", to: "2026-12-01" }, "invalid_value", "from"],
    [{ from: "2026-11-02", to: "2026-11-01" }, "invalid_value", "to"],
    [{ from: "2025-11-01", to: "2026-11-02" }, "too_many_items", "to"],
  ])("refuses %o", async (range, code, field) => {
    const t = deployment();
    const { client: teacher } = await addUser(t, "teacher");
    const call = teacher.query(api.analytics.days, range);
    expect(await refusal(call)).toMatchObject({ code, field });
    const same = teacher.query(api.analytics.latency, range);
    expect(await refusal(same)).toMatchObject({ code, field });
  });
});

test("analytics:latency tells the percentiles of all answers of the range", async () => {
  const t = deployment();
  const { studentId, lessonId } = await seed(t);
  const { client: teacher } = await addUser(t, "teacher");
  const agent = agentOf(t, studentId);
  await hold(agent, "a", 0, Array.from({ length: 40 }, () => 800), lessonId);
  await hold(agent, "b", DAY, Array.from({ length: 20 }, () => 4_000));
  await afterwards(t);

  const all = await teacher.query(api.analytics.latency, WEEK);
  const ofLesson = await teacher.query(api.analytics.latency, { ...WEEK, lessonId });

  expect(all.answers).toBe(60);
  expect(Math.abs((all.p50Ms ?? 0) - 800) / 800).toBeLessThan(0.073);
  expect(Math.abs((all.p95Ms ?? 0) - 4_000) / 4_000).toBeLessThan(0.073);
  expect(ofLesson).toMatchObject({ answers: 40, p99Ms: all.p50Ms });
});

describe("analytics:track", () => {
  const event = (rest: Partial<TelemetryEvent> = {}): TelemetryEvent => ({
    eventType: "page_opened",
    createdAt: T0,
    eventData: { page: "/lesson" },
    ...rest,
  });

  const track = async (client: Client, events: TelemetryEvent[]) =>
    await client.mutation(api.analytics.track, { events });

  test("stores events in the name of whoever sends them, with their own session", async () => {
    const t = deployment();
    const { studentId } = await seed(t);
    await record(agentOf(t, studentId), "a", [started(0, 0, "s1")]);
    await record(agentOfGuest(t, "g1"), "g", [started(0, 0, "g1")]);
    const { client: teacher } = await addUser(t, "teacher");

    await track(student(t, studentId), [event({ sessionKey: "s1" })]);
    await track(agentOf(t, studentId), [
      event({
        eventType: "measured",
        eventData: { name: "loop_lag", value: 3.5, unit: "ms" },
        sessionKey: "s1",
      }),
    ]);
    await track(agentOfGuest(t, "g1"), [event({ sessionKey: "g1" })]);
    await track(teacher, [event({ sessionKey: "s1" })]);

    const [ofStudent, ofGuest] = await rows(t, "sessions");
    const found = await rows(t, "analyticsEvents");
    expect(found.map((row) => [row.studentId, row.guest, row.sessionId])).toEqual([
      [studentId, undefined, ofStudent?._id],
      [studentId, undefined, ofStudent?._id],
      [undefined, "guest:g1", ofGuest?._id],
      [undefined, undefined, undefined],
    ]);
  });

  test("leaves out a session that is somebody else's or not there", async () => {
    const t = deployment();
    const { studentId } = await seed(t);
    await record(agentOf(t, studentId), "a", [started(0, 0, "s1")]);
    const otherId = await addStudent(t);
    await track(student(t, otherId), [event({ sessionKey: "s1" }), event({ sessionKey: "s2" })]);
    const found = await rows(t, "analyticsEvents");
    expect(found.map((row) => [row.studentId, row.sessionId])).toEqual([
      [otherId, undefined],
      [otherId, undefined],
    ]);
  });

  test("stores nothing in the name of a student who is not there", async () => {
    const t = deployment();
    await track(agentOf(t, "erased"), [event()]);
    expect(await rows(t, "analyticsEvents")).toEqual([]);
  });

  const BAD: [name: string, event: TelemetryEvent, code: string, field: string][] = [
    [
      "data of another type",
      event({ eventType: "device_failed" }),
      "invalid_value",
      "events[1].eventData",
    ],
    [
      "a number that is none",
      event({ eventType: "measured", eventData: { name: "n", value: Number.NaN, unit: "ms" } }),
      "invalid_value",
      "events[1].eventData.value",
    ],
    [
      "seconds for milliseconds",
      event({ createdAt: T0 / 1_000 }),
      "instant_out_of_range",
      "events[1].createdAt",
    ],
    [
      "a text too long",
      event({ eventData: { page: "x".repeat(1_025) } }),
      "field_too_long",
      "events[1].eventData.page",
    ],
    [
      "a key too long",
      event({ sessionKey: "x".repeat(1_025) }),
      "field_too_long",
      "events[1].sessionKey",
    ],
  ];

  test.each(BAD)("refuses %s, and stores nothing of the batch", async (_name, bad, code, field) => {
    const t = deployment();
    const { studentId } = await seed(t);
    const call = track(student(t, studentId), [event(), bad]);
    expect(await refusal(call)).toMatchObject({ code, field });
    expect(await rows(t, "analyticsEvents")).toEqual([]);
  });

  test("takes 100 events and not one more", async () => {
    const t = deployment();
    const { studentId } = await seed(t);
    const events = Array.from({ length: SCHOOL.maxEvents }, () => event());
    await track(student(t, studentId), events);
    expect(await refusal(track(student(t, studentId), [...events, event()]))).toMatchObject({
      code: "too_many_items",
      field: "events",
      limit: 100,
    });
    expect(await rows(t, "analyticsEvents")).toHaveLength(100);
  });

  test("takes no events that only the fold may write", async () => {
    const t = deployment();
    const { studentId } = await seed(t);
    const forged = { ...event(), eventType: "tool_call" as unknown as "measured" };
    await expect(track(student(t, studentId), [forged])).rejects.toThrow();
  });
});

describe("analytics:events", () => {
  test("pages through one type of event, newest first, for administrators", async () => {
    const t = deployment();
    const { studentId } = await seed(t);
    const { client: administrator } = await addUser(t, "administrator");
    const error = { source: "STT", errorType: "APIError", recoverable: true };
    await record(agentOf(t, studentId), "a", [
      started(0, 0, "s1"),
      ...[1, 2, 3].map((seq) => make("error", seq, seq * MINUTE, error)),
    ]);
    const page = async (cursor: string | null) =>
      await administrator.query(api.analytics.events, {
        eventType: "error",
        from: T0 + MINUTE,
        to: T0 + 3 * MINUTE,
        paginationOpts: { numItems: 1, cursor },
      });

    const first = await page(null);
    const second = await page(first.continueCursor);

    expect([first, second].map(({ page: [row] }) => row?.createdAt)).toEqual([
      T0 + 2 * MINUTE,
      T0 + MINUTE,
    ]);
    expect(first.page[0]).toMatchObject({ eventType: "error", studentId, eventData: error });
    expect((await page(second.continueCursor)).page).toEqual([]);
  });

  test("refuses a range in seconds", async () => {
    const t = deployment();
    const { client: administrator } = await addUser(t, "administrator");
    const call = administrator.query(api.analytics.events, {
      eventType: "error",
      from: T0 / 1_000,
      to: T0,
      paginationOpts: { numItems: 1, cursor: null },
    });
    expect(await refusal(call)).toMatchObject({ code: "instant_out_of_range", field: "from" });
  });
});

test("sessions:list has a student's sessions, or a guest's, newest first and page by page", async () => {
  const t = deployment();
  const { studentId, lessonId } = await seed(t);
  const agent = agentOf(t, studentId);
  await hold(agent, "a", 0, [], lessonId);
  await hold(agent, "b", DAY, []);
  await record(agentOfGuest(t, "g1"), "g", [started(0, 0, "g1")]);

  const list = async (client: Client, cursor: string | null = null) =>
    await client.query(api.sessions.list, { paginationOpts: { numItems: 1, cursor } });
  const newest = await list(student(t, studentId));
  const older = await list(student(t, studentId), newest.continueCursor);

  expect(newest.page).toMatchObject([{ sessionKey: "b", status: "ended", startedAt: T0 + DAY }]);
  expect(older.page).toEqual([
    {
      sessionKey: "a",
      status: "ended",
      startedAt: T0,
      endedAt: T0 + 10 * MINUTE,
      endReason: "user_initiated",
      provisionalEnd: false,
      lessonId,
      runs: 1,
    },
  ]);
  expect((await list(agentOfGuest(t, "g1"))).page).toMatchObject([{ sessionKey: "g1" }]);
  expect((await list(agentOfGuest(t, "g2"))).page).toEqual([]);
});
