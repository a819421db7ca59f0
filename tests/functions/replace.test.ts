/** A mended record takes the place of its tombstone, as if it had never been refused. */
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { api } from "../../convex/_generated/api.js";
import { MAX_TEXT_BYTES } from "../../convex/limits.ts";
import type { SessionRecord } from "../../convex/validators.ts";
import {
  T0,
  addStudent,
  agentOf,
  contents,
  correction,
  deployment,
  dump,
  introduced,
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
  transcript,
  usage,
} from "./helpers.ts";
import type { Client } from "./helpers.ts";

const TOO_LONG = "x".repeat(MAX_TEXT_BYTES + 1);
const LLM = { type: "llm", provider: "p", model: "m" };
const DAY = 24 * 60 * 60_000;

/** A lesson in which each kind is followed by another of the same, where order could matter. */
const LESSON: SessionRecord[] = [
  started(0, 0, "lesson_1"),
  message(1, 1_000, "i1", "Hello", { role: "assistant", metrics: { e2eLatencyMs: 700 } }),
  transcript(2, 2_000, "yes two kilos"),
  transcript(3, 2_500, "and never said again"),
  message(4, 3_000, "i2", "Yes, two kilos."),
  message(5, 4_000, "i1", "Hello there", { role: "assistant", interrupted: true }),
  make("toolCall", 6, 4_500, { callId: "c", name: "n", arguments: "{}", isError: false }),
  usage(7, 5_000, [{ ...LLM, inputTokens: 10 }]),
  usage(8, 6_000, [
    { ...LLM, inputTokens: 30 },
    { ...LLM, model: "other", inputTokens: 5 },
  ]),
  make("error", 9, 6_100, { source: "LLM", errorType: "E", recoverable: true }),
  correction(10, 6_200, "c1", { said: "I goed" }),
  correction(11, 6_300, "c1", { said: "I goed home", repaired: true }),
  introduced(12, 6_400, "receipt"),
  reviewed(13, 6_500, "receipt", 3),
  reviewed(14, 6_500 + DAY, "receipt", 1),
  make("slideShown", 15, 6_600 + DAY, { slide: 1 }),
  make("slideShown", 16, 6_700 + DAY, { slide: 2 }),
  make("exerciseResult", 17, 6_800 + DAY, { exerciseId: "e1", score: 0.5, answer: "a" }),
  make("lessonFinished", 18, 6_900 + DAY, {}),
  make("lessonFinished", 19, 7_000 + DAY, {}),
  sessionEnded(20, 7_100 + DAY),
  runEnded(21, 7_200 + DAY),
];

// The demo's rows say when they were made.
beforeEach(() => void vi.useFakeTimers({ now: T0, toFake: ["Date"] }));
afterEach(() => void vi.useRealTimers());

function setAside({ seq, createdAt, kind }: SessionRecord): SessionRecord {
  return { ...make("setAside", seq, 0, { code: "text_too_long", ofKind: kind }), createdAt };
}

async function replace(agent: Client, mended: SessionRecord, runId = "run_a"): Promise<boolean> {
  const { seq } = mended;
  const call = { version: 1, runId, seq, record: mended };
  return (await agent.mutation(api.sessions.replace, call)).replaced;
}

/** A deployment that has folded these records of one run. */
async function folded(records: SessionRecord[]) {
  const t = deployment();
  const { studentId } = await seed(t);
  const agent = agentOf(t, studentId);
  await record(agent, "run_a", records);
  return { t, agent };
}

describe("a mended record", () => {
  test.each(LESSON.slice(1).map((refused) => [refused.seq, refused.kind, refused] as const))(
    "at %i (%s) leaves what there would be if it had been folded in its turn",
    async (seq, kind, refused) => {
      const whole = await folded(LESSON);
      const { t, agent } = await folded(LESSON.map((r) => (r.seq === seq ? setAside(r) : r)));
      expect((await rows(t, "tombstones")).map((row) => row.ofKind)).toEqual([kind]);

      expect(await replace(agent, refused)).toBe(true);

      expect(await contents(t)).toEqual(await contents(whole.t));
    },
  );

  test("of a run's start leaves the session that the run has made for itself", async () => {
    const [start, ...others] = LESSON as [SessionRecord, ...SessionRecord[]];
    const { t, agent } = await folded([setAside(start), ...others]);
    const before = await rows(t, "messages");
    expect(await replace(agent, start)).toBe(true);

    expect((await rows(t, "sessions")).map((row) => row.sessionKey)).toEqual(["run_a"]);
    expect(await rows(t, "messages")).toEqual(before);
    expect((await rows(t, "sessionRuns"))[0]).toMatchObject({ room: "room", jobId: "job" });
  });

  test("changes nothing the second time", async () => {
    const mended = LESSON[4] as SessionRecord;
    const { t, agent } = await folded(LESSON.map((r) => (r === mended ? setAside(r) : r)));
    expect(await replace(agent, mended)).toBe(true);
    const before = await dump(t);

    expect(await replace(agent, mended)).toBe(false);
    expect(await dump(t)).toEqual(before);
  });

  test("of a run that is still recording goes on from where the run is", async () => {
    const { t, agent } = await folded([started(0, 0, "s"), setAside(message(1, 1, "i1", "x"))]);
    await replace(agent, message(1, 1, "i1", "x"));
    expect(await record(agent, "run_a", [message(2, 2, "i2", "y")])).toBe(2);
    expect((await rows(t, "sessions"))[0]?.status).toBe("active");
  });

  test("does not take a run for alive that has ended since", async () => {
    const refused = message(1, 1, "i1", "x");
    const { t, agent } = await folded([
      started(0, 0, "s"),
      setAside(refused),
      runEnded(2, 5_000, "run_lost"),
    ]);
    await replace(agent, refused);
    const [session] = await rows(t, "sessions");
    expect(session).toMatchObject({ status: "ended", endReason: "run_lost", provisionalEnd: true });
  });

  test("has its session settled anew", async () => {
    const refused = message(1, 1, "i1", "x");
    const { t, agent } = await folded([
      started(0, 0, "s"),
      setAside(refused),
      sessionEnded(2, 5_000),
    ]);
    await t.run(async (ctx) => {
      for (const { _id, settleDueAt, ...session } of await ctx.db.query("sessions").collect()) {
        expect(settleDueAt).toBeTypeOf("number");
        await ctx.db.replace("sessions", _id, session);
      }
    });
    await replace(agent, refused);
    expect((await rows(t, "sessions"))[0]?.settleDueAt).toBeTypeOf("number");
  });
});

describe("a call that mends nothing", () => {
  const refused = message(1, 1_000, "i1", "too long");
  const RUN = [
    started(0, 0, "s"),
    setAside(refused),
    make("lost", 3, 1_100, { fromSeq: 2, toSeq: 3, reason: "damaged" }),
    message(4, 1_200, "i4", "hi"),
  ];

  test.each<[why: string, code: string, mended: SessionRecord, runId: string]>([
    ["a run nobody knows", "not_found", refused, "run_b"],
    ["a place not folded yet", "not_found", message(5, 0, "i", "x"), "run_a"],
    ["a place that is lost", "not_found", message(2, 0, "i", "x"), "run_a"],
    ["the end of a stretch that is lost", "not_found", message(3, 0, "i", "x"), "run_a"],
    ["another kind", "invalid_value", transcript(1, 0, "x"), "run_a"],
    ["another tombstone", "invalid_value", setAside(refused), "run_a"],
    ["still too long", "text_too_long", message(1, 1_000, "i1", TOO_LONG), "run_a"],
  ])("%s: %s", async (_, code, mended, runId) => {
    const { t, agent } = await folded(RUN);
    const before = await dump(t);
    expect(await refusal(replace(agent, mended, runId))).toMatchObject({ code });
    expect(await dump(t)).toEqual(before);
  });

  test("a record that is there already: false", async () => {
    const { t, agent } = await folded(RUN);
    const before = await dump(t);
    expect(await replace(agent, message(4, 1_200, "i4", "something else"))).toBe(false);
    expect(await dump(t)).toEqual(before);
  });

  test("a record of another seq than the place", async () => {
    const { agent } = await folded(RUN);
    const call = { version: 1, runId: "run_a", seq: 1, record: { ...refused, seq: 4 } };
    const error = await refusal(agent.mutation(api.sessions.replace, call));
    expect(error).toMatchObject({ code: "invalid_value", field: "record.seq" });
  });

  test("a newer version of records", async () => {
    const { agent } = await folded(RUN);
    const call = { version: 2, runId: "run_a", seq: 1, record: refused };
    expect(await refusal(agent.mutation(api.sessions.replace, call))).toMatchObject({
      code: "version_unsupported",
    });
  });

  test("somebody else's run: forbidden", async () => {
    const { t } = await folded(RUN);
    const other = agentOf(t, await addStudent(t));
    expect(await refusal(replace(other, refused))).toMatchObject({ code: "forbidden" });
    const call = { version: 1, runId: "run_a", seq: 1, record: refused };
    expect(await refusal(t.mutation(api.sessions.replace, call))).toMatchObject({
      code: "unauthenticated",
    });
  });
});
