/**
 * A student's words: met, reviewed, mastered.
 *
 * The order in which reviews arrive is free. One that comes in time reschedules the card; one that
 * comes late has the card counted anew from the word's history, in the order in which the student
 * gave the answers, so that card, history and days end as if it had come in time.
 * @module
 */
import type { Doc, Id } from "../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../_generated/server";
import type { Rating, TutoringRecordOf, Word } from "../learningValidators";
import { MAX_INSTANT_MS, SCHOOL } from "../limits";
import { newCard, reviewed } from "./cards";
import { addMastered, addToDay } from "./dailyStats";
import { dayOf } from "./days";
import { comparePlaces, placeIn } from "./places";
import type { JoinedRun } from "./runs";
import { normaliseWords } from "./text";

/** A row as readers see it. */
export function toWord(row: Doc<"vocabulary">): Word {
  const { language, word, meaning, example, state, dueAt, mastered, firstMetAt, card } = row;
  return {
    language,
    word,
    ...(meaning === undefined ? {} : { meaning }),
    ...(example === undefined ? {} : { example }),
    state,
    dueAt,
    mastered,
    firstMetAt,
    reviews: card.reps,
    lapses: card.lapses,
  };
}

/** The words that are due at `now`, the longest due first. */
export async function wordsDue(
  ctx: QueryCtx,
  studentId: Id<"students">,
  now: number,
  limit: number,
): Promise<Doc<"vocabulary">[]> {
  return await ctx.db
    .query("vocabulary")
    .withIndex("by_studentId_and_dueAt", (q) => q.eq("studentId", studentId).lte("dueAt", now))
    .take(limit);
}

/**
 * The words that are due at `now`: those that the lesson teaches, in its order, then the longest due.
 *
 * @param taught - Its language and its target words, at most `SCHOOL.maxTargetWords`; null without one.
 */
export async function wordsDueFor(
  ctx: QueryCtx,
  studentId: Id<"students">,
  taught: { language: string; targetWords: readonly string[] } | null,
  { now, limit }: { now: number; limit: number },
): Promise<Doc<"vocabulary">[]> {
  const { language, targetWords } = taught ?? { language: "", targetWords: [] };
  const known = await Promise.all(
    targetWords.map((word) => findWord(ctx, studentId, { language, word })),
  );
  const due = new Map<Id<"vocabulary">, Doc<"vocabulary">>();
  for (const row of known) if (row !== null && row.dueAt <= now) due.set(row._id, row);
  for (const row of await wordsDue(ctx, studentId, now, limit)) due.set(row._id, row);
  return [...due.values()].slice(0, limit);
}

/** The words that the student met in the session for the first time: the latest `limit`, in order. */
export async function wordsIntroducedIn(
  ctx: QueryCtx,
  sessionId: Id<"sessions">,
  limit: number,
): Promise<Doc<"vocabulary">[]> {
  const latest = await ctx.db
    .query("vocabulary")
    .withIndex("by_introducedIn_and_firstMetAt", (q) => q.eq("introducedIn", sessionId))
    .order("desc")
    .take(limit);
  return latest.reverse();
}

/** The student's row of that word, or null; also null for a word without a letter or digit. */
async function findWord(
  ctx: QueryCtx,
  studentId: Id<"students">,
  { language, word }: { language: string; word: string },
): Promise<Doc<"vocabulary"> | null> {
  return await ctx.db
    .query("vocabulary")
    .withIndex("by_studentId_and_language_and_wordKey", (q) =>
      q
        .eq("studentId", studentId)
        .eq("language", language)
        .eq("wordKey", normaliseWords(word)),
    )
    .unique();
}

/** A word is met: the earliest record that introduces it decides how it reads. */
export async function foldWordIntroduced(
  ctx: MutationCtx,
  run: JoinedRun,
  record: TutoringRecordOf<"wordIntroduced">,
): Promise<void> {
  if (run.studentId === undefined) return;
  const row = await metWord(ctx, run.studentId, record, record.createdAt);
  if (row === null) return;
  const place = placeIn(run, record);
  if (row.introducedBy !== undefined && comparePlaces(place, row.introducedBy) > 0) return;
  const { word, meaning, example } = record;
  await ctx.db.patch("vocabulary", row._id, {
    word,
    meaning,
    example,
    introducedBy: place,
    introducedIn: run.sessionId,
  });
}

/** A word is reviewed in a lesson. */
export async function foldWordReviewed(
  ctx: MutationCtx,
  run: JoinedRun,
  record: TutoringRecordOf<"wordReviewed">,
): Promise<void> {
  if (run.studentId === undefined) return;
  const { createdAt: reviewedAt, rating, seq } = record;
  const row = await metWord(ctx, run.studentId, record, reviewedAt);
  if (row === null) return;
  await addReview(ctx, row, { runId: run.runId, seq, reviewedAt, rating });
}

/**
 * A review on the student's page, counted once for each `reviewId`.
 *
 * @returns The word as it is then; null if the student never met it.
 */
export async function addPageReview(
  ctx: MutationCtx,
  studentId: Id<"students">,
  review: { word: string; language: string; rating: Rating; reviewId: string; at: number },
): Promise<Doc<"vocabulary"> | null> {
  const word = await findWord(ctx, studentId, review);
  if (word === null) return null;
  // The student is part of it, since anybody's page may make up the same id.
  const runId = `page:${studentId}:${review.reviewId}`;
  const counted = await ctx.db
    .query("vocabularyReviews")
    .withIndex("by_runId_and_seq", (q) => q.eq("runId", runId))
    .unique();
  if (counted !== null) return word;
  await addReview(ctx, word, { runId, seq: 0, reviewedAt: review.at, rating: review.rating });
  return await ctx.db.get("vocabulary", word._id);
}

/**
 * The row of a word that the student met at `at`; made, if there is none.
 *
 * Until a record introduces it, a word is written as it compares. Null for what has no letter and
 * no digit: that is no word.
 */
async function metWord(
  ctx: MutationCtx,
  studentId: Id<"students">,
  { language, word }: { language: string; word: string },
  at: number,
): Promise<Doc<"vocabulary"> | null> {
  const wordKey = normaliseWords(word);
  if (wordKey === "") return null;
  const known = await findWord(ctx, studentId, { language, word });
  if (known === null) {
    const id = await ctx.db.insert("vocabulary", {
      studentId,
      language,
      wordKey,
      word: wordKey,
      firstMetAt: at,
      ...newCard(at),
    });
    return await ctx.db.get("vocabulary", id);
  }
  if (at >= known.firstMetAt) return known;
  const earlier = { firstMetAt: at, ...(known.state === "new" ? newCard(at) : {}) };
  await ctx.db.patch("vocabulary", known._id, earlier);
  return { ...known, ...earlier };
}

type Review = Pick<Doc<"vocabularyReviews">, "runId" | "seq" | "reviewedAt"> & { rating: Rating };
type CountedReview = Review & Pick<Doc<"vocabularyReviews">, "day" | "masteredAfter">;

/** Counts one review of the word. The caller sees to it that none is counted twice. */
async function addReview(
  ctx: MutationCtx,
  word: Doc<"vocabulary">,
  review: Review,
): Promise<void> {
  const { studentId } = word;
  const student = await ctx.db.get("students", studentId);
  const day = dayOf(review.reviewedAt, student?.timeZone ?? "UTC");
  await addToDay(ctx, studentId, day, { reviews: 1 });
  const last = await lastReview(ctx, word);
  if (last !== null && compareReviews(review, last) < 0) {
    await addLateReview(ctx, word, { ...review, day });
    return;
  }
  const next = reviewed(word, review);
  await ctx.db.patch("vocabulary", word._id, next);
  await insertReview(ctx, word, { ...review, day, masteredAfter: next.mastered });
  await addMastered(ctx, studentId, new Map([[day, Number(next.mastered) - Number(word.mastered)]]));
}

/**
 * Puts a review in its place in the history, and counts the card anew from the first one.
 *
 * A word with more than `SCHOOL.maxReviewsReplayed` reviews is left as it is: the late one stands in
 * the history and in the sums of its day, and moves no due date.
 */
async function addLateReview(
  ctx: MutationCtx,
  word: Doc<"vocabulary">,
  review: Review & { day: string },
): Promise<void> {
  const history = await ctx.db
    .query("vocabularyReviews")
    .withIndex("by_vocabularyId_and_reviewedAt_and_runId_and_seq", (q) =>
      q.eq("vocabularyId", word._id),
    )
    .take(SCHOOL.maxReviewsReplayed + 1);
  if (history.length > SCHOOL.maxReviewsReplayed) {
    const before = await lastReview(ctx, word, review.reviewedAt);
    await insertReview(ctx, word, { ...review, masteredAfter: before?.masteredAfter ?? false });
    return;
  }
  const known = new Map<Review, Doc<"vocabularyReviews">>(history.map((row) => [row, row]));
  const replayed: CountedReview[] = [];
  let card = newCard(review.reviewedAt);
  for (const each of [...history, review].sort(compareReviews)) {
    card = reviewed(card, each);
    const masteredAfter = card.mastered;
    replayed.push({ ...each, masteredAfter });
    const row = known.get(each);
    if (row === undefined) {
      await insertReview(ctx, word, { ...review, masteredAfter });
    } else if (row.masteredAfter !== masteredAfter) {
      await ctx.db.patch("vocabularyReviews", row._id, { masteredAfter });
    }
  }
  await ctx.db.patch("vocabulary", word._id, card);
  const changes = masteredByDay(replayed);
  for (const [day, change] of masteredByDay(history)) {
    changes.set(day, (changes.get(day) ?? 0) - change);
  }
  await addMastered(ctx, word.studentId, changes);
}

/** How often the word became mastered on each day, less how often it lapsed. */
function masteredByDay(reviews: readonly CountedReview[]): Map<string, number> {
  const changes = new Map<string, number>();
  let before = false;
  for (const { day, masteredAfter } of reviews) {
    changes.set(day, (changes.get(day) ?? 0) + Number(masteredAfter) - Number(before));
    before = masteredAfter;
  }
  return changes;
}

/** The word's last review that is not later than `upTo`. */
async function lastReview(
  ctx: QueryCtx,
  word: Doc<"vocabulary">,
  upTo = MAX_INSTANT_MS,
): Promise<Doc<"vocabularyReviews"> | null> {
  return await ctx.db
    .query("vocabularyReviews")
    .withIndex("by_vocabularyId_and_reviewedAt_and_runId_and_seq", (q) =>
      q.eq("vocabularyId", word._id).lte("reviewedAt", upTo),
    )
    .order("desc")
    .first();
}

async function insertReview(
  ctx: MutationCtx,
  { _id: vocabularyId, studentId }: Doc<"vocabulary">,
  { runId, seq, reviewedAt, rating, day, masteredAfter }: CountedReview,
): Promise<void> {
  await ctx.db.insert("vocabularyReviews", {
    studentId,
    vocabularyId,
    runId,
    seq,
    reviewedAt,
    rating,
    day,
    masteredAfter,
  });
}

/** The order in which reviews happened; of two at the same instant the run decides. */
function compareReviews(a: Review, b: Review): number {
  if (a.reviewedAt !== b.reviewedAt) return a.reviewedAt - b.reviewedAt;
  if (a.runId !== b.runId) return a.runId < b.runId ? -1 : 1;
  return a.seq - b.seq;
}
