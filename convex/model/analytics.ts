/**
 * The school's numbers as readers see them.
 * @module
 */
import type { PaginationOptions, PaginationResult } from "convex/server";
import type { Event, Latency, SchoolDay } from "../analyticsValidators";
import type { Doc, Id } from "../_generated/dataModel";
import type { QueryCtx } from "../_generated/server";
import { SCHOOL } from "../limits";
import { checkDays } from "./fields";
import { addHistogram, emptyHistogram, percentile, totalOf } from "./histogram";
import { pageOf } from "./pages";

/** A stretch of days of the school, or of one lesson. */
export type DayRange = { from: string; to: string; lessonId?: Id<"lessons"> | undefined };

/** The rows of the range, a day each, earliest first. */
export async function loadDays(ctx: QueryCtx, range: DayRange): Promise<Doc<"schoolDays">[]> {
  const { from, to, lessonId } = range;
  checkDays(range, SCHOOL.maxChartDays);
  return await ctx.db
    .query("schoolDays")
    .withIndex("by_lessonId_and_day", (q) =>
      q.eq("lessonId", lessonId).gte("day", from).lte("day", to),
    )
    .take(SCHOOL.maxChartDays);
}

/** A day as readers see it. */
export function toSchoolDay(row: Doc<"schoolDays">): SchoolDay {
  const { day, lessonId, sessions, durationMs, messages, activeStudents } = row;
  const { errorsDetected, errorsCorrected, errorKinds, latency } = row;
  return {
    day,
    sessions,
    minutes: durationMs / 60_000,
    messages,
    ...(lessonId === undefined ? { activeStudents } : {}),
    errorsDetected,
    errorsCorrected,
    errors: errorKinds.filter(({ count }) => count !== 0),
    latency: latencyOf([latency]),
  };
}

/** The latencies of several histograms taken together. */
export function latencyOf(histograms: number[][]): Latency {
  let all = emptyHistogram();
  for (const histogram of histograms) all = addHistogram(all, histogram);
  return {
    answers: totalOf(all),
    p50Ms: percentile(all, 0.5),
    p95Ms: percentile(all, 0.95),
    p99Ms: percentile(all, 0.99),
  };
}

/** Events of one type and stretch of time, newest first. `to` is not in it. */
export async function listEvents(
  ctx: QueryCtx,
  { eventType, from, to }: { eventType: Event["eventType"]; from: number; to: number },
  options: PaginationOptions,
): Promise<PaginationResult<Event>> {
  const result = await ctx.db
    .query("analyticsEvents")
    .withIndex("by_eventType_and_createdAt", (q) =>
      q.eq("eventType", eventType).gte("createdAt", from).lt("createdAt", to),
    )
    .order("desc")
    .paginate(pageOf(options, SCHOOL.maxPageEvents));
  return { ...result, page: result.page.map(toEvent) };
}

function toEvent(row: Doc<"analyticsEvents">): Event {
  const { _id, eventType, createdAt, eventData, sessionId, studentId, guest } = row;
  return {
    eventId: _id,
    eventType,
    createdAt,
    eventData,
    ...(sessionId === undefined ? {} : { sessionId }),
    ...(studentId === undefined ? {} : { studentId }),
    ...(guest === undefined ? {} : { guest }),
  };
}
