/** What the tutor, the student and the operator read. */
import { describe, expect, test } from "vitest";
import { api, internal } from "../../convex/_generated/api.js";
import type { QueryCtx } from "../../convex/_generated/server.js";
import { plan } from "../../convex/sessions.ts";
import {
  T0,
  addStudent,
  agentOf,
  agentOfGuest,
  contents,
  deployment,
  dump,
  make,
  message,
  record,
  refusal,
  resumed,
  rows,
  runEnded,
  seed,
  sessionEnded,
  started,
  student,
  transcript,
} from "./helpers.ts";

describe("students:tutoringContext", () => {
  test("has the student, the lesson with its slides, progress and the last session", async () => {
    const t = deployment();
    const { studentId, lessonId } = await seed(t);
    const agent = agentOf(t, studentId);
    await record(agent, "run_a", [
      started(0, 0, "s1", { lessonId }),
      message(1, 1_000, "i1", "Hello"),
      sessionEnded(2, 60_000),
    ]);

    const context = await agent.query(api.students.tutoringContext, { lessonId });

    expect(context.student).toMatchObject({ studentId, name: "Carlos", level: "A2" });
    expect(context.preferences).toMatchObject({ correctionStyle: "gentle" });
    expect(context.lesson).toMatchObject({ lessonId, title: "At the market", kind: "guided" });
    expect(context.lesson?.slides[0]?.title).toBe("What would you like?");
    expect(context.progress).toMatchObject({
      lessonsCompleted: 0,
      thisLesson: { status: "started", timesStudied: 1 },
    });
    expect(context.lastSession).toEqual({
      sessionKey: "s1",
      startedAt: T0,
      endedAt: T0 + 60_000,
      lessonTitle: "At the market",
      messageCount: 1,
    });
  });

  test("takes the session before the one that is running", async () => {
    const t = deployment();
    const { studentId } = await seed(t);
    const agent = agentOf(t, studentId);
    await record(agent, "run_a", [started(0, 0, "s1"), message(1, 1, "i1", "Hello")]);
    await record(agent, "run_b", [started(0, 90_000, "s2")]);

    const { lastSession } = await agent.query(api.students.tutoringContext, {});

    // The first one never said that it ended: the second superseded it.
    expect(lastSession).toEqual({
      sessionKey: "s1",
      startedAt: T0,
      endedAt: T0 + 90_000,
      messageCount: 1,
    });
  });

  test("takes the session before the one that goes on", async () => {
    const t = deployment();
    const { studentId } = await seed(t);
    const agent = agentOf(t, studentId);
    await record(agent, "run_a", [started(0, 0, "s1"), sessionEnded(1, 10)]);
    await record(agent, "run_b", [started(0, 90_000, "s2"), sessionEnded(1, 95_000)]);

    const known = async (sessionKey?: string) =>
      await agent.query(api.students.tutoringContext, sessionKey === undefined ? {} : { sessionKey });

    expect((await known()).lastSession).toMatchObject({ sessionKey: "s2" });
    expect((await known("s2")).lastSession).toMatchObject({ sessionKey: "s1" });
    await record(agent, "run_c", [resumed(0, 96_000, "s2", { lastSeenAt: T0 + 95_000 })]);
    expect((await known("s2")).lastSession).toMatchObject({ sessionKey: "s1" });
  });

  test("of a new student is empty where nothing is known", async () => {
    const t = deployment();
    const agent = agentOf(t, await addStudent(t));
    const context = await agent.query(api.students.tutoringContext, {});
    expect(context).toMatchObject({ lesson: null, progress: null, lastSession: null });
  });

  test("a lesson that is unknown or no lesson is null", async () => {
    const t = deployment();
    const { studentId } = await seed(t);
    const agent = agentOf(t, studentId);
    for (const lessonId of ["not-an-id", studentId, ""]) {
      expect(await agent.query(api.students.tutoringContext, { lessonId })).toMatchObject({
        lesson: null,
      });
      expect(await agent.query(api.sessions.plan, { lessonId })).toMatchObject({ lesson: null });
    }
  });

  test("counts completed lessons", async () => {
    const t = deployment();
    const { studentId, lessonId } = await seed(t);
    await t.run(async (ctx) => {
      for (const row of await ctx.db.query("progress").collect()) {
        await ctx.db.patch(row._id, { status: "completed", completedAt: T0 });
      }
    });
    const context = await agentOf(t, studentId).query(api.students.tutoringContext, { lessonId });
    expect(context.progress).toMatchObject({
      lessonsCompleted: 1,
      thisLesson: { status: "completed" },
    });
  });
});

describe("sessions:plan", () => {
  test("is the student's preferences and the lesson; a guest has the defaults", async () => {
    const t = deployment();
    const { studentId, lessonId } = await seed(t);
    const own = await agentOf(t, studentId).query(api.sessions.plan, { lessonId });
    expect(own).toMatchObject({ preferences: { speechRate: 0.9 }, lesson: { lessonId } });
    const guest = await agentOfGuest(t, "g1").query(api.sessions.plan, { lessonId });
    expect(guest).toMatchObject({ preferences: { speechRate: 1 }, lesson: { lessonId } });
  });

  test("has the lesson's avatar, else the student's, if it is published", async () => {
    const t = deployment();
    const { studentId, lessonId } = await seed(t);
    const agent = agentOf(t, studentId);
    const avatar = (name: string) => ({
      slug: name,
      name,
      persona: `You are ${name}.`,
      voice: "coral",
      language: "en",
      teachingStyle: "lively" as const,
      talkingHead: { provider: "tavus", face: "r1" },
      published: true,
    });
    const [own, ofLesson] = await t.run(async (ctx) => {
      const ids = [
        await ctx.db.insert("avatars", avatar("sam")),
        await ctx.db.insert("avatars", avatar("kim")),
      ] as const;
      await ctx.db.patch(studentId, { avatarId: ids[0] });
      await ctx.db.patch(lessonId, { avatarId: ids[1] });
      return ids;
    });
    const named = async () => {
      const plan = await agent.query(api.sessions.plan, { lessonId });
      const context = await agent.query(api.students.tutoringContext, { lessonId });
      expect(context.avatar).toEqual(plan.avatar);
      return plan.avatar?.name;
    };

    const { slug, published, ...shown } = avatar("kim");
    expect(await agent.query(api.sessions.plan, { lessonId })).toMatchObject({ avatar: shown });
    expect(await named()).toBe("kim");
    const guest = await agentOfGuest(t, "g1").query(api.sessions.plan, { lessonId });
    expect(guest.avatar?.name).toBe("kim");
    await t.run(async (ctx) => await ctx.db.patch(ofLesson, { published: false }));
    expect(await named()).toBe("sam");
    await t.run(async (ctx) => await ctx.db.delete(own));
    expect(await named()).toBeUndefined();
  });

  test("reads no table that the fold writes", async () => {
    const t = deployment();
    const { studentId, lessonId } = await seed(t);
    const before = await dump(t);
    await record(agentOf(t, studentId), "run_a", [
      started(0, 0, "s1", { lessonId }),
      transcript(1, 1, "hello"),
      message(2, 2, "i1", "goodbye"),
      make("usage", 3, 3, { models: [{ type: "llm", provider: "p", model: "m" }] }),
      make("toolCall", 4, 4, { callId: "c", name: "n", arguments: "{}", isError: false }),
      make("error", 5, 5, { source: "s", errorType: "e", recoverable: false }),
      make("lost", 6, 6, { fromSeq: 6, toSeq: 6, reason: "r" }),
      make("setAside", 7, 7, { code: "c", ofKind: "message" }),
      sessionEnded(8, 8),
      runEnded(9, 9),
    ]);
    const after = await dump(t);
    const written = Object.keys(after).filter(
      (table) => JSON.stringify(after[table]) !== JSON.stringify(before[table]),
    );

    const read = new Set<string>();
    await agentOf(t, studentId).run(async (ctx) => {
      const db = new Proxy(ctx.db, {
        get: (target, name, receiver) => {
          const method: unknown = Reflect.get(target, name, receiver);
          if (typeof method !== "function") return method;
          return (...args: unknown[]) => {
            if (name === "get" || name === "query") read.add(String(args[0]));
            return (method as (...args: unknown[]) => unknown).apply(target, args);
          };
        },
      });
      const { _handler: handler } = plan as unknown as { _handler: Handler };
      await handler({ ...ctx, db }, { lessonId });
    });

    expect([...read].sort()).toEqual(["lessons", "slideSets", "students"]);
    expect(written.filter((table) => read.has(table))).toEqual([]);
    expect(written).toHaveLength(6);
  });
});

type Handler = (ctx: QueryCtx, args: { lessonId?: string }) => Promise<unknown>;

describe("messages:list", () => {
  test("pages through a session in the order in which it was said, not stored", async () => {
    const t = deployment();
    const { studentId } = await seed(t);
    const agent = agentOf(t, studentId);
    // The second run's journal comes first; within a run, a later seq may be said earlier.
    await record(agent, "run_b", [resumed(0, 50_000, "s1"), message(1, 51_000, "i5", "5")]);
    await record(agent, "run_a", [
      started(0, 0, "s1"),
      message(1, 1_000, "i1", "1"),
      message(2, 3_000, "i3", "3"),
      message(3, 2_000, "i2", "2"),
      message(4, 3_000, "i4", "4"),
    ]);

    const said: string[] = [];
    let cursor: string | null = null;
    for (let pages = 0; pages < 10; pages++) {
      const page: { page: { text: string }[]; isDone: boolean; continueCursor: string } =
        await student(t, studentId).query(api.messages.list, {
          sessionKey: "s1",
          paginationOpts: { numItems: 2, cursor },
        });
      expect(page.page.length).toBeLessThanOrEqual(2);
      said.push(...page.page.map(({ text }) => text));
      if (page.isDone) break;
      cursor = page.continueCursor;
    }

    expect(said).toEqual(["1", "2", "3", "4", "5"]);
  });

  test("has what a reader needs and nothing else", async () => {
    const t = deployment();
    const agent = agentOf(t, (await seed(t)).studentId);
    await record(agent, "run_a", [
      started(0, 0, "s1"),
      message(1, 1_000, "i1", "Hello", {
        language: "en",
        transcriptConfidence: 0.75,
        metrics: { transcriptionDelayMs: 80 },
      }),
    ]);
    const { page } = await agent.query(api.messages.list, {
      sessionKey: "s1",
      paginationOpts: { numItems: 10, cursor: null },
    });
    expect(page).toEqual([
      {
        itemId: "i1",
        role: "user",
        text: "Hello",
        interrupted: false,
        provisional: false,
        createdAt: T0 + 1_000,
        seq: 1,
        runStartedAt: T0,
        language: "en",
        transcriptConfidence: 0.75,
        metrics: { transcriptionDelayMs: 80 },
        storedAt: (await rows(t, "messages"))[0]?._creationTime,
      },
    ]);
  });

  test("gives no page of more than 200 rows", async () => {
    const t = deployment();
    const agent = agentOf(t, (await seed(t)).studentId);
    await record(agent, "run_a", [started(0, 0, "s1")]);
    for (let seq = 1; seq < 202; ) {
      const batch = [];
      while (batch.length < 64 && seq < 202) {
        batch.push(message(seq, seq, `i${seq}`, "x", { role: "assistant" }));
        seq++;
      }
      await record(agent, "run_a", batch);
    }
    const { page, isDone } = await agent.query(api.messages.list, {
      sessionKey: "s1",
      paginationOpts: { numItems: 10_000, cursor: null },
    });
    expect([page.length, isDone]).toEqual([200, false]);
  });

  test.each([0, -1, 0.5, Number.NaN])("gives no page of %d rows", async (numItems) => {
    const t = deployment();
    const { studentId } = await seed(t);
    const agent = agentOf(t, studentId);
    await record(agent, "run_a", [started(0, 0, "s1"), message(1, 1, "i1", "Hello")]);
    const paginationOpts = { numItems, cursor: null };

    for (const call of [
      agent.query(api.messages.list, { sessionKey: "s1", paginationOpts }),
      agent.query(api.sessions.list, { paginationOpts }),
    ]) {
      expect(await refusal(call)).toMatchObject({
        code: "number_out_of_range",
        field: "paginationOpts.numItems",
        limit: 1,
      });
    }
  });

  test("is empty, and sessions:get null, while there is no such session", async () => {
    const t = deployment();
    const agent = agentOf(t, (await seed(t)).studentId);
    const paginationOpts = { numItems: 10, cursor: null };
    expect(await agent.query(api.messages.list, { sessionKey: "s1", paginationOpts })).toEqual({
      page: [],
      isDone: true,
      continueCursor: "",
    });
    expect(await agent.query(api.sessions.get, { sessionKey: "s1" })).toBeNull();
  });
});

describe("seed:demo", () => {
  test("again changes nothing, and puts back what was changed", async () => {
    const t = deployment();
    const first = await seed(t, "demo");
    const before = await contents(t);
    await t.run(async (ctx) => {
      await ctx.db.patch(first.studentId, { name: "Renamed" });
      await ctx.db.patch(first.lessonId, { title: "Renamed" });
    });

    expect(await seed(t, "demo")).toEqual(first);

    expect(await contents(t)).toEqual(before);
  });

  test("with a prefix gives the student a session before", async () => {
    const t = deployment();
    const { studentId, lessonId } = await seed(t, "demo");
    const { lastSession } = await agentOf(t, studentId).query(api.students.tutoringContext, {
      lessonId,
    });
    expect(lastSession).toMatchObject({ lessonTitle: "At the market", messageCount: 3 });
  });

  test("is not for the public", () => {
    expect(internal.seed.demo).toBeDefined();
    expect(api).not.toHaveProperty("seed.demo.isPublic");
  });
});

test("an unknown student is named as such", async () => {
  const t = deployment();
  const call = agentOf(t, "nobody").query(api.students.tutoringContext, {});
  expect(await refusal(call)).toMatchObject({ code: "student_unknown" });
});
