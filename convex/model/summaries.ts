/**
 * What remains of a session in words: one text for the student, one for the teacher.
 * @module
 */
import type { Doc, Id } from "../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../_generated/server";
import type { Caller, UserCaller } from "../functions";
import type { Summary, TutoringRecordOf } from "../learningValidators";
import { comparePlaces, placeIn } from "./places";
import type { JoinedRun } from "./runs";

/** Stores the session's summary; of several, the latest by its place stays. */
export async function foldSummary(
  ctx: MutationCtx,
  run: JoinedRun,
  record: TutoringRecordOf<"sessionSummary">,
): Promise<void> {
  const { sessionId, studentId, guest } = run;
  const { forStudent, forTeacher, source, createdAt } = record;
  const from = placeIn(run, record);
  const existing = await summaryOf(ctx, sessionId);
  const row = { sessionId, studentId, guest, forStudent, forTeacher, source, createdAt, from };
  if (existing === null) {
    await ctx.db.insert("sessionSummaries", row);
  } else if (comparePlaces(from, existing.from) > 0) {
    await ctx.db.replace("sessionSummaries", existing._id, row);
  }
}

/** The session's summary; null until one is written, and once retention took it. */
export async function summaryOf(
  ctx: QueryCtx,
  sessionId: Id<"sessions">,
): Promise<Doc<"sessionSummaries"> | null> {
  return await ctx.db
    .query("sessionSummaries")
    .withIndex("by_sessionId", (q) => q.eq("sessionId", sessionId))
    .unique();
}

/** Whose business the teacher's text is. */
const READS_TEACHERS_TEXT: Record<Caller["role"] | UserCaller["role"], boolean> = {
  agent: true,
  teacher: true,
  administrator: true,
  student: false,
  guardian: false,
};

/** The summary as a caller of that role reads it. */
export async function loadSummary(
  ctx: QueryCtx,
  session: Doc<"sessions">,
  role: Caller["role"] | UserCaller["role"],
): Promise<Summary | null> {
  const row = await summaryOf(ctx, session._id);
  if (row === null) return null;
  const { forStudent, forTeacher, source, createdAt } = row;
  return {
    forStudent,
    ...(READS_TEACHERS_TEXT[role] ? { forTeacher } : {}),
    source,
    createdAt,
  };
}
