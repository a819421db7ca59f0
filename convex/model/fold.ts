/**
 * The fold: what a run recorded, applied to the tables exactly once.
 *
 * - A record whose `seq` is folded already is skipped, so any batch may be repeated.
 * - All of a batch is checked before its first write, and all of it is one transaction.
 * - Between runs the order of arrival is free: their rows and sums come out the same, because times
 *   in the records decide and nothing reads a clock.
 * @module
 */
import type { Doc } from "../_generated/dataModel";
import type { MutationCtx } from "../_generated/server";
import { fail } from "../errors";
import type { Caller } from "../functions";
import { MAX_BATCH_RECORDS, RECORD_VERSIONS } from "../limits";
import type { End, RecordOf, SessionRecord } from "../validators";
import { checkRecord } from "./checks";
import { refuseErased } from "./erasures";
import { countError } from "./errorKinds";
import { foldEvent, foldToolCall } from "./events";
import { checkName } from "./fields";
import { foldMessage, foldTranscript } from "./messages";
import { findRun, joinNamedSession, joinOwnSession, openRun, recordsAfter } from "./runs";
import type { JoinedRun } from "./runs";
import { isLaterEnd, leaseAfter, refreshSession, refreshSupersededBy } from "./sessionState";
import { requireLive } from "./sessions";
import { foldSummary } from "./summaries";
import { foldTutoring } from "./tutoring";
import { addUsage } from "./usage";

/** One call of `sessions:record`. */
export type Batch = { version: number; runId: string; records: SessionRecord[] };

/** What one batch changes, kept in memory until its end: each of these rows is written once. */
type Fold = {
  ctx: MutationCtx;
  run: Doc<"sessionRuns">;
  live: Doc<"sessionLive"> | null;
  /** The run joined its session in this batch. */
  joined: boolean;
  /** The state of the session has to be derived anew. */
  stateChanged: boolean;
};

/**
 * Folds the records of `batch` that are not folded yet.
 *
 * @returns The highest `seq` folded now, -1 if none.
 * @throws ConvexError with a code of `errors.ts`. Nothing of the batch is kept then.
 */
export async function foldBatch(ctx: MutationCtx, caller: Caller, batch: Batch): Promise<number> {
  const { version, runId, records } = batch;
  requireVersion(version);
  checkName("runId", runId);
  if (records.length > MAX_BATCH_RECORDS) {
    fail({
      code: "too_many_records",
      message: `sessions:record: ${records.length} records; the limit is ${MAX_BATCH_RECORDS}.`,
      limit: MAX_BATCH_RECORDS,
    });
  }
  const known = await findRun(ctx, caller, runId);
  await refuseErased(ctx, caller, runId, known);
  const last = known?.seq ?? -1;
  const fresh = recordsAfter(last, records);
  for (const record of fresh) checkRecord(record);
  const newest = fresh.at(-1);
  if (newest === undefined) return last;

  const run = known ?? (await openRun(ctx, caller, runId));
  const fold: Fold = { ctx, run, live: null, joined: false, stateChanged: false };
  for (const record of fresh) {
    await foldRecord(fold, record);
    run.seq = record.seq;
  }
  await close(fold);
  return newest.seq;
}

/** @throws ConvexError `version_unsupported`: records of that version are not folded here. */
export function requireVersion(version: number): void {
  if (RECORD_VERSIONS.includes(version)) return;
  fail({
    code: "version_unsupported",
    message:
      `sessions:record: records of version ${version} are not known here. ` +
      "Deploy the functions that belong to the worker.",
    supported: RECORD_VERSIONS,
  });
}

/**
 * Folds a record into its place among those of its run that are folded, and writes the run's row.
 *
 * @param record - Null if only the row has changed.
 */
export async function foldMended(
  ctx: MutationCtx,
  run: Doc<"sessionRuns">,
  record: SessionRecord | null,
): Promise<void> {
  const fold: Fold = { ctx, run, live: null, joined: false, stateChanged: false };
  if (record !== null) {
    const { runEnd } = run;
    await foldRecord(fold, record);
    // What the run told later says how it stands.
    if (record.seq < run.seq) run.runEnd = runEnd;
  }
  await close(fold);
}

async function foldRecord(fold: Fold, record: SessionRecord): Promise<void> {
  const { ctx } = fold;
  switch (record.kind) {
    case "sessionStarted":
    case "sessionResumed":
      fold.joined = (await joinNamedSession(ctx, fold.run, record)) || fold.joined;
      await alive(fold, record);
      return;
    case "message": {
      const { run, live } = await alive(fold, record);
      await foldMessage(ctx, run, live, record);
      return;
    }
    case "transcript": {
      const { run } = await alive(fold, record);
      await foldTranscript(ctx, run, record);
      return;
    }
    case "toolCall": {
      const { run, live } = await alive(fold, record);
      live.toolCallCount += await foldToolCall(ctx, run, record);
      return;
    }
    case "handoff":
    case "stateChanged": {
      const { run } = await alive(fold, record);
      await foldEvent(ctx, run, record);
      return;
    }
    case "usage": {
      const { run, live } = await joinedRun(fold, record);
      live.usage = addUsage(live.usage, run.usage, record.models);
      run.usage = record.models;
      return;
    }
    case "error": {
      const { run, live } = await alive(fold, record);
      await foldEvent(ctx, run, record);
      live.errorCount += 1;
      live.errorKinds = countError(live.errorKinds, record);
      return;
    }
    case "sessionEnded": {
      const { run } = await joinedRun(fold, record);
      await announceEnd(fold, run, record);
      return;
    }
    case "sessionSummary": {
      // Written when all is over, perhaps for a run that has ended: it takes no end back.
      const { run } = await joinedRun(fold, record);
      await foldSummary(ctx, run, record);
      return;
    }
    case "runEnded":
      fold.run.runEnd = { at: record.createdAt, reason: record.reason };
      fold.stateChanged = true;
      return;
    case "lost": {
      // Records before `fromSeq` may have arrived after all: only what is missing is lost.
      const fromSeq = Math.max(record.fromSeq, fold.run.seq + 1);
      fold.run.lostRecords += record.toSeq - fromSeq + 1;
      await insertTombstone(fold, record, { fromSeq, cause: "lost", reason: record.reason });
      return;
    }
    case "setAside": {
      const { seq, code, field, ofKind } = record;
      fold.run.setAsideRecords += 1;
      await insertTombstone(fold, record, {
        fromSeq: seq,
        cause: "setAside",
        reason: code,
        field,
        ofKind,
      });
      return;
    }
    default: {
      const { run, live } = await alive(fold, record);
      await foldTutoring(ctx, run, live, record);
    }
  }
}

/** Writes the rows that the batch changed, then what follows from them for sessions. */
async function close({ ctx, run, live, joined, stateChanged }: Fold): Promise<void> {
  await ctx.db.replace("sessionRuns", run._id, run);
  // Only an active session has a lease: of one that runs on, no other row is read or written.
  const active = live?.leaseUntil !== undefined;
  if (live !== null) {
    if (active) live.leaseUntil = leaseAfter(live.lastRecordAt);
    await ctx.db.replace("sessionLive", live._id, live);
  }
  if (run.sessionId === undefined) return;
  const late = live !== null && !active;
  if (joined || stateChanged || late) await refreshSession(ctx, run.sessionId, { changed: true });
  if (joined) await refreshSupersededBy(ctx, run);
}

/** As `joinedRun`, for records that only a living run makes: they take back the end of the run. */
async function alive(fold: Fold, record: SessionRecord) {
  if (fold.run.runEnd !== undefined) {
    fold.run.runEnd = undefined;
    fold.stateChanged = true;
  }
  return await joinedRun(fold, record);
}

/** The run with its session, and the session's live row. */
async function joinedRun(
  fold: Fold,
  record: SessionRecord,
): Promise<{ run: JoinedRun; live: Doc<"sessionLive"> }> {
  const { ctx, run } = fold;
  if (!isJoined(run)) {
    await joinOwnSession(ctx, run, record.createdAt);
    fold.joined = true;
  }
  if (!isJoined(run)) throw new Error("the run carries no session");
  fold.live ??= await requireLive(ctx, run.sessionId);
  fold.live.lastRecordAt = Math.max(fold.live.lastRecordAt, record.createdAt);
  return { run, live: fold.live };
}

function isJoined(run: Doc<"sessionRuns">): run is JoinedRun {
  return run.sessionId !== undefined && run.startedAt !== undefined;
}

async function announceEnd(
  fold: Fold,
  run: JoinedRun,
  record: RecordOf<"sessionEnded">,
): Promise<void> {
  const { createdAt: at, reason, errorType } = record;
  const end: End = { at, reason, runId: run.runId, errorType };
  const session = await fold.ctx.db.get("sessions", run.sessionId);
  if (session === null || !isLaterEnd(end, session.announcedEnd)) return;
  await fold.ctx.db.patch("sessions", session._id, { announcedEnd: end });
  fold.stateChanged = true;
}

async function insertTombstone(
  { ctx, run }: Fold,
  record: SessionRecord,
  about: Pick<Doc<"tombstones">, "fromSeq" | "cause" | "reason" | "field" | "ofKind">,
): Promise<void> {
  const { runId, studentId, guest } = run;
  const { seq: toSeq, createdAt } = record;
  await ctx.db.insert("tombstones", { runId, studentId, guest, toSeq, createdAt, ...about });
}
