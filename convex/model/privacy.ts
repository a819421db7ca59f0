/**
 * Where a student's rows are: every table that names one, and how its rows are found.
 *
 * A new table with a `studentId` belongs in here; without, this does not compile and the test that
 * reads the schema fails.
 * @module
 */
import type { NamedTableInfo, Query } from "convex/server";
import { getConvexSize } from "convex/values";
import type { DataModel, Doc, Id, TableNames } from "../_generated/dataModel";
import type { DatabaseReader, MutationCtx } from "../_generated/server";
import { SCHOOL } from "../limits";

/** Every table whose rows name a student, but the student's own and the record of erasures. */
export type StudentTable = Exclude<
  { [T in TableNames]: "studentId" extends keyof Doc<T> ? T : never }[TableNames],
  "erasures"
>;

/** Whose rows: a student's, or those under a guest's name (`guest` in the tables). */
export type Owner = { studentId: Id<"students"> } | { guest: string };

/** Rows under the id of a student who was not there when they were written: theirs as well. */
export function rowsBeforeStudent(studentId: Id<"students">): Owner {
  return { guest: `unknown:${studentId}` };
}

type Rows<T extends TableNames> = Query<NamedTableInfo<DataModel, T>>;
type Find<T extends TableNames> = (db: DatabaseReader, owner: Owner) => Rows<T> | null;

/**
 * The rows of each table, in the order in which they are erased and exported.
 *
 * Runs come first: a run becomes a tombstone before anything of its session goes, so that what is
 * still folded for it cannot meet half a session. Sessions come before what `settle` writes of them.
 * Tables that guests have no rows in give null for them.
 */
const FIND: { [T in StudentTable]: Find<T> } = {
  sessionRuns: (db, owner) =>
    "guest" in owner
      ? db.query("sessionRuns").withIndex("by_guest", (q) => q.eq("guest", owner.guest))
      : db
          .query("sessionRuns")
          .withIndex("by_studentId_and_startedAt_and_runId", (q) =>
            q.eq("studentId", owner.studentId),
          ),
  sessions: (db, owner) =>
    "guest" in owner
      ? db.query("sessions").withIndex("by_guest_and_startedAt", (q) => q.eq("guest", owner.guest))
      : db
          .query("sessions")
          .withIndex("by_studentId_and_startedAt", (q) => q.eq("studentId", owner.studentId)),
  sessionLive: (db, owner) =>
    "guest" in owner
      ? db.query("sessionLive").withIndex("by_guest", (q) => q.eq("guest", owner.guest))
      : db.query("sessionLive").withIndex("by_studentId", (q) => q.eq("studentId", owner.studentId)),
  sessionStats: (db, owner) =>
    "guest" in owner
      ? db.query("sessionStats").withIndex("by_guest", (q) => q.eq("guest", owner.guest))
      : db
          .query("sessionStats")
          .withIndex("by_studentId", (q) => q.eq("studentId", owner.studentId)),
  messages: (db, owner) =>
    "guest" in owner
      ? db.query("messages").withIndex("by_guest", (q) => q.eq("guest", owner.guest))
      : db.query("messages").withIndex("by_studentId", (q) => q.eq("studentId", owner.studentId)),
  corrections: (db, owner) =>
    "guest" in owner
      ? db.query("corrections").withIndex("by_guest", (q) => q.eq("guest", owner.guest))
      : db
          .query("corrections")
          .withIndex("by_studentId_and_createdAt", (q) => q.eq("studentId", owner.studentId)),
  sessionSummaries: (db, owner) =>
    "guest" in owner
      ? db.query("sessionSummaries").withIndex("by_guest", (q) => q.eq("guest", owner.guest))
      : db
          .query("sessionSummaries")
          .withIndex("by_studentId", (q) => q.eq("studentId", owner.studentId)),
  exerciseResults: (db, owner) =>
    "guest" in owner
      ? db.query("exerciseResults").withIndex("by_guest", (q) => q.eq("guest", owner.guest))
      : db
          .query("exerciseResults")
          .withIndex("by_studentId_and_createdAt", (q) => q.eq("studentId", owner.studentId)),
  vocabulary: (db, owner) =>
    "guest" in owner
      ? null
      : db
          .query("vocabulary")
          .withIndex("by_studentId_and_dueAt", (q) => q.eq("studentId", owner.studentId)),
  vocabularyReviews: (db, owner) =>
    "guest" in owner
      ? null
      : db
          .query("vocabularyReviews")
          .withIndex("by_studentId_and_reviewedAt", (q) => q.eq("studentId", owner.studentId)),
  progress: (db, owner) =>
    "guest" in owner
      ? null
      : db
          .query("progress")
          .withIndex("by_studentId_and_lessonId", (q) => q.eq("studentId", owner.studentId)),
  dailyStats: (db, owner) =>
    "guest" in owner
      ? null
      : db
          .query("dailyStats")
          .withIndex("by_studentId_and_day", (q) => q.eq("studentId", owner.studentId)),
  analyticsEvents: (db, owner) =>
    "guest" in owner
      ? db.query("analyticsEvents").withIndex("by_guest", (q) => q.eq("guest", owner.guest))
      : db
          .query("analyticsEvents")
          .withIndex("by_studentId", (q) => q.eq("studentId", owner.studentId)),
  studentAccess: (db, owner) =>
    "guest" in owner
      ? null
      : db
          .query("studentAccess")
          .withIndex("by_studentId", (q) => q.eq("studentId", owner.studentId)),
  // The last: it says why records of the runs above are not there.
  tombstones: (db, owner) =>
    "guest" in owner
      ? db.query("tombstones").withIndex("by_guest", (q) => q.eq("guest", owner.guest))
      : db.query("tombstones").withIndex("by_studentId", (q) => q.eq("studentId", owner.studentId)),
};

/** The tables in that order. */
export const STUDENT_TABLES = Object.keys(FIND) as StudentTable[];

/** The owner's rows in one table, by the index that names the owner first; null for none ever. */
export function rowsOf<T extends StudentTable>(
  db: DatabaseReader,
  table: T,
  owner: Owner,
): Rows<T> | null {
  return FIND[table](db, owner);
}

/** Whether any table has a row of the owner's. */
export async function hasRows(db: DatabaseReader, owner: Owner): Promise<boolean> {
  for (const table of STUDENT_TABLES) {
    if ((await rowsOf(db, table, owner)?.first()) ?? null) return true;
  }
  return false;
}

/** Rows deleted by table, and whether some are left. */
export type Removal = { deleted: Partial<Record<StudentTable, number>>; done: boolean };

/**
 * Deletes a page of the owners' rows; a run leaves a tombstone that names nobody, on which the fold
 * answers `erased` to whatever comes later.
 *
 * Each page begins with the first table again, so that a row which was written behind its back goes
 * with the next.
 */
export async function removePage(ctx: MutationCtx, owners: readonly Owner[]): Promise<Removal> {
  const deleted: Removal["deleted"] = {};
  let rows = 0;
  let bytes = 0;
  for (const table of STUDENT_TABLES) {
    for (const owner of owners) {
      for await (const row of rowsOf(ctx.db, table, owner) ?? []) {
        if (rows >= SCHOOL.maxRowsRemoved || bytes >= SCHOOL.maxBytesRemoved) {
          return { deleted, done: false };
        }
        if (table === "sessionRuns") await bury(ctx, row as Doc<"sessionRuns">);
        await remove(ctx, table, row._id);
        deleted[table] = (deleted[table] ?? 0) + 1;
        rows += 1;
        bytes += getConvexSize(row);
      }
    }
  }
  return { deleted, done: true };
}

/** `table` and `id` go together: they come from the same row. */
async function remove(ctx: MutationCtx, table: StudentTable, id: Id<TableNames>): Promise<void> {
  await ctx.db.delete(table, id as Id<StudentTable>);
}

async function bury(ctx: MutationCtx, { runId }: Doc<"sessionRuns">): Promise<void> {
  await ctx.db.insert("tombstones", {
    runId,
    fromSeq: 0,
    toSeq: Number.MAX_SAFE_INTEGER,
    cause: "erased",
    reason: "erased",
    createdAt: Date.now(),
  });
}
