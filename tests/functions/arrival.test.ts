/**
 * Late is as good as early: the journals of a student's runs, cut into batches, arriving in any
 * order between runs and more than once, end in the same rows.
 */
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { SCHOOL } from "../../convex/limits.ts";
import type { SessionRecord } from "../../convex/validators.ts";
import {
  T0,
  agentOf,
  contents,
  correction,
  deployment,
  introduced,
  make,
  message,
  record,
  resumed,
  reviewed,
  runEnded,
  seed,
  sessionEnded,
  started,
  summary,
  transcript,
  usage,
} from "./helpers.ts";
import { random } from "./random.ts";
import type { Random } from "./random.ts";

const ROUNDS = 12;
const ARRIVALS_PER_ROUND = 3;

beforeEach(() => {
  // Nothing that is scheduled runs: settle.test.ts has what follows from the end of a lesson.
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

type Journals = Map<string, SessionRecord[]>;

/**
 * Two to four runs over one to three sessions of one student, at times that overlap; some resume too
 * late, some go on with a session that another run began because it was too late.
 */
function journalsOf({ below, chance }: Random, lessonIds: string[]): Journals {
  const journals: Journals = new Map();
  const runs = 2 + below(3);
  for (let i = 0; i < runs; i++) {
    const runId = `run_${"dbca"[i] ?? "x"}`;
    const sessionKey = chance(0.8) ? `s${below(3)}` : `run_${"dbca"[below(4)] ?? "x"}`;
    // Few different instants, so that runs also begin and end at the same time.
    let at = below(5) * 1_000;
    const begin = chance(0.5) ? started : resumed;
    const lessonId = chance(0.7) ? lessonIds[below(lessonIds.length)] : undefined;
    const lastSeenAt = T0 + at - (chance(0.5) ? SCHOOL.resumeGraceMs + 1 : 0);
    const records = [
      begin(0, at, sessionKey, {
        ...(lessonId === undefined ? {} : { lessonId }),
        ...(begin === resumed && chance(0.6) ? { lastSeenAt } : {}),
      }),
    ];
    const length = below(16);
    for (let seq = 1; seq <= length; seq++) {
      at += below(3) * 500;
      records.push(
        chance(0.5)
          ? anyRecord({ below, chance }, seq, at)
          : anyTutoringRecord({ below, chance }, seq, at),
      );
    }
    if (chance(0.5)) records.push(sessionEnded(records.length, at + below(2) * 1_000, `by_${runId}`));
    if (chance(0.5)) records.push(runEnded(records.length, at + 1_000, `done_${runId}`));
    journals.set(runId, records);
  }
  return journals;
}

function anyRecord({ below, chance }: Random, seq: number, at: number): SessionRecord {
  // Few items, so that runs repeat each other's.
  const itemId = `item_${below(5)}`;
  const text = ["yes", "I know", "two kilos", "yes two kilos"][below(4)] ?? "";
  switch (below(8)) {
    case 0:
      return transcript(seq, at, text, chance(0.5) ? { itemId } : {});
    case 1:
      return usage(seq, at, [
        { type: "llm", provider: "p", model: `m${below(2)}`, inputTokens: seq * 10 },
        { type: "tts", provider: "p", model: "v", audioMs: seq * 100.25 },
      ]);
    case 2:
      return make("toolCall", seq, at, {
        callId: "c",
        name: "n",
        arguments: "{}",
        output: `output ${seq}`,
        isError: false,
        ...(chance(0.5) ? { resultOf: below(seq) } : {}),
      });
    case 3:
      return make("error", seq, at, { source: "LLM", errorType: "E", recoverable: true });
    case 4:
      return runEnded(seq, at, "recovered");
    case 5:
      return make("setAside", seq, at, { code: "text_too_long", ofKind: "message" });
    default:
      return message(seq, at, itemId, text, {
        role: chance(0.5) ? "user" : "assistant",
        ...(chance(0.5) ? { language: "en" } : {}),
        ...(chance(0.5) ? { metrics: { llmTtftMs: seq } } : {}),
      });
  }
}

/** Reviews are days apart, or at the very same instant, and in an order of their own in each run. */
function anyTutoringRecord({ below, chance }: Random, seq: number, at: number): SessionRecord {
  const word = ["receipt", "Receipt!", "loaf"][below(3)] ?? "";
  const day = below(60) * 24 * 60 * 60_000;
  switch (below(9)) {
    case 8:
      return summary(seq, at, `lesson ${seq}`);
    case 0:
      return introduced(seq, at, word, chance(0.5) ? { meaning: `meaning ${seq}` } : {});
    case 1:
      return make("exerciseResult", seq, at, { exerciseId: "e1", score: 0.5, answer: `a${seq}` });
    case 2:
      return make("slideShown", seq, at, { slide: below(4) });
    case 3:
      return make("lessonFinished", seq, at, {});
    case 4:
      return make("stepEntered", seq, at, { step: chance(0.5) ? "warm_up" : "practice" });
    case 5:
      return correction(seq, at, `c${below(3)}`, {
        said: `said ${seq}`,
        repaired: chance(0.5),
        ...(chance(0.5) ? { explanation: "why" } : {}),
      });
    default:
      return reviewed(seq, day, word, ([1, 3, 4, 4] as const)[below(4)] ?? 3);
  }
}

/** Batches of all journals in one order that keeps each run's own; some of them sent again later. */
function arrivalOf(journals: Journals, { below, chance }: Random): [string, SessionRecord[]][] {
  const left = [...journals].map(([runId, records]) => ({ runId, records, at: 0 }));
  const arrival: [string, SessionRecord[]][] = [];
  while (left.length > 0) {
    const i = below(left.length);
    const journal = left[i];
    if (journal === undefined) continue;
    const size = 1 + below(4);
    arrival.push([journal.runId, journal.records.slice(journal.at, journal.at + size)]);
    journal.at += size;
    if (journal.at >= journal.records.length) left.splice(i, 1);
    const earlier = arrival[below(arrival.length)];
    if (earlier !== undefined && chance(0.3)) arrival.push(earlier);
  }
  return arrival;
}

test.each(Array.from({ length: ROUNDS }, (_, round) => round))(
  "any arrival of the same journals ends in the same rows (round %d)",
  async (round) => {
    let punctual: unknown;
    for (let n = 0; n <= ARRIVALS_PER_ROUND; n++) {
      const t = deployment();
      const { studentId, lessonId } = await seed(t);
      const otherId = await t.run(async (ctx) =>
        ctx.db.insert("lessons", {
          title: "Other",
          level: "B1",
          language: "en",
          kind: "conversation",
          objectives: [],
          targetWords: [],
        }),
      );
      const journals = journalsOf(random(round), [lessonId, otherId, "not-an-id"]);
      const arrival = n === 0 ? [...journals] : arrivalOf(journals, random(round * 100 + n));
      for (const [runId, records] of arrival) await record(agentOf(t, studentId), runId, records);
      // The demo's progress is dated when it is seeded.
      const { progress, ...rows } = await contents(t);
      punctual ??= rows;
      expect(rows).toEqual(punctual);
    }
  },
);
