/**
 * What follows from the end of a session: its day, the student's totals and streak, their progress.
 *
 * A session is settled once nobody may resume it any more, at once where its end was intended, and
 * again whenever something of it changed after that. `sessionStats` keeps what it added, so settling adds the difference: it may
 * run at any moment between arrivals, any number of times, and ends in the same rows.
 * @module
 */
import type { Doc, Id } from "../_generated/dataModel";
import type { MutationCtx } from "../_generated/server";
import type { SessionSums } from "../learningValidators";
import { addToDay, isEmptyDay } from "./dailyStats";
import { addDays, dayOf } from "./days";
import { liveOf } from "./sessions";
import { addStudied } from "./studied";

/** Sessions settled in one call. */
const PAGE = 16;

/** A streak is counted up to here, and looked for among as many days with rows. */
export const MAX_STREAK_DAYS = 1_000;

/** What one session adds, and to which sums. */
type Contribution = SessionSums & { day: string; lessonId?: Id<"lessons"> | undefined };

/**
 * Settles the sessions that are due at `now`.
 *
 * @returns Whether there may be more.
 */
export async function settleDue(ctx: MutationCtx, now: number): Promise<boolean> {
  const due = await ctx.db
    .query("sessions")
    // Where nothing is to be settled, a row sorts before every number.
    .withIndex("by_settleDueAt", (q) => q.gt("settleDueAt", 0).lte("settleDueAt", now))
    .take(PAGE);
  for (const session of due) await settle(ctx, session);
  return due.length === PAGE;
}

/** Settles one session before it is due, unless it was settled, or resumed, in the meantime. */
export async function settleNow(ctx: MutationCtx, sessionId: Id<"sessions">): Promise<void> {
  const session = await ctx.db.get("sessions", sessionId);
  if (session?.settleDueAt !== undefined) await settle(ctx, session);
}

async function settle(ctx: MutationCtx, session: Doc<"sessions">): Promise<void> {
  await ctx.db.patch("sessions", session._id, { settleDueAt: undefined });
  const { studentId } = session;
  const student = studentId === undefined ? null : await ctx.db.get("students", studentId);
  // Being erased: nothing of the student may come back.
  if (studentId !== undefined && student === null) return;
  const after = await contributionOf(ctx, session, student?.timeZone ?? "UTC");
  if (after === null) return;
  const before = await keep(ctx, session, after);
  if (student !== null) await addToStudent(ctx, student, before, after);
}

async function contributionOf(
  ctx: MutationCtx,
  session: Doc<"sessions">,
  timeZone: string,
): Promise<Contribution | null> {
  const live = await liveOf(ctx, session._id);
  const { startedAt, endedAt, lessonId } = session;
  if (live === null || endedAt === undefined) return null;
  const { messageCount, errorsDetected, errorsCorrected, latency, errorKinds } = live;
  return {
    day: dayOf(startedAt, timeZone),
    lessonId,
    // Whole units: sums of fractions would depend on the order of adding.
    durationMs: Math.round(endedAt - startedAt),
    messages: messageCount,
    errorsDetected,
    errorsCorrected,
    latency,
    errorKinds,
  };
}

/** Writes down what the session adds from now on; returns what it added until now. */
async function keep(
  ctx: MutationCtx,
  { _id: sessionId, studentId, guest }: Doc<"sessions">,
  after: Contribution,
): Promise<Contribution | null> {
  const before = await ctx.db
    .query("sessionStats")
    .withIndex("by_sessionId", (q) => q.eq("sessionId", sessionId))
    .unique();
  const stats = { sessionId, studentId, guest, ...after, pending: true };
  if (before === null) {
    await ctx.db.insert("sessionStats", stats);
  } else {
    await ctx.db.replace("sessionStats", before._id, { ...stats, rolledUp: before.rolledUp });
  }
  return before;
}

async function addToStudent(
  ctx: MutationCtx,
  student: Doc<"students">,
  before: Contribution | null,
  after: Contribution,
): Promise<void> {
  const daysChanged = await addToDays(ctx, student._id, before, after);
  await addToTotals(ctx, student, daysChanged, before, after);
  const lessons = new Set([before?.lessonId, after.lessonId]);
  for (const lessonId of lessons) {
    if (lessonId === undefined) continue;
    const added = Number(after.lessonId === lessonId) - Number(before?.lessonId === lessonId);
    await addStudied(ctx, student._id, lessonId, added);
  }
}

const SUMS = ["durationMs", "messages", "errorsDetected", "errorsCorrected"] as const;

type DaySums = Record<"sessions" | (typeof SUMS)[number], number>;

/** What goes from one contribution to the other; null is none. */
function difference(before: Contribution | null, after: Contribution | null): DaySums {
  const sums = SUMS.map((name) => [name, (after?.[name] ?? 0) - (before?.[name] ?? 0)]);
  const sessions = Number(after !== null) - Number(before !== null);
  return { sessions, ...Object.fromEntries(sums) } as DaySums;
}

/** Returns whether a day gained its first session or lost its last. */
async function addToDays(
  ctx: MutationCtx,
  studentId: Id<"students">,
  before: Contribution | null,
  after: Contribution,
): Promise<boolean> {
  const moves = before !== null && before.day !== after.day;
  if (moves) await addToOneDay(ctx, studentId, before.day, difference(before, null));
  const rest = difference(moves ? null : before, after);
  const sessions = await addToOneDay(ctx, studentId, after.day, rest);
  return moves || (before === null && sessions === 1);
}

/** Returns the sessions of the day; its row goes when nothing is left of it. */
async function addToOneDay(
  ctx: MutationCtx,
  studentId: Id<"students">,
  day: string,
  added: DaySums,
): Promise<number> {
  const row = await addToDay(ctx, studentId, day, added);
  if (isEmptyDay(row)) await ctx.db.delete("dailyStats", row._id);
  return row.sessions;
}

async function addToTotals(
  ctx: MutationCtx,
  student: Doc<"students">,
  daysChanged: boolean,
  before: Contribution | null,
  after: Contribution,
): Promise<void> {
  const known = student.totals ?? { sessions: 0, durationMs: 0, messages: 0, streakDays: 0 };
  const { sessions, durationMs, messages } = difference(before, after);
  // The tutor subscribes to the student's row: what is as it was is not written.
  if (!daysChanged && sessions === 0 && durationMs === 0 && messages === 0) return;
  const { lastDay, streakDays } = daysChanged ? await streakOf(ctx, student._id) : known;
  await ctx.db.patch("students", student._id, {
    totals: {
      sessions: known.sessions + sessions,
      durationMs: known.durationMs + durationMs,
      messages: known.messages + messages,
      streakDays,
      lastDay,
    },
  });
}

/** The row of days with a session that ends on the latest of them. */
async function streakOf(
  ctx: MutationCtx,
  studentId: Id<"students">,
): Promise<{ streakDays: number; lastDay?: string | undefined }> {
  const latestFirst = ctx.db
    .query("dailyStats")
    .withIndex("by_studentId_and_day", (q) => q.eq("studentId", studentId))
    .order("desc");
  let streakDays = 0;
  let lastDay: string | undefined;
  let read = 0;
  for await (const { day, sessions } of latestFirst) {
    if (sessions > 0) {
      lastDay ??= day;
      if (day !== addDays(lastDay, -streakDays)) break;
      streakDays += 1;
    } else if (lastDay !== undefined) {
      break;
    }
    read += 1;
    if (read === MAX_STREAK_DAYS) break;
  }
  return { streakDays, lastDay };
}
