/** Sessions of which nothing more comes, and those of which something comes after all. */
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { api, internal } from "../../convex/_generated/api.js";
import { SCHOOL } from "../../convex/limits.ts";
import type { SessionRecord } from "../../convex/validators.ts";
import {
  T0,
  agentOf,
  agentOfGuest,
  deployment,
  message,
  record,
  resumed,
  rows,
  runEnded,
  seed,
  sessionEnded,
  started,
  usage,
} from "./helpers.ts";
import type { Client, Deployment } from "./helpers.ts";

const LEASE = SCHOOL.leaseMs;

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

async function lesson(): Promise<{ t: Deployment; agent: Client }> {
  const t = deployment();
  const { studentId } = await seed(t);
  return { t, agent: agentOf(t, studentId) };
}

/** As the cron does it, at `at` milliseconds after T0. */
async function closeExpired(t: Deployment, at: number): Promise<void> {
  vi.setSystemTime(T0 + at);
  await t.mutation(internal.sessions.closeExpired, {});
  await t.finishAllScheduledFunctions(vi.runAllTimers);
}

/** `status endedAt-T0 reason`, with "?" where the end is provisional. */
async function state(agent: Client, sessionKey: string): Promise<string> {
  const session = await agent.query(api.sessions.get, { sessionKey });
  if (session === null) return "none";
  const { status, endedAt, endReason, provisionalEnd } = session;
  if (endedAt === undefined) return status;
  return `${status} ${endedAt - T0} ${endReason ?? ""}${provisionalEnd ? "?" : ""}`;
}

async function leases(t: Deployment): Promise<(number | undefined)[]> {
  return (await rows(t, "sessionLive")).map(({ leaseUntil }) => leaseUntil);
}

test("each record renews the lease of an active session", async () => {
  const { t, agent } = await lesson();
  await record(agent, "a", [started(0, 0, "s1")]);
  expect(await leases(t)).toEqual([T0 + LEASE]);
  await record(agent, "a", [message(1, 5_000, "i1", "hi")]);
  expect(await leases(t)).toEqual([T0 + 5_000 + LEASE]);
  await closeExpired(t, 5_000 + LEASE);
  expect(await state(agent, "s1")).toBe("active");
  await record(agent, "a", [sessionEnded(2, 6_000)]);
  expect(await leases(t)).toEqual([undefined]);
});

test("a session whose lease ran out ended provisionally with its last record", async () => {
  const { t, agent } = await lesson();
  await record(agent, "a", [started(0, 0, "s1"), message(1, 5_000, "i1", "hi")]);
  await closeExpired(t, 5_001 + LEASE);
  expect(await state(agent, "s1")).toBe("ended 5000 lease_expired?");
  expect(await leases(t)).toEqual([undefined]);
  expect((await rows(t, "sessions"))[0]?.settleDueAt).toBe(T0 + 5_000 + SCHOOL.resumeGraceMs);
});

test("a guest's too", async () => {
  const { t } = await lesson();
  const agent = agentOfGuest(t, "g1");
  await record(agent, "a", [started(0, 0, "g1")]);
  await closeExpired(t, LEASE + 1);
  expect(await state(agent, "g1")).toBe("ended 0 lease_expired?");
});

const TAKEN_BACK: [name: string, runId: string, records: SessionRecord[], state: string][] = [
  ["a message of the run", "a", [message(1, 7_000, "i1", "here")], "active"],
  ["a usage snapshot of the run", "a", [usage(1, 7_000, [])], "active"],
  ["a resume", "b", [resumed(0, 7_000, "s1")], "active"],
  ["the end of the run", "a", [runEnded(1, 8_000, "crashed")], "ended 8000 crashed?"],
  ["the end of the session", "a", [sessionEnded(1, 9_000)], "ended 9000 user_initiated"],
];

test.each(TAKEN_BACK)("%s takes the end back", async (_name, runId, records, expected) => {
  const { t, agent } = await lesson();
  await record(agent, "a", [started(0, 0, "s1")]);
  await closeExpired(t, LEASE + 1);
  await record(agent, runId, records);
  expect(await state(agent, "s1")).toBe(expected);
});

test("a session ends again where nothing follows what came late", async () => {
  const { t, agent } = await lesson();
  await record(agent, "a", [started(0, 0, "s1")]);
  await closeExpired(t, 10 * LEASE);
  await record(agent, "a", [message(1, 7_000, "i1", "here")]);
  await closeExpired(t, 10 * LEASE);
  expect(await state(agent, "s1")).toBe("ended 7000 lease_expired?");
});

test("yesterday's lesson that nobody ended does not last until today's", async () => {
  const journals: [string, SessionRecord[]][] = [
    ["a", [started(0, 0, "s1"), message(1, 5_000, "i1", "hi")]],
    ["b", [started(0, 20 * LEASE, "s2")]],
  ];
  for (const order of [journals, journals.toReversed()]) {
    const { agent } = await lesson();
    for (const [runId, records] of order) await record(agent, runId, records);
    expect(await state(agent, "s1")).toBe("ended 5000 lease_expired?");
  }
});

test("one that another followed within its lease gave way to it, also when that comes late", async () => {
  const { t, agent } = await lesson();
  await record(agent, "a", [started(0, 0, "s1")]);
  await closeExpired(t, 20 * LEASE);
  await record(agent, "b", [started(0, LEASE, "s2")]);
  expect(await state(agent, "s1")).toBe("superseded 600000 superseded");
});

test("more than a page of them end in one go", async () => {
  const { t } = await lesson();
  for (let i = 0; i < 40; i++) {
    await record(agentOfGuest(t, `g${i}`), `run_${i}`, [started(0, i, `g${i}`)]);
  }
  await closeExpired(t, 2 * LEASE);
  expect((await rows(t, "sessions")).filter(({ status }) => status === "active")).toEqual([]);
});

test("a session that is being erased does not come up again", async () => {
  const { t, agent } = await lesson();
  await record(agent, "a", [started(0, 0, "s1")]);
  await t.run(async (ctx) => {
    for (const { _id } of await ctx.db.query("sessions").collect()) await ctx.db.delete(_id);
  });
  await closeExpired(t, 2 * LEASE);
  expect(await leases(t)).toEqual([undefined]);
});
