/**
 * Rows made from the schema itself, so that a table nobody thought of has one as well.
 * @module
 */
import type { GenericValidator } from "convex/values";
import type { Doc, Id, TableNames } from "../../convex/_generated/dataModel.js";
import type { MutationCtx } from "../../convex/_generated/server.js";
import schema from "../../convex/schema.ts";

type Shape = GenericValidator & {
  fields?: Record<string, Shape>;
  members?: Shape[];
  tableName?: string;
  value?: unknown;
};

const TABLES = schema.tables as Record<TableNames, { validator: GenericValidator }>;

const shapeOf = (table: TableNames): Shape => TABLES[table].validator;

/** The tables whose rows may name a student, also deep inside. */
export const TABLES_OF_STUDENTS = (Object.keys(TABLES) as TableNames[]).filter(
  (table) => table === "students" || namesStudent(shapeOf(table)),
);

function namesStudent(shape: Shape): boolean {
  const inside = [...Object.values(shape.fields ?? {}), ...(shape.members ?? [])];
  const more = shape as unknown as { element?: Shape; value?: Shape };
  if (shape.kind === "array" && more.element !== undefined) inside.push(more.element);
  if (shape.kind === "record" && more.value !== undefined) inside.push(more.value);
  const named = Object.keys(shape.fields ?? {}).some((name) => /studentId/i.test(name));
  return named || shape.tableName === "students" || inside.some(namesStudent);
}

/**
 * A row of the table with every required field, and whatever `rest` gives.
 *
 * Rows that it needs in other tables are made as well.
 */
export async function insertSample<Table extends TableNames>(
  ctx: MutationCtx,
  table: Table,
  rest: Record<string, unknown>,
): Promise<Id<Table>> {
  const row: Record<string, unknown> = {};
  const fields = shapeOf(table).fields ?? {};
  for (const [name, shape] of Object.entries(fields)) {
    if (name in rest) row[name] = rest[name];
    else if (shape.isOptional === "required") row[name] = await valueOf(ctx, shape, rest);
  }
  return await ctx.db.insert<TableNames>(table, row as never) as Id<Table>;
}

async function valueOf(
  ctx: MutationCtx,
  shape: Shape,
  rest: Record<string, unknown>,
): Promise<unknown> {
  switch (shape.kind) {
    case "id":
      return await insertSample(ctx, shape.tableName as TableNames, rest);
    case "object": {
      const value: Record<string, unknown> = {};
      for (const [name, field] of Object.entries(shape.fields)) {
        if (field.isOptional === "required") value[name] = await valueOf(ctx, field, rest);
      }
      return value;
    }
    case "union":
      return await valueOf(ctx, shape.members[0] as Shape, rest);
    case "literal":
      return shape.value;
    case "array":
      return [];
    case "record":
      return {};
    case "boolean":
      return false;
    case "string":
      return "sample";
    default:
      return 1;
  }
}

/** The rows among `found` that name the student, by their fields or anywhere in their text. */
export function naming(found: readonly Doc<TableNames>[], studentId: string): Doc<TableNames>[] {
  return found.filter((row) => JSON.stringify(row).includes(studentId));
}
