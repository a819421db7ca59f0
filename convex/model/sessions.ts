/**
 * Sessions as readers see them.
 * @module
 */
import type { PaginationOptions, PaginationResult } from "convex/server";
import type { Doc, Id } from "../_generated/dataModel";
import type { QueryCtx } from "../_generated/server";
import { fail } from "../errors";
import { maySee } from "../functions";
import type { About } from "../functions";
import { pageOf } from "./pages";
import type { Session, SessionSummary } from "../validators";

/** The session of that key, whosever it is. */
export async function sessionOfKey(
  ctx: QueryCtx,
  sessionKey: string,
): Promise<Doc<"sessions"> | null> {
  return await ctx.db
    .query("sessions")
    .withIndex("by_sessionKey", (q) => q.eq("sessionKey", sessionKey))
    .unique();
}

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
  const session = await sessionOfKey(ctx, sessionKey);
  if (session !== null && !maySee(about, session)) {
    fail({ code: "forbidden", message: "The session belongs to somebody else." });
  }
  return session;
}

/** The sessions of the student or guest, newest first. */
export async function listSessions(
  ctx: QueryCtx,
  { studentId, subject }: About,
  options: PaginationOptions,
): Promise<PaginationResult<SessionSummary>> {
  // Nobody is called "": a caller who is no student has a subject.
  const sessions =
    studentId === null
      ? ctx.db
          .query("sessions")
          .withIndex("by_guest_and_startedAt", (q) => q.eq("guest", subject ?? ""))
      : ctx.db
          .query("sessions")
          .withIndex("by_studentId_and_startedAt", (q) => q.eq("studentId", studentId));
  const result = await sessions.order("desc").paginate(pageOf(options));
  return { ...result, page: result.page.map(toSummary) };
}

function toSummary(session: Doc<"sessions">): SessionSummary {
  const { sessionKey, status, startedAt, endedAt, endReason, provisionalEnd } = session;
  const { lessonId, completedAt, runs } = session;
  return {
    sessionKey,
    status,
    startedAt,
    ...(endedAt === undefined ? {} : { endedAt }),
    ...(endReason === undefined ? {} : { endReason }),
    provisionalEnd,
    ...(lessonId === undefined ? {} : { lessonId }),
    ...(completedAt === undefined ? {} : { completedAt }),
    runs,
  };
}

/** What changes all the time while the session runs. */
export async function liveOf(
  ctx: QueryCtx,
  sessionId: Id<"sessions">,
): Promise<Doc<"sessionLive"> | null> {
  return await ctx.db
    .query("sessionLive")
    .withIndex("by_sessionId", (q) => q.eq("sessionId", sessionId))
    .unique();
}

/** As `liveOf`; the fold makes the row with the session. */
export async function requireLive(
  ctx: QueryCtx,
  sessionId: Id<"sessions">,
): Promise<Doc<"sessionLive">> {
  const live = await liveOf(ctx, sessionId);
  if (live === null) throw new Error("a session without its sessionLive row");
  return live;
}

/** The session with its counters. */
export async function toSession(ctx: QueryCtx, session: Doc<"sessions">): Promise<Session> {
  const live = await liveOf(ctx, session._id);
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
