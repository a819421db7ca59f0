/**
 * Words: what is due, what is known, and reviews of them.
 * @module
 */
import { paginationOptsValidator, paginationResultValidator } from "convex/server";
import { v } from "convex/values";
import { fail } from "./errors";
import { studentMutation, studentQuery } from "./functions";
import { vRating, vWord, vWordState } from "./learningValidators";
import { SCHOOL } from "./limits";
import { masteredByDay as loadMasteredByDay } from "./model/dailyStats";
import { checkDays, checkInstant, checkName } from "./model/fields";
import { emptyPage, pageOf } from "./model/pages";
import { addPageReview, toWord, wordsDue } from "./model/vocabulary";

/**
 * The words that are due, the longest due first; at most 50.
 *
 * Reads one document per word.
 *
 * @param now - Milliseconds since the epoch; rounded to the hour, so that subscribers share it.
 * @throws ConvexError `instant_out_of_range`.
 */
export const due = studentQuery({
  args: { now: v.number() },
  returns: v.array(vWord),
  handler: async (ctx, { now }) => {
    checkInstant("now", now);
    const { studentId } = ctx.about;
    if (studentId === null) return [];
    return (await wordsDue(ctx, studentId, now, SCHOOL.maxWordsDue)).map(toWord);
  },
});

/**
 * A page of the words in one state, or of those that are mastered, the longest due first; at most
 * 200 a page.
 *
 * Reads one document per word.
 */
export const byState = studentQuery({
  args: {
    state: v.union(...vWordState.members, v.literal("mastered")),
    paginationOpts: paginationOptsValidator,
  },
  returns: paginationResultValidator(vWord),
  handler: async (ctx, { state, paginationOpts }) => {
    const { studentId } = ctx.about;
    if (studentId === null) return emptyPage();
    const words = ctx.db.query("vocabulary");
    const ofState =
      state === "mastered"
        ? words.withIndex("by_studentId_and_mastered_and_dueAt", (q) =>
            q.eq("studentId", studentId).eq("mastered", true),
          )
        : words.withIndex("by_studentId_and_state_and_dueAt", (q) =>
            q.eq("studentId", studentId).eq("state", state),
          );
    const result = await ofState.paginate(pageOf(paginationOpts));
    return { ...result, page: result.page.map(toWord) };
  },
});

/**
 * How many words the student had mastered at the end of each day, for a chart.
 *
 * Reads one document per day on which something happened, and one for `before`: nothing is counted.
 *
 * @param from - The first day, `YYYY-MM-DD` where the student lives; `to` the last, at most 366.
 * @returns `before`: when `from` began. `days`: those on which something happened, ascending; on the
 *   others it stays what it was.
 * @throws ConvexError `invalid_value`, `too_many_items`.
 */
export const masteredByDay = studentQuery({
  args: { from: v.string(), to: v.string() },
  returns: v.object({
    before: v.number(),
    days: v.array(v.object({ day: v.string(), mastered: v.number() })),
  }),
  handler: async (ctx, range) => {
    checkDays(range, SCHOOL.maxChartDays);
    const { studentId } = ctx.about;
    if (studentId === null) return { before: 0, days: [] };
    return await loadMasteredByDay(ctx, studentId, range);
  },
});

/**
 * The student reviews one of their words on their own page, now.
 *
 * Safe to repeat: a `reviewId` that was counted is not counted again.
 *
 * @param rating - 1 again, 2 hard, 3 good, 4 easy.
 * @param reviewId - Any name that the page gives this answer, new for each; at most 1 KiB.
 * @returns The word as it is then.
 * @throws ConvexError `not_found` if it is none of the student's words; `field_too_long`,
 *   `invalid_value`.
 */
export const review = studentMutation({
  args: { word: v.string(), language: v.string(), rating: vRating, reviewId: v.string() },
  returns: vWord,
  handler: async (ctx, answer) => {
    checkName("word", answer.word);
    checkName("language", answer.language);
    checkName("reviewId", answer.reviewId);
    const word = await addPageReview(ctx, ctx.about.studentId, { ...answer, at: Date.now() });
    if (word === null) {
      fail({ code: "not_found", message: "The student never met this word.", field: "word" });
    }
    return toWord(word);
  },
});
