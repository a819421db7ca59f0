/** Bad input: each refusal names what is wrong, and nothing of the batch is kept. */
import { describe, expect, test } from "vitest";
import { api } from "../../convex/_generated/api.js";
import { HOLD_CODES, PERMANENT_CODES } from "../../convex/errors.ts";
import {
  MAX_BATCH_RECORDS,
  MAX_INSTANT_MS,
  MAX_NAME_BYTES,
  MAX_TEXT_BYTES,
  MAX_USAGE_MODELS,
  MIN_INSTANT_MS,
  SCHOOL,
} from "../../convex/limits.ts";
import type { SessionRecord } from "../../convex/validators.ts";
import {
  T0,
  addStudent,
  agentOf,
  correction,
  deployment,
  dump,
  introduced,
  make,
  message,
  record,
  refusal,
  resumed,
  reviewed,
  seed,
  started,
  transcript,
  usage,
} from "./helpers.ts";

const TOO_LONG_TEXT = "é".repeat(MAX_TEXT_BYTES / 2) + "!";
const TOO_LONG_NAME = "🙂".repeat(MAX_NAME_BYTES / 4) + "!";
const MODEL = { type: "llm", provider: "p", model: "m" };
const CALL = { callId: "c", name: "n", arguments: "{}", isError: false };

const RESULT = { exerciseId: "e", score: 1, answer: "a" };

type Bad = [code: string, field: string, limit: number | undefined, bad: SessionRecord];

const BAD: Bad[] = [
  ["text_too_long", "text", MAX_TEXT_BYTES, message(1, 0, "i", TOO_LONG_TEXT)],
  ["text_too_long", "text", MAX_TEXT_BYTES, transcript(1, 0, TOO_LONG_TEXT)],
  [
    "text_too_long",
    "arguments",
    MAX_TEXT_BYTES,
    make("toolCall", 1, 0, { ...CALL, arguments: TOO_LONG_TEXT }),
  ],
  [
    "text_too_long",
    "output",
    MAX_TEXT_BYTES,
    make("toolCall", 1, 0, { ...CALL, output: TOO_LONG_TEXT }),
  ],
  ["field_too_long", "sessionKey", MAX_NAME_BYTES, started(1, 0, TOO_LONG_NAME)],
  ["field_too_long", "room", MAX_NAME_BYTES, started(1, 0, "k", { room: TOO_LONG_NAME })],
  ["field_too_long", "lessonId", MAX_NAME_BYTES, started(1, 0, "k", { lessonId: TOO_LONG_NAME })],
  ["field_too_long", "itemId", MAX_NAME_BYTES, message(1, 0, TOO_LONG_NAME, "hi")],
  ["field_too_long", "speakerId", MAX_NAME_BYTES, transcript(1, 0, "", { speakerId: TOO_LONG_NAME })],
  ["field_too_long", "name", MAX_NAME_BYTES, make("toolCall", 1, 0, { ...CALL, name: TOO_LONG_NAME })],
  ["field_too_long", "newAgent", MAX_NAME_BYTES, make("handoff", 1, 0, { itemId: "i", newAgent: TOO_LONG_NAME })],
  [
    "field_too_long",
    "oldAgent",
    MAX_NAME_BYTES,
    make("handoff", 1, 0, { itemId: "i", newAgent: "a", oldAgent: TOO_LONG_NAME }),
  ],
  [
    "field_too_long",
    "state",
    MAX_NAME_BYTES,
    make("stateChanged", 1, 0, { who: "user", state: TOO_LONG_NAME }),
  ],
  [
    "field_too_long",
    "models[1].provider",
    MAX_NAME_BYTES,
    usage(1, 0, [MODEL, { ...MODEL, provider: TOO_LONG_NAME }]),
  ],
  [
    "field_too_long",
    "errorType",
    MAX_NAME_BYTES,
    make("error", 1, 0, { source: "s", errorType: TOO_LONG_NAME, recoverable: true }),
  ],
  ["field_too_long", "reason", MAX_NAME_BYTES, make("sessionEnded", 1, 0, { reason: TOO_LONG_NAME })],
  ["field_too_long", "reason", MAX_NAME_BYTES, make("runEnded", 1, 0, { reason: TOO_LONG_NAME })],
  [
    "field_too_long",
    "ofKind",
    MAX_NAME_BYTES,
    make("setAside", 1, 0, { code: "c", ofKind: TOO_LONG_NAME }),
  ],
  ["field_too_long", "correctionId", MAX_NAME_BYTES, correction(1, 0, TOO_LONG_NAME)],
  ...(["itemId", "said", "target", "explanation"] as const).map((field): Bad => [
    "field_too_long",
    field,
    MAX_NAME_BYTES,
    correction(1, 0, "c", { [field]: TOO_LONG_NAME }),
  ]),
  ["field_too_long", "word", MAX_NAME_BYTES, introduced(1, 0, TOO_LONG_NAME)],
  ...(["language", "meaning", "example"] as const).map((field): Bad => [
    "field_too_long",
    field,
    MAX_NAME_BYTES,
    introduced(1, 0, "loaf", { [field]: TOO_LONG_NAME }),
  ]),
  ["field_too_long", "word", MAX_NAME_BYTES, reviewed(1, 0, TOO_LONG_NAME, 3)],
  [
    "field_too_long",
    "language",
    MAX_NAME_BYTES,
    make("wordReviewed", 1, 0, { word: "loaf", language: TOO_LONG_NAME, rating: 3 }),
  ],
  ...(["exerciseId", "answer"] as const).map((field): Bad => [
    "field_too_long",
    field,
    MAX_NAME_BYTES,
    make("exerciseResult", 1, 0, { ...RESULT, [field]: TOO_LONG_NAME }),
  ]),
  // An instant in seconds, one in microseconds, and none at all.
  ["instant_out_of_range", "createdAt", MIN_INSTANT_MS, message(1, T0 / 1_000 - T0, "i", "hi")],
  ["instant_out_of_range", "createdAt", MAX_INSTANT_MS, message(1, T0 * 999, "i", "hi")],
  ["instant_out_of_range", "createdAt", MIN_INSTANT_MS, message(1, Number.NaN, "i", "hi")],
  [
    "instant_out_of_range",
    "startedSpeakingAt",
    MIN_INSTANT_MS,
    message(1, 0, "i", "hi", { startedSpeakingAt: T0 / 1_000 }),
  ],
  [
    "instant_out_of_range",
    "stoppedSpeakingAt",
    MIN_INSTANT_MS,
    message(1, 0, "i", "hi", { stoppedSpeakingAt: 0 }),
  ],
  [
    "instant_out_of_range",
    "lastSeenAt",
    MIN_INSTANT_MS,
    resumed(1, 0, "k", { lastSeenAt: T0 / 1_000 }),
  ],
  ...([
    [-0.1, 0],
    [1.1, 1],
    [Number.NaN, 0],
  ] as const).map(([score, limit]): Bad => [
    "number_out_of_range",
    "score",
    limit,
    make("exerciseResult", 1, 0, { ...RESULT, score }),
  ]),
  ...[-1, 1.5, Number.NaN, SCHOOL.maxSlides].map((slide): Bad => [
    "number_out_of_range",
    "slide",
    SCHOOL.maxSlides,
    make("slideShown", 1, 0, { slide }),
  ]),
  [
    "number_out_of_range",
    "transcriptConfidence",
    undefined,
    message(1, 0, "i", "hi", { transcriptConfidence: Number.NaN }),
  ],
  [
    "number_out_of_range",
    "metrics.llmTtftMs",
    undefined,
    message(1, 0, "i", "hi", { metrics: { llmTtftMs: Number.POSITIVE_INFINITY } }),
  ],
  ["number_out_of_range", "models[0].inputTokens", 0, usage(1, 0, [{ ...MODEL, inputTokens: -1 }])],
  ["number_out_of_range", "toSeq", 1, make("lost", 1, 0, { fromSeq: 1, toSeq: 2, reason: "r" })],
  ["number_out_of_range", "fromSeq", 1, make("lost", 1, 0, { fromSeq: 2, toSeq: 1, reason: "r" })],
  ["number_out_of_range", "fromSeq", 1, make("lost", 1, 0, { fromSeq: -1, toSeq: 1, reason: "r" })],
  [
    "too_many_items",
    "models",
    MAX_USAGE_MODELS,
    usage(1, 0, Array<typeof MODEL>(MAX_USAGE_MODELS + 1).fill(MODEL)),
  ],
];

describe("a record that can never be accepted", () => {
  test.each(BAD)("%s: %s, limit %s", async (code, field, limit, bad) => {
    const t = deployment();
    const { studentId } = await seed(t);
    const before = await dump(t);

    const error = await refusal(
      record(agentOf(t, studentId), "run_a", [started(0, 0, "s1"), bad, message(2, 1, "i2", "hi")]),
    );

    expect(error).toMatchObject({ code, seq: 1, field, ...(limit === undefined ? {} : { limit }) });
    expect(PERMANENT_CODES).toContain(code);
    expect(error.message).not.toContain("hi");
    expect(await dump(t)).toEqual(before);
  });

  test("there is one above for each permanent code", () => {
    expect(new Set(BAD.map(([code]) => code))).toEqual(new Set(PERMANENT_CODES));
  });

  test("does not stop a repeat: folded records are not looked at again", async () => {
    const t = deployment();
    const agent = agentOf(t, (await seed(t)).studentId);
    await record(agent, "run_a", [started(0, 0, "s1")]);
    expect(await record(agent, "run_a", [message(0, 0, "i", TOO_LONG_TEXT)])).toBe(0);
  });

  test("limits themselves are allowed, and negative latencies", async () => {
    const t = deployment();
    const agent = agentOf(t, (await seed(t)).studentId);
    const records = [
      started(0, 0, "k".repeat(MAX_NAME_BYTES)),
      message(1, 0, "i", TOO_LONG_TEXT.slice(0, -1), { metrics: { e2eLatencyMs: -20 } }),
      make("message", 2, MIN_INSTANT_MS - T0, {
        itemId: "j",
        role: "assistant",
        text: "مرحبا 🙂",
        interrupted: true,
      }),
      usage(3, MAX_INSTANT_MS - T0, Array<typeof MODEL>(MAX_USAGE_MODELS).fill(MODEL)),
    ];
    expect(await record(agent, "run_a", records)).toBe(3);
  });
});

test.each([
  ["field_too_long", MAX_NAME_BYTES, TOO_LONG_NAME],
  // Of a document of 1 MiB, which Convex keeps for nobody.
  ["field_too_long", MAX_NAME_BYTES, "r".repeat(1_048_576)],
  ["invalid_value", undefined, ""],
])("the run's id: %s, limit %s", async (code, limit, runId) => {
  const t = deployment();
  const agent = agentOf(t, (await seed(t)).studentId);
  const before = await dump(t);

  const error = await refusal(record(agent, runId, [started(0, 0, "s1")]));

  expect(error).toMatchObject({ code, field: "runId", ...(limit === undefined ? {} : { limit }) });
  // It is of no one record, so that a worker holds its journal.
  expect(error).not.toHaveProperty("seq");
  expect(await dump(t)).toEqual(before);
});

describe("a call that may succeed later", () => {
  test("65 records: too_many_records", async () => {
    const t = deployment();
    const agent = agentOf(t, (await seed(t)).studentId);
    const records = [started(0, 0, "s1")];
    while (records.length <= MAX_BATCH_RECORDS) {
      records.push(message(records.length, 0, `i${records.length}`, "x"));
    }
    expect(await refusal(record(agent, "run_a", records))).toMatchObject({
      code: "too_many_records",
      limit: MAX_BATCH_RECORDS,
    });
    expect(await record(agent, "run_a", records.slice(0, MAX_BATCH_RECORDS))).toBe(63);
  });

  test("a newer version: version_unsupported, with the versions that are folded here", async () => {
    const t = deployment();
    const agent = agentOf(t, (await seed(t)).studentId);
    const call = agent.mutation(api.sessions.record, { version: 2, runId: "r", records: [] });
    expect(await refusal(call)).toMatchObject({ code: "version_unsupported", supported: [1] });
    expect(await agent.query(api.sessions.recordVersions, {})).toEqual([1]);
  });

  test("an unknown kind, field or choice: an opaque error of the validator, on which a worker holds", async () => {
    const t = deployment();
    const agent = agentOf(t, (await seed(t)).studentId);
    for (const unknown of [
      { kind: "songSung", seq: 0, createdAt: T0, song: "Yesterday" },
      { ...started(0, 0, "s1"), campus: "north" },
      { ...reviewed(0, 0, "loaf", 3), rating: 5 },
      { ...correction(0, 0, "c"), errorType: "spelling" },
    ]) {
      const records = [unknown as unknown as SessionRecord];
      const call = agent.mutation(api.sessions.record, { version: 2, runId: "r", records });
      await expect(call).rejects.toThrow(/[Vv]alidat/);
      await expect(call).rejects.not.toHaveProperty("data");
    }
  });

  test("a run of another subject: forbidden, and it stays with its own", async () => {
    const t = deployment();
    const owner = agentOf(t, (await seed(t)).studentId);
    const other = agentOf(t, await addStudent(t));
    await record(owner, "run_a", [started(0, 0, "s1")]);
    const before = await dump(t);

    for (const records of [[], [message(1, 1, "i", "hi")]]) {
      expect(await refusal(record(other, "run_a", records))).toMatchObject({ code: "forbidden" });
    }

    expect(await dump(t)).toEqual(before);
    expect(await record(owner, "run_a", [message(1, 1, "i", "hi")])).toBe(1);
  });

  test("no permanent code among the codes that hold", () => {
    expect(HOLD_CODES.filter((code) => (PERMANENT_CODES as readonly string[]).includes(code))).toEqual(
      [],
    );
  });
});
