/** When a session runs, is over, or gave way to another: times decide, not arrival. */
import { describe, expect, test } from "vitest";
import { api } from "../../convex/_generated/api.js";
import { SCHOOL } from "../../convex/limits.ts";
import type { SessionRecord } from "../../convex/validators.ts";
import {
  T0,
  addStudent,
  agentOf,
  agentOfGuest,
  deployment,
  make,
  message,
  record,
  resumed,
  rows,
  runEnded,
  seed,
  sessionEnded,
  started,
} from "./helpers.ts";
import type { Client, Deployment } from "./helpers.ts";

async function lesson(): Promise<{ t: Deployment; agent: Client; lessonId: string }> {
  const t = deployment();
  const { studentId, lessonId } = await seed(t);
  return { t, agent: agentOf(t, studentId), lessonId };
}

/** `status endedAt-T0 reason`, with "?" where the end is provisional. */
async function state(agent: Client, sessionKey: string): Promise<string> {
  const session = await agent.query(api.sessions.get, { sessionKey });
  if (session === null) return "none";
  const { status, endedAt, endReason, provisionalEnd } = session;
  if (endedAt === undefined) return status;
  return `${status} ${endedAt - T0} ${endReason ?? ""}${provisionalEnd ? "?" : ""}`;
}

/** Every order of the journals must end in the same states. */
async function inEveryOrder(
  journals: Record<string, SessionRecord[]>,
  expected: Record<string, string>,
): Promise<void> {
  for (const order of permutations(Object.keys(journals))) {
    const { agent } = await lesson();
    for (const runId of order) await record(agent, runId, journals[runId] ?? []);
    const states: Record<string, string> = {};
    for (const key of Object.keys(expected)) states[key] = await state(agent, key);
    expect(states, order.join(" then ")).toEqual(expected);
  }
}

function permutations<Item>(items: Item[]): Item[][] {
  if (items.length <= 1) return [items];
  return items.flatMap((item, i) =>
    permutations([...items.slice(0, i), ...items.slice(i + 1)]).map((rest) => [item, ...rest]),
  );
}

describe("ends", () => {
  test("an announced end is final, also when the run ends after it", async () => {
    await inEveryOrder(
      { a: [started(0, 0, "s1"), sessionEnded(1, 50), runEnded(2, 60)] },
      { s1: "ended 50 user_initiated" },
    );
  });

  test("the end of a run alone ends the session provisionally", async () => {
    await inEveryOrder(
      { a: [started(0, 0, "s1"), runEnded(1, 60, "recovered")] },
      { s1: "ended 60 recovered?" },
    );
  });

  test("a later record of the run takes a provisional end back, usage does not", async () => {
    const { agent } = await lesson();
    await record(agent, "a", [started(0, 0, "s1"), runEnded(1, 60, "recovered")]);
    await record(agent, "a", [make("usage", 2, 61, { models: [] })]);
    expect(await state(agent, "s1")).toBe("ended 60 recovered?");
    await record(agent, "a", [message(3, 70, "item_1", "still here")]);
    expect(await state(agent, "s1")).toBe("active");
  });

  test("a late message does not take an announced end back", async () => {
    const { agent } = await lesson();
    await record(agent, "a", [started(0, 0, "s1"), sessionEnded(1, 50)]);
    await record(agent, "a", [message(2, 49, "item_1", "bye")]);
    expect(await state(agent, "s1")).toBe("ended 50 user_initiated");
  });

  test("a later resume reopens the session", async () => {
    await inEveryOrder(
      { a: [started(0, 0, "s1"), sessionEnded(1, 50)], b: [resumed(0, 80, "s1")] },
      { s1: "active" },
    );
  });

  test("a resume that is not later leaves it ended", async () => {
    await inEveryOrder(
      { a: [started(0, 0, "s1"), sessionEnded(1, 50)], b: [resumed(0, 40, "s1")] },
      { s1: "ended 50 user_initiated" },
    );
  });

  test("the latest announced end counts", async () => {
    await inEveryOrder(
      {
        a: [started(0, 0, "s1"), sessionEnded(1, 50, "error")],
        b: [resumed(0, 80, "s1"), sessionEnded(1, 120)],
      },
      { s1: "ended 120 user_initiated" },
    );
  });

  test("a run that was carried on says nothing by its own end", async () => {
    await inEveryOrder(
      {
        a: [started(0, 0, "s1"), runEnded(1, 500, "recovered")],
        b: [resumed(0, 80, "s1"), message(1, 90, "item_1", "here")],
      },
      { s1: "active" },
    );
  });
});

describe("superseding", () => {
  test("starting a session ends the student's earlier active one", async () => {
    await inEveryOrder(
      { a: [started(0, 0, "s1")], b: [started(0, 100, "s2")] },
      { s1: "superseded 100 superseded", s2: "active" },
    );
  });

  test("sessions that had ended stay as they ended", async () => {
    await inEveryOrder(
      {
        a: [started(0, 0, "s1"), sessionEnded(1, 50)],
        b: [started(0, 100, "s2"), runEnded(1, 150, "crashed")],
        c: [started(0, 200, "s3")],
      },
      { s1: "ended 50 user_initiated", s2: "ended 150 crashed?", s3: "active" },
    );
  });

  test("an end that comes after the next start does not count", async () => {
    await inEveryOrder(
      { a: [started(0, 0, "s1"), sessionEnded(1, 130)], b: [started(0, 100, "s2")] },
      { s1: "superseded 100 superseded", s2: "active" },
    );
  });

  test("the next start ends a session, not the last", async () => {
    await inEveryOrder(
      { a: [started(0, 0, "s1")], b: [started(0, 100, "s2")], c: [started(0, 200, "s3")] },
      { s1: "superseded 100 superseded", s2: "superseded 200 superseded", s3: "active" },
    );
  });

  test("of two starts at the same instant one gives way, always the same", async () => {
    await inEveryOrder(
      { a: [started(0, 0, "s1")], b: [started(0, 0, "s2")] },
      { s1: "superseded 0 superseded", s2: "active" },
    );
  });

  test("going on with the earlier session ends the later one", async () => {
    await inEveryOrder(
      { a: [started(0, 0, "s1")], b: [started(0, 100, "s2")], c: [resumed(0, 150, "s1")] },
      { s1: "active", s2: "superseded 150 superseded" },
    );
  });

  test("leaves other students and guests alone", async () => {
    const { t, agent } = await lesson();
    const other = agentOf(t, await addStudent(t));
    await record(agent, "a", [started(0, 0, "s1")]);
    await record(other, "b", [started(0, 100, "s2")]);
    await record(agentOfGuest(t, "g1"), "c", [started(0, 0, "g1")]);
    await record(agentOfGuest(t, "g2"), "d", [started(0, 100, "g2")]);
    expect(await state(agent, "s1")).toBe("active");
    expect(await state(other, "s2")).toBe("active");
    expect(await state(agentOfGuest(t, "g1"), "g1")).toBe("active");
  });
});

describe("a session resumed before its start is known", () => {
  test("is a placeholder that the earlier run completes", async () => {
    const { t, agent, lessonId } = await lesson();
    await record(agent, "b", [resumed(0, 100, "s1"), message(1, 110, "item_2", "second")]);
    expect((await rows(t, "sessions"))[0]).toMatchObject({
      placeholder: true,
      startedAt: T0 + 100,
    });

    await record(agent, "a", [started(0, 0, "s1", { lessonId }), message(1, 10, "item_1", "first")]);

    expect((await rows(t, "sessions"))[0]).toMatchObject({
      placeholder: false,
      startedAt: T0,
      lastRunId: "b",
      lessonId,
      status: "active",
      runs: 2,
    });
    const { page } = await agent.query(api.messages.list, {
      sessionKey: "s1",
      paginationOpts: { numItems: 10, cursor: null },
    });
    expect(page.map(({ text }) => text)).toEqual(["first", "second"]);
  });

  test("takes the lesson that the earliest run names", async () => {
    for (const order of [
      ["a", "b"],
      ["b", "a"],
    ]) {
      const { t, agent, lessonId } = await lesson();
      const other = await t.run(async (ctx) =>
        ctx.db.insert("lessons", {
          title: "Other",
          level: "B1",
          language: "en",
          kind: "conversation",
          objectives: [],
          targetWords: [],
        }),
      );
      const journals: Record<string, SessionRecord[]> = {
        a: [started(0, 0, "s1", { lessonId })],
        b: [resumed(0, 100, "s1", { lessonId: other })],
      };
      for (const runId of order) await record(agent, runId, journals[runId] ?? []);
      expect((await rows(t, "sessions"))[0]?.lessonId).toBe(lessonId);
    }
  });
});

describe("a run whose start is missing", () => {
  test("has a session of its own, named by the run", async () => {
    const { agent } = await lesson();
    await record(agent, "run_a", [
      make("setAside", 0, 0, { code: "field_too_long", field: "room", ofKind: "sessionStarted" }),
      message(1, 10, "item_1", "hello"),
    ]);
    const session = await agent.query(api.sessions.get, { sessionKey: "run_a" });
    expect(session).toMatchObject({ startedAt: T0 + 10, messageCount: 1 });
  });

  test("of a guest has the key that the token names", async () => {
    const t = deployment();
    const agent = agentOfGuest(t, "g1");
    await record(agent, "run_a", [
      make("lost", 3, 0, { fromSeq: 0, toSeq: 3, reason: "damaged" }),
      message(4, 10, "item_1", "hello"),
    ]);
    expect(await state(agent, "g1")).toBe("active");
  });

  test("has none while nothing tells of one", async () => {
    const { t, agent } = await lesson();
    await record(agent, "run_a", [
      make("lost", 3, 0, { fromSeq: 0, toSeq: 3, reason: "damaged" }),
      runEnded(4, 10),
    ]);
    expect(await rows(t, "sessions")).toEqual([]);
    expect((await rows(t, "sessionRuns"))[0]?.seq).toBe(4);
  });
});

describe("the grace of a resume", () => {
  const GRACE = SCHOOL.resumeGraceMs;
  const first = [started(0, 0, "s1"), sessionEnded(1, 50)];

  test("within it the session goes on", async () => {
    const b = [resumed(0, GRACE + 100, "s1", { lastSeenAt: T0 + 100 })];
    await inEveryOrder({ a: first, b }, { s1: "active", b: "none" });
  });

  test("beyond it the run has a session of its own, whichever comes first", async () => {
    const b = [resumed(0, GRACE + 101, "s1", { lastSeenAt: T0 + 100 })];
    await inEveryOrder({ a: first, b }, { s1: "ended 50 user_initiated", b: "active" });
  });

  test("of a guest counts as well", async () => {
    const t = deployment();
    const agent = agentOfGuest(t, "g1");
    await record(agent, "a", [started(0, 0, "g1"), sessionEnded(1, 50)]);
    await record(agent, "b", [resumed(0, GRACE + 101, "g1", { lastSeenAt: T0 + 100 })]);
    expect(await state(agent, "g1")).toBe("ended 50 user_initiated");
    expect(await state(agent, "b")).toBe("active");
  });

  test("a resume that does not say goes on with the session", async () => {
    const b = [resumed(0, 100 * GRACE, "s1")];
    await inEveryOrder({ a: first, b }, { s1: "active", b: "none" });
  });

  test("a session of its own waits for no start", async () => {
    const { t, agent } = await lesson();
    await record(agent, "b", [resumed(0, GRACE + 1, "s1", { lastSeenAt: T0 })]);
    expect((await rows(t, "sessions"))[0]).toMatchObject({ sessionKey: "b", placeholder: false });
  });
});

test("a lesson of another table or deployment is left out", async () => {
  const { t, agent } = await lesson();
  await record(agent, "a", [started(0, 0, "s1", { lessonId: "not-an-id" })]);
  expect((await rows(t, "sessions"))[0]).not.toHaveProperty("lessonId");
});
