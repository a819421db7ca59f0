/**
 * How a student stands in a lesson, kept when sessions are settled.
 * @module
 */
import type { Id } from "../_generated/dataModel";
import type { MutationCtx } from "../_generated/server";

/**
 * Adds to the times that the lesson was studied, and derives the rest of the row anew: it is
 * completed while one of its sessions is, and was last studied when the latest of them began.
 *
 * A row that no session is left of goes.
 *
 * @param added - 1, 0 or -1.
 */
export async function addStudied(
  ctx: MutationCtx,
  studentId: Id<"students">,
  lessonId: Id<"lessons">,
  added: number,
): Promise<void> {
  const row = await ctx.db
    .query("progress")
    .withIndex("by_studentId_and_lessonId", (q) =>
      q.eq("studentId", studentId).eq("lessonId", lessonId),
    )
    .unique();
  const timesStudied = (row?.timesStudied ?? 0) + added;
  if (timesStudied <= 0) {
    if (row !== null) await ctx.db.delete("progress", row._id);
    return;
  }
  const latest = await ctx.db
    .query("sessions")
    .withIndex("by_studentId_and_lessonId_and_startedAt", (q) =>
      q.eq("studentId", studentId).eq("lessonId", lessonId),
    )
    .order("desc")
    .first();
  const lastStudiedAt = latest?.startedAt ?? row?.lastStudiedAt;
  if (lastStudiedAt === undefined) return;
  const completed = await ctx.db
    .query("sessions")
    .withIndex("by_studentId_and_lessonId_and_completedAt", (q) =>
      q.eq("studentId", studentId).eq("lessonId", lessonId).gt("completedAt", 0),
    )
    .first();
  const progress = {
    status: completed === null ? ("started" as const) : ("completed" as const),
    timesStudied,
    lastStudiedAt,
    completedAt: completed?.completedAt,
  };
  if (row === null) {
    await ctx.db.insert("progress", { studentId, lessonId, ...progress });
  } else {
    await ctx.db.patch("progress", row._id, progress);
  }
}
