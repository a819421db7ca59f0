/**
 * What the tutor knows of a student.
 * @module
 */
import type { Doc, Id } from "../_generated/dataModel";
import type { QueryCtx } from "../_generated/server";
import { fail } from "../errors";
import type { TutoringContext } from "../learningValidators";
import { SCHOOL } from "../limits";
import type { Lesson, Plan, Preferences } from "../schoolValidators";
import { loadAvatar } from "./avatars";
import { recurringErrors } from "./corrections";
import { lessonAfter } from "./courses";
import { findLesson, toTaughtLesson } from "./lessons";
import { liveOf } from "./sessions";
import { summaryOf } from "./summaries";
import { wordsDueFor } from "./vocabulary";

/** How a guest is taught, and a student of whom nothing else is known. */
export const DEFAULT_PREFERENCES: Preferences = {
  speechRate: 1,
  nativeLanguageHelp: true,
  correctionStyle: "gentle",
};

/** Completed lessons counted for the tutor; beyond it the exact number teaches nobody anything. */
const MAX_LESSONS_COUNTED = 200;

/**
 * Preferences, lesson, the next lesson and avatar.
 *
 * Reads `students`, `lessons`, `courses`, `slideSets` and `avatars`, which the fold never writes: a
 * subscription to this does not wake for what the agent records.
 */
export async function loadPlan(
  ctx: QueryCtx,
  studentId: Id<"students"> | null,
  lessonId: string | undefined,
): Promise<Plan> {
  const student = studentId === null ? null : await ctx.db.get("students", studentId);
  return {
    preferences: student?.preferences ?? DEFAULT_PREFERENCES,
    ...(await loadTaught(ctx, lessonId, student)),
  };
}

/**
 * Everything for the start of a lesson, in a bounded number of reads.
 *
 * @param about - `now` in milliseconds since the epoch: for what is due, and what is long ago.
 *   `sessionKey`: of the session that is held, which is not the last one.
 */
export async function loadTutoringContext(
  ctx: QueryCtx,
  studentId: Id<"students">,
  about: { lessonId?: string | undefined; sessionKey?: string | undefined; now: number },
): Promise<TutoringContext> {
  const { lessonId, sessionKey, now } = about;
  const student = await ctx.db.get("students", studentId);
  if (student === null) {
    fail({ code: "student_unknown", message: "students:tutoringContext: there is no such student." });
  }
  const taught = await loadTaught(ctx, lessonId, student);
  const limit = SCHOOL.maxWordsDueInContext;
  const due = await wordsDueFor(ctx, studentId, taught.lesson, { now, limit });
  const recurring = await recurringErrors(ctx, studentId, now);
  return {
    student: toStudent(student),
    preferences: student.preferences,
    ...taught,
    progress: await progressOf(ctx, studentId, taught.lesson),
    lastSession: await lastSessionOf(ctx, studentId, sessionKey),
    wordsDue: due.map(({ language, word, meaning, example }) => ({
      language,
      word,
      ...(meaning === undefined ? {} : { meaning }),
      ...(example === undefined ? {} : { example }),
    })),
    recurringErrors: recurring.slice(0, SCHOOL.maxRecurringInContext),
  };
}

/** The lesson, what comes after it, and who Emma is in it. */
async function loadTaught(
  ctx: QueryCtx,
  lessonId: string | undefined,
  student: Doc<"students"> | null,
): Promise<Pick<Plan, "lesson" | "nextLesson" | "avatar">> {
  const row = await findLesson(ctx, lessonId);
  const avatar = await loadAvatar(ctx, row, student);
  const next = row === null ? null : await lessonAfter(ctx, row);
  return {
    nextLesson: next === null ? null : { lessonId: next._id, title: next.title },
    lesson: row === null ? null : await toTaughtLesson(ctx, row),
    ...(avatar === undefined ? {} : { avatar }),
  };
}

/** Who the student is, as readers see it. */
export function toStudent(row: Doc<"students">): TutoringContext["student"] {
  const { _id, name, level, nativeLanguage, targetLanguage, timeZone, goals, interests } = row;
  return {
    studentId: _id,
    name,
    level,
    nativeLanguage,
    targetLanguage,
    timeZone,
    goals,
    interests,
  };
}

async function progressOf(
  ctx: QueryCtx,
  studentId: Id<"students">,
  lesson: Lesson | null,
): Promise<TutoringContext["progress"]> {
  const completed = await ctx.db
    .query("progress")
    .withIndex("by_studentId_and_status", (q) =>
      q.eq("studentId", studentId).eq("status", "completed"),
    )
    .take(MAX_LESSONS_COUNTED);
  const inLesson =
    lesson === null
      ? null
      : await ctx.db
          .query("progress")
          .withIndex("by_studentId_and_lessonId", (q) =>
            q.eq("studentId", studentId).eq("lessonId", lesson.lessonId),
          )
          .unique();
  if (completed.length === 0 && inLesson === null) return null;
  return {
    lessonsCompleted: completed.length,
    ...(inLesson === null ? {} : { thisLesson: standingOf(inLesson) }),
  };
}

function standingOf({ status, timesStudied, lastStudiedAt }: Doc<"progress">) {
  return { status, timesStudied, lastStudiedAt };
}

/** The student's latest session that is over: the one about to begin may be there already. */
async function lastSessionOf(
  ctx: QueryCtx,
  studentId: Id<"students">,
  sessionKey: string | undefined,
): Promise<TutoringContext["lastSession"]> {
  // At most one session of a student is active, by model/sessionState.ts; one more may be going on.
  const latest = await ctx.db
    .query("sessions")
    .withIndex("by_studentId_and_startedAt", (q) => q.eq("studentId", studentId))
    .order("desc")
    .take(3);
  const session = latest.find(
    (each) => each.status !== "active" && each.sessionKey !== sessionKey,
  );
  if (session === undefined) return null;
  const live = await liveOf(ctx, session._id);
  const lesson =
    session.lessonId === undefined ? null : await ctx.db.get("lessons", session.lessonId);
  const summary = await summaryOf(ctx, session._id);
  return {
    sessionKey: session.sessionKey,
    startedAt: session.startedAt,
    ...(session.endedAt === undefined ? {} : { endedAt: session.endedAt }),
    ...(lesson === null ? {} : { lessonTitle: lesson.title }),
    messageCount: live?.messageCount ?? 0,
    ...(summary === null ? {} : { summary: summary.forTeacher }),
  };
}
