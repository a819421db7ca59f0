/**
 * What a student has behind them: lessons, corrections, exercises.
 * @module
 */
import { paginationOptsValidator, paginationResultValidator } from "convex/server";
import { v } from "convex/values";
import type { Doc } from "./_generated/dataModel";
import { studentQuery } from "./functions";
import { vCorrection, vErrorPattern, vExerciseResult, vProgress } from "./learningValidators";
import type { Progress } from "./learningValidators";
import {
  overcomeErrors as loadOvercomeErrors,
  recurringErrors as loadRecurringErrors,
  toCorrection,
} from "./model/corrections";
import { checkInstant } from "./model/fields";
import { emptyPage, pageOf } from "./model/pages";

/**
 * A page of the lessons that the student has begun, in no order that means something; at most 200 a
 * page.
 *
 * Reads one document per lesson.
 */
export const list = studentQuery({
  args: { paginationOpts: paginationOptsValidator },
  returns: paginationResultValidator(vProgress),
  handler: async (ctx, { paginationOpts }) => {
    const { studentId } = ctx.about;
    if (studentId === null) return emptyPage();
    const result = await ctx.db
      .query("progress")
      .withIndex("by_studentId_and_lessonId", (q) => q.eq("studentId", studentId))
      .paginate(pageOf(paginationOpts));
    return { ...result, page: result.page.map(toProgress) };
  },
});

/** How far the student is in one lesson; null if they never began it. Reads one document. */
export const ofLesson = studentQuery({
  args: { lessonId: v.id("lessons") },
  returns: v.union(vProgress, v.null()),
  handler: async (ctx, { lessonId }) => {
    const { studentId } = ctx.about;
    if (studentId === null) return null;
    const row = await ctx.db
      .query("progress")
      .withIndex("by_studentId_and_lessonId", (q) =>
        q.eq("studentId", studentId).eq("lessonId", lessonId),
      )
      .unique();
    return row === null ? null : toProgress(row);
  },
});

/**
 * A page of the student's errors of all lessons, newest first; at most 200 a page.
 *
 * Reads one document per error.
 */
export const corrections = studentQuery({
  args: { paginationOpts: paginationOptsValidator },
  returns: paginationResultValidator(vCorrection),
  handler: async (ctx, { paginationOpts }) => {
    const { studentId } = ctx.about;
    if (studentId === null) return emptyPage();
    const result = await ctx.db
      .query("corrections")
      .withIndex("by_studentId_and_createdAt", (q) => q.eq("studentId", studentId))
      .order("desc")
      .paginate(pageOf(paginationOpts));
    return { ...result, page: result.page.map(toCorrection) };
  },
});

/**
 * Types of error that keep coming back, those first that it helps most to work on.
 *
 * How they are weighed: `recurringErrors` in model/corrections.ts. Reads the student's newest 200
 * corrections.
 *
 * @param now - Milliseconds since the epoch; rounded to the hour, so that subscribers share it.
 * @throws ConvexError `instant_out_of_range`.
 */
export const recurringErrors = studentQuery({
  args: { now: v.number() },
  returns: v.array(vErrorPattern),
  handler: async (ctx, { now }) => {
    checkInstant("now", now);
    const { studentId } = ctx.about;
    return studentId === null ? [] : await loadRecurringErrors(ctx, studentId, now);
  },
});

/**
 * Types of error that used to come back, and did not in the latest five lessons that are over; the
 * latest overcome first.
 *
 * Reads six sessions and, of each of the 14 types, one correction if it is still there, else at most
 * 20.
 */
export const overcomeErrors = studentQuery({
  args: {},
  returns: v.array(vErrorPattern),
  handler: async (ctx) => {
    const { studentId } = ctx.about;
    return studentId === null ? [] : await loadOvercomeErrors(ctx, studentId);
  },
});

/**
 * A page of the student's answers to exercises, newest first; at most 200 a page.
 *
 * Reads one document per answer.
 */
export const exerciseResults = studentQuery({
  args: { paginationOpts: paginationOptsValidator },
  returns: paginationResultValidator(vExerciseResult),
  handler: async (ctx, { paginationOpts }) => {
    const { studentId } = ctx.about;
    if (studentId === null) return emptyPage();
    const result = await ctx.db
      .query("exerciseResults")
      .withIndex("by_studentId_and_createdAt", (q) => q.eq("studentId", studentId))
      .order("desc")
      .paginate(pageOf(paginationOpts));
    const page = result.page.map(({ exerciseId, score, answer, createdAt }) => ({
      exerciseId,
      score,
      answer,
      createdAt,
    }));
    return { ...result, page };
  },
});

function toProgress(row: Doc<"progress">): Progress {
  const { lessonId, status, timesStudied, lastStudiedAt, completedAt } = row;
  return {
    lessonId,
    status,
    timesStudied,
    lastStudiedAt,
    ...(completedAt === undefined ? {} : { completedAt }),
  };
}
