/**
 * What a student did per day.
 * @module
 */
import type { Doc, Id } from "../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../_generated/server";
import { SCHOOL } from "../limits";

type Sums = Pick<
  Doc<"dailyStats">,
  "sessions" | "durationMs" | "messages" | "errorsDetected" | "errorsCorrected" | "reviews"
>;

/** Sorts after every day. */
const AFTER_ALL_DAYS = "~";

/** Adds to the sums of one day; a difference may be negative. Returns the row as it is then. */
export async function addToDay(
  ctx: MutationCtx,
  studentId: Id<"students">,
  day: string,
  added: Partial<Sums>,
): Promise<Doc<"dailyStats">> {
  const row = await openDay(ctx, studentId, day);
  for (const [name, amount] of Object.entries(added) as [keyof Sums, number][]) {
    row[name] += amount;
  }
  row.pending = row.countedActive !== row.sessions > 0;
  await ctx.db.replace("dailyStats", row._id, row);
  return row;
}

/** Whether nothing happened on the day after all, and the school knows of nothing either. */
export function isEmptyDay({ sessions, reviews, countedActive }: Doc<"dailyStats">): boolean {
  return sessions === 0 && reviews === 0 && !countedActive;
}

/**
 * Adds to the words mastered at the end of each day of `changes`, and of every day after it.
 *
 * A word is mastered, or lapses, on the day of a review, so this is nearly always the last row. A
 * review that arrives late touches one row for each day on which something happened until the sum
 * is again what it was, each once.
 */
export async function addMastered(
  ctx: MutationCtx,
  studentId: Id<"students">,
  changes: ReadonlyMap<string, number>,
): Promise<void> {
  const days = [...changes].filter(([, change]) => change !== 0).map(([day]) => day).sort();
  for (const day of days) await openDay(ctx, studentId, day);
  let added = 0;
  for (const [i, day] of days.entries()) {
    added += changes.get(day) ?? 0;
    if (added === 0) continue;
    const next = days[i + 1] ?? AFTER_ALL_DAYS;
    const rows = ctx.db
      .query("dailyStats")
      .withIndex("by_studentId_and_day", (q) =>
        q.eq("studentId", studentId).gte("day", day).lt("day", next),
      );
    for await (const row of rows) {
      await ctx.db.patch("dailyStats", row._id, { wordsMastered: row.wordsMastered + added });
    }
  }
}

/**
 * Words mastered at the end of each day of the range that has a row, and before the first.
 *
 * @param range - Checked days, `YYYY-MM-DD`, at most 366 of them.
 */
export async function masteredByDay(
  ctx: QueryCtx,
  studentId: Id<"students">,
  { from, to }: { from: string; to: string },
): Promise<{ before: number; days: { day: string; mastered: number }[] }> {
  const last = await ctx.db
    .query("dailyStats")
    .withIndex("by_studentId_and_day", (q) => q.eq("studentId", studentId).lt("day", from))
    .order("desc")
    .first();
  const rows = await ctx.db
    .query("dailyStats")
    .withIndex("by_studentId_and_day", (q) =>
      q.eq("studentId", studentId).gte("day", from).lte("day", to),
    )
    .take(SCHOOL.maxChartDays);
  return {
    before: last?.wordsMastered ?? 0,
    days: rows.map(({ day, wordsMastered }) => ({ day, mastered: wordsMastered })),
  };
}

/** The row of that day; made, with the words mastered until then, if there is none. */
async function openDay(
  ctx: MutationCtx,
  studentId: Id<"students">,
  day: string,
): Promise<Doc<"dailyStats">> {
  const last = await ctx.db
    .query("dailyStats")
    .withIndex("by_studentId_and_day", (q) => q.eq("studentId", studentId).lte("day", day))
    .order("desc")
    .first();
  if (last?.day === day) return last;
  const id = await ctx.db.insert("dailyStats", {
    studentId,
    day,
    sessions: 0,
    durationMs: 0,
    messages: 0,
    errorsDetected: 0,
    errorsCorrected: 0,
    reviews: 0,
    wordsMastered: last?.wordsMastered ?? 0,
    countedActive: false,
    pending: false,
  });
  const row = await ctx.db.get("dailyStats", id);
  if (row === null) throw new Error("a row that was just inserted is not there");
  return row;
}
