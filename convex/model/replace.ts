/**
 * Mending: a record that was refused for good, folded after all where its tombstone stands.
 *
 * It is folded as the record of its place: a message stands between its neighbours, what a later
 * record has said since stays said, and a run that has ended is not taken for alive again.
 * @module
 */
import type { Doc } from "../_generated/dataModel";
import type { MutationCtx } from "../_generated/server";
import { fail } from "../errors";
import type { Caller } from "../functions";
import type { RecordOf, SessionRecord } from "../validators";
import { checkRecord } from "./checks";
import { refuseErased } from "./erasures";
import { foldMended, requireVersion } from "./fold";
import { findRun } from "./runs";
import { containedParts } from "./text";
import { laterSnapshot } from "./usage";

/** Messages looked through for the one that contains a transcript: it is among the next. */
const MAX_MESSAGES_READ = 64;

/** One call of `sessions:replace`. */
export type Replacement = { version: number; runId: string; seq: number; record: SessionRecord };

/**
 * Folds the record into its place, and removes the tombstone there.
 *
 * @returns Whether it was folded now; false if the record of that place is folded already.
 * @throws ConvexError as `sessions:replace` says. Nothing is kept then.
 */
export async function replaceRecord(
  ctx: MutationCtx,
  caller: Caller,
  { version, runId, seq, record }: Replacement,
): Promise<boolean> {
  requireVersion(version);
  const run = await findRun(ctx, caller, runId);
  await refuseErased(ctx, caller, runId, run);
  if (run === null || seq > run.seq) notFound(seq);
  const tombstone = await tombstoneOver(ctx, runId, seq);
  if (tombstone === null) return false;
  if (tombstone.cause !== "setAside") notFound(seq);
  if (record.seq !== seq) {
    fail({
      code: "invalid_value",
      message: `sessions:replace: the record is of seq ${record.seq}, not of ${seq}.`,
      field: "record.seq",
    });
  }
  if (record.kind !== tombstone.ofKind || record.kind === "lost") {
    fail({
      code: "invalid_value",
      message:
        `sessions:replace: a record of the kind ${tombstone.ofKind} was set aside there; ` +
        "a mended one is of the same kind, and none stands for a loss.",
      field: "record.kind",
    });
  }
  checkRecord(record);
  await ctx.db.delete("tombstones", tombstone._id);
  run.setAsideRecords -= 1;
  await foldMended(ctx, run, await asOfItsPlace(ctx, run, record));
  return true;
}

/** The record as it adds to what later ones have told; null if they have told all of it. */
async function asOfItsPlace(
  ctx: MutationCtx,
  run: Doc<"sessionRuns">,
  record: SessionRecord,
): Promise<SessionRecord | null> {
  switch (record.kind) {
    case "usage":
      return { ...record, models: laterSnapshot(run.usage, record.models) };
    case "transcript":
      return (await isSaidLater(ctx, run.runId, record)) ? null : record;
    default:
      return record;
  }
}

/** Whether a message that followed in the run contains the transcript. */
async function isSaidLater(
  ctx: MutationCtx,
  runId: string,
  transcript: RecordOf<"transcript">,
): Promise<boolean> {
  const messages = await ctx.db
    .query("messages")
    .withIndex("by_runId_and_provisional_and_seq", (q) =>
      q.eq("runId", runId).eq("provisional", false).gt("seq", transcript.seq),
    )
    .take(MAX_MESSAGES_READ);
  return messages.some(
    ({ role, text }) => role === "user" && containedParts(text, [transcript]).size > 0,
  );
}

async function tombstoneOver(
  ctx: MutationCtx,
  runId: string,
  seq: number,
): Promise<Doc<"tombstones"> | null> {
  const last = await ctx.db
    .query("tombstones")
    .withIndex("by_runId_and_fromSeq", (q) => q.eq("runId", runId).lte("fromSeq", seq))
    .order("desc")
    .first();
  return last !== null && last.toSeq >= seq ? last : null;
}

function notFound(seq: number): never {
  fail({
    code: "not_found",
    message: `sessions:replace: no record was set aside at seq ${seq} of this run.`,
    seq,
  });
}
