/**
 * Sessions as readers see them.
 * @module
 */
import type { Doc } from "../_generated/dataModel";
import type { QueryCtx } from "../_generated/server";
import { fail } from "../errors";
import { maySee } from "../functions";
import type { About } from "../functions";
import type { Session } from "../validators";

/**
 * The session of that key, or null before its first record is folded.
 *
 * @throws ConvexError `forbidden` if it is somebody else's.
 */
export async function findSession(
  ctx: QueryCtx,
  about: About,
  sessionKey: string,
): Promise<Doc<"sessions"> | null> {
  const session = await ctx.db
    .query("sessions")
    .withIndex("by_sessionKey", (q) => q.eq("sessionKey", sessionKey))
    .unique();
  if (session !== null && !maySee(about, session)) {
    fail({ code: "forbidden", message: "The session belongs to somebody else." });
  }
  return session;
}

/** The session with its counters. */
export async function toSession(ctx: QueryCtx, session: Doc<"sessions">): Promise<Session> {
  const live = await ctx.db
    .query("sessionLive")
    .withIndex("by_sessionId", (q) => q.eq("sessionId", session._id))
    .unique();
  const { sessionKey, status, startedAt, endedAt, endReason, provisionalEnd, runs } = session;
  return {
    sessionKey,
    status,
    startedAt,
    ...(endedAt === undefined ? {} : { endedAt }),
    ...(endReason === undefined ? {} : { endReason }),
    provisionalEnd,
    messageCount: live?.messageCount ?? 0,
    errorsDetected: live?.errorsDetected ?? 0,
    errorsCorrected: live?.errorsCorrected ?? 0,
    runs,
  };
}
