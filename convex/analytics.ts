/**
 * Numbers for the school, and telemetry.
 *
 * | Number | From | Misses some |
 * |---|---|---|
 * | sessions, minutes, messages, active students | settled sessions | no |
 * | errors that Emma noted and that were corrected | the fold | no |
 * | errors of models and services, by kind | the fold | no |
 * | time to the first word of the answer | the fold: each answer that LiveKit measured | no |
 * | tool calls, handoffs, changes of state (`events`) | the fold | no |
 * | pages opened, connections, devices, measurements (`events`) | telemetry | yes |
 *
 * "No" means once all journals have arrived. A session counts when it is settled, 15 minutes after
 * its end, on the day on which it began where the student lives; sums follow within 5 minutes.
 * @module
 */
import { paginationOptsValidator, paginationResultValidator } from "convex/server";
import { v } from "convex/values";
import { internal } from "./_generated/api";
import { internalMutation } from "./_generated/server";
import { vEvent, vLatency, vSchoolDay, vTelemetryEvent } from "./analyticsValidators";
import { adminQuery, callerMutation, teacherQuery } from "./functions";
import { latencyOf, listEvents, loadDays, toSchoolDay } from "./model/analytics";
import { checkInstant } from "./model/fields";
import { rollUp as rollUpPage } from "./model/rollUp";
import { storeEvents } from "./model/telemetry";
import { vEventType } from "./validators";

/**
 * Store telemetry, sent and forgotten: the sender may drop some, and does not try again.
 *
 * Calling it twice stores the events twice. An event is stored in the caller's name; a `sessionKey`
 * that is not of a session of theirs is left out. Users of the school appear in no row.
 *
 * @param events - At most 100; every text at most 1 KiB.
 * @throws ConvexError with `field` as `events[3].eventData.page`: `too_many_items`,
 *   `field_too_long`, `instant_out_of_range`, `invalid_value` where `eventData` does not belong to
 *   the `eventType` or is not finite. Nothing of the batch is stored then.
 */
export const track = callerMutation({
  args: { events: v.array(vTelemetryEvent) },
  returns: v.null(),
  handler: async (ctx, { events }) => {
    await storeEvents(ctx, ctx.caller, events);
    return null;
  },
});

const rangeArgs = { from: v.string(), to: v.string(), lessonId: v.optional(v.id("lessons")) };

/**
 * The school day by day, or one lesson; days on which nothing happened are left out.
 *
 * Exact. Reads one document per day.
 *
 * @param from - First day, `YYYY-MM-DD`.
 * @param to - Last day; at most 366 days.
 * @throws ConvexError `invalid_value`, `too_many_items`.
 */
export const days = teacherQuery({
  args: rangeArgs,
  returns: v.array(vSchoolDay),
  handler: async (ctx, range) => (await loadDays(ctx, range)).map(toSchoolDay),
});

/**
 * How long students waited for the first word of an answer, over all days of the range.
 *
 * Exact but for the width of the histogram's buckets. Reads one document per day.
 *
 * @param from - First day, `YYYY-MM-DD`.
 * @param to - Last day; at most 366 days.
 * @throws ConvexError `invalid_value`, `too_many_items`.
 */
export const latency = teacherQuery({
  args: rangeArgs,
  returns: vLatency,
  handler: async (ctx, range) =>
    latencyOf((await loadDays(ctx, range)).map((day) => day.latency)),
});

/**
 * A page of events of one type, newest first; at most 50 a page.
 *
 * For administrators alone: a tool's arguments may hold what a student said.
 *
 * @param from - Milliseconds since the epoch.
 * @param to - Milliseconds since the epoch; not in the range.
 * @throws ConvexError `instant_out_of_range`.
 */
export const events = adminQuery({
  args: {
    eventType: vEventType,
    from: v.number(),
    to: v.number(),
    paginationOpts: paginationOptsValidator,
  },
  returns: paginationResultValidator(vEvent),
  handler: async (ctx, { paginationOpts, ...range }) => {
    checkInstant("from", range.from);
    checkInstant("to", range.to);
    return await listEvents(ctx, range, paginationOpts);
  },
});

/** Adds what was settled to the school's days. For the cron. */
export const rollUp = internalMutation({
  args: {},
  returns: v.null(),
  handler: async (ctx): Promise<null> => {
    const more = await rollUpPage(ctx);
    if (more) await ctx.scheduler.runAfter(0, internal.analytics.rollUp, {});
    return null;
  },
});
