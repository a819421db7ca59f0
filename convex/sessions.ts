/**
 * Lessons held: what the agent records of them, and how they stand.
 * @module
 */
import { v } from "convex/values";
import { agentMutation, agentQuery, requireStudent, studentQuery } from "./functions";
import { RECORD_VERSIONS } from "./limits";
import { foldBatch } from "./model/fold";
import { findSession, toSession } from "./model/sessions";
import { loadPlan } from "./model/students";
import { vPlan } from "./schoolValidators";
import { vRecord, vSession } from "./validators";

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
 *   with `seq` and `field` for a record that can never be accepted; `version_unsupported`,
 *   `too_many_records`, `unauthenticated`, `forbidden`.
 */
export const record = agentMutation({
  args: { version: v.number(), runId: v.string(), records: v.array(vRecord) },
  returns: v.object({ seq: v.number() }),
  handler: async (ctx, batch) => ({ seq: await foldBatch(ctx, ctx.caller, batch) }),
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
 * What others may change while a lesson runs: the student's preferences, the lesson and its slides.
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
