/**
 * What a run needs to go on with a session that another one left.
 * @module
 */
import type { Doc, Id } from "../_generated/dataModel";
import type { QueryCtx } from "../_generated/server";
import { maySee } from "../functions";
import type { Caller } from "../functions";
import { SCHOOL } from "../limits";
import type { Resumable } from "../validators";
import { toCorrection } from "./corrections";
import { guestName } from "./runs";
import { isEndIntended } from "./sessionState";
import { requireLive, sessionOfKey } from "./sessions";
import { summaryOf } from "./summaries";
import { wordsIntroducedIn } from "./vocabulary";

/** What is asked for: a session by its key, else the latest of the lesson. */
export type Asked = {
  sessionKey?: string | undefined;
  lessonId?: string | undefined;
  now: number;
};

/** The caller's session of that key, or their latest; null where there is none to go on with. */
export async function loadResumable(
  ctx: QueryCtx,
  caller: Caller,
  { sessionKey, lessonId, now }: Asked,
): Promise<Resumable | null> {
  if (sessionKey !== undefined) {
    const session = await latestCalled(ctx, caller, sessionKey);
    return session === null ? null : await toResumable(ctx, session);
  }
  const session = await latestOf(ctx, caller);
  // Of a lesson that this deployment does not know, sessions say nothing.
  const asked = lessonId === undefined ? undefined : ctx.db.normalizeId("lessons", lessonId);
  if (session === null || session.lessonId !== (asked ?? undefined)) return null;
  const live = await requireLive(ctx, session._id);
  if (now - live.lastRecordAt > SCHOOL.resumeGraceMs) return null;
  return await toResumable(ctx, session, live);
}

/**
 * Of the sessions that are, or took the place of, the one of that key: the one that a run carried
 * last.
 */
async function latestCalled(
  ctx: QueryCtx,
  caller: Caller,
  sessionKey: string,
): Promise<Doc<"sessions"> | null> {
  const named = await sessionOfKey(ctx, sessionKey);
  let latest = named !== null && maySee(caller, named) ? named : null;
  let key = sessionKey;
  for (let looked = 0; looked < SCHOOL.maxSessionsCalled; looked++) {
    const called = key;
    const next = await ctx.db
      .query("sessions")
      .withIndex("by_subject_and_calledKey_and_lastRunStartedAt", (q) =>
        q.eq("subject", caller.subject).eq("calledKey", called),
      )
      .order("desc")
      .first();
    if (next === null || !maySee(caller, next)) break;
    if (latest === null || next.lastRunStartedAt > latest.lastRunStartedAt) latest = next;
    key = next.sessionKey;
  }
  return latest;
}

/** The session that the student's latest run carries; a guest's latest. */
async function latestOf(ctx: QueryCtx, caller: Caller): Promise<Doc<"sessions"> | null> {
  const { studentId } = caller;
  if (studentId === null) {
    return await ctx.db
      .query("sessions")
      .withIndex("by_guest_and_startedAt", (q) => q.eq("guest", guestName(caller)))
      .order("desc")
      .first();
  }
  const run = await ctx.db
    .query("sessionRuns")
    .withIndex("by_studentId_and_startedAt_and_runId", (q) => q.eq("studentId", studentId))
    .order("desc")
    .first();
  return run?.sessionId === undefined ? null : await ctx.db.get("sessions", run.sessionId);
}

async function toResumable(
  ctx: QueryCtx,
  session: Doc<"sessions">,
  known?: Doc<"sessionLive">,
): Promise<Resumable> {
  const { _id: sessionId, sessionKey, lessonId } = session;
  const live = known ?? (await requireLive(ctx, sessionId));
  const corrections = await ctx.db
    .query("corrections")
    .withIndex("by_sessionId_and_createdAt", (q) => q.eq("sessionId", sessionId))
    .order("desc")
    .take(SCHOOL.maxCorrectionsResumed);
  const words = await wordsIntroducedIn(ctx, sessionId, SCHOOL.maxWordsResumed);
  const answers = await ctx.db
    .query("exerciseResults")
    .withIndex("by_sessionId_and_createdAt", (q) => q.eq("sessionId", sessionId))
    .order("desc")
    .take(SCHOOL.maxAnswersResumed);
  const summary = await summaryOf(ctx, sessionId);
  return {
    sessionKey,
    lastSeenAt: live.lastRecordAt,
    over: isEndIntended(session, live),
    finished: session.completedAt !== undefined,
    ...(lessonId === undefined ? {} : { lessonId }),
    ...(live.step === undefined ? {} : { step: live.step.step }),
    ...(live.slide === undefined ? {} : { slide: live.slide.slide }),
    messageCount: live.messageCount,
    messages: await latestMessages(ctx, sessionId),
    ...(summary === null ? {} : { summary: summary.forTeacher }),
    corrections: corrections.reverse().map(toCorrection),
    newWords: words.map(({ word, language, meaning, example }) => ({
      word,
      language,
      ...(meaning === undefined ? {} : { meaning }),
      ...(example === undefined ? {} : { example }),
    })),
    answers: answers
      .reverse()
      .map(({ exerciseId, score, answer, createdAt }) => ({ exerciseId, score, answer, createdAt })),
  };
}

/**
 * The latest messages, in order, and the student's words after them that became no message yet;
 * transcripts among them are passed over.
 */
async function latestMessages(
  ctx: QueryCtx,
  sessionId: Id<"sessions">,
): Promise<Resumable["messages"]> {
  const latest: Resumable["messages"] = [];
  let read = 0;
  let committed = false;
  const newestFirst = ctx.db
    .query("messages")
    .withIndex("by_sessionId_and_runStartedAt_and_createdAt_and_seq", (q) =>
      q.eq("sessionId", sessionId),
    )
    .order("desc");
  for await (const { provisional, itemId, role, text, interrupted, createdAt } of newestFirst) {
    committed ||= !provisional;
    if (!provisional || !committed) latest.push({ itemId, role, text, interrupted, createdAt });
    read += 1;
    // A turn has a handful of transcripts; a session that has nothing else is not read through.
    if (latest.length === SCHOOL.maxMessagesResumed || read === 4 * SCHOOL.maxMessagesResumed) break;
  }
  return latest.reverse();
}
