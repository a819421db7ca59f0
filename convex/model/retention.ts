/**
 * How long rows are kept: days, per table, from the deployment's environment.
 *
 * | Variable | Rows | Not set |
 * |---|---|---|
 * | `RETENTION_DAYS_GUESTS` | everything of guests, since their last lesson began | 30 |
 * | `RETENTION_DAYS_MESSAGES` | `messages`, since they were stored | kept |
 * | `RETENTION_DAYS_CORRECTIONS` | `corrections`, since they were stored | kept |
 * | `RETENTION_DAYS_SESSION_SUMMARIES` | `sessionSummaries`, since they were stored | kept |
 * | `RETENTION_DAYS_EXERCISE_RESULTS` | `exerciseResults`, since they were stored | kept |
 * | `RETENTION_DAYS_ANALYTICS_EVENTS` | `analyticsEvents`, since they were stored | kept |
 * | `RETENTION_DAYS_SCHOOL_DAYS` | `schoolDays`, by their day | kept |
 *
 * Sessions, words and daily sums of students stay until the student is erased: progress and the
 * schedule of reviews are made of them. So do runs, or a journal that comes late would be folded
 * twice. A guest's run becomes a tombstone, which names nobody: a journal of it that arrives when
 * the guest is gone is answered `erased`, and the worker deletes it.
 * @module
 */
import { internal } from "../_generated/api";
import type { MutationCtx } from "../_generated/server";
import { SCHOOL } from "../limits";
import type { RetainedTable } from "../schoolValidators";
import { dayOf } from "./days";
import { daysFrom } from "./environment";
import { removePage } from "./privacy";

const DAY_MS = 24 * 60 * 60_000;
const GUEST_DAYS = 30;

const VARIABLES: Record<RetainedTable, string> = {
  messages: "RETENTION_DAYS_MESSAGES",
  corrections: "RETENTION_DAYS_CORRECTIONS",
  sessionSummaries: "RETENTION_DAYS_SESSION_SUMMARIES",
  exerciseResults: "RETENTION_DAYS_EXERCISE_RESULTS",
  analyticsEvents: "RETENTION_DAYS_ANALYTICS_EVENTS",
  schoolDays: "RETENTION_DAYS_SCHOOL_DAYS",
};

/** Schedules the first page of each table whose rows are not kept for ever, and of the guests. */
export async function beginRetention(ctx: MutationCtx): Promise<void> {
  const now = Date.now();
  for (const [table, variable] of Object.entries(VARIABLES) as [RetainedTable, string][]) {
    const days = daysFrom(variable, null);
    if (days === null) continue;
    const before = now - days * DAY_MS;
    await ctx.scheduler.runAfter(0, internal.retention.removeRows, { table, before });
  }
  const days = daysFrom("RETENTION_DAYS_GUESTS", GUEST_DAYS);
  if (days === null) return;
  const before = now - days * DAY_MS;
  await ctx.scheduler.runAfter(0, internal.retention.removeGuests, { before, cursor: null });
}

/** Deletes a page of a table's oldest rows; schedules the next while there are more. */
export async function removeExpiredRows(
  ctx: MutationCtx,
  table: RetainedTable,
  before: number,
): Promise<void> {
  const removed =
    table === "schoolDays"
      ? await removeSchoolDays(ctx, dayOf(before, "UTC"))
      : await removeStored(ctx, table, before);
  if (removed < SCHOOL.maxRowsExpired) return;
  await ctx.scheduler.runAfter(0, internal.retention.removeRows, { table, before });
}

async function removeStored(
  ctx: MutationCtx,
  table: Exclude<RetainedTable, "schoolDays">,
  before: number,
): Promise<number> {
  const rows = await ctx.db
    .query(table)
    .withIndex("by_creation_time", (q) => q.lt("_creationTime", before))
    .take(SCHOOL.maxRowsExpired);
  for (const row of rows) await ctx.db.delete(table, row._id);
  return rows.length;
}

async function removeSchoolDays(ctx: MutationCtx, day: string): Promise<number> {
  const rows = await ctx.db
    .query("schoolDays")
    .withIndex("by_day", (q) => q.lt("day", day))
    .take(SCHOOL.maxRowsExpired);
  for (const row of rows) await ctx.db.delete("schoolDays", row._id);
  return rows.length;
}

/** Where the walk over the guests is: behind the sessions of `cursor`, and perhaps inside a guest. */
export type GuestPlace = { before: number; cursor: string | null; guest?: string };

/**
 * Deletes a page of the rows of the next guest who has had no lesson since `before`.
 *
 * A guest's rows go together or stay together: of a student whom the school never took in there may
 * be many sessions, and a lesson that is being held now needs the session's own row.
 */
export async function removeExpiredGuest(ctx: MutationCtx, place: GuestPlace): Promise<void> {
  const next = await afterPage(ctx, place);
  if (next !== null) await ctx.scheduler.runAfter(0, internal.retention.removeGuests, next);
}

async function afterPage(ctx: MutationCtx, place: GuestPlace): Promise<GuestPlace | null> {
  const { before, cursor } = place;
  let { guest } = place;
  if (guest === undefined) {
    const { page, isDone, continueCursor } = await ctx.db
      .query("sessions")
      .withIndex("by_studentId_and_startedAt", (q) =>
        q.eq("studentId", undefined).lt("startedAt", before),
      )
      .paginate({ numItems: 1, cursor });
    guest = page[0]?.guest;
    if (guest === undefined || !(await isExpired(ctx, guest, before))) {
      return isDone ? null : { before, cursor: continueCursor };
    }
  }
  // Their sessions are among the first rows that go, and would not lead back to the others.
  const { done } = await removePage(ctx, [{ guest }]);
  return done ? { before, cursor } : { before, cursor, guest };
}

async function isExpired(ctx: MutationCtx, guest: string, before: number): Promise<boolean> {
  const last = await ctx.db
    .query("sessions")
    .withIndex("by_guest_and_startedAt", (q) => q.eq("guest", guest))
    .order("desc")
    .first();
  return last !== null && last.startedAt < before;
}
