/** Who is erased is gone everywhere, and what arrives afterwards brings nothing back. */
import { hmac } from "@noble/hashes/hmac.js";
import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex, utf8ToBytes } from "@noble/hashes/utils.js";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { api, internal } from "../../convex/_generated/api.js";
import type { Doc, TableNames } from "../../convex/_generated/dataModel.js";
import { SCHOOL } from "../../convex/limits.ts";
import {
  ISSUER,
  T0,
  addStudent,
  addUser,
  agentOf,
  correction,
  deployment,
  dump,
  introduced,
  link,
  make,
  message,
  record,
  refusal,
  reviewed,
  rows,
  runEnded,
  seed,
  sessionEnded,
  started,
} from "./helpers.ts";
import type { Deployment } from "./helpers.ts";
import { TABLES_OF_STUDENTS, insertSample, naming } from "./samples.ts";

const KEY = "0123456789abcdef0123456789abcdef";

beforeEach(() => {
  vi.stubEnv("ERASURE_KEY", KEY);
  vi.useFakeTimers({ now: T0 });
});
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllEnvs();
});

/** The demo's student, after a lesson with something of everything in it. */
async function taught() {
  const t = deployment();
  const { studentId, lessonId } = await seed(t, "demo");
  const agent = agentOf(t, studentId);
  await record(agent, "run_a", [
    started(0, 0, "s1", { lessonId }),
    message(1, 1_000, "item_1", "I goed to the market"),
    correction(2, 2_000, "c1", { itemId: "item_1" }),
    introduced(3, 3_000, "loaf"),
    reviewed(4, 4_000, "loaf", 3),
    make("exerciseResult", 5, 5_000, { exerciseId: "e1", score: 1, answer: "a loaf" }),
    make("toolCall", 6, 6_000, {
      callId: "call_1",
      name: "note",
      arguments: '{"said":"I goed"}',
      isError: false,
    }),
    make("setAside", 7, 7_000, { code: "text_too_long", ofKind: "message" }),
  ]);
  const { client: admin } = await addUser(t, "administrator");
  const { userId: guardianId } = await addUser(t, "guardian");
  await link(t, guardianId, studentId);
  return { t, agent, admin, studentId, lessonId };
}

async function erase(t: Deployment, studentId: string) {
  const receipt = await t.mutation(internal.students.eraseInternal, { studentId });
  await t.finishAllScheduledFunctions(vi.runAllTimers);
  return receipt;
}

async function receiptOf(t: Deployment, studentId: string) {
  return await t.query(internal.students.erasureInternal, { studentId });
}

/** Rows that name the student anywhere, by table. */
async function left(t: Deployment, studentId: string): Promise<Record<string, unknown[]>> {
  const tables = Object.entries(await dump(t)) as [TableNames, Doc<TableNames>[]][];
  return Object.fromEntries(
    tables
      .map(([table, found]) => [table, naming(found, studentId)] as const)
      .filter(([, found]) => found.length > 0),
  );
}

describe("erasing a student", () => {
  test("leaves no row in any table whose rows may name one", async () => {
    const t = deployment();
    const studentId = await addStudent(t, "Carlos");
    const otherId = await addStudent(t);
    for (const table of TABLES_OF_STUDENTS) {
      // The student is there, and a row of `erasures` comes from erasing.
      if (table === "students" || table === "erasures") continue;
      await t.run(async (ctx) => {
        await insertSample(ctx, table, { studentId });
        await insertSample(ctx, table, { studentId: otherId });
      });
    }
    const before = await left(t, studentId);
    const others = await left(t, otherId);
    expect(Object.keys(before).sort()).toEqual(
      TABLES_OF_STUDENTS.filter((table) => table !== "erasures").sort(),
    );

    await erase(t, studentId);

    expect(await left(t, studentId)).toEqual({});
    expect(await left(t, otherId)).toEqual(others);
    const counts = Object.fromEntries(
      Object.entries(before).map(([table, found]) => [table, found.length]),
    );
    expect((await receiptOf(t, studentId))?.deleted).toEqual(counts);
  });

  test("takes what a lesson wrote, and what was written before the school took them in", async () => {
    const { t, studentId, agent } = await taught();
    const student = (await rows(t, "students")).find(({ _id }) => _id === studentId);
    // The same student, as the fold found them when the school had no row of theirs.
    const guest = `unknown:${studentId}`;
    for (const table of TABLES_OF_STUDENTS) {
      await t.run(async (ctx) => {
        const row = await ctx.db.query(table).first();
        if (row === null || !("guest" in row || "sessionId" in row || "runId" in row)) return;
        const { _id, _creationTime, studentId: _, ...rest } = row as Doc<"messages">;
        const other = { ...rest, ...("runId" in row ? { runId: "run_before" } : {}) };
        if (table === "vocabularyReviews" || table === "erasures") return;
        await ctx.db.insert(table, { ...other, guest });
      });
    }
    expect(Object.keys(await left(t, guest)).length).toBeGreaterThan(6);

    await erase(t, studentId);

    expect(await left(t, studentId)).toEqual({});
    expect(JSON.stringify(await dump(t))).not.toContain(student?.name);
    await expect(record(agent, "run_before", [started(0, 0, "s0")])).rejects.toThrow("erased");
  });

  test("gives a receipt that names nobody and counts what is gone", async () => {
    const { t, admin, studentId } = await taught();
    const before = await left(t, studentId);

    const first = await admin.mutation(api.students.erase, { studentId });
    await t.finishAllScheduledFunctions(vi.runAllTimers);

    const receipt = await admin.query(api.students.erasure, { studentId });
    expect(first).toMatchObject({ requestedAt: T0 });
    expect(receipt).toMatchObject({ requestedAt: T0, finishedAt: expect.any(Number) as number });
    for (const [table, found] of Object.entries(before)) {
      expect([table, receipt?.deleted[table]]).toEqual([table, found.length]);
    }
    // One entry for each table, also where nothing was.
    expect(Object.keys(receipt?.deleted ?? {})).toHaveLength(TABLES_OF_STUDENTS.length - 1);
    const [erasure] = await rows(t, "erasures");
    expect(erasure?.studentHash).toMatch(/^[0-9a-f]{64}$/);
    expect(erasure).not.toHaveProperty("studentId");
  });

  test("goes a page at a time, and is the same erasure when it is asked for again", async () => {
    const { t, studentId } = await taught();
    const sessionId = (await rows(t, "sessions"))[0]?._id;
    const more = 2 * SCHOOL.maxRowsRemoved;
    await t.run(async (ctx) => {
      for (let n = 0; n < more; n += 1) {
        await insertSample(ctx, "messages", { studentId, sessionId, itemId: `more_${n}` });
      }
    });
    const held = (await rows(t, "messages")).length;

    const first = await t.mutation(internal.students.eraseInternal, { studentId });
    const again = await t.mutation(internal.students.eraseInternal, { studentId });

    const pages = [first, again].map(({ deleted }) => sum(deleted) - (deleted.students ?? 0));
    expect(pages).toEqual([SCHOOL.maxRowsRemoved, 2 * SCHOOL.maxRowsRemoved]);
    expect(again).toMatchObject({ requestedAt: first.requestedAt });
    expect(again).not.toHaveProperty("finishedAt");
    expect((await rows(t, "messages")).length).toBeGreaterThan(0);
    await t.finishAllScheduledFunctions(vi.runAllTimers);
    const done = await receiptOf(t, studentId);
    expect(done?.deleted).toMatchObject({ students: 1, messages: held });
    expect(await left(t, studentId)).toEqual({});

    expect(await erase(t, studentId)).toEqual({ ...done, finishedAt: T0 });
    expect(await rows(t, "erasures")).toHaveLength(1);
  });

  test("ends a page early where its rows are large", async () => {
    const t = deployment();
    const studentId = await addStudent(t);
    const text = "x".repeat(65_536);
    await t.run(async (ctx) => {
      const sessionId = await insertSample(ctx, "sessions", { studentId });
      for (let n = 0; n < 100; n += 1) {
        await insertSample(ctx, "messages", { studentId, sessionId, text });
      }
    });

    const { deleted } = await t.mutation(internal.students.eraseInternal, { studentId });

    expect(deleted.messages).toBeLessThan(70);
    await t.finishAllScheduledFunctions(vi.runAllTimers);
    expect(await rows(t, "messages")).toEqual([]);
  });

  test("lets the crons go on, and the school keep its sums", async () => {
    const { t, agent, studentId } = await taught();
    await record(agent, "run_a", [sessionEnded(8, 60_000), runEnded(9, 60_000)]);
    vi.setSystemTime(T0 + 24 * 60 * 60_000);
    await t.mutation(internal.sessions.settleDue, {});
    await t.mutation(internal.analytics.rollUp, {});
    const sums = await rows(t, "schoolDays");
    expect(sums.length).toBeGreaterThan(0);
    // Changed again, so that both crons have work that is never done.
    await t.run(async (ctx) => {
      for (const row of await ctx.db.query("sessionStats").collect()) {
        await ctx.db.patch("sessionStats", row._id, { pending: true });
      }
      for (const row of await ctx.db.query("sessions").collect()) {
        await ctx.db.patch("sessions", row._id, { settleDueAt: T0 });
      }
    });
    await t.mutation(internal.students.eraseInternal, { studentId });

    await t.mutation(internal.sessions.closeExpired, {});
    await t.mutation(internal.sessions.settleDue, {});
    await t.mutation(internal.analytics.rollUp, {});
    await t.finishAllScheduledFunctions(vi.runAllTimers);

    expect(await left(t, studentId)).toEqual({});
    expect(await rows(t, "schoolDays")).toEqual(sums);
  });
});

function sum(counts: Record<string, number>): number {
  return Object.values(counts).reduce((total, count) => total + count, 0);
}

describe("what arrives afterwards", () => {
  test("of a lesson that is being held is answered `erased`, between pages and after them", async () => {
    const { t, agent, studentId } = await taught();
    const live = () => record(agent, "run_a", [message(8, 8_000, "item_2", "still here")]);
    await t.mutation(internal.students.eraseInternal, { studentId });
    expect(await refusal(live())).toMatchObject({ code: "erased" });
    await t.finishAllScheduledFunctions(vi.runAllTimers);
    const before = await dump(t);

    expect(await refusal(live())).toMatchObject({ code: "erased" });

    expect(await dump(t)).toEqual(before);
  });

  test("as the journal of a run that Convex never saw is answered `erased`", async () => {
    const { t, agent, studentId } = await taught();
    await erase(t, studentId);
    const before = await dump(t);

    const late = record(agent, "run_late", [started(0, -1_000, "s0"), message(1, 0, "i", "hi")]);

    expect(await refusal(late)).toMatchObject({ code: "erased" });
    expect(await dump(t)).toEqual(before);
  });

  test("as a run of theirs is answered `erased` whatever its token says", async () => {
    const { t, studentId } = await taught();
    await erase(t, studentId);
    const before = await dump(t);
    const others = agentOf(t, await addStudent(t));
    const guest = t.withIdentity({ issuer: ISSUER, subject: "guest:s1", role: "agent" });

    for (const client of [others, guest]) {
      const late = record(client, "run_a", [started(0, 0, "s1"), message(1, 0, "i", "hi")]);
      expect(await refusal(late)).toMatchObject({ code: "erased" });
    }
    expect(Object.keys(await left(t, "hi"))).toEqual([]);
    expect((await rows(t, "sessionRuns")).length).toBe(before.sessionRuns?.length);
  });

  test("also without records, so that a worker may ask about a file it kept", async () => {
    const { t, agent, studentId } = await taught();
    expect(await record(agent, "run_a", [])).toBe(7);
    await erase(t, studentId);

    expect(await refusal(record(agent, "run_a", []))).toMatchObject({ code: "erased" });
  });

  test("is held, not folded, while nobody can tell who was erased", async () => {
    const { t, agent, studentId } = await taught();
    await erase(t, studentId);
    vi.stubEnv("ERASURE_KEY", "");

    const late = record(agent, "run_late", [started(0, 0, "s0")]);

    expect(await refusal(late)).toMatchObject({ code: "not_configured" });
  });

  test("of a student who was never there is folded as before, with a key or without", async () => {
    const { t, lessonId, studentId } = await taught();
    const unknown = agentOf(t, lessonId);
    expect(await record(unknown, "run_u", [started(0, 0, "u1")])).toBe(0);
    vi.stubEnv("ERASURE_KEY", undefined);
    expect(await record(unknown, "run_u", [message(1, 1, "i", "hi")])).toBe(1);
    vi.stubEnv("ERASURE_KEY", KEY);
    await erase(t, studentId);
    expect(await record(unknown, "run_u", [message(2, 2, "j", "hi")])).toBe(2);
  });

  test("by an import of what was backed up before goes when it is asked for again", async () => {
    const { t, studentId } = await taught();
    const { _id, _creationTime, ...student } = (await rows(t, "students"))[0] as Doc<"students">;
    await erase(t, studentId);
    // An import keeps a row's id, which an insert cannot: here the erasure learns the new one.
    const imported = await t.run(async (ctx) => {
      const again = await ctx.db.insert("students", student);
      const [erasure] = await ctx.db.query("erasures").collect();
      const studentHash = bytesToHex(hmac(sha256, utf8ToBytes(KEY), utf8ToBytes(again)));
      if (erasure !== undefined) await ctx.db.patch("erasures", erasure._id, { studentHash });
      return again;
    });

    const receipt = await erase(t, imported);

    expect(receipt).toMatchObject({ requestedAt: T0, deleted: { students: 2 } });
    expect(await rows(t, "students")).toEqual([]);
  });
});

describe("an erasure is refused", () => {
  test.each([undefined, "", "too short"])("with the remedy, where the key is %j", async (key) => {
    const { t, studentId } = await taught();
    vi.stubEnv("ERASURE_KEY", key);
    const before = await dump(t);

    const refused = await refusal(t.mutation(internal.students.eraseInternal, { studentId }));

    expect(refused).toMatchObject({ code: "not_configured" });
    expect(refused.message).toContain("npx convex env set ERASURE_KEY");
    expect(await dump(t)).toEqual(before);
  });

  test("for who is no student", async () => {
    const { t, lessonId } = await taught();
    const gone = await addStudent(t);
    await t.run(async (ctx) => {
      await ctx.db.delete("students", gone);
    });

    for (const studentId of ["nobody", lessonId, gone]) {
      const refused = refusal(t.mutation(internal.students.eraseInternal, { studentId }));
      expect(await refused).toMatchObject({ code: "student_unknown" });
    }
    expect(await rows(t, "erasures")).toEqual([]);
  });

  test("but not for one whose row somebody deleted by hand", async () => {
    const { t, studentId } = await taught();
    await t.run(async (ctx) => {
      await ctx.db.delete("students", studentId);
    });

    const receipt = await erase(t, studentId);

    expect(receipt.deleted).toMatchObject({ students: 0, messages: 4 });
    expect(await left(t, studentId)).toEqual({});
  });

  test.each(["teacher", "guardian"] as const)("to a %s", async (role) => {
    const { t, studentId } = await taught();
    const { client, userId } = await addUser(t, role, "Ada");
    await link(t, userId, studentId);

    const refused = refusal(client.mutation(api.students.erase, { studentId }));
    expect(await refused).toMatchObject({ code: "forbidden" });
    const asked = refusal(client.query(api.students.erasure, { studentId }));
    expect(await asked).toMatchObject({ code: "forbidden" });
  });
});
