/**
 * Lessons held: what the agent records of them, and how they stand.
 * @module
 */
import { paginationOptsValidator, paginationResultValidator } from "convex/server";
import { v } from "convex/values";
import { internal } from "./_generated/api";
import { internalMutation } from "./_generated/server";
import { agentMutation, agentQuery, requireStudent, studentQuery } from "./functions";
import { vSummary } from "./learningValidators";
import { RECORD_VERSIONS } from "./limits";
import { foldBatch } from "./model/fold";
import { checkInstant } from "./model/fields";
import { closeExpired as closeExpiredPage } from "./model/leases";
import { replaceRecord } from "./model/replace";
import { loadResumable } from "./model/resumable";
import { findSession, listSessions, toSession } from "./model/sessions";
import { settleDue as settleDuePage, settleNow as settleOneNow } from "./model/settle";
import { loadPlan } from "./model/students";
import { loadSummary } from "./model/summaries";
import { vPlan } from "./schoolValidators";
import { vRecord, vResumable, vSession, vSessionSummary } from "./validators";

/**
 * Fold the next records of one run into the tables.
 *
 * Safe to repeat: a record whose `seq` was already folded is skipped. The first call binds the run
 * to the token's subject. All or nothing: when it throws, nothing of the batch is kept.
 *
 * @param version - Version of the records, one of `sessions:recordVersions`.
 * @param records - At most 64, ascending `seq`; instants in milliseconds since the epoch.
 * @returns The highest `seq` now folded, -1 if none.
 * @throws ConvexError `{ code: "gap", expected }` if a `seq` is missing; one of `PERMANENT_CODES`
 *   with `seq` and `field` for a record that can never be accepted, without `seq` for a `runId` over
 *   1 KiB; `invalid_value` for an empty one; `version_unsupported`, `too_many_records`, `erased`,
 *   `unauthenticated`, `forbidden`.
 */
export const record = agentMutation({
  args: { version: v.number(), runId: v.string(), records: v.array(vRecord) },
  returns: v.object({ seq: v.number() }),
  handler: async (ctx, batch) => ({ seq: await foldBatch(ctx, ctx.caller, batch) }),
});

/**
 * Fold a mended record where its tombstone is: of a record that was refused for good.
 *
 * Safe to repeat: where the record of that place is folded, nothing changes. A mended start of a run
 * that has carried a session since completes what is known of the run; the session stays.
 *
 * @param record - Of the same `seq` and kind as the one that was set aside.
 * @returns Whether it was folded now; false if the record of that place is folded already.
 * @throws ConvexError `not_found` if nothing was set aside there: the run or the place is not folded
 *   yet, or lost; `invalid_value` for another `seq` or kind; else as `sessions:record`, with a
 *   permanent code if it still cannot be accepted.
 */
export const replace = agentMutation({
  args: { version: v.number(), runId: v.string(), seq: v.number(), record: vRecord },
  returns: v.object({ replaced: v.boolean() }),
  handler: async (ctx, mended) => ({ replaced: await replaceRecord(ctx, ctx.caller, mended) }),
});

/**
 * The record versions that `sessions:record` folds here, ascending.
 *
 * A worker asks at start, and holds its journal while its own version is not among them.
 */
export const recordVersions = agentQuery({
  args: {},
  returns: v.array(v.number()),
  handler: () => RECORD_VERSIONS,
});

/**
 * What others may change while a lesson runs: the student's preferences, the lesson and its slides,
 * and which lesson comes after it.
 *
 * Made to be subscribed to: it reads nothing that the agent writes.
 *
 * @param lessonId - Unknown, or of another table or deployment: `lesson` is null.
 * @throws ConvexError `student_unknown`. A guest has the default preferences.
 */
export const plan = agentQuery({
  args: { lessonId: v.optional(v.string()) },
  returns: vPlan,
  handler: async (ctx, { lessonId }) => {
    const { caller } = ctx;
    const studentId = caller.claimedStudentId === null ? null : requireStudent(caller);
    return await loadPlan(ctx, studentId, lessonId);
  },
});

/**
 * The session that a new run may go on with, as it stands; null if there is none.
 *
 * Only sessions of the token's own student or guest: another's is not there for the caller. What
 * other runs have not delivered yet is not in it.
 *
 * @param sessionKey - That session, or the one that took its place because a resume of it came too
 *   late: whichever a run carried last. However long ago it was. `lessonId` does not matter then.
 * @param lessonId - Without a key: the latest session, if this is its lesson (absent: if it has
 *   none) and it was seen within `resumeGraceMs` of `now`.
 * @param now - Milliseconds since the epoch; absent: the moment at which it is asked.
 * @throws ConvexError `instant_out_of_range`.
 */
export const resumable = agentQuery({
  args: {
    sessionKey: v.optional(v.string()),
    lessonId: v.optional(v.string()),
    now: v.optional(v.number()),
  },
  returns: v.union(vResumable, v.null()),
  handler: async (ctx, { now = Date.now(), ...asked }) => {
    checkInstant("now", now);
    return await loadResumable(ctx, ctx.caller, { ...asked, now });
  },
});

/**
 * How a session stands; null before its first record is folded.
 *
 * @throws ConvexError `forbidden` if the session is somebody else's.
 */
export const get = studentQuery({
  args: { sessionKey: v.string() },
  returns: v.union(vSession, v.null()),
  handler: async (ctx, { sessionKey }) => {
    const session = await findSession(ctx, ctx.about, sessionKey);
    return session === null ? null : await toSession(ctx, session);
  },
});

/**
 * What remains of a session in words; null until something is written of it.
 *
 * @returns `forTeacher` to teachers, administrators and the student's agent alone.
 * @throws ConvexError `forbidden` if the session is somebody else's.
 */
export const summary = studentQuery({
  args: { sessionKey: v.string() },
  returns: v.union(vSummary, v.null()),
  handler: async (ctx, { sessionKey }) => {
    const session = await findSession(ctx, ctx.about, sessionKey);
    return session === null ? null : await loadSummary(ctx, session, ctx.caller.role);
  },
});

/**
 * A page of the student's sessions, newest first; at most 200 a page.
 *
 * Counters are not in it (`sessions:get` has them): a list reruns when a session begins or ends, and
 * not with each message.
 */
export const list = studentQuery({
  args: { paginationOpts: paginationOptsValidator },
  returns: paginationResultValidator(vSessionSummary),
  handler: async (ctx, { paginationOpts }) => await listSessions(ctx, ctx.about, paginationOpts),
});

/** Ends, provisionally, the sessions of which nothing more comes. For the cron. */
export const closeExpired = internalMutation({
  args: {},
  returns: v.null(),
  handler: async (ctx): Promise<null> => {
    const more = await closeExpiredPage(ctx, Date.now());
    if (more) await ctx.scheduler.runAfter(0, internal.sessions.closeExpired, {});
    return null;
  },
});

/** Adds the sessions that are over to what is told of days, students and lessons. For the cron. */
export const settleDue = internalMutation({
  args: {},
  returns: v.null(),
  handler: async (ctx): Promise<null> => {
    const more = await settleDuePage(ctx, Date.now());
    if (more) await ctx.scheduler.runAfter(0, internal.sessions.settleDue, {});
    return null;
  },
});

/** `sessions:settleDue` for one session that ended as it was meant to; scheduled with its end. */
export const settleNow = internalMutation({
  args: { sessionId: v.id("sessions") },
  returns: v.null(),
  handler: async (ctx, { sessionId }): Promise<null> => {
    await settleOneNow(ctx, sessionId);
    return null;
  },
});
