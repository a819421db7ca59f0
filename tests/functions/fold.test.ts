/** What one run's records become, and that it happens once. */
import { describe, expect, test } from "vitest";
import { api } from "../../convex/_generated/api.js";
import { bucketOf } from "../../convex/model/histogram.ts";
import type { SessionRecord } from "../../convex/validators.ts";
import {
  T0,
  agentOf,
  deployment,
  dump,
  make,
  message,
  record,
  refusal,
  rows,
  runEnded,
  seed,
  sessionEnded,
  started,
  transcript,
  usage,
} from "./helpers.ts";
import type { Client, Deployment } from "./helpers.ts";

async function lesson(): Promise<{ t: Deployment; agent: Client; lessonId: string }> {
  const t = deployment();
  const { studentId, lessonId } = await seed(t);
  return { t, agent: agentOf(t, studentId), lessonId };
}

async function listed(agent: Client, sessionKey = "s1") {
  const { page } = await agent.query(api.messages.list, {
    sessionKey,
    paginationOpts: { numItems: 100, cursor: null },
  });
  return page.map(({ text, provisional }) => (provisional ? `(${text})` : text));
}

describe("a run's journal", () => {
  test("becomes a session with its run, its messages and its counters", async () => {
    const { t, agent, lessonId } = await lesson();

    const seq = await record(agent, "run_a", [
      started(0, 0, "s1", { lessonId, room: "r", jobId: "j", participantIdentity: "p" }),
      message(1, 1_000, "item_1", "Hola", { role: "assistant", language: "es" }),
      message(2, 2_000, "item_2", "Hello", { metrics: { transcriptionDelayMs: 120 } }),
      sessionEnded(3, 3_000),
      runEnded(4, 3_100),
    ]);

    expect(seq).toBe(4);
    expect(await agent.query(api.sessions.get, { sessionKey: "s1" })).toEqual({
      sessionKey: "s1",
      status: "ended",
      startedAt: T0,
      endedAt: T0 + 3_000,
      endReason: "user_initiated",
      provisionalEnd: false,
      messageCount: 2,
      errorsDetected: 0,
      errorsCorrected: 0,
      runs: 1,
    });
    const [run] = await rows(t, "sessionRuns");
    expect(run).toMatchObject({
      seq: 4,
      startedAt: T0,
      room: "r",
      jobId: "j",
      agentName: "emma",
      participantIdentity: "p",
    });
    expect((await rows(t, "sessions"))[0]).toMatchObject({ lessonId, placeholder: false });
    expect((await rows(t, "sessionLive"))[0]).toMatchObject({ lastRecordAt: T0 + 3_000 });
    expect(await listed(agent)).toEqual(["Hola", "Hello"]);
  });

  test("may be sent again, batch by batch, and changes nothing", async () => {
    const { t, agent } = await lesson();
    const model = { type: "llm", provider: "openai", model: "m" };
    const batches = [
      [started(0, 0, "s1"), transcript(1, 500, "good morning")],
      [message(2, 1_000, "item_1", "Good morning!"), usage(3, 1_100, [{ ...model, inputTokens: 7 }])],
      [
        make("toolCall", 4, 1_200, { callId: "c", name: "slide", arguments: "{}", isError: false }),
        make("error", 5, 1_300, { source: "STT", errorType: "APIError", recoverable: true }),
        make("lost", 9, 1_400, { fromSeq: 6, toSeq: 9, reason: "damaged" }),
        make("setAside", 10, 1_500, { code: "text_too_long", field: "text", ofKind: "message" }),
      ],
      [message(11, 1_600, "item_1", "Good morning, Emma!"), sessionEnded(12, 2_000), runEnded(13, 2_100)],
    ];
    for (const [i, batch] of batches.entries()) {
      const seq = await record(agent, "run_a", batch);
      const before = await dump(t);
      for (const again of batches.slice(0, i + 1)) {
        expect(await record(agent, "run_a", again)).toBe(seq);
      }
      expect(await dump(t)).toEqual(before);
    }
    expect((await rows(t, "messages")).map((row) => row.text)).toEqual(["Good morning, Emma!"]);
  });

  test("goes on where a batch overlaps what is folded", async () => {
    const { agent } = await lesson();
    await record(agent, "run_a", [started(0, 0, "s1"), message(1, 1_000, "item_1", "one")]);

    const seq = await record(agent, "run_a", [
      message(1, 1_000, "item_1", "one"),
      message(2, 2_000, "item_2", "two"),
      message(2, 2_000, "item_2", "two"),
    ]);

    expect(seq).toBe(2);
    expect(await listed(agent)).toEqual(["one", "two"]);
  });

  test("is empty at first: an empty batch answers -1 and makes no row", async () => {
    const { t, agent } = await lesson();
    expect(await record(agent, "run_a", [])).toBe(-1);
    expect(await rows(t, "sessionRuns")).toEqual([]);
  });
});

describe("a gap", () => {
  test("before the first record names what is expected, and nothing is kept", async () => {
    const { t, agent } = await lesson();
    await record(agent, "run_a", [started(0, 0, "s1")]);
    const before = await dump(t);

    const error = await refusal(record(agent, "run_a", [message(3, 1_000, "item_1", "hi")]));

    expect(error).toMatchObject({ code: "gap", seq: 3, expected: 1 });
    expect(await dump(t)).toEqual(before);
  });

  test("inside a batch names what follows the last folded record", async () => {
    const { t, agent } = await lesson();

    const error = await refusal(
      record(agent, "run_a", [started(0, 0, "s1"), message(2, 1_000, "item_1", "hi")]),
    );

    expect(error).toMatchObject({ code: "gap", seq: 2, expected: 0 });
    expect(await rows(t, "sessionRuns")).toEqual([]);
  });

  test.each([0.5, Number.NaN, Number.POSITIVE_INFINITY])("is what seq %d is", async (seq) => {
    const { agent } = await lesson();
    await record(agent, "run_a", [started(0, 0, "s1")]);
    const error = await refusal(record(agent, "run_a", [message(seq, 0, "item_1", "hi")]));
    expect(error).toMatchObject({ code: "gap", expected: 1 });
  });
});

describe("a repeated item", () => {
  test("shows the latest text at its first place and counts once", async () => {
    const { t, agent } = await lesson();
    await record(agent, "run_a", [
      started(0, 0, "s1"),
      message(1, 1_000, "item_1", "I wan", { language: "en", metrics: { llmTtftMs: 5 } }),
      message(2, 2_000, "item_2", "Yes?", { role: "assistant" }),
    ]);

    await record(agent, "run_a", [message(3, 3_000, "item_1", "I want apples")]);

    expect(await listed(agent)).toEqual(["I want apples", "Yes?"]);
    const [first] = await rows(t, "messages");
    expect(first).toMatchObject({ seq: 1, createdAt: T0 + 1_000, contentFrom: { seq: 3 } });
    // A repeat without timings keeps those that are known; what it says replaces the whole.
    expect(first?.metrics).toEqual({ llmTtftMs: 5 });
    expect(first).not.toHaveProperty("language");
    expect((await rows(t, "sessionLive"))[0]?.messageCount).toBe(2);
  });

  test("of another session is another message", async () => {
    const { t, agent } = await lesson();
    await record(agent, "run_a", [started(0, 0, "s1"), message(1, 1, "item_1", "one")]);
    await record(agent, "run_b", [started(0, 9, "s2"), message(1, 10, "item_1", "two")]);
    expect(await rows(t, "messages")).toHaveLength(2);
  });
});

describe("a transcript", () => {
  test("is there, flagged and not counted, until its message comes", async () => {
    const { t, agent } = await lesson();
    await record(agent, "run_a", [
      started(0, 0, "s1"),
      transcript(1, 1_000, "I want two", { language: "en", speakerId: "S1" }),
      transcript(2, 2_000, "Kilos of apples."),
    ]);
    expect(await listed(agent)).toEqual(["(I want two)", "(Kilos of apples.)"]);
    expect((await rows(t, "sessionLive"))[0]?.messageCount).toBe(0);
    expect((await rows(t, "messages"))[0]).toMatchObject({
      itemId: "transcript:run_a:1",
      speakerId: "S1",
    });

    await record(agent, "run_a", [message(3, 2_500, "item_1", "I want two kilos of apples")]);

    expect(await listed(agent)).toEqual(["I want two kilos of apples"]);
  });

  test("stays where no message contains it as whole words", async () => {
    const { agent } = await lesson();
    await record(agent, "run_a", [
      started(0, 0, "s1"),
      transcript(1, 1_000, "No"),
      message(2, 2_000, "item_1", "I know nothing"),
      message(3, 2_100, "item_2", "No, of course", { role: "assistant" }),
    ]);
    expect(await listed(agent)).toEqual(["(No)", "I know nothing", "No, of course"]);
  });

  test("goes once per time it is said", async () => {
    const { agent } = await lesson();
    await record(agent, "run_a", [
      started(0, 0, "s1"),
      transcript(1, 1_000, "yes"),
      transcript(2, 2_000, "Yes!"),
      message(3, 3_000, "item_1", "Yes."),
    ]);
    expect(await listed(agent)).toEqual(["(Yes!)", "Yes."]);
  });

  test("goes with the item it names, whatever the words", async () => {
    const { agent } = await lesson();
    await record(agent, "run_a", [
      started(0, 0, "s1"),
      transcript(1, 1_000, "colour", { itemId: "item_1" }),
      message(2, 2_000, "item_1", "color"),
      transcript(3, 3_000, "colours", { itemId: "item_1" }),
    ]);
    expect(await listed(agent)).toEqual(["color"]);
  });

  test("that names another item goes with the words too, and uses up none of them", async () => {
    const { agent } = await lesson();
    await record(agent, "run_a", [
      started(0, 0, "s1"),
      transcript(1, 1_000, "yes", { itemId: "item_of_the_recogniser" }),
      transcript(2, 2_000, "Yes!"),
      message(3, 3_000, "item_1", "Yes."),
    ]);
    expect(await listed(agent)).toEqual(["Yes."]);
  });

  test("of another run is left alone", async () => {
    const { agent } = await lesson();
    await record(agent, "run_a", [started(0, 0, "s1"), transcript(1, 1_000, "hello")]);
    await record(agent, "run_b", [
      make("sessionResumed", 0, 5_000, { sessionKey: "s1", room: "r", jobId: "j", agentName: "e" }),
      message(1, 6_000, "item_1", "hello"),
    ]);
    expect(await listed(agent)).toEqual(["(hello)", "hello"]);
  });
});

describe("how long a student waited for an answer", () => {
  const answer = (seq: number, itemId: string, e2eLatencyMs?: number) =>
    message(seq, seq * 1_000, itemId, "Yes?", {
      role: "assistant",
      ...(e2eLatencyMs === undefined ? {} : { metrics: { e2eLatencyMs } }),
    });

  /** Buckets with their counts. */
  async function waits(t: Deployment): Promise<[bucket: number, count: number][]> {
    const latency = (await rows(t, "sessionLive"))[0]?.latency ?? [];
    return [...latency.entries()].filter(([, count]) => count !== 0);
  }

  test("counts once per answer, as it was told last", async () => {
    const { t, agent } = await lesson();
    await record(agent, "run_a", [
      started(0, 0, "s1"),
      answer(1, "i1", 800),
      answer(2, "i2", 800),
      // Repeated without timings, and with others.
      answer(3, "i1"),
      answer(4, "i2", 9_000),
    ]);
    expect(await waits(t)).toEqual([
      [bucketOf(800), 1],
      [bucketOf(9_000), 1],
    ]);
  });

  test("does not depend on which of two runs comes first", async () => {
    const journals: [string, SessionRecord[]][] = [
      ["run_a", [started(0, 0, "s1"), answer(1, "i1", 800)]],
      ["run_b", [started(0, 5_000, "s1"), answer(1, "i1", 9_000)]],
    ];
    for (const order of [journals, journals.toReversed()]) {
      const { t, agent } = await lesson();
      for (const [runId, records] of order) await record(agent, runId, records);
      expect(await waits(t)).toEqual([[bucketOf(9_000), 1]]);
    }
  });

  test("is told by answers that were measured, and by nothing that the student says", async () => {
    const { t, agent } = await lesson();
    await record(agent, "run_a", [
      started(0, 0, "s1"),
      answer(1, "i1"),
      message(2, 2_000, "i2", "Hi", { metrics: { e2eLatencyMs: 800 } }),
      transcript(3, 3_000, "And"),
    ]);
    expect(await waits(t)).toEqual([]);
  });
});

describe("what is not a message", () => {
  test("tool calls and errors become events with their data", async () => {
    const { t, agent } = await lesson();
    await record(agent, "run_a", [
      started(0, 0, "s1"),
      make("toolCall", 1, 1_000, {
        callId: "call_1",
        name: "show_slide",
        arguments: '{"n":2}',
        output: "shown",
        isError: false,
      }),
      make("error", 2, 2_000, { source: "TTS", errorType: "APITimeoutError", recoverable: true }),
    ]);

    const [tool, error] = await rows(t, "analyticsEvents");
    expect(tool).toMatchObject({
      eventType: "tool_call",
      createdAt: T0 + 1_000,
      runId: "run_a",
      seq: 1,
      eventData: {
        callId: "call_1",
        name: "show_slide",
        arguments: '{"n":2}',
        output: "shown",
        isError: false,
      },
    });
    expect(error).toMatchObject({
      eventType: "error",
      eventData: { source: "TTS", errorType: "APITimeoutError", recoverable: true },
    });
    expect((await rows(t, "sessionLive"))[0]).toMatchObject({
      toolCallCount: 1,
      errorCount: 1,
      errorKinds: [{ source: "TTS", errorType: "APITimeoutError", count: 1 }],
    });
  });

  test("usage: the last snapshot of each run counts, summed over the runs", async () => {
    const { t, agent } = await lesson();
    const llm = { type: "llm", provider: "openai", model: "m" };
    await record(agent, "run_a", [
      started(0, 0, "s1"),
      usage(1, 1_000, [{ ...llm, inputTokens: 10, outputTokens: 1 }]),
      usage(2, 2_000, [{ ...llm, inputTokens: 30, outputTokens: 4 }]),
    ]);
    await record(agent, "run_b", [
      started(0, 9_000, "s1"),
      usage(1, 9_500, [
        { ...llm, inputTokens: 5 },
        { type: "stt", provider: "openai", model: "w", audioMs: 1_500.4 },
      ]),
    ]);
    expect((await rows(t, "sessionLive"))[0]?.usage).toEqual([
      { ...llm, inputTokens: 35, outputTokens: 4 },
      { type: "stt", provider: "openai", model: "w", audioMs: 1_500 },
    ]);
  });

  test("a lost stretch leaves a tombstone, and what follows goes on", async () => {
    const { t, agent } = await lesson();
    await record(agent, "run_a", [started(0, 0, "s1"), message(1, 1_000, "item_1", "one")]);

    const seq = await record(agent, "run_a", [
      make("lost", 5, 2_000, { fromSeq: 1, toSeq: 5, reason: "damaged" }),
      message(6, 3_000, "item_6", "six"),
    ]);

    expect(seq).toBe(6);
    expect(await listed(agent)).toEqual(["one", "six"]);
    // Record 1 had arrived: it is not lost.
    expect((await rows(t, "tombstones"))[0]).toMatchObject({
      cause: "lost",
      fromSeq: 2,
      toSeq: 5,
      reason: "damaged",
    });
    expect((await rows(t, "sessionRuns"))[0]?.lostRecords).toBe(4);
  });

  test("a lost stretch does not reach over a hole, and is skipped when all of it came", async () => {
    const { t, agent } = await lesson();
    await record(agent, "run_a", [started(0, 0, "s1"), message(1, 1_000, "item_1", "one")]);
    const beyond = make("lost", 5, 2_000, { fromSeq: 3, toSeq: 5, reason: "damaged" });
    expect(await refusal(record(agent, "run_a", [beyond]))).toMatchObject({
      code: "gap",
      expected: 2,
    });
    const came = make("lost", 1, 2_000, { fromSeq: 0, toSeq: 1, reason: "damaged" });
    expect(await record(agent, "run_a", [came])).toBe(1);
    expect(await rows(t, "tombstones")).toEqual([]);
  });

  test("a record set aside leaves a tombstone that says why", async () => {
    const { t, agent } = await lesson();
    await record(agent, "run_a", [
      started(0, 0, "s1"),
      make("setAside", 1, 1_000, { code: "text_too_long", field: "text", ofKind: "message" }),
    ]);
    expect((await rows(t, "tombstones"))[0]).toMatchObject({
      cause: "setAside",
      runId: "run_a",
      fromSeq: 1,
      toSeq: 1,
      reason: "text_too_long",
      field: "text",
      ofKind: "message",
    });
    expect((await rows(t, "sessionRuns"))[0]?.setAsideRecords).toBe(1);
  });
});
