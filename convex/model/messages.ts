/**
 * Messages and the transcripts that come before them.
 * @module
 */
import type { Doc } from "../_generated/dataModel";
import type { MutationCtx } from "../_generated/server";
import type { Message, Place, RecordOf } from "../validators";
import { countDuration } from "./histogram";
import { comparePlaces, placeIn } from "./places";
import type { JoinedRun } from "./runs";
import { containedParts } from "./text";

/** Provisional rows looked through for one message, the newest of the run. A turn has a handful. */
const MAX_PROVISIONAL_READ = 64;

/** A row as readers see it. */
export function toMessage(row: Doc<"messages">): Message {
  const { itemId, role, text, interrupted, provisional, createdAt, seq, runStartedAt } = row;
  const { transcriptConfidence } = row;
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
    ...(transcriptConfidence === undefined ? {} : { transcriptConfidence }),
    ...(row.metrics === undefined ? {} : { metrics: row.metrics }),
  };
}

/**
 * Stores a committed item, or a further snapshot of one that is there.
 *
 * A repeat mends a message where it stands: its place in the session comes from the earliest record
 * of the item, what was said from the latest, timings from the latest that has any. Each of the
 * three is decided by the records' places, so the order of arrival is free.
 *
 * Counts the item, and the time to the first word of an answer, once in `live`, which the caller
 * writes.
 */
export async function foldMessage(
  ctx: MutationCtx,
  run: JoinedRun,
  live: Doc<"sessionLive">,
  record: RecordOf<"message">,
): Promise<void> {
  await dropTranscriptsOf(ctx, run, record);
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
      ...timingsOf(record),
    });
    live.messageCount += 1;
    countLatency(live, record, 1);
    return;
  }
  const place = placeIn(run, record);
  const contentFrom = existing.contentFrom ?? placeOf(existing);
  const timingsFrom = existing.timingsFrom ?? (hasTimings(existing) ? placeOf(existing) : undefined);
  const newerTimings =
    hasTimings(record) && (timingsFrom === undefined || comparePlaces(place, timingsFrom) > 0);
  const changes = {
    ...(comparePlaces(place, existing) < 0 ? positionOf(run, record) : {}),
    ...(comparePlaces(place, contentFrom) > 0
      ? { ...contentsOf(record), contentFrom: place }
      : { contentFrom }),
    ...(newerTimings ? { ...timingsOf(record), timingsFrom: place } : { timingsFrom }),
  };
  await ctx.db.patch("messages", existing._id, changes);
  countLatency(live, existing, -1);
  countLatency(live, { ...existing, ...changes }, 1);
}

/** Counts how long the student waited for the answer, if the message is one that tells. */
function countLatency(
  live: Doc<"sessionLive">,
  { role, metrics }: Pick<Doc<"messages">, "role" | "metrics">,
  sign: 1 | -1,
): void {
  if (role !== "assistant" || metrics?.e2eLatencyMs === undefined) return;
  live.latency = countDuration(live.latency, metrics.e2eLatencyMs, sign);
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

/**
 * Deletes the transcripts that the message stands for: those of its item, by whichever run, and
 * those of this run that a user's message contains. An item's transcripts use up none of the text,
 * so that what else goes does not depend on whether they were still there.
 */
async function dropTranscriptsOf(
  ctx: MutationCtx,
  run: JoinedRun,
  record: RecordOf<"message">,
): Promise<void> {
  const ofItem = await ctx.db
    .query("messages")
    .withIndex("by_sessionId_and_transcriptOf", (q) =>
      q.eq("sessionId", run.sessionId).eq("transcriptOf", record.itemId),
    )
    .take(MAX_PROVISIONAL_READ);
  for (const row of ofItem) await ctx.db.delete("messages", row._id);
  if (record.role !== "user") return;

  const newest = await ctx.db
    .query("messages")
    .withIndex("by_runId_and_provisional_and_seq", (q) =>
      q.eq("runId", run.runId).eq("provisional", true),
    )
    .order("desc")
    .take(MAX_PROVISIONAL_READ);
  const unnamed = newest.filter((row) => row.transcriptOf === undefined).reverse();
  const contained = containedParts(record.text, unnamed);
  for (const row of newest) {
    const goes =
      row.transcriptOf === undefined
        ? contained.has(row)
        : containedParts(record.text, [row]).size > 0;
    if (goes) await ctx.db.delete("messages", row._id);
  }
}

function positionOf(run: JoinedRun, record: { seq: number; createdAt: number }) {
  const { seq, createdAt } = record;
  return { runId: run.runId, runStartedAt: run.startedAt, seq, createdAt };
}

/** What was said. Absent fields are part of it: a newer snapshot replaces the whole. */
function contentsOf(record: RecordOf<"message">) {
  const { role, text, interrupted, language, transcriptConfidence } = record;
  return { role, text, interrupted, language, transcriptConfidence };
}

type Timed = Pick<RecordOf<"message">, "startedSpeakingAt" | "stoppedSpeakingAt" | "metrics">;

/** When it was said and how long it took: a repeated item often comes without. */
function timingsOf({ startedSpeakingAt, stoppedSpeakingAt, metrics }: Timed): Timed {
  return { startedSpeakingAt, stoppedSpeakingAt, metrics };
}

function hasTimings({ startedSpeakingAt, stoppedSpeakingAt, metrics }: Timed): boolean {
  return (startedSpeakingAt ?? stoppedSpeakingAt ?? metrics) !== undefined;
}

function placeOf({ runStartedAt, runId, seq }: Place): Place {
  return { runStartedAt, runId, seq };
}
