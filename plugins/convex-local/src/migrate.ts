/** Brings the tables in line with a schema: indexes made, filled and dropped, rows checked. */
import { CompileError } from "./errors.ts";
import { tableNumberOf } from "./ids.ts";
import type { Schema, TableDefinition } from "./schema.ts";
import { SCHEDULED_FUNCTIONS, type Index, type Store, type Table } from "./store.ts";
import { keyOf } from "./transaction.ts";
import { validate } from "./validators.ts";
import type { JSONObject } from "./values.ts";

const BATCH = 512;
const SYSTEM_INDEXES = new Set(["by_id", "by_creation_time"]);

/**
 * Does it all in one transaction, so that a schema which existing rows do not fit changes nothing.
 *
 * @throws CompileError naming the first row that does not fit.
 */
export function applySchema(store: Store, schema: Schema | null): void {
  const text = JSON.stringify(schema?.json ?? null);
  const unchanged = store.meta("schema") === text;
  store.transaction(() => {
    store.ensureTable(SCHEDULED_FUNCTIONS);
    for (const definition of schema?.tables.values() ?? []) store.ensureTable(definition.name);
    for (const table of [...store.tables]) {
      const definition = schema?.tables.get(table.name);
      changeIndexes(store, table, definition);
      if (!unchanged && schema?.validates === true && definition !== undefined) {
        checkRows(store, table, definition);
      }
    }
    if (!unchanged) store.setMeta("schema", text);
  });
}

function changeIndexes(store: Store, table: Table, definition: TableDefinition | undefined): void {
  const wanted = new Map(definition?.indexes.map((index) => [index.name, index]));
  for (const index of [...table.indexes.values()]) {
    if (SYSTEM_INDEXES.has(index.name)) continue;
    const fields = index.paths.slice(0, -2).map((path) => path.join("."));
    const same = wanted.get(index.name)?.fields.join() === fields.join();
    if (same) wanted.delete(index.name);
    else store.dropIndex(index);
  }
  const made = [...wanted.values()].map((index) => store.createIndex(table, index));
  if (made.length > 0) fill(store, table, made);
}

function fill(store: Store, table: Table, indexes: Index[]): void {
  for (const document of documentsOf(store, table)) {
    for (const index of indexes) {
      store.putKey(index.id, keyOf(index, document), document["_id"] as string);
    }
  }
}

function checkRows(store: Store, table: Table, definition: TableDefinition): void {
  const tableOfId = (id: string): string | null => {
    const number = tableNumberOf(id);
    return number === null ? null : (store.tableOfNumber(number)?.name ?? null);
  };
  for (const document of documentsOf(store, table)) {
    const { _id: id, _creationTime, ...fields } = document;
    const problem = validate(definition.documentType, fields, tableOfId);
    if (problem === null) continue;
    throw new CompileError(
      "Schema validation failed.\n" +
        `Document with ID "${id as string}" in table "${table.name}" does not match the schema: ` +
        problem,
    );
  }
}

/** Every document of a table, in the order of creation, a batch at a time. */
function* documentsOf(store: Store, table: Table): Generator<JSONObject> {
  const index = table.indexes.get("by_creation_time") as Index;
  let from: Buffer = Buffer.alloc(0);
  for (;;) {
    const { rows, isLast } = store.rows(index.id, from, null, false, BATCH);
    for (const row of rows) yield JSON.parse(row.json) as JSONObject;
    const last = rows.at(-1);
    if (last === undefined || isLast) return;
    from = Buffer.concat([last.key, Buffer.of(0)]);
  }
}
