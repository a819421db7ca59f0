/**
 * Everything that is held about a student, a page at a time.
 * @module
 */
import { v } from "convex/values";
import type { Validator } from "convex/values";
import type { Doc, Id } from "../_generated/dataModel";
import type { QueryCtx } from "../_generated/server";
import { fail } from "../errors";
import { SCHOOL } from "../limits";
import schema from "../schema";
import { STUDENT_TABLES, rowsBeforeStudent, rowsOf } from "./privacy";
import type { StudentTable } from "./privacy";

type ExportedTable = "students" | StudentTable;

/** A row as it is stored, with its table. */
export type ExportedRow = { [T in ExportedTable]: { table: T; row: Doc<T> } }[ExportedTable];

/** One page, and where the next begins. */
export type ExportedPage = { rows: ExportedRow[]; cursor: string | null; isDone: boolean };

const vExportedRow = v.union(
  ...(["students", ...STUDENT_TABLES] as const).map((table) =>
    v.object({ table: v.literal(table), row: schema.doc(table) }),
  ),
) as unknown as Validator<ExportedRow, "required", string>;

/** `cursor` is null when `isDone`. */
export const vExportedPage = v.object({
  rows: v.array(vExportedRow),
  cursor: v.union(v.string(), v.null()),
  isDone: v.boolean(),
});

/**
 * The next rows held about the student: first their own, then table by table.
 *
 * A page has rows of one table, but for the first, and is empty only where nothing is left.
 *
 * @param cursor - As the page before gave it; null for the first.
 * @throws ConvexError `student_unknown`; `invalid_value` for a cursor that no page gave.
 */
export async function loadExportedPage(
  ctx: QueryCtx,
  studentId: Id<"students">,
  cursor: string | null,
): Promise<ExportedPage> {
  const student = await ctx.db.get("students", studentId);
  if (student === null) {
    fail({ code: "student_unknown", message: "There is no such student.", field: "studentId" });
  }
  const rows: ExportedRow[] = cursor === null ? [{ table: "students", row: student }] : [];
  const owners = [{ studentId }, rowsBeforeStudent(studentId)];
  const sources = STUDENT_TABLES.flatMap((table) => owners.map((owner) => ({ table, owner })));
  const begun = cursor === null ? { source: 0, cursor: null } : placeOf(cursor, sources.length);
  for (const [source, { table, owner }] of sources.entries()) {
    if (source < begun.source) continue;
    const after = source === begun.source ? begun.cursor : null;
    if (after === null && ((await rowsOf(ctx.db, table, owner)?.first()) ?? null) === null) continue;
    const found = await rowsOf(ctx.db, table, owner)?.paginate({
      numItems: SCHOOL.maxRowsExported,
      maximumBytesRead: SCHOOL.maxBytesExported,
      cursor: after,
    });
    if (found === undefined) break;
    for (const row of found.page) rows.push({ table, row } as ExportedRow);
    const next = found.isDone ? `${source + 1}:` : `${source}:${found.continueCursor}`;
    return { rows, cursor: next, isDone: false };
  }
  return { rows, cursor: null, isDone: true };
}

/** The id that a text is; throws `student_unknown` where it is none of a student. */
export function requireStudentId(ctx: QueryCtx, studentId: string): Id<"students"> {
  const id = ctx.db.normalizeId("students", studentId);
  if (id === null) {
    fail({
      code: "student_unknown",
      message: "This is no student's id of this deployment.",
      field: "studentId",
    });
  }
  return id;
}

/** `<source>:<cursor inside it>`, where nothing behind the colon is its beginning. */
function placeOf(cursor: string, sources: number): { source: number; cursor: string | null } {
  const [, digits, inside] = /^(\d{1,3}):(.*)$/s.exec(cursor) ?? [];
  const source = Number(digits);
  if (inside === undefined || !(source <= sources)) {
    fail({ code: "invalid_value", message: "The cursor is of no page of this.", field: "cursor" });
  }
  return { source, cursor: inside === "" ? null : inside };
}
