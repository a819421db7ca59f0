/**
 * What a student did per day.
 * @module
 */
import type { Doc, Id } from "../_generated/dataModel";
import type { MutationCtx } from "../_generated/server";

type Sums = Pick<
  Doc<"dailyStats">,
  "sessions" | "durationMs" | "messages" | "errorsDetected" | "errorsCorrected" | "reviews"
>;

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

/**
 * Adds to the words mastered at the end of `day` and of every later day.
 *
 * A word is mastered, or lapses, on the day of a review, so this is nearly always the last row; a
 * review that arrives late touches one row for each day on which something happened since.
 */
export async function addMastered(
  ctx: MutationCtx,
  studentId: Id<"students">,
  day: string,
  added: number,
): Promise<void> {
  if (added === 0) return;
  await openDay(ctx, studentId, day);
  const rows = ctx.db
    .query("dailyStats")
    .withIndex("by_studentId_and_day", (q) => q.eq("studentId", studentId).gte("day", day));
  for await (const row of rows) {
    await ctx.db.patch("dailyStats", row._id, { wordsMastered: row.wordsMastered + added });
  }
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
