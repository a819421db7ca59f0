/**
 * The block that outlives an erased student, and the erasure itself.
 *
 * Two things say that a student was erased: the keyed hash of their id, which knows every token that
 * still names them, and a tombstone for each of their runs, which knows the run whatever the token
 * says. Neither says who it was.
 * @module
 */
import { hmac } from "@noble/hashes/hmac.js";
import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex, utf8ToBytes } from "@noble/hashes/utils.js";
import { internal } from "../_generated/api";
import type { Doc, Id } from "../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../_generated/server";
import { ERASED, fail } from "../errors";
import type { Caller } from "../functions";
import type { ErasureReceipt } from "../schoolValidators";
import { findErasureKey, requireErasureKey } from "./environment";
import { STUDENT_TABLES, hasRows, removePage, rowsBeforeStudent } from "./privacy";

/**
 * Refuses what is folded for an erased student or run.
 *
 * Costs a running session of a student who is there nothing.
 *
 * @param known - The run's row; null before its first batch.
 * @throws ConvexError `erased`. Also `not_configured`, on which a worker holds its journal, if
 *   somebody was erased and the key that would tell whether it was this student is gone.
 */
export async function refuseErased(
  ctx: QueryCtx,
  caller: Caller,
  runId: string,
  known: Doc<"sessionRuns"> | null,
): Promise<void> {
  const { studentId, claimedStudentId } = caller;
  const erased =
    (known === null && (await isErasedRun(ctx, runId))) ||
    (studentId === null && claimedStudentId !== null && (await isErased(ctx, claimedStudentId)));
  if (erased) {
    fail({
      code: ERASED,
      message: "sessions:record: the student was erased; nothing of this run is kept.",
    });
  }
}

async function isErasedRun(ctx: QueryCtx, runId: string): Promise<boolean> {
  const tombstone = await ctx.db
    .query("tombstones")
    .withIndex("by_runId_and_fromSeq", (q) => q.eq("runId", runId).eq("fromSeq", 0))
    // The latest: while a page is left, one of a loss at the beginning may be there as well.
    .order("desc")
    .first();
  return tombstone?.cause === "erased";
}

async function isErased(ctx: QueryCtx, studentId: string): Promise<boolean> {
  const nobody = findErasureKey() === null && (await ctx.db.query("erasures").first()) === null;
  if (nobody) return false;
  const id = ctx.db.normalizeId("students", studentId) ?? studentId;
  return (await findErasure(ctx, requireErasureKey(), id)) !== null;
}

/**
 * Blocks the student and begins to delete their rows; again: goes on, with the same receipt.
 *
 * @throws ConvexError `student_unknown` if nothing is held about such a student, nor was;
 *   `not_configured` without ERASURE_KEY. Nothing is deleted then.
 */
export async function beginErasure(
  ctx: MutationCtx,
  studentId: Id<"students">,
): Promise<ErasureReceipt> {
  const key = requireErasureKey();
  const begun = await findErasure(ctx, key, studentId);
  const student = await ctx.db.get("students", studentId);
  if (begun === null && student === null && !(await hasRowsOf(ctx, studentId))) {
    fail({ code: "student_unknown", message: "There is no such student.", field: "studentId" });
  }
  // From here on every token that names the student names one who is not there.
  if (student !== null) await ctx.db.delete("students", studentId);
  const gone = student === null ? 0 : 1;
  if (begun === null) {
    const erasureId = await ctx.db.insert("erasures", {
      studentHash: hashOf(key, studentId),
      studentId,
      requestedAt: Date.now(),
      deleted: { students: gone, ...Object.fromEntries(STUDENT_TABLES.map((table) => [table, 0])) },
    });
    return await continueErasure(ctx, erasureId);
  }
  // The student may have come back since, by an import of what was backed up before.
  const deleted = { ...begun.deleted, students: (begun.deleted.students ?? 0) + gone };
  await ctx.db.patch("erasures", begun._id, { studentId, deleted, finishedAt: undefined });
  return await continueErasure(ctx, begun._id);
}

/** Deletes one page, and schedules the next until nothing is left. */
export async function continueErasure(
  ctx: MutationCtx,
  erasureId: Id<"erasures">,
): Promise<ErasureReceipt> {
  const erasure = await ctx.db.get("erasures", erasureId);
  if (erasure === null) throw new Error("an erasure that is not there");
  const { studentId } = erasure;
  // Finished by another call meanwhile.
  if (studentId === undefined) return toReceipt(erasure);
  const { deleted, done } = await removePage(ctx, [{ studentId }, rowsBeforeStudent(studentId)]);
  for (const [table, rows] of Object.entries(deleted)) {
    erasure.deleted[table] = (erasure.deleted[table] ?? 0) + rows;
  }
  if (done) {
    erasure.studentId = undefined;
    erasure.finishedAt = Date.now();
  } else {
    await ctx.scheduler.runAfter(0, internal.retention.eraseNext, { erasureId });
  }
  await ctx.db.replace("erasures", erasureId, erasure);
  return toReceipt(erasure);
}

/** The receipt of a student's erasure; null if they were not erased. */
export async function loadReceipt(
  ctx: QueryCtx,
  studentId: string,
): Promise<ErasureReceipt | null> {
  const erasure = await findErasure(ctx, requireErasureKey(), studentId);
  return erasure === null ? null : toReceipt(erasure);
}

async function hasRowsOf(ctx: QueryCtx, studentId: Id<"students">): Promise<boolean> {
  return (
    (await hasRows(ctx.db, { studentId })) || (await hasRows(ctx.db, rowsBeforeStudent(studentId)))
  );
}

async function findErasure(
  ctx: QueryCtx,
  key: string,
  studentId: string,
): Promise<Doc<"erasures"> | null> {
  const studentHash = hashOf(key, studentId);
  return await ctx.db
    .query("erasures")
    .withIndex("by_studentHash", (q) => q.eq("studentHash", studentHash))
    .unique();
}

// Not crypto.subtle: convex-local's functions have none.
function hashOf(key: string, studentId: string): string {
  return bytesToHex(hmac(sha256, utf8ToBytes(key), utf8ToBytes(studentId)));
}

function toReceipt({ requestedAt, finishedAt, deleted }: Doc<"erasures">): ErasureReceipt {
  return { requestedAt, ...(finishedAt === undefined ? {} : { finishedAt }), deleted };
}
