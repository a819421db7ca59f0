/**
 * Errors that Emma noted: which keep coming back, which were overcome.
 * @module
 */
import type { Doc, Id } from "../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../_generated/server";
import { vErrorType } from "../learningValidators";
import type { Correction, ErrorPattern, ErrorType, TutoringRecordOf } from "../learningValidators";
import { SCHOOL } from "../limits";
import { comparePlaces, placeIn } from "./places";
import type { JoinedRun } from "./runs";

/** A row as readers see it. */
export function toCorrection(row: Doc<"corrections">): Correction {
  const { correctionId, itemId, explanation, createdAt } = row;
  const { said, target, errorType, severity, repaired } = row;
  return {
    correctionId,
    ...(itemId === undefined ? {} : { itemId }),
    said,
    target,
    errorType,
    severity,
    ...(explanation === undefined ? {} : { explanation }),
    repaired,
    createdAt,
  };
}

/**
 * Stores a correction, or a further snapshot of one that is there.
 *
 * It happened when the earliest of its records says, and is what the latest says, whichever came
 * first. Counts in `live`.
 */
export async function foldCorrection(
  ctx: MutationCtx,
  run: JoinedRun,
  live: Pick<Doc<"sessionLive">, "errorsDetected" | "errorsCorrected">,
  record: TutoringRecordOf<"correction">,
): Promise<void> {
  const { sessionId, studentId, guest } = run;
  const { correctionId, createdAt, repaired } = record;
  const from = placeIn(run, record);
  const existing = await ctx.db
    .query("corrections")
    .withIndex("by_sessionId_and_correctionId", (q) =>
      q.eq("sessionId", sessionId).eq("correctionId", correctionId),
    )
    .unique();
  if (existing === null) {
    await ctx.db.insert("corrections", {
      sessionId,
      studentId,
      guest,
      correctionId,
      createdAt,
      from,
      ...contentsOf(record),
    });
    live.errorsDetected += 1;
    live.errorsCorrected += Number(repaired);
    return;
  }
  const newer = comparePlaces(from, existing.from) > 0;
  await ctx.db.patch("corrections", existing._id, {
    createdAt: Math.min(createdAt, existing.createdAt),
    ...(newer ? { ...contentsOf(record), from } : {}),
  });
  if (newer) live.errorsCorrected += Number(repaired) - Number(existing.repaired);
}

/** Absent fields are part of it: a newer snapshot replaces the whole. */
function contentsOf(record: TutoringRecordOf<"correction">) {
  const { itemId, said, target, errorType, severity, explanation, repaired } = record;
  return { itemId, said, target, errorType, severity, explanation, repaired };
}

/** From how many corrections, in how many sessions, a type of error counts as one that recurs. */
const RECURS_FROM = { corrections: 2, sessions: 2 };

/** Newest corrections shown of each type. */
const MAX_EXAMPLES = 3;

/** How much one error hurts. */
const SEVERITY_WEIGHT = { minor: 1, moderate: 2, major: 3 } as const;

/** After so long an error weighs half: what a student did yesterday is worth more of a lesson. */
const HALF_LIFE_MS = 14 * 24 * 60 * 60_000;

/**
 * Types of error that keep coming back, those first that it helps most to work on.
 *
 * Told from the student's newest 200 corrections: a type recurs with two corrections in two
 * sessions. Its weight is the sum over its corrections of the severity (minor 1, moderate 2, major
 * 3), halved for every 14 days that have passed since, and halved again where the student then said
 * it right: they are about to overcome it by themselves.
 *
 * @param now - Milliseconds since the epoch; what is later than that weighs as if it were now.
 */
export async function recurringErrors(
  ctx: QueryCtx,
  studentId: Id<"students">,
  now: number,
): Promise<ErrorPattern[]> {
  const newest = await ctx.db
    .query("corrections")
    .withIndex("by_studentId_and_createdAt", (q) => q.eq("studentId", studentId))
    .order("desc")
    .take(SCHOOL.maxCorrectionsRead);
  const byType = new Map<ErrorType, Doc<"corrections">[]>();
  for (const row of newest) {
    const rows = byType.get(row.errorType) ?? [];
    rows.push(row);
    byType.set(row.errorType, rows);
  }
  return [...byType]
    .map(([errorType, rows]) => ({
      pattern: patternOf(errorType, rows),
      weight: rows.reduce((sum, row) => sum + weightOf(row, now), 0),
    }))
    .filter(({ pattern }) => recurs(pattern))
    .sort((a, b) => b.weight - a.weight)
    .map(({ pattern }) => pattern);
}

function weightOf({ severity, createdAt, repaired }: Doc<"corrections">, now: number): number {
  const age = Math.max(0, now - createdAt);
  return (SEVERITY_WEIGHT[severity] * 0.5 ** (age / HALF_LIFE_MS)) / (repaired ? 2 : 1);
}

/**
 * Types of error that used to come back and do not any more, the latest overcome first.
 *
 * Such a type recurred (two corrections in two sessions, among its newest 20), and was not seen
 * since the fifth last session that is over began. Empty for a student with fewer sessions.
 */
export async function overcomeErrors(
  ctx: QueryCtx,
  studentId: Id<"students">,
): Promise<ErrorPattern[]> {
  const since = await startOfLatestSessions(ctx, studentId);
  if (since === null) return [];
  const overcome: ErrorPattern[] = [];
  for (const { value: errorType } of vErrorType.members) {
    const ofType = (seen: "since" | "before") =>
      ctx.db
        .query("corrections")
        .withIndex("by_studentId_and_errorType_and_createdAt", (q) => {
          const all = q.eq("studentId", studentId).eq("errorType", errorType);
          return seen === "since" ? all.gte("createdAt", since) : all.lt("createdAt", since);
        })
        .order("desc");
    if ((await ofType("since").first()) !== null) continue;
    const rows = await ofType("before").take(SCHOOL.maxCorrectionsOfType);
    const pattern = patternOf(errorType, rows);
    if (recurs(pattern)) overcome.push(pattern);
  }
  return overcome.sort((a, b) => b.lastSeenAt - a.lastSeenAt);
}

/** When the earliest of the latest sessions that are over began; null if there are too few. */
async function startOfLatestSessions(
  ctx: QueryCtx,
  studentId: Id<"students">,
): Promise<number | null> {
  // At most one session of a student is active, by model/sessionState.ts.
  const latest = await ctx.db
    .query("sessions")
    .withIndex("by_studentId_and_startedAt", (q) => q.eq("studentId", studentId))
    .order("desc")
    .take(SCHOOL.sessionsToOvercome + 1);
  const over = latest.filter(({ status }) => status !== "active");
  return over[SCHOOL.sessionsToOvercome - 1]?.startedAt ?? null;
}

/** @param rows - Of that type, newest first. */
function patternOf(errorType: ErrorType, rows: readonly Doc<"corrections">[]): ErrorPattern {
  return {
    errorType,
    count: rows.length,
    sessions: new Set(rows.map(({ sessionId }) => sessionId)).size,
    repaired: rows.filter(({ repaired }) => repaired).length,
    lastSeenAt: rows[0]?.createdAt ?? 0,
    examples: rows.slice(0, MAX_EXAMPLES).map(({ said, target }) => ({ said, target })),
  };
}

function recurs({ count, sessions }: ErrorPattern): boolean {
  return count >= RECURS_FROM.corrections && sessions >= RECURS_FROM.sessions;
}
