/** Words: met, reviewed in any order of arrival, due, mastered day by day. */
import { Rating, State, createEmptyCard, fsrs } from "ts-fsrs";
import { describe, expect, test } from "vitest";
import { api } from "../../convex/_generated/api.js";
import type { Doc, Id } from "../../convex/_generated/dataModel.js";
import { MAX_INSTANT_MS, MIN_INSTANT_MS, SCHOOL } from "../../convex/limits.ts";
import { MASTERED_STABILITY_DAYS } from "../../convex/model/cards.ts";
import type { RecordOf, SessionRecord } from "../../convex/validators.ts";
import {
  T0,
  addStudent,
  agentOf,
  agentOfGuest,
  contents,
  deployment,
  introduced,
  record,
  refusal,
  reviewed,
  rows,
  started,
  student,
} from "./helpers.ts";
import type { Deployment } from "./helpers.ts";

const HOUR = 60 * 60_000;
const DAY = 24 * HOUR;
const PAGE = { numItems: 10, cursor: null };

type Review = { at: number; rating: RecordOf<"wordReviewed">["rating"] };

/** Reviews that master a word with the last one, each when the word was due or later. */
const TO_MASTERY: Review[] = [
  { at: 0, rating: 3 },
  { at: HOUR, rating: 3 },
  { at: 4 * DAY, rating: 3 },
  { at: 20 * DAY, rating: 4 },
];

/** A student in Tokyo, nine hours ahead, and their agent. */
async function school() {
  const t = deployment();
  const studentId = await addStudent(t);
  return { t, studentId, agent: agentOf(t, studentId), page: student(t, studentId) };
}

/** One run with a session of its own for each review, so that they can arrive in any order. */
async function review(
  t: Deployment,
  studentId: Id<"students">,
  reviews: readonly Review[],
  word = "receipt",
): Promise<void> {
  for (const { at, rating } of reviews) {
    const runId = `run_${word}_${String(at).padStart(12, "0")}`;
    await record(agentOf(t, studentId), runId, [
      started(0, at, `s_${runId}`),
      reviewed(1, at, word, rating),
    ]);
  }
}

async function onlyWord(t: Deployment): Promise<Doc<"vocabulary">> {
  const [word, ...others] = await rows(t, "vocabulary");
  expect(others).toEqual([]);
  if (word === undefined) throw new Error("there is no word");
  return word;
}

async function mastered(t: Deployment): Promise<[string, number][]> {
  const days = await rows(t, "dailyStats");
  return days
    .map(({ day, wordsMastered }): [string, number] => [day, wordsMastered])
    .sort(([a], [b]) => (a < b ? -1 : 1));
}

/** What ts-fsrs says of these reviews, asked afresh: the row's own columns. */
function replayed(reviews: readonly Review[]) {
  const scheduler = fsrs({ enable_fuzz: false });
  let card = createEmptyCard(T0);
  for (const { at, rating } of [...reviews].sort((a, b) => a.at - b.at)) {
    const grade = ([Rating.Again, Rating.Hard, Rating.Good, Rating.Easy] as const)[rating - 1];
    if (grade === undefined) throw new Error("no such rating");
    card = scheduler.next(card, new Date(T0 + at), grade).card;
  }
  return {
    state: State[card.state].toLowerCase(),
    dueAt: card.due.getTime(),
    mastered: card.state === State.Review && card.stability >= 21,
    card: {
      stability: card.stability,
      difficulty: card.difficulty,
      scheduledDays: card.scheduled_days,
      learningSteps: card.learning_steps,
      reps: card.reps,
      lapses: card.lapses,
      lastReviewedAt: card.last_review?.getTime(),
    },
  };
}

describe("a word that is met", () => {
  test("is new and due at once", async () => {
    const { t, agent } = await school();
    await record(agent, "run_a", [
      started(0, 0, "s1"),
      introduced(1, 1_000, "The Receipt!", { meaning: "recibo", example: "Keep the receipt." }),
    ]);
    expect(await onlyWord(t)).toMatchObject({
      language: "en",
      wordKey: "the receipt",
      word: "The Receipt!",
      meaning: "recibo",
      example: "Keep the receipt.",
      firstMetAt: T0 + 1_000,
      state: "new",
      dueAt: T0 + 1_000,
      mastered: false,
      card: { reps: 0, lapses: 0, stability: 0 },
    });
  });

  test("again is the same word, and the earliest introduction decides how it reads", async () => {
    const { t, agent } = await school();
    const late = [started(0, 90_000, "s2"), introduced(1, 91_000, "RECEIPT", { meaning: "late" })];
    const early = [started(0, 0, "s1"), introduced(1, 1_000, "receipt", { example: "Early." })];
    await record(agent, "run_b", late);
    await record(agent, "run_a", early);

    const word = await onlyWord(t);
    expect(word).toMatchObject({ word: "receipt", example: "Early.", firstMetAt: T0 + 1_000 });
    expect(word).toMatchObject({ dueAt: T0 + 1_000, introducedBy: { runId: "run_a", seq: 1 } });
    expect(word).not.toHaveProperty("meaning");
  });

  test("is another word in another language", async () => {
    const { t, agent } = await school();
    await record(agent, "run_a", [
      started(0, 0, "s1"),
      introduced(1, 0, "gift"),
      introduced(2, 0, "gift", { language: "de", meaning: "poison" }),
    ]);
    expect((await rows(t, "vocabulary")).map(({ language }) => language)).toEqual(["en", "de"]);
  });

  test("is nothing where there is no letter and no digit, and nothing of a guest", async () => {
    const { t, agent } = await school();
    await record(agent, "run_a", [
      started(0, 0, "s1"),
      introduced(1, 0, " …! "),
      reviewed(2, 0, "🙂", 3),
    ]);
    await record(agentOfGuest(t, "g1"), "run_g", [
      started(0, 0, "g1"),
      introduced(1, 0, "receipt"),
      reviewed(2, 0, "receipt", 3),
    ]);
    for (const table of ["vocabulary", "vocabularyReviews", "dailyStats"] as const) {
      expect(await rows(t, table), table).toEqual([]);
    }
  });
});

describe("a review", () => {
  test("reschedules the card as FSRS does, and leaves a history row", async () => {
    const { t, studentId } = await school();
    const word = { studentId, masteredAfter: false };
    await review(t, studentId, TO_MASTERY.slice(0, 3));
    expect(await onlyWord(t)).toMatchObject(replayed(TO_MASTERY.slice(0, 3)));
    expect(await rows(t, "vocabularyReviews")).toMatchObject([
      { ...word, reviewedAt: T0, rating: 3, day: "2026-11-02" },
      { ...word, reviewedAt: T0 + HOUR, rating: 3, day: "2026-11-02" },
      { ...word, reviewedAt: T0 + 4 * DAY, rating: 3, day: "2026-11-06" },
    ]);
  });

  test("of a word that nobody introduced makes its row, written as it compares", async () => {
    const { t, studentId, agent } = await school();
    await review(t, studentId, [{ at: 2 * DAY, rating: 3 }, { at: DAY, rating: 3 }], "Receipt");
    expect(await onlyWord(t)).toMatchObject({ word: "receipt", firstMetAt: T0 + DAY });
    expect(await onlyWord(t)).not.toHaveProperty("introducedBy");

    await record(agent, "run_z", [started(0, 3 * DAY, "z"), introduced(1, 3 * DAY, "Receipt")]);
    const reviews = replayed([{ at: DAY, rating: 3 }, { at: 2 * DAY, rating: 3 }]);
    expect(await onlyWord(t)).toMatchObject({ ...reviews, word: "Receipt", firstMetAt: T0 + DAY });
  });

  test("counts on the student's own day, once, however often its batch is sent", async () => {
    const { t, agent } = await school();
    // 23:30 in Tokyo, and an hour later.
    const batch = [
      started(0, 0, "s1"),
      reviewed(1, 5.5 * HOUR, "receipt", 1),
      reviewed(2, 6.5 * HOUR, "receipt", 3),
      reviewed(3, 6.5 * HOUR, "loaf", 3),
    ];
    await record(agent, "run_a", batch);
    await record(agent, "run_a", batch);
    expect(await rows(t, "dailyStats")).toMatchObject([
      { day: "2026-11-02", reviews: 1 },
      { day: "2026-11-03", reviews: 2 },
    ]);
    expect(await rows(t, "vocabularyReviews")).toHaveLength(3);
  });

  test("masters a word in state review from 21 days of stability on; a lapse takes it back", async () => {
    const { t, studentId } = await school();
    await review(t, studentId, TO_MASTERY);
    const word = await onlyWord(t);
    expect(word).toMatchObject({ mastered: true, state: "review" });
    expect(word.card.stability).toBeGreaterThanOrEqual(MASTERED_STABILITY_DAYS);
    expect(await mastered(t)).toEqual([
      ["2026-11-02", 0],
      ["2026-11-06", 0],
      ["2026-11-22", 1],
    ]);

    await review(t, studentId, [{ at: 40 * DAY, rating: 1 }]);
    expect(await onlyWord(t)).toMatchObject({ mastered: false, state: "relearning" });
    expect((await mastered(t)).at(-1)).toEqual(["2026-12-12", 0]);
  });
});

describe("a review that arrives late", () => {
  test("ends in the card, the history and the days of one in time", async () => {
    const reviews: Review[] = [...TO_MASTERY, { at: 40 * DAY, rating: 1 }, { at: 41 * DAY, rating: 3 }];
    const punctual = await school();
    await review(punctual.t, punctual.studentId, reviews);
    for (const order of [reviews.toReversed(), [reviews[3], reviews[5], reviews[0], reviews[4], reviews[2], reviews[1]]]) {
      const late = await school();
      await review(late.t, late.studentId, order.filter((one) => one !== undefined));
      expect(await contents(late.t)).toMatchObject(await learned(punctual.t));
    }
  });

  test("takes mastery from the days on which it was not, and from them alone", async () => {
    const { t, studentId } = await school();
    await review(t, studentId, TO_MASTERY);
    await review(t, studentId, [{ at: 60 * DAY, rating: 3 }], "loaf");
    expect(await mastered(t)).toContainEqual(["2027-01-01", 1]);

    // A lapse the day after: no longer mastered on 23 November, and on the days since.
    await review(t, studentId, [{ at: 21 * DAY, rating: 1 }]);
    expect(await mastered(t)).toEqual([
      ["2026-11-02", 0],
      ["2026-11-06", 0],
      ["2026-11-22", 1],
      ["2026-11-23", 0],
      ["2027-01-01", 0],
    ]);
  });

  test("of two at the same instant, the run decides and not the arrival", async () => {
    const both: SessionRecord[][] = [
      [started(0, 0, "s1"), reviewed(1, DAY, "receipt", 1)],
      [started(0, 0, "s2"), reviewed(1, DAY, "receipt", 4), reviewed(2, DAY, "receipt", 3)],
    ];
    const ends: unknown[] = [];
    for (const order of [[0, 1], [1, 0]]) {
      const { t, agent } = await school();
      for (const i of order) await record(agent, `run_${i}`, both[i] ?? []);
      ends.push(await learned(t));
    }
    expect(ends[1]).toEqual(ends[0]);
  });

  test("is counted but moves no due date where the word has more reviews than are replayed", async () => {
    const { t, studentId } = await school();
    await review(t, studentId, [{ at: DAY, rating: 3 }]);
    const word = await onlyWord(t);
    await t.run(async (ctx) => {
      for (let seq = 0; seq < SCHOOL.maxReviewsReplayed; seq++) {
        await ctx.db.insert("vocabularyReviews", {
          studentId,
          vocabularyId: word._id,
          runId: "many",
          seq,
          reviewedAt: T0 + 2 * DAY,
          rating: 3,
          day: "2026-11-04",
          masteredAfter: true,
        });
      }
    });

    await review(t, studentId, [{ at: 0, rating: 1 }, { at: 1.5 * DAY, rating: 1 }]);

    expect(await onlyWord(t)).toMatchObject({ card: word.card, dueAt: word.dueAt, firstMetAt: T0 });
    const added = (await rows(t, "vocabularyReviews")).filter(({ rating }) => rating === 1);
    expect(added).toMatchObject([{ masteredAfter: false }, { masteredAfter: false }]);
    const first = (await rows(t, "dailyStats")).find(({ day }) => day === "2026-11-02");
    expect(first).toMatchObject({ reviews: 1, wordsMastered: 0 });
  });

  // 20 students with 10 words each: 200 histories.
  test.each(
    Array.from({ length: 20 }, (_, i) => i),
  )("equals one in time, by a fresh replay of ts-fsrs (student %d)", async (seedOf) => {
    const { t, studentId, agent } = await school();
    let state = seedOf;
    const below = (n: number) => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      return Math.floor((state / 4_294_967_296) * n);
    };
    for (let i = 0; i < 10; i++) {
      const word = `word ${i}`;
      // At most one in a minute: the oracle knows no order of reviews at the same instant.
      const instants = new Set(Array.from({ length: 2 + below(7) }, () => below(90 * 24 * 60)));
      const reviews = [...instants].map((minute): Review => ({
        at: minute * 60_000,
        rating: ([1, 2, 3, 3, 4, 4] as const)[below(6)] ?? 3,
      }));
      // In the order of the minutes as they were drawn: nearly all of them come late.
      await record(agent, `run_${i}`, [
        started(0, 0, `s_${i}`),
        ...reviews.map(({ at, rating }, n) => reviewed(n + 1, at, word, rating)),
      ]);
      const row = await t.run(async (ctx) =>
        ctx.db
          .query("vocabulary")
          .withIndex("by_studentId_and_language_and_wordKey", (q) =>
            q.eq("studentId", studentId).eq("language", "en").eq("wordKey", word),
          )
          .unique(),
      );
      expect(row, JSON.stringify(reviews)).toMatchObject(replayed(reviews));
    }

    // The days add up to what each history says of its own end.
    const words = await rows(t, "vocabulary");
    expect((await mastered(t)).at(-1)?.[1]).toBe(words.filter((word) => word.mastered).length);
    const counted = (await rows(t, "dailyStats")).reduce((sum, { reviews }) => sum + reviews, 0);
    expect(counted).toBe((await rows(t, "vocabularyReviews")).length);
  });
});

/** The rows that reviews make, as they compare between deployments. */
async function learned(t: Deployment) {
  const { vocabulary, vocabularyReviews, dailyStats } = await contents(t);
  return { vocabulary, vocabularyReviews, dailyStats };
}

describe("vocabulary:due", () => {
  test("is what is due at that time, the longest due first, at most 50", async () => {
    const { agent, page } = await school();
    const words = Array.from({ length: 55 }, (_, i) => introduced(i + 1, i * 1_000, `word ${i}`));
    await record(agent, "run_a", [started(0, 0, "s1"), ...words]);

    expect(await page.query(api.vocabulary.due, { now: T0 - 1 })).toEqual([]);
    const two = await agent.query(api.vocabulary.due, { now: T0 + 1_000 });
    expect(two.map(({ word }) => word)).toEqual(["word 0", "word 1"]);
    expect(two[0]).toEqual({
      language: "en",
      word: "word 0",
      state: "new",
      dueAt: T0,
      mastered: false,
      firstMetAt: T0,
      reviews: 0,
      lapses: 0,
    });
    expect(await page.query(api.vocabulary.due, { now: T0 + DAY })).toHaveLength(50);
  });

  test("refuses an instant in seconds, and one that is none", async () => {
    const { page } = await school();
    for (const [now, limit] of [
      [T0 / 1_000, MIN_INSTANT_MS],
      [Number.NaN, MIN_INSTANT_MS],
      [T0 * 1_000, MAX_INSTANT_MS],
    ] as const) {
      const error = await refusal(page.query(api.vocabulary.due, { now }));
      expect(error).toMatchObject({ code: "instant_out_of_range", field: "now", limit });
    }
  });
});

describe("vocabulary:byState", () => {
  test("is a page of the words in that state, or of those mastered", async () => {
    const { t, studentId, agent, page } = await school();
    await review(t, studentId, TO_MASTERY, "kilo");
    await review(t, studentId, TO_MASTERY.slice(0, 3), "loaf");
    await record(agent, "run_a", [
      started(0, 60 * DAY, "s1"),
      introduced(1, 60 * DAY, "egg"),
      introduced(2, 60 * DAY + 1, "apple"),
    ]);
    const words = async (state: "new" | "learning" | "review" | "mastered") => {
      const { page: found } = await page.query(api.vocabulary.byState, { state, paginationOpts: PAGE });
      return found.map(({ word }) => word);
    };
    expect(await words("new")).toEqual(["egg", "apple"]);
    expect(await words("learning")).toEqual([]);
    expect(await words("review")).toEqual(["loaf", "kilo"]);
    expect(await words("mastered")).toEqual(["kilo"]);

    const paginationOpts = { numItems: 1, cursor: null };
    const first = await page.query(api.vocabulary.byState, { state: "new", paginationOpts });
    expect(first).toMatchObject({ page: [{ word: "egg" }], isDone: false });
  });
});

describe("vocabulary:masteredByDay", () => {
  test("is the words mastered on each day of the range, and before it", async () => {
    const { t, studentId, page } = await school();
    await review(t, studentId, TO_MASTERY, "kilo");
    await review(t, studentId, TO_MASTERY.map(({ at, rating }) => ({ at: at + DAY, rating })), "loaf");
    await review(t, studentId, [{ at: 50 * DAY, rating: 1 }], "kilo");

    const all = { from: "2026-11-22", to: "2027-11-22" };
    expect(await page.query(api.vocabulary.masteredByDay, all)).toEqual({
      before: 0,
      days: [
        { day: "2026-11-22", mastered: 1 },
        { day: "2026-11-23", mastered: 2 },
        { day: "2026-12-22", mastered: 1 },
      ],
    });
    const quiet = { from: "2026-11-24", to: "2026-11-30" };
    expect(await page.query(api.vocabulary.masteredByDay, quiet)).toEqual({ before: 2, days: [] });
    const early = { from: "2026-10-01", to: "2026-11-01" };
    expect(await page.query(api.vocabulary.masteredByDay, early)).toEqual({ before: 0, days: [] });
  });

  test("refuses what is no day, a range that ends before it begins, and more than 366 days", async () => {
    const { page } = await school();
    const call = (from: string, to: string) =>
      refusal(page.query(api.vocabulary.masteredByDay, { from, to }));
    const day = "2026-11-02";
    expect(await call("2.11.2026", day)).toMatchObject({ code: "invalid_value", field: "from" });
    expect(await call(day, "2026-02-30")).toMatchObject({ code: "invalid_value", field: "to" });
    expect(await call(day, "2026-11-01")).toMatchObject({ code: "invalid_value", field: "to" });
    expect(await call(day, "2027-11-03")).toMatchObject({
      code: "too_many_items",
      field: "to",
      limit: SCHOOL.maxChartDays,
    });
    const year = { from: day, to: "2027-11-02" };
    expect(await page.query(api.vocabulary.masteredByDay, year)).toEqual({ before: 0, days: [] });
  });
});

describe("vocabulary:review", () => {
  const ANSWER = { word: "Receipt", language: "en", rating: 3, reviewId: "r1" } as const;

  async function withWord() {
    const made = await school();
    await record(made.agent, "run_a", [started(0, 0, "s1"), introduced(1, 0, "receipt")]);
    return made;
  }

  test("reviews a word of the student's own, now", async () => {
    const { t, page } = await withWord();
    const before = Date.now();
    const word = await page.mutation(api.vocabulary.review, ANSWER);
    expect(word).toMatchObject({ word: "receipt", state: "learning", reviews: 1 });
    const [row] = await rows(t, "vocabularyReviews");
    expect(row?.reviewedAt).toBeGreaterThanOrEqual(before);
    expect(await rows(t, "dailyStats")).toMatchObject([{ reviews: 1 }]);
  });

  test("with the same reviewId changes nothing", async () => {
    const { t, page } = await withWord();
    const word = await page.mutation(api.vocabulary.review, ANSWER);
    const before = await contents(t);
    expect(await page.mutation(api.vocabulary.review, { ...ANSWER, rating: 1 })).toEqual(word);
    expect(await contents(t)).toEqual(before);
    await page.mutation(api.vocabulary.review, { ...ANSWER, reviewId: "r2" });
    expect(await rows(t, "vocabularyReviews")).toHaveLength(2);
  });

  test("with a reviewId of another student's is counted", async () => {
    const { t, page } = await withWord();
    await page.mutation(api.vocabulary.review, ANSWER);
    const otherId = await addStudent(t, "Ben");
    await record(agentOf(t, otherId), "run_b", [started(0, 0, "s2"), introduced(1, 0, "receipt")]);
    await student(t, otherId).mutation(api.vocabulary.review, ANSWER);
    expect(await rows(t, "vocabularyReviews")).toHaveLength(2);
  });

  test.each([
    ["not_found", "word", { word: "loaf" }],
    ["not_found", "word", { language: "de" }],
    ["not_found", "word", { word: "!" }],
    ["invalid_value", "reviewId", { reviewId: " " }],
    ["field_too_long", "reviewId", { reviewId: "r".repeat(1_025) }],
    ["field_too_long", "word", { word: "w".repeat(1_025) }],
  ])("refuses with %s: %s", async (code, field, change) => {
    const { t, page } = await withWord();
    const before = await contents(t);
    const call = page.mutation(api.vocabulary.review, { ...ANSWER, ...change });
    expect(await refusal(call)).toMatchObject({ code, field });
    expect(await contents(t)).toEqual(before);
  });

  test("refuses a rating that is none with the validator's own error", async () => {
    const { page } = await withWord();
    for (const rating of [0, -1, 5, 2.5] as unknown as 1[]) {
      const call = page.mutation(api.vocabulary.review, { ...ANSWER, rating });
      await expect(call).rejects.toThrow(/[Vv]alidat/);
    }
  });
});

test("the agent of a guest sees no words", async () => {
  const guest = agentOfGuest(deployment(), "g1");
  expect(await guest.query(api.vocabulary.due, { now: T0 })).toEqual([]);
  const days = { from: "2026-11-02", to: "2026-11-02" };
  expect(await guest.query(api.vocabulary.masteredByDay, days)).toEqual({ before: 0, days: [] });
  const state = { state: "new", paginationOpts: PAGE } as const;
  expect(await guest.query(api.vocabulary.byState, state)).toMatchObject({ page: [], isDone: true });
});
