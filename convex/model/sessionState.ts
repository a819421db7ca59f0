/**
 * Whether a session runs, derived from facts that any order of arrival adds up to the same.
 *
 * | fact | kept where |
 * |---|---|
 * | the session's runs, the latest of them | `sessions.lastRunId`, `lastRunStartedAt` |
 * | the latest end that a run announced | `sessions.announcedEnd` |
 * | the end of a run, without word of the session | `sessionRuns.runEnd` |
 * | the student's runs of other sessions | `sessionRuns.by_studentId_and_startedAt_and_runId` |
 * | the latest record of the session | `sessionLive.lastRecordAt` |
 *
 * - An announced end counts unless a run began after it: resuming later reopens the session.
 * - Else the end of the *latest* run ends the session provisionally. What became of an earlier run
 *   says nothing, its successor carries the session.
 * - The student's next run in another session ends this one at that moment, unless it had ended.
 * - A session that nobody ended, and of which nothing came for as long as a lease lasts, ended
 *   provisionally with its last record. Whether it was silent, the student's next run tells by its
 *   time; where there is none, a cron says so (model/leases.ts), until a further record comes.
 *
 * Nothing here reads a clock: the times of the records decide.
 * @module
 */
import { internal } from "../_generated/api";
import type { Doc, Id } from "../_generated/dataModel";
import type { MutationCtx } from "../_generated/server";
import { SCHOOL } from "../limits";
import type { End } from "../validators";
import { requireLive } from "./sessions";

/** The reason of an end that nobody announced: the student began another session. */
export const SUPERSEDED = "superseded";

/** The reason of an end that nobody announced: nothing more came of the session. */
export const LEASE_EXPIRED = "lease_expired";

/** The facts of one session. */
export type SessionFacts = {
  lastRunStartedAt: number;
  announcedEnd?: End | undefined;
  runEnd?: { at: number; reason: string } | undefined;
  /** When the student began, or went on with, another session after this one's latest run. */
  nextRunAt?: number | undefined;
  lastRecordAt: number;
  /** Nothing came for as long as a lease lasts. Counts only without a next run, which would tell. */
  silent: boolean;
};

type SessionState = Pick<
  Doc<"sessions">,
  "status" | "endedAt" | "endReason" | "provisionalEnd"
>;

/** The state that follows from the facts. */
export function stateOf(facts: SessionFacts): SessionState {
  const { lastRunStartedAt, announcedEnd, runEnd, nextRunAt, lastRecordAt } = facts;
  const announced = isAnnounced(facts);
  const silent =
    nextRunAt === undefined ? facts.silent : nextRunAt - lastRecordAt > SCHOOL.leaseMs;
  const expired = silent ? { at: lastRecordAt, reason: LEASE_EXPIRED } : undefined;
  const end = announced ? announcedEnd : (runEnd ?? expired);
  // A clock that was set back may date the end of a run before its start.
  const endedAt = end === undefined ? undefined : Math.max(end.at, lastRunStartedAt);
  if (nextRunAt !== undefined && (endedAt === undefined || nextRunAt < endedAt)) {
    return {
      status: "superseded",
      endedAt: nextRunAt,
      endReason: SUPERSEDED,
      provisionalEnd: false,
    };
  }
  if (end === undefined) {
    return { status: "active", endedAt: undefined, endReason: undefined, provisionalEnd: false };
  }
  return { status: "ended", endedAt, endReason: end.reason, provisionalEnd: !announced };
}

/** Whether the end that a run announced still counts: no run began after it. */
export function isAnnounced(
  { announcedEnd, lastRunStartedAt }: Pick<SessionFacts, "announcedEnd" | "lastRunStartedAt">,
): boolean {
  return announcedEnd !== undefined && announcedEnd.at >= lastRunStartedAt;
}

/**
 * Whether the session ended as it was meant to: a run said so, and the lesson was over by then. A
 * student who drops out leaves an announced end as well, but in the middle of a lesson.
 */
export function isEndIntended(
  session: Doc<"sessions">,
  { step }: Pick<Doc<"sessionLive">, "step">,
): boolean {
  return isAnnounced(session) && (session.completedAt !== undefined || step?.step === "farewell");
}

/** Whether `a` is later than `b`; of two ends at the same time the run decides. */
export function isLaterEnd(a: End, b: End | undefined): boolean {
  if (b === undefined || a.at > b.at) return true;
  // In one run, records come in order: the one folded last is the later.
  return a.at === b.at && a.runId >= b.runId;
}

/**
 * Derives the session's state anew, and what follows from it: the lease of one that is active, and
 * when one that is not is settled: after the grace, and at once where nobody will resume it, so that
 * the student finds the lesson on their page when they leave it. Writes only what changed.
 *
 * @param how - `changed`: its own rows changed, so that it has to be settled even if its state did
 *   not. `silent`: its lease ran out.
 */
export async function refreshSession(
  ctx: MutationCtx,
  sessionId: Id<"sessions">,
  how: { changed?: boolean; silent?: boolean } = {},
): Promise<void> {
  const session = await ctx.db.get("sessions", sessionId);
  if (session === null) return;
  const live = await requireLive(ctx, sessionId);
  const lastRun = await ctx.db
    .query("sessionRuns")
    .withIndex("by_runId", (q) => q.eq("runId", session.lastRunId))
    .unique();
  const next = await runAfter(ctx, session);
  const state = stateOf({
    lastRunStartedAt: session.lastRunStartedAt,
    announcedEnd: session.announcedEnd,
    runEnd: lastRun?.runEnd,
    nextRunAt: next?.startedAt,
    lastRecordAt: live.lastRecordAt,
    silent: how.silent ?? false,
  });
  const unchanged =
    session.status === state.status &&
    session.endedAt === state.endedAt &&
    session.endReason === state.endReason &&
    session.provisionalEnd === state.provisionalEnd;
  if (!unchanged || how.changed === true) {
    const settleDueAt =
      state.endedAt === undefined ? undefined : state.endedAt + SCHOOL.resumeGraceMs;
    await ctx.db.patch("sessions", session._id, { ...state, settleDueAt });
    if (settleDueAt !== undefined && isEndIntended(session, live)) {
      await ctx.scheduler.runAfter(0, internal.sessions.settleNow, { sessionId });
    }
  }
  const leaseUntil = state.status === "active" ? leaseAfter(live.lastRecordAt) : undefined;
  if (live.leaseUntil !== leaseUntil) await ctx.db.patch("sessionLive", live._id, { leaseUntil });
}

/** Until when a session is taken for alive whose last record is of that instant. */
export function leaseAfter(lastRecordAt: number): number {
  return lastRecordAt + SCHOOL.leaseMs;
}

/**
 * Refreshes what a run that just joined may change in the student's other sessions.
 *
 * Only one can: the session whose latest run is the student's last before this one. Any other was
 * superseded by a run that began between.
 */
export async function refreshSupersededBy(
  ctx: MutationCtx,
  run: Doc<"sessionRuns">,
): Promise<void> {
  const before = await runBefore(ctx, run);
  if (before?.sessionId === undefined || before.sessionId === run.sessionId) return;
  await refreshSession(ctx, before.sessionId);
}

/** The student's first run after the session's latest: of another session, by that. */
async function runAfter(
  ctx: MutationCtx,
  session: Doc<"sessions">,
): Promise<Doc<"sessionRuns"> | null> {
  const { studentId, lastRunStartedAt, lastRunId } = session;
  if (studentId === undefined) return null;
  const sameInstant = await ctx.db
    .query("sessionRuns")
    .withIndex("by_studentId_and_startedAt_and_runId", (q) =>
      q.eq("studentId", studentId).eq("startedAt", lastRunStartedAt).gt("runId", lastRunId),
    )
    .first();
  if (sameInstant !== null) return sameInstant;
  return await ctx.db
    .query("sessionRuns")
    .withIndex("by_studentId_and_startedAt_and_runId", (q) =>
      q.eq("studentId", studentId).gt("startedAt", lastRunStartedAt),
    )
    .first();
}

/** The student's last run before this one; runs that carry no session yet sort first of all. */
async function runBefore(
  ctx: MutationCtx,
  run: Doc<"sessionRuns">,
): Promise<Doc<"sessionRuns"> | null> {
  const { studentId, startedAt, runId } = run;
  if (studentId === undefined || startedAt === undefined) return null;
  const sameInstant = await ctx.db
    .query("sessionRuns")
    .withIndex("by_studentId_and_startedAt_and_runId", (q) =>
      q.eq("studentId", studentId).eq("startedAt", startedAt).lt("runId", runId),
    )
    .order("desc")
    .first();
  if (sameInstant !== null) return sameInstant;
  return await ctx.db
    .query("sessionRuns")
    .withIndex("by_studentId_and_startedAt_and_runId", (q) =>
      q.eq("studentId", studentId).lt("startedAt", startedAt),
    )
    .order("desc")
    .first();
}
