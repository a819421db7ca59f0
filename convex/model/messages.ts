/**
 * Messages and the transcripts that come before them.
 * @module
 */
import type { Doc } from "../_generated/dataModel";
import type { MutationCtx } from "../_generated/server";
import type { Message, Place, RecordOf } from "../validators";
import type { JoinedRun } from "./runs";
import { containedParts } from "./text";

/** Provisional rows looked through for one message, the newest of the run. A turn has a handful. */
const MAX_PROVISIONAL_READ = 64;

/** A row as readers see it. */
export function toMessage(row: Doc<"messages">): Message {
  const { itemId, role, text, interrupted, provisional, createdAt, seq, runStartedAt } = row;
  return {
    itemId,
    role,
    text,
    interrupted,
    provisional,
    createdAt,
    seq,
    runStartedAt,
    storedAt: row._creationTime,
    ...(row.language === undefined ? {} : { language: row.language }),
    ...(row.metrics === undefined ? {} : { metrics: row.metrics }),
  };
}

/**
 * Stores a committed item, or a newer snapshot of one that is there.
 *
 * Contents come from the latest record of the item, its place in the session from the earliest:
 * a repeat mends a message where it stands.
 *
 * @returns 1 if the item is new to the session, else 0.
 */
export async function foldMessage(
  ctx: MutationCtx,
  run: JoinedRun,
  record: RecordOf<"message">,
): Promise<0 | 1> {
  if (record.role === "user") await dropTranscriptsOf(ctx, run, record);
  const existing = await ctx.db
    .query("messages")
    .withIndex("by_sessionId_and_itemId", (q) =>
      q.eq("sessionId", run.sessionId).eq("itemId", record.itemId),
    )
    .unique();
  if (existing === null) {
    await ctx.db.insert("messages", {
      sessionId: run.sessionId,
      studentId: run.studentId,
      guest: run.guest,
      itemId: record.itemId,
      provisional: false,
      ...positionOf(run, record),
      ...contentsOf(record),
    });
    return 1;
  }
  const place: Place = { runStartedAt: run.startedAt, runId: run.runId, seq: record.seq };
  const shownFrom = existing.contentFrom ?? existing;
  if (comparePlaces(place, shownFrom) > 0) {
    await ctx.db.patch("messages", existing._id, { ...contentsOf(record), contentFrom: place });
  } else if (comparePlaces(place, existing) < 0) {
    const { runStartedAt, runId, seq } = shownFrom;
    await ctx.db.patch("messages", existing._id, {
      ...positionOf(run, record),
      contentFrom: { runStartedAt, runId, seq },
    });
  }
  return 0;
}

/** Stores a final transcript until the message that contains it comes; later it is not needed. */
export async function foldTranscript(
  ctx: MutationCtx,
  run: JoinedRun,
  record: RecordOf<"transcript">,
): Promise<void> {
  const { itemId } = record;
  if (itemId !== undefined) {
    const message = await ctx.db
      .query("messages")
      .withIndex("by_sessionId_and_itemId", (q) =>
        q.eq("sessionId", run.sessionId).eq("itemId", itemId),
      )
      .unique();
    if (message !== null) return;
  }
  await ctx.db.insert("messages", {
    sessionId: run.sessionId,
    studentId: run.studentId,
    guest: run.guest,
    itemId: `transcript:${run.runId}:${record.seq}`,
    provisional: true,
    ...positionOf(run, record),
    role: "user",
    text: record.text,
    interrupted: false,
    transcriptOf: itemId,
    language: record.language,
    speakerId: record.speakerId,
  });
}

async function dropTranscriptsOf(
  ctx: MutationCtx,
  run: JoinedRun,
  record: RecordOf<"message">,
): Promise<void> {
  const newest = await ctx.db
    .query("messages")
    .withIndex("by_runId_and_provisional_and_seq", (q) =>
      q.eq("runId", run.runId).eq("provisional", true),
    )
    .order("desc")
    .take(MAX_PROVISIONAL_READ);
  const contained = containedParts(record.text, newest.reverse());
  for (const row of newest) {
    if (row.transcriptOf === record.itemId || contained.has(row)) {
      await ctx.db.delete("messages", row._id);
    }
  }
}

function positionOf(run: JoinedRun, record: { seq: number; createdAt: number }) {
  const { seq, createdAt } = record;
  return { runId: run.runId, runStartedAt: run.startedAt, seq, createdAt };
}

/** All that a snapshot says, absent fields included: a newer one replaces the whole. */
function contentsOf(record: RecordOf<"message">) {
  return {
    role: record.role,
    text: record.text,
    interrupted: record.interrupted,
    language: record.language,
    transcriptConfidence: record.transcriptConfidence,
    startedSpeakingAt: record.startedSpeakingAt,
    stoppedSpeakingAt: record.stoppedSpeakingAt,
    metrics: record.metrics,
  };
}

function comparePlaces(a: Place, b: Place): number {
  if (a.runStartedAt !== b.runStartedAt) return a.runStartedAt - b.runStartedAt;
  if (a.runId !== b.runId) return a.runId < b.runId ? -1 : 1;
  return a.seq - b.seq;
}
