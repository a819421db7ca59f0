/**
 * Runs: whose they are, up to where they are folded, and which session they carry.
 * @module
 */
import type { Doc, Id } from "../_generated/dataModel";
import type { MutationCtx } from "../_generated/server";
import { fail } from "../errors";
import type { Caller } from "../functions";
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

/** Joins the session that a start or resume names. A run carries one session: its first. */
export async function joinNamedSession(
  ctx: MutationCtx,
  run: Doc<"sessionRuns">,
  record: RecordOf<"sessionStarted" | "sessionResumed">,
): Promise<boolean> {
  const { room, jobId, agentName, participantIdentity } = record;
  Object.assign(run, { room, jobId, agentName, participantIdentity });
  if (run.sessionId !== undefined) return false;
  run.startedAt = record.createdAt;
  run.sessionId = await joinSession(ctx, run, run.startedAt, {
    sessionKey: record.sessionKey,
    placeholder: record.kind === "sessionResumed",
    lesson: lessonNamedIn(ctx, run, record),
  });
  return true;
}

/**
 * Joins a session of its own, for a run whose start is lost or was set aside.
 *
 * The key is what remains known: a guest's from the token, else the run's id.
 */
export async function joinOwnSession(
  ctx: MutationCtx,
  run: Doc<"sessionRuns">,
  startedAt: number,
): Promise<void> {
  const guest = run.subject.startsWith(GUEST_PREFIX);
  run.startedAt = startedAt;
  run.sessionId = await joinSession(ctx, run, startedAt, {
    sessionKey: guest ? run.subject.slice(GUEST_PREFIX.length) : run.runId,
    placeholder: true,
    lesson: null,
  });
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

/** Adds a run to the session of that key; makes the session if there is none. */
async function joinSession(
  ctx: MutationCtx,
  run: Doc<"sessionRuns">,
  startedAt: number,
  named: { sessionKey: string; placeholder: boolean; lesson: NamedLesson | null },
): Promise<Id<"sessions">> {
  const { sessionKey, placeholder, lesson } = named;
  const { subject, studentId, guest, runId } = run;
  const session = await ctx.db
    .query("sessions")
    .withIndex("by_sessionKey", (q) => q.eq("sessionKey", sessionKey))
    .unique();
  if (session === null) {
    const sessionId = await ctx.db.insert("sessions", {
      sessionKey,
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
      lastRecordAt: startedAt,
      usage: [],
    });
    return sessionId;
  }
  if (session.subject !== subject) {
    fail({ code: "forbidden", message: "sessions:record: the session belongs to another subject." });
  }
  const latest =
    startedAt > session.lastRunStartedAt ||
    (startedAt === session.lastRunStartedAt && runId > session.lastRunId);
  await ctx.db.patch("sessions", session._id, {
    placeholder: session.placeholder && placeholder,
    startedAt: Math.min(session.startedAt, startedAt),
    runs: session.runs + 1,
    ...(latest ? { lastRunId: runId, lastRunStartedAt: startedAt } : {}),
    ...(namedEarlier(lesson, session) ? lesson : {}),
  });
  if (session.studentId === undefined && studentId !== undefined) {
    await adopt(ctx, session._id, studentId);
  }
  return session._id;
}

/** Gives the session to the token's student, who did not exist when an earlier run was folded. */
async function adopt(
  ctx: MutationCtx,
  sessionId: Id<"sessions">,
  studentId: Id<"students">,
): Promise<void> {
  const live = await ctx.db
    .query("sessionLive")
    .withIndex("by_sessionId", (q) => q.eq("sessionId", sessionId))
    .unique();
  await ctx.db.patch("sessions", sessionId, { studentId, guest: undefined });
  if (live !== null) await ctx.db.patch("sessionLive", live._id, { studentId, guest: undefined });
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

function guestName(caller: Caller): string {
  return caller.claimedStudentId === null ? caller.subject : `unknown:${caller.claimedStudentId}`;
}
