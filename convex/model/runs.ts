/**
 * Runs: whose they are, up to where they are folded, and which session they carry.
 * @module
 */
import type { Doc, Id } from "../_generated/dataModel";
import type { MutationCtx } from "../_generated/server";
import { fail } from "../errors";
import type { Caller } from "../functions";
import { SCHOOL } from "../limits";
import { emptyHistogram } from "./histogram";
import { sessionOfKey } from "./sessions";
import { addStudied } from "./studied";
import type { Place, RecordOf, SessionRecord } from "../validators";

/** A run's row that carries a session. */
export type JoinedRun = Doc<"sessionRuns"> & { sessionId: Id<"sessions">; startedAt: number };

const GUEST_PREFIX = "guest:";

/** The run's row, or null before its first batch. */
export async function findRun(
  ctx: MutationCtx,
  caller: Caller,
  runId: string,
): Promise<Doc<"sessionRuns"> | null> {
  const run = await ctx.db
    .query("sessionRuns")
    .withIndex("by_runId", (q) => q.eq("runId", runId))
    .unique();
  if (run !== null && run.subject !== caller.subject) {
    fail({ code: "forbidden", message: "sessions:record: the run belongs to another subject." });
  }
  return run;
}

/** Makes the run's row, bound to the caller for good. */
export async function openRun(
  ctx: MutationCtx,
  caller: Caller,
  runId: string,
): Promise<Doc<"sessionRuns">> {
  const id = await ctx.db.insert("sessionRuns", {
    runId,
    subject: caller.subject,
    ...(caller.studentId === null
      ? { guest: guestName(caller) }
      : { studentId: caller.studentId }),
    seq: -1,
    usage: [],
    lostRecords: 0,
    setAsideRecords: 0,
  });
  const run = await ctx.db.get("sessionRuns", id);
  if (run === null) throw new Error("a row that was just inserted is not there");
  return run;
}

/**
 * The records that are not folded yet, without holes.
 *
 * @throws ConvexError `gap`: `expected` is what follows the last *folded* record, also where the
 *   hole is inside the batch, since nothing of the batch is kept.
 */
export function recordsAfter(last: number, records: readonly SessionRecord[]): SessionRecord[] {
  const fresh: SessionRecord[] = [];
  let next = last + 1;
  for (const record of records) {
    if (Number.isSafeInteger(record.seq) && record.seq < next) continue;
    // A stretch that begins after its own end is refused later, by its fields.
    const covers = record.kind === "lost" && record.fromSeq <= record.seq;
    const from = covers ? record.fromSeq : record.seq;
    if (!Number.isSafeInteger(record.seq) || from > next) {
      fail({
        code: "gap",
        message: `sessions:record: seq ${next} is missing before ${record.seq}.`,
        seq: record.seq,
        expected: last + 1,
      });
    }
    fresh.push(record);
    next = record.seq + 1;
  }
  return fresh;
}

/**
 * Joins the session that a start or resume names; one of its own where that is somebody else's, or
 * where the resume came too late.
 *
 * A run carries one session: its first.
 */
export async function joinNamedSession(
  ctx: MutationCtx,
  run: Doc<"sessionRuns">,
  record: RecordOf<"sessionStarted" | "sessionResumed">,
): Promise<boolean> {
  const { room, jobId, agentName, participantIdentity } = record;
  Object.assign(run, { room, jobId, agentName, participantIdentity });
  if (run.sessionId !== undefined) return false;
  run.startedAt = record.createdAt;
  const tooLate = isTooLate(record);
  run.sessionId = await joinSession(ctx, run, run.startedAt, {
    sessionKey: tooLate ? run.runId : record.sessionKey,
    calledKey: record.sessionKey,
    placeholder: record.kind === "sessionResumed" && !tooLate,
    lesson: lessonNamedIn(ctx, run, record),
  });
  return true;
}

/**
 * Whether a resume begins a session of its own: the grace was over. What it tells of itself decides,
 * so that it does not matter what else has arrived; one that does not say goes on with the session.
 */
function isTooLate(record: RecordOf<"sessionStarted" | "sessionResumed">): boolean {
  if (record.kind === "sessionStarted" || record.lastSeenAt === undefined) return false;
  return record.createdAt - record.lastSeenAt > SCHOOL.resumeGraceMs;
}

/** Joins a session of its own, for a run whose start is lost or was set aside. */
export async function joinOwnSession(
  ctx: MutationCtx,
  run: Doc<"sessionRuns">,
  startedAt: number,
): Promise<void> {
  run.startedAt = startedAt;
  run.sessionId = await joinSession(ctx, run, startedAt, {
    sessionKey: ownKey(run),
    placeholder: true,
    lesson: null,
  });
}

/** The key that a run has without being told: a guest's from the token, else the run's id. */
function ownKey(run: Doc<"sessionRuns">): string {
  const guest = run.subject.startsWith(GUEST_PREFIX);
  return guest ? run.subject.slice(GUEST_PREFIX.length) : run.runId;
}

type NamedLesson = { lessonId: Id<"lessons">; lessonNamedBy: Place };

/** The lesson a record names, unless its id is of another table or deployment. */
function lessonNamedIn(
  ctx: MutationCtx,
  run: Doc<"sessionRuns">,
  record: RecordOf<"sessionStarted" | "sessionResumed">,
): NamedLesson | null {
  const { lessonId: named, createdAt, seq } = record;
  const lessonId = named === undefined ? null : ctx.db.normalizeId("lessons", named);
  if (lessonId === null) return null;
  return { lessonId, lessonNamedBy: { runStartedAt: createdAt, runId: run.runId, seq } };
}

/**
 * The session that a run may join under the key it wants, null where it has to be made.
 *
 * A key that is somebody else's leads to a session of the run's own: refused, its journal would be
 * held for ever, and joined, one would read the other's lesson.
 *
 * @throws ConvexError `forbidden` if even the run's id is the key of somebody else's session.
 */
async function sessionFor(
  ctx: MutationCtx,
  run: Doc<"sessionRuns">,
  wanted: string,
): Promise<{ sessionKey: string; session: Doc<"sessions"> | null }> {
  for (const sessionKey of new Set([wanted, ownKey(run), run.runId])) {
    const session = await sessionOfKey(ctx, sessionKey);
    // All rows of a session tell of one student: the token's subject alone does not say whether
    // that student existed when the session was made.
    const own = session?.subject === run.subject && session.studentId === run.studentId;
    if (session === null || own) return { sessionKey, session };
  }
  fail({ code: "forbidden", message: "sessions:record: the session belongs to another subject." });
}

/**
 * Adds a run to the session of that key; makes the session if there is none.
 *
 * @param named - `sessionKey`: the session that the run is to have. `calledKey`: the one it asked
 *   for, kept with the session that it got instead of that: one of its own, which it alone begins.
 */
async function joinSession(
  ctx: MutationCtx,
  run: Doc<"sessionRuns">,
  startedAt: number,
  named: {
    sessionKey: string;
    calledKey?: string;
    placeholder: boolean;
    lesson: NamedLesson | null;
  },
): Promise<Id<"sessions">> {
  const { placeholder, lesson } = named;
  const { subject, studentId, guest, runId } = run;
  const { sessionKey, session } = await sessionFor(ctx, run, named.sessionKey);
  const instead = sessionKey === runId && named.calledKey !== runId;
  const calledKey = instead ? named.calledKey : undefined;
  if (session === null) {
    const sessionId = await ctx.db.insert("sessions", {
      sessionKey,
      calledKey,
      subject,
      studentId,
      guest,
      ...lesson,
      placeholder,
      startedAt,
      lastRunId: runId,
      lastRunStartedAt: startedAt,
      runs: 1,
      status: "active",
      provisionalEnd: false,
    });
    await ctx.db.insert("sessionLive", {
      sessionId,
      studentId,
      guest,
      messageCount: 0,
      toolCallCount: 0,
      errorCount: 0,
      errorsDetected: 0,
      errorsCorrected: 0,
      latency: emptyHistogram(),
      errorKinds: [],
      lastRecordAt: startedAt,
      usage: [],
    });
    return sessionId;
  }
  const latest =
    startedAt > session.lastRunStartedAt ||
    (startedAt === session.lastRunStartedAt && runId > session.lastRunId);
  await ctx.db.patch("sessions", session._id, {
    placeholder: session.placeholder && placeholder,
    ...(calledKey === undefined ? {} : { calledKey }),
    startedAt: Math.min(session.startedAt, startedAt),
    runs: session.runs + 1,
    ...(latest ? { lastRunId: runId, lastRunStartedAt: startedAt } : {}),
    ...(namedEarlier(lesson, session) ? lesson : {}),
  });
  await leaveLesson(ctx, session);
  return session._id;
}

/** What the progress of a lesson tells of its sessions no longer tells of one that left it. */
async function leaveLesson(ctx: MutationCtx, before: Doc<"sessions">): Promise<void> {
  const { _id, studentId, lessonId } = before;
  if (studentId === undefined || lessonId === undefined) return;
  const after = await ctx.db.get("sessions", _id);
  if (after?.lessonId !== lessonId) await addStudied(ctx, studentId, lessonId, 0);
}

function namedEarlier(lesson: NamedLesson | null, session: Doc<"sessions">): boolean {
  if (lesson === null) return false;
  if (session.lessonNamedBy === undefined) return true;
  const { runStartedAt, runId } = lesson.lessonNamedBy;
  const known = session.lessonNamedBy;
  return (
    runStartedAt < known.runStartedAt ||
    (runStartedAt === known.runStartedAt && runId < known.runId)
  );
}

/** As whose the rows of a caller are kept who is no student. */
export function guestName(caller: Caller): string {
  return caller.claimedStudentId === null ? caller.subject : `unknown:${caller.claimedStudentId}`;
}
