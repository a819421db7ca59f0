/**
 * What happens in a session beside the talk: tool calls, handoffs, errors, states.
 * @module
 */
import type { Doc } from "../_generated/dataModel";
import type { MutationCtx } from "../_generated/server";
import type { RecordOf } from "../validators";
import type { JoinedRun } from "./runs";

type About<Kind extends "handoff" | "stateChanged" | "error"> = Omit<
  RecordOf<Kind>,
  "kind" | "seq" | "createdAt"
>;
type Happened =
  | { eventType: "handoff"; eventData: About<"handoff"> }
  | { eventType: "state_changed"; eventData: About<"stateChanged"> }
  | { eventType: "error"; eventData: About<"error"> };
type Event = Happened | { eventType: "tool_call"; eventData: ToolCall };
type ToolCall = Omit<RecordOf<"toolCall">, "kind" | "seq" | "createdAt" | "resultOf">;

/** Stores one of these records; each is a row of its own. */
export async function foldEvent(
  ctx: MutationCtx,
  run: JoinedRun,
  record: RecordOf<"handoff" | "stateChanged" | "error">,
): Promise<void> {
  await insertEvent(ctx, run, record, happened(record));
}

/**
 * Stores a tool call, or the result of one that has only reported until now.
 *
 * Both are one row, at the `seq` of the call: it was called when the first says, and came to what
 * the second says. The call may come after its result, where it was set aside and mended.
 *
 * @returns 1 if the call is new to the session, else 0.
 */
export async function foldToolCall(
  ctx: MutationCtx,
  run: JoinedRun,
  record: RecordOf<"toolCall">,
): Promise<0 | 1> {
  const { seq, createdAt, callId, name, arguments: args, output, isError, resultOf } = record;
  const eventData: ToolCall = { callId, name, arguments: args, output, isError };
  const known = await eventAt(ctx, run, resultOf ?? seq);
  if (known?.eventType === "tool_call") {
    await ctx.db.patch(
      "analyticsEvents",
      known._id,
      resultOf === undefined ? { createdAt } : { eventData },
    );
    return 0;
  }
  const at = { createdAt, seq: known === null ? (resultOf ?? seq) : seq };
  await insertEvent(ctx, run, at, { eventType: "tool_call", eventData });
  return 1;
}

function happened(record: RecordOf<"handoff" | "stateChanged" | "error">): Happened {
  switch (record.kind) {
    case "handoff": {
      const { itemId, oldAgent, newAgent } = record;
      return { eventType: "handoff", eventData: { itemId, oldAgent, newAgent } };
    }
    case "stateChanged": {
      const { who, state } = record;
      return { eventType: "state_changed", eventData: { who, state } };
    }
    case "error": {
      const { source, errorType, recoverable } = record;
      return { eventType: "error", eventData: { source, errorType, recoverable } };
    }
  }
}

async function eventAt(
  ctx: MutationCtx,
  run: JoinedRun,
  seq: number,
): Promise<Doc<"analyticsEvents"> | null> {
  return await ctx.db
    .query("analyticsEvents")
    .withIndex("by_runId_and_seq", (q) => q.eq("runId", run.runId).eq("seq", seq))
    .unique();
}

async function insertEvent(
  ctx: MutationCtx,
  { runId, sessionId, studentId, guest }: JoinedRun,
  { seq, createdAt }: { seq: number; createdAt: number },
  event: Event,
): Promise<void> {
  await ctx.db.insert("analyticsEvents", {
    ...event,
    createdAt,
    sessionId,
    studentId,
    guest,
    runId,
    seq,
  });
}
