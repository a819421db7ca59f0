/** `sessions:resumable`: which session a new run goes on with, and what it is told of it. */
import { describe, expect, test } from "vitest";
import { api } from "../../convex/_generated/api.js";
import { SCHOOL } from "../../convex/limits.ts";
import type { Resumable, SessionRecord } from "../../convex/validators.ts";
import {
  T0,
  addStudent,
  agentOf,
  agentOfGuest,
  correction,
  deployment,
  introduced,
  make,
  message,
  record,
  refusal,
  resumed,
  reviewed,
  runEnded,
  seed,
  sessionEnded,
  started,
  transcript,
} from "./helpers.ts";
import type { Client } from "./helpers.ts";

const MINUTE = 60_000;
const LATE = SCHOOL.resumeGraceMs + 1;

async function school() {
  const t = deployment();
  const { studentId, lessonId } = await seed(t);
  return { t, studentId, lessonId, agent: agentOf(t, studentId) };
}

async function resumable(
  agent: Client,
  asked: { sessionKey?: string; lessonId?: string; now?: number },
): Promise<Resumable | null> {
  return await agent.query(api.sessions.resumable, asked);
}

/** The key of the session that is found. */
async function keyOf(...call: Parameters<typeof resumable>): Promise<string | null> {
  return (await resumable(...call))?.sessionKey ?? null;
}

describe("what is told", () => {
  test("where the lesson was, what was said, noted and met", async () => {
    const { agent, lessonId } = await school();
    await record(agent, "a", [
      started(0, 0, "s1", { lessonId }),
      message(1, 1_000, "i1", "Hello, Carlos!", { role: "assistant", language: "en" }),
      make("stepEntered", 2, 1_500, { step: "presentation" }),
      make("slideShown", 3, 2_000, { slide: 2 }),
      transcript(4, 2_500, "I goed", { itemId: "i2" }),
      message(5, 3_000, "i2", "I goed to the market.", { interrupted: true }),
      correction(6, 3_500, "c1", { itemId: "i2", explanation: "Go is irregular." }),
      introduced(7, 4_000, "loaf", { meaning: "barra", example: "A loaf of bread." }),
      introduced(8, 4_500, "receipt"),
      make("exerciseResult", 9, 4_600, { exerciseId: "e1", score: 0.5, answer: "some eggs" }),
      make("exerciseResult", 10, 4_700, { exerciseId: "e1", score: 1, answer: "any eggs" }),
      make("lessonFinished", 11, 4_800, {}),
      transcript(12, 5_000, "and then"),
    ]);

    expect(await resumable(agent, { sessionKey: "s1" })).toEqual({
      sessionKey: "s1",
      lastSeenAt: T0 + 5_000,
      over: false,
      finished: true,
      lessonId,
      step: "presentation",
      slide: 2,
      messageCount: 2,
      messages: [
        {
          itemId: "i1",
          role: "assistant",
          text: "Hello, Carlos!",
          interrupted: false,
          createdAt: T0 + 1_000,
        },
        {
          itemId: "i2",
          role: "user",
          text: "I goed to the market.",
          interrupted: true,
          createdAt: T0 + 3_000,
        },
        {
          itemId: "transcript:a:12",
          role: "user",
          text: "and then",
          interrupted: false,
          createdAt: T0 + 5_000,
        },
      ],
      corrections: [
        {
          correctionId: "c1",
          itemId: "i2",
          said: "I goed",
          target: "I went",
          errorType: "tense",
          severity: "moderate",
          explanation: "Go is irregular.",
          repaired: false,
          createdAt: T0 + 3_500,
        },
      ],
      newWords: [
        { word: "loaf", language: "en", meaning: "barra", example: "A loaf of bread." },
        { word: "receipt", language: "en" },
      ],
      answers: [
        { exerciseId: "e1", score: 0.5, answer: "some eggs", createdAt: T0 + 4_600 },
        { exerciseId: "e1", score: 1, answer: "any eggs", createdAt: T0 + 4_700 },
      ],
    });
  });

  test("of a session that has only begun: nothing but that", async () => {
    const { agent } = await school();
    await record(agent, "a", [started(0, 0, "s1")]);
    expect(await resumable(agent, { sessionKey: "s1" })).toEqual({
      sessionKey: "s1",
      lastSeenAt: T0,
      over: false,
      finished: false,
      messageCount: 0,
      messages: [],
      corrections: [],
      newWords: [],
      answers: [],
    });
  });

  test("the latest of what there is more of, in order, across runs", async () => {
    const { agent } = await school();
    await record(agent, "b", [
      resumed(0, 100_000, "s1", { lastSeenAt: T0 + 90_000 }),
      message(1, 100_001, "last", "the end"),
    ]);
    let seq = 0;
    const records: SessionRecord[] = [started(seq++, 0, "s1")];
    for (let i = 0; i < 60; i++) {
      records.push(message(seq, seq * 10, `i${i}`, `text ${i}`));
      records.push(correction(seq + 1, seq * 10 + 1, `c${99 - i}`));
      records.push(introduced(seq + 2, seq * 10 + 2, `word${i}`));
      const given = { exerciseId: `e${i}`, score: 1, answer: "yes" };
      records.push(make("exerciseResult", seq + 3, seq * 10 + 3, given));
      seq += 4;
    }
    for (let at = 0; at < records.length; at += 64) {
      await record(agent, "a", records.slice(at, at + 64));
    }

    const found = await resumable(agent, { sessionKey: "s1" });

    expect(found?.messageCount).toBe(61);
    const texts = found?.messages.map(({ text }) => text) ?? [];
    expect(texts).toHaveLength(24);
    expect([texts[0], texts[22], texts[23]]).toEqual(["text 37", "text 59", "the end"]);
    const noted = found?.corrections.map(({ correctionId }) => correctionId) ?? [];
    expect([noted.length, noted[0], noted.at(-1)]).toEqual([50, "c89", "c40"]);
    const met = found?.newWords.map(({ word }) => word) ?? [];
    expect([met.length, met[0], met.at(-1)]).toEqual([40, "word20", "word59"]);
    const answered = found?.answers.map(({ exerciseId }) => exerciseId) ?? [];
    expect([answered.length, answered[0], answered.at(-1)]).toEqual([32, "e28", "e59"]);
  });

  test("words that another session introduced first, or that were only reviewed, are not new", async () => {
    const { agent } = await school();
    await record(agent, "a", [started(0, 0, "s1"), introduced(1, 1_000, "loaf")]);
    await record(agent, "b", [
      started(0, 60_000, "s2"),
      introduced(1, 61_000, "Loaf!"),
      reviewed(2, 62_000, "receipt", 3),
      introduced(3, 63_000, "kilo"),
    ]);
    const words = async (sessionKey: string) =>
      (await resumable(agent, { sessionKey }))?.newWords.map(({ word }) => word);
    expect(await words("s1")).toEqual(["loaf"]);
    expect(await words("s2")).toEqual(["kilo"]);
  });
});

describe("the end", () => {
  const ways: [string, SessionRecord[], boolean][] = [
    ["of a lesson that is completed", [make("lessonFinished", 1, 10, {}), sessionEnded(2, 20)], true],
    [
      "in the farewell",
      [make("stepEntered", 1, 10, { step: "farewell" }), sessionEnded(2, 20)],
      true,
    ],
    [
      "in the middle, as when the student drops out",
      [make("stepEntered", 1, 10, { step: "practice" }), sessionEnded(2, 20)],
      false,
    ],
    [
      "of a run alone, as when the worker dies",
      [make("lessonFinished", 1, 10, {}), runEnded(2, 20, "recovered")],
      false,
    ],
  ];
  test.each(ways)("%s", async (_, records, over) => {
    const { agent } = await school();
    await record(agent, "a", [started(0, 0, "s1"), ...records]);
    expect(await resumable(agent, { sessionKey: "s1" })).toMatchObject({ over });
  });

  test("is taken back by a resume", async () => {
    const { agent } = await school();
    await record(agent, "a", [
      started(0, 0, "s1"),
      make("lessonFinished", 1, 10, {}),
      sessionEnded(2, 20),
    ]);
    await record(agent, "b", [resumed(0, 30, "s1", { lastSeenAt: T0 + 20 })]);
    expect(await resumable(agent, { sessionKey: "s1" })).toMatchObject({ over: false });
  });
});

describe("by its key", () => {
  test("a session is found however long ago it was, whatever its lesson", async () => {
    const { agent, lessonId } = await school();
    await record(agent, "a", [started(0, 0, "s1", { lessonId })]);
    await record(agent, "b", [started(0, MINUTE, "s2")]);
    const now = T0 + 30 * 24 * 60 * MINUTE;
    expect(await keyOf(agent, { sessionKey: "s1", now })).toBe("s1");
    expect(await keyOf(agent, { sessionKey: "none", now })).toBeNull();
  });

  test("a session that was begun because a resume came too late stands for the earlier one", async () => {
    const { agent } = await school();
    await record(agent, "a", [started(0, 0, "s1"), message(1, 1, "i1", "one")]);
    await record(agent, "b", [
      resumed(0, LATE + 2, "s1", { lastSeenAt: T0 + 1 }),
      message(1, LATE + 3, "i2", "two"),
    ]);
    const found = await resumable(agent, { sessionKey: "s1" });
    expect(found?.sessionKey).toBe("b");
    expect(found?.messages.map(({ text }) => text)).toEqual(["two"]);
    expect(await keyOf(agent, { sessionKey: "b" })).toBe("b");
  });

  test("several that took each other's place: the one that a run carried last", async () => {
    const { agent } = await school();
    const late = (runId: string, at: number, sessionKey: string) =>
      record(agent, runId, [resumed(0, at, sessionKey, { lastSeenAt: T0 + at - LATE })]);
    await record(agent, "a", [started(0, 0, "s1")]);
    await late("b", 1 * LATE, "s1");
    await late("c", 2 * LATE, "s1");
    expect(await keyOf(agent, { sessionKey: "s1" })).toBe("c");
    await late("d", 3 * LATE, "c");
    expect(await keyOf(agent, { sessionKey: "s1" })).toBe("d");
    // One that does not know how long ago it was goes on with the first.
    await record(agent, "e", [resumed(0, 4 * LATE, "s1")]);
    expect(await keyOf(agent, { sessionKey: "s1" })).toBe("s1");
  });

  test("also where the late run is heard of last", async () => {
    const { agent } = await school();
    await record(agent, "c", [
      resumed(0, LATE + 10, "b", { lastSeenAt: T0 + LATE + 5 }),
      message(1, LATE + 11, "i2", "on it goes"),
    ]);
    await record(agent, "b", [resumed(0, LATE, "s1", { lastSeenAt: T0 - 1 })]);
    await record(agent, "a", [started(0, 0, "s1")]);
    const found = await resumable(agent, { sessionKey: "s1" });
    expect(found).toMatchObject({ sessionKey: "b", messageCount: 1 });
  });

  test("where the name was somebody else's already, the session that was begun instead", async () => {
    const { t, agent } = await school();
    const other = agentOf(t, await addStudent(t));
    await record(other, "x", [started(0, 0, "s1")]);
    await record(agent, "a", [started(0, 0, "s1")]);
    expect(await keyOf(agent, { sessionKey: "s1" })).toBe("a");
    expect(await keyOf(other, { sessionKey: "s1" })).toBe("s1");
  });
});

describe("the latest", () => {
  test("of the same lesson, within the grace of what was last seen of it", async () => {
    const { agent, lessonId } = await school();
    await record(agent, "a", [started(0, 0, "s1", { lessonId }), message(1, MINUTE, "i1", "one")]);
    const now = T0 + MINUTE + SCHOOL.resumeGraceMs;
    expect(await keyOf(agent, { lessonId, now })).toBe("s1");
    expect(await keyOf(agent, { lessonId, now: now + 1 })).toBeNull();
    expect(await keyOf(agent, { now })).toBeNull();
    expect(await keyOf(agent, { lessonId: "not-an-id", now })).toBeNull();
  });

  test("without a lesson where none is asked for, or one that is not of this deployment", async () => {
    const { agent, lessonId } = await school();
    await record(agent, "a", [started(0, 0, "s1", { lessonId: "not-an-id" })]);
    expect(await keyOf(agent, { now: T0 })).toBe("s1");
    expect(await keyOf(agent, { lessonId: "not-an-id", now: T0 })).toBe("s1");
    expect(await keyOf(agent, { lessonId, now: T0 })).toBeNull();
  });

  test("is the one that a run carried last, not the one that began last", async () => {
    const { agent } = await school();
    await record(agent, "a", [started(0, 0, "s1")]);
    await record(agent, "b", [started(0, MINUTE, "s2")]);
    expect(await keyOf(agent, { now: T0 + MINUTE })).toBe("s2");
    await record(agent, "c", [resumed(0, 2 * MINUTE, "s1", { lastSeenAt: T0 + MINUTE })]);
    expect(await keyOf(agent, { now: T0 + 2 * MINUTE })).toBe("s1");
  });

  test("is told as over where it ended as it was meant to", async () => {
    const { agent } = await school();
    await record(agent, "a", [
      started(0, 0, "s1"),
      make("stepEntered", 1, 10, { step: "farewell" }),
      sessionEnded(2, 20),
    ]);
    expect(await resumable(agent, { now: T0 + 30 })).toMatchObject({ over: true });
  });

  test("of a guest is the guest's own", async () => {
    const { t, agent } = await school();
    const guest = agentOfGuest(t, "g1");
    await record(guest, "a", [started(0, 0, "g1")]);
    expect(await keyOf(guest, { now: T0 })).toBe("g1");
    expect(await keyOf(guest, { sessionKey: "g1", now: T0 })).toBe("g1");
    expect(await keyOf(agentOfGuest(t, "g2"), { now: T0 })).toBeNull();
    expect(await keyOf(agent, { now: T0 })).toBeNull();
  });

  test("of a student who was never here is none", async () => {
    const { agent } = await school();
    expect(await resumable(agent, { now: T0 })).toBeNull();
  });
});

test("nobody finds another's session", async () => {
  const { t, agent } = await school();
  await record(agent, "a", [started(0, 0, "s1")]);
  await record(agent, "b", [resumed(0, LATE, "s1", { lastSeenAt: T0 - 1 })]);
  for (const other of [agentOf(t, await addStudent(t)), agentOfGuest(t, "s1")]) {
    expect(await keyOf(other, { sessionKey: "s1", now: T0 })).toBeNull();
    expect(await keyOf(other, { sessionKey: "b", now: T0 })).toBeNull();
    expect(await keyOf(other, { now: T0 + LATE })).toBeNull();
  }
});

test("an instant in seconds is refused", async () => {
  const { agent } = await school();
  expect(await refusal(resumable(agent, { now: T0 / 1000 }))).toMatchObject({
    code: "instant_out_of_range",
    field: "now",
  });
});
