/** The project's schema, as the engine uses it. */
import { CompileError } from "./errors.ts";
import { MAX_IDENTIFIER_LENGTH } from "./limits.ts";
import type { JSONValue } from "./types.ts";
import type { ValidatorJSON } from "./validators.ts";

/** `MAX_INDEX_FIELDS_SIZE` and `MAX_INDEXES_PER_TABLE` of the backend's `common`. */
const MAX_INDEX_FIELDS = 16;
const MAX_INDEXES_PER_TABLE = 64;

export interface IndexDefinition {
  name: string;
  /** Dotted paths, without the `_creationTime` and `_id` that every index ends with. */
  fields: string[];
}

export interface TableDefinition {
  name: string;
  documentType: ValidatorJSON;
  indexes: IndexDefinition[];
}

export interface Schema {
  /** What `defineSchema(...).export()` gave; kept to see whether a reload changes it. */
  json: JSONValue;
  tables: Map<string, TableDefinition>;
  /** False with `defineSchema(…, { schemaValidation: false })`. */
  validates: boolean;
}

interface ExportedTable {
  tableName: string;
  documentType: ValidatorJSON;
  indexes: { indexDescriptor: string; fields: string[] }[];
  stagedDbIndexes?: { indexDescriptor: string; fields: string[] }[];
  searchIndexes?: { indexDescriptor: string }[];
  vectorIndexes?: { indexDescriptor: string }[];
}

export interface ParsedSchema {
  schema: Schema;
  /** What the schema declares and convex-local does not have: used indexes are refused. */
  unsupported: string[];
}

/**
 * Reads an exported schema.
 *
 * @throws CompileError for names or indexes that the backend refuses as well.
 */
export function parseSchema(text: string): ParsedSchema {
  const json = JSON.parse(text) as { tables: ExportedTable[]; schemaValidation: boolean };
  const tables = new Map<string, TableDefinition>();
  const unsupported: string[] = [];
  for (const table of json.tables) {
    checkIdentifier(table.tableName, "Table name");
    if (table.tableName.startsWith("_")) {
      throw new CompileError(
        `Invalid table name ${table.tableName} starts with metadata prefix '_'`,
      );
    }
    tables.set(table.tableName, {
      name: table.tableName,
      documentType: table.documentType,
      indexes: parseIndexes(table),
    });
    for (const index of [...(table.searchIndexes ?? []), ...(table.vectorIndexes ?? [])]) {
      unsupported.push(`${table.tableName}.${index.indexDescriptor}`);
    }
  }
  return {
    schema: { json: json as unknown as JSONValue, tables, validates: json.schemaValidation },
    unsupported,
  };
}

function parseIndexes(table: ExportedTable): IndexDefinition[] {
  if (table.indexes.length > MAX_INDEXES_PER_TABLE) {
    throw new CompileError(
      `Table "${table.tableName}" has ${table.indexes.length} indexes, the maximum is ` +
        `${MAX_INDEXES_PER_TABLE}`,
    );
  }
  const names = new Set<string>();
  return table.indexes.map(({ indexDescriptor: name, fields }) => {
    const where = `index "${name}" of table "${table.tableName}"`;
    checkIdentifier(name, "Index name");
    if (name === "by_id" || name === "by_creation_time" || name.startsWith("_")) {
      throw new CompileError(`In table "${table.tableName}": the index name "${name}" is reserved`);
    }
    if (names.has(name)) throw new CompileError(`Duplicate ${where}`);
    names.add(name);
    if (fields.length === 0) throw new CompileError(`The ${where} has no fields`);
    if (fields.length > MAX_INDEX_FIELDS) {
      throw new CompileError(`The ${where} has more than ${MAX_INDEX_FIELDS} fields`);
    }
    if (new Set(fields).size !== fields.length) {
      throw new CompileError(`The ${where} has a field twice`);
    }
    if (fields.includes("_id") || fields.includes("_creationTime")) {
      throw new CompileError(
        `The ${where} names a system field; every index ends with _creationTime by itself`,
      );
    }
    return { name, fields };
  });
}

/** Source: `convex/sync_types/src/identifier.rs` of the backend. */
function checkIdentifier(name: string, what: string): void {
  if (!isIdentifier(name)) {
    throw new CompileError(
      `${what} "${name}" is invalid: 1 to ${MAX_IDENTIFIER_LENGTH} letters, digits and ` +
        "underscores, not beginning with a digit and not only underscores",
    );
  }
}

export const isIdentifier = (name: string): boolean =>
  name.length <= MAX_IDENTIFIER_LENGTH &&
  /^[A-Za-z_][A-Za-z0-9_]*$/.test(name) &&
  /[^_]/.test(name);
