/** What happens in a session beside the talk, as rows that analysis reads. */
import { describe, expect, test } from "vitest";
import type { RecordOf } from "../../convex/validators.ts";
import {
  T0,
  agentOf,
  contents,
  deployment,
  dump,
  make,
  record,
  refusal,
  rows,
  seed,
  sessionEnded,
  started,
} from "./helpers.ts";
import type { Client, Deployment } from "./helpers.ts";

async function lesson(): Promise<{ t: Deployment; agent: Client }> {
  const t = deployment();
  const { studentId } = await seed(t);
  return { t, agent: agentOf(t, studentId) };
}

function toolCall(
  seq: number,
  at: number,
  output: string,
  more: Partial<RecordOf<"toolCall">> = {},
): RecordOf<"toolCall"> {
  const called = { callId: "call_0", name: "look_up", arguments: "{}", isError: false };
  return make("toolCall", seq, at, { ...called, output, ...more });
}

async function outputs(t: Deployment): Promise<unknown[]> {
  const found = await rows(t, "analyticsEvents");
  return found.map(({ seq, createdAt, eventData }) => ({
    seq,
    at: createdAt - T0,
    output: "output" in eventData ? eventData.output : undefined,
  }));
}

describe("a tool that reports before it is done", () => {
  test("is one call: called when it began, with what came of it", async () => {
    const { t, agent } = await lesson();
    await record(agent, "run_a", [
      started(0, 0, "s1"),
      toolCall(1, 1_000, "still searching"),
      toolCall(2, 9_000, "went", { resultOf: 1 }),
    ]);

    expect(await outputs(t)).toEqual([{ seq: 1, at: 1_000, output: "went" }]);
    expect((await rows(t, "sessionLive"))[0]).toMatchObject({
      toolCallCount: 1,
      lastRecordAt: T0 + 9_000,
    });
  });

  test("has no output where it was cut off, whatever it had reported", async () => {
    const { t, agent } = await lesson();
    const { output: _, ...cutOff } = toolCall(2, 9_000, "", { resultOf: 1, isError: true });
    await record(agent, "run_a", [started(0, 0, "s1"), toolCall(1, 1_000, "searching"), cutOff]);

    const [row] = await rows(t, "analyticsEvents");
    expect(row?.eventData).toEqual({
      callId: "call_0",
      name: "look_up",
      arguments: "{}",
      isError: true,
    });
  });

  test("is told by its record: some models give all their calls one id", async () => {
    const { t, agent } = await lesson();
    await record(agent, "run_a", [
      started(0, 0, "s1"),
      toolCall(1, 1_000, "one"),
      toolCall(2, 2_000, "searching"),
      toolCall(3, 3_000, "three"),
      toolCall(4, 4_000, "two", { resultOf: 2 }),
    ]);

    expect(await outputs(t)).toEqual([
      { seq: 1, at: 1_000, output: "one" },
      { seq: 2, at: 2_000, output: "two" },
      { seq: 3, at: 3_000, output: "three" },
    ]);
    expect((await rows(t, "sessionLive"))[0]).toMatchObject({ toolCallCount: 3 });
  });

  test("is one call also where the record of the call was set aside", async () => {
    const { t, agent } = await lesson();
    await record(agent, "run_a", [
      started(0, 0, "s1"),
      make("setAside", 1, 1_000, { code: "text_too_long", field: "output", ofKind: "toolCall" }),
      toolCall(2, 9_000, "went", { resultOf: 1 }),
    ]);

    expect(await outputs(t)).toEqual([{ seq: 1, at: 9_000, output: "went" }]);
    expect((await rows(t, "sessionLive"))[0]).toMatchObject({ toolCallCount: 1 });
  });

  test("takes no row that is something else", async () => {
    const { t, agent } = await lesson();
    await record(agent, "run_a", [
      started(0, 0, "s1"),
      make("error", 1, 1_000, { source: "LLM", errorType: "APIError", recoverable: true }),
      toolCall(2, 2_000, "went", { resultOf: 1 }),
    ]);

    expect((await rows(t, "analyticsEvents")).map((row) => [row.seq, row.eventType])).toEqual([
      [1, "error"],
      [2, "tool_call"],
    ]);
  });

  test.each([2, 3, -1, 0.5])("cannot be the result of record %d, which is not before it", async (seq) => {
    const { agent } = await lesson();
    const records = [started(0, 0, "s1"), toolCall(1, 0, "x"), toolCall(2, 0, "y", { resultOf: seq })];
    expect(await refusal(record(agent, "run_a", records))).toMatchObject({
      code: "number_out_of_range",
      field: "resultOf",
      seq: 2,
    });
  });

  test("is no call twice when its batches come again", async () => {
    const { t, agent } = await lesson();
    const batches = [
      [started(0, 0, "s1"), toolCall(1, 1_000, "searching")],
      [toolCall(2, 9_000, "went", { resultOf: 1 })],
    ];
    for (const batch of batches) await record(agent, "run_a", batch);
    const before = await dump(t);
    for (const batch of batches) await record(agent, "run_a", batch);
    expect(await dump(t)).toEqual(before);
  });

  test("is of its own run, whichever run's journal comes first", async () => {
    const journals = [
      ["run_a", [started(0, 0, "s1"), toolCall(1, 1_000, "a"), toolCall(2, 2_000, "A", { resultOf: 1 })]],
      ["run_b", [started(0, 5_000, "s1"), toolCall(1, 6_000, "b"), toolCall(2, 7_000, "B", { resultOf: 1 })]],
    ] as const;
    const ends = [];
    for (const order of [journals, journals.toReversed()]) {
      const { t, agent } = await lesson();
      for (const [runId, records] of order) await record(agent, runId, [...records]);
      const { analyticsEvents, sessionLive } = await contents(t);
      ends.push({ analyticsEvents, sessionLive });
    }
    expect(ends[0]).toEqual(ends[1]);
    expect(ends[0]).toMatchObject({
      analyticsEvents: [{ eventData: { output: "A" } }, { eventData: { output: "B" } }],
      sessionLive: [{ toolCallCount: 2 }],
    });
  });
});

test("handoffs and states become events, and change no counter", async () => {
  const { t, agent } = await lesson();
  await record(agent, "run_a", [
    started(0, 0, "s1"),
    make("handoff", 1, 1_000, { itemId: "item_1", newAgent: "tutor" }),
    make("handoff", 2, 2_000, { itemId: "item_2", oldAgent: "tutor", newAgent: "examiner" }),
    make("stateChanged", 3, 3_000, { who: "user", state: "speaking" }),
    make("stateChanged", 4, 4_000, { who: "agent", state: "thinking" }),
    sessionEnded(5, 5_000),
  ]);

  const found = await rows(t, "analyticsEvents");
  expect(found.map(({ eventType, createdAt, eventData }) => [eventType, createdAt - T0, eventData])).toEqual([
    ["handoff", 1_000, { itemId: "item_1", newAgent: "tutor" }],
    ["handoff", 2_000, { itemId: "item_2", oldAgent: "tutor", newAgent: "examiner" }],
    ["state_changed", 3_000, { who: "user", state: "speaking" }],
    ["state_changed", 4_000, { who: "agent", state: "thinking" }],
  ]);
  expect((await rows(t, "sessionLive"))[0]).toMatchObject({
    messageCount: 0,
    toolCallCount: 0,
    errorCount: 0,
  });
});
