/**
 * One query's or mutation's view of the tables: reads that are recorded, writes that can be undone.
 *
 * Everything runs in one process without yielding, so a transaction is alone from its first
 * read to its commit: serial, hence serialisable.
 */
import { encodeKey, afterKey } from "./keys.ts";
import { FunctionError } from "./errors.ts";
import { newId, tableNumberOf } from "./ids.ts";
import {
  MAX_BYTES_READ,
  MAX_BYTES_WRITTEN,
  MAX_DOCUMENTS_READ,
  MAX_DOCUMENTS_WRITTEN,
  MAX_RANGES_READ,
} from "./limits.ts";
import { ReadSet, WriteSet, type Interval } from "./readset.ts";
import { isIdentifier, type Schema } from "./schema.ts";
import type { Index, Store, Table } from "./store.ts";
import type { JSONValue, Usage } from "./types.ts";
import { validate } from "./validators.ts";
import {
  checkDocumentShape,
  fieldAt,
  isPlainObject,
  normalize,
  type JSONObject,
  type MaybeValue,
  type Normalized,
} from "./values.ts";

const OVER_LIMIT_HELP =
  "Consider using smaller limits in your queries, paginating your queries, or using indexed " +
  "queries with a selective index range expressions.";

export interface TransactionOptions {
  store: Store;
  schema: Schema | null;
  readOnly: boolean;
  /** Milliseconds since the epoch, with a fraction: the first `_creationTime`. */
  startedAt: number;
}

export class Transaction {
  readonly store: Store;
  readonly readSet = new ReadSet();
  readonly usage: Usage = {
    documentsRead: 0,
    bytesRead: 0,
    documentsWritten: 0,
    bytesWritten: 0,
    ranges: 0,
  };
  /** Rises with every write: an open query whose version is older must look again. */
  version = 0;
  scheduled = 0;
  scheduledBytes = 0;
  /** Has a scheduled function been added or cancelled? */
  touchedJobs = false;
  readonly readOnly: boolean;
  private readonly schema: Schema | null;
  private readonly writeSets = [new WriteSet()];
  private readonly idsRead = new Set<string>();
  private creationTime: number;

  constructor(options: TransactionOptions) {
    this.store = options.store;
    this.schema = options.schema;
    this.readOnly = options.readOnly;
    this.creationTime = options.startedAt;
  }

  get writeSet(): WriteSet {
    return this.writeSets[0] as WriteSet;
  }

  // Nested transactions

  /** Runs `body` so that a throw undoes its writes and nothing else. */
  nested<T>(body: () => T): T {
    if (this.readOnly) return body();
    const writes = new WriteSet();
    const name = `nested_${this.writeSets.length}`;
    this.writeSets.push(writes);
    try {
      const result = this.store.savepoint(name, body);
      this.writeSets.pop();
      this.currentWrites.addAll(writes);
      return result;
    } catch (error) {
      this.writeSets.pop();
      this.version += 1;
      throw error;
    }
  }

  private get currentWrites(): WriteSet {
    return this.writeSets[this.writeSets.length - 1] as WriteSet;
  }

  // Reads

  tableOfId = (id: string): string | null => {
    const number = tableNumberOf(id);
    return number === null ? null : (this.store.tableOfNumber(number)?.name ?? null);
  };

  /** The document's JSON; null when there is none. */
  get(id: string): string | null {
    const table = this.tableByIdOrThrow(id);
    if (table === null) return null;
    this.recordPoint(table, id);
    const row = this.store.document(id);
    if (row === null) return null;
    this.recordDocument(row.size);
    return row.json;
  }

  /** Starts a range. Its interval is narrowed by whoever consumes it. */
  startRange(index: Index, lo: Buffer, hi: Buffer | null): Interval {
    this.recordRange();
    const interval: Interval = { index: index.id, lo, hi };
    this.readSet.add(interval);
    return interval;
  }

  recordDocument(size: number): void {
    this.usage.documentsRead += 1;
    this.usage.bytesRead += size;
    if (this.usage.documentsRead > MAX_DOCUMENTS_READ) {
      throw new FunctionError(
        `Too many documents read in a single function execution (limit: ${MAX_DOCUMENTS_READ}). ` +
          OVER_LIMIT_HELP,
      );
    }
    if (this.usage.bytesRead > MAX_BYTES_READ) {
      throw new FunctionError(
        `Too many bytes read in a single function execution (limit: ${MAX_BYTES_READ} bytes). ` +
          OVER_LIMIT_HELP,
      );
    }
  }

  private recordRange(): void {
    this.usage.ranges += 1;
    if (this.usage.ranges > MAX_RANGES_READ) {
      throw new FunctionError(
        `Too many reads in a single function execution (limit: ${MAX_RANGES_READ}). ` +
          OVER_LIMIT_HELP,
      );
    }
  }

  /** The read set is a set of intervals: the same document again adds nothing. */
  private recordPoint(table: Table, id: string): void {
    if (this.idsRead.has(id)) return;
    this.idsRead.add(id);
    this.recordRange();
    const lo = encodeKey([id]);
    const index = table.indexes.get("by_id") as Index;
    this.readSet.add({ index: index.id, lo, hi: afterKey(lo) });
  }

  private tableByIdOrThrow(id: string): Table | null {
    const number = tableNumberOf(id);
    if (number === null) throw new FunctionError(`Unable to decode ID: ${JSON.stringify(id)}`);
    return this.store.tableOfNumber(number);
  }

  // Writes

  /** @returns The new document's id. */
  insert(tableName: string, value: JSONValue): string {
    this.requireWritable();
    if (!isIdentifier(tableName)) {
      throw new FunctionError(`Invalid table name ${JSON.stringify(tableName)}`);
    }
    const table = this.store.ensureTable(tableName);
    const id = newId(table.number);
    const creationTime = this.creationTime;
    this.creationTime = nextUp(creationTime);
    const fields = this.userFields(value, table, null);
    this.write(table, id, null, { ...fields, _creationTime: creationTime, _id: id });
    return id;
  }

  /** Sets the given fields; `{"$undefined": null}` removes one. */
  patch(id: string, value: JSONValue): void {
    const { table, document } = this.existing(id, "Update");
    const patch = this.objectOrThrow(value);
    const merged: Record<string, MaybeValue> = { ...document };
    for (const [name, field] of Object.entries(patch)) {
      const removes = typeof field === "object" && field !== null && "$undefined" in field;
      merged[name] = removes ? undefined : field;
    }
    const kept = Object.entries(merged).filter(([, field]) => field !== undefined);
    const fields = this.userFields(Object.fromEntries(kept) as JSONObject, table, document);
    this.write(table, id, document, { ...fields, ...systemFields(document) });
  }

  replace(id: string, value: JSONValue): void {
    const { table, document } = this.existing(id, "Replace");
    const fields = this.userFields(value, table, document);
    this.write(table, id, document, { ...fields, ...systemFields(document) });
  }

  remove(id: string): void {
    const { table, document } = this.existing(id, "Delete");
    this.countWrite(0);
    this.erase(table, id, document);
  }

  private existing(id: string, action: string): { table: Table; document: JSONObject } {
    this.requireWritable();
    const table = this.tableByIdOrThrow(id);
    if (table !== null) this.recordPoint(table, id);
    const row = table === null ? null : this.store.document(id);
    if (table === null || row === null) {
      throw new FunctionError(`${action} on nonexistent document ID ${id}`);
    }
    if (table.name.startsWith("_")) {
      throw new FunctionError(`${table.name} is a read-only table`);
    }
    return { table, document: JSON.parse(row.json) as JSONObject };
  }

  /** The document without its system fields, checked against the schema. */
  private userFields(value: JSONValue, table: Table, old: JSONObject | null): JSONObject {
    const fields: JSONObject = {};
    for (const [name, field] of Object.entries(this.objectOrThrow(value))) {
      if (name === "_id" || name === "_creationTime") checkSystemField(name, field, old);
      else if (name.startsWith("_")) {
        throw new FunctionError(
          `Field '${name}' starts with an underscore, which is only allowed for system fields ` +
            "like '_id'",
        );
      } else fields[name] = field;
    }
    const definition = this.schema?.tables.get(table.name);
    if (definition === undefined || this.schema?.validates !== true) return fields;
    // Canonical first: the validator compares literals by their JSON.
    const canonical = normalize(fields).value as JSONObject;
    const problem = validate(definition.documentType, canonical, this.tableOfId);
    if (problem !== null) {
      throw new FunctionError(
        `Failed to insert or update a document in table "${table.name}" because it does not ` +
          `match the schema: ${problem}`,
      );
    }
    return canonical;
  }

  private objectOrThrow(value: JSONValue): JSONObject {
    if (!isPlainObject(value)) throw new FunctionError("Value must be an Object");
    return value;
  }

  private write(table: Table, id: string, old: JSONObject | null, document: JSONObject): void {
    const normalized = normalize(document);
    checkDocumentShape(normalized);
    this.countWrite(normalized.size);
    this.put(table, id, old, normalized);
  }

  /** Writes a document of a system table: outside of what the function may write. */
  writeSystem(table: Table, id: string, old: JSONObject | null, fields: JSONObject): void {
    const creationTime = old?.["_creationTime"] ?? this.creationTime;
    if (old === null) this.creationTime = nextUp(this.creationTime);
    this.put(table, id, old, normalize({ ...fields, _creationTime: creationTime, _id: id }));
  }

  /** Removes a document of any table, with its keys. */
  private erase(table: Table, id: string, document: JSONObject): void {
    for (const index of table.indexes.values()) {
      const key = keyOf(index, document);
      this.store.deleteKey(index.id, key);
      this.currentWrites.add(index.id, key);
    }
    this.store.deleteDocument(id);
    this.version += 1;
  }

  /** As `remove`, for system tables; nothing happens when there is no such document. */
  eraseSystem(id: string): void {
    const table = this.tableByIdOrThrow(id);
    const row = this.store.document(id);
    if (table !== null && row !== null) this.erase(table, id, JSON.parse(row.json) as JSONObject);
  }

  private put(table: Table, id: string, old: JSONObject | null, normalized: Normalized): void {
    const value = normalized.value as JSONObject;
    for (const index of table.indexes.values()) {
      const key = keyOf(index, value);
      const oldKey = old === null ? null : keyOf(index, old);
      if (oldKey !== null && !oldKey.equals(key)) {
        this.store.deleteKey(index.id, oldKey);
        this.currentWrites.add(index.id, oldKey);
      }
      if (oldKey === null || !oldKey.equals(key)) this.store.putKey(index.id, key, id);
      this.currentWrites.add(index.id, key);
    }
    this.store.putDocument(id, normalized.size, JSON.stringify(value));
    this.version += 1;
  }

  private countWrite(size: number): void {
    this.usage.documentsWritten += 1;
    this.usage.bytesWritten += size;
    if (this.usage.documentsWritten > MAX_DOCUMENTS_WRITTEN) {
      throw new FunctionError(
        `Too many writes in a single function execution (limit: ${MAX_DOCUMENTS_WRITTEN})`,
      );
    }
    if (this.usage.bytesWritten > MAX_BYTES_WRITTEN) {
      throw new FunctionError(
        "Too many bytes written in a single function execution " +
          `(limit: ${MAX_BYTES_WRITTEN} bytes)`,
      );
    }
  }

  private requireWritable(): void {
    if (this.readOnly) throw new FunctionError("Queries cannot write to the database.");
  }
}

export const keyOf = (index: Index, document: JSONObject): Buffer =>
  encodeKey(index.paths.map((path) => fieldAt(document, path)));

const systemFields = (document: JSONObject): JSONObject => ({
  _creationTime: document["_creationTime"] as JSONValue,
  _id: document["_id"] as JSONValue,
});

/** A document that was read may be written back whole: its system fields must be its own. */
function checkSystemField(name: string, value: JSONValue, old: JSONObject | null): void {
  if (old === null) {
    throw new FunctionError(
      name === "_id"
        ? "The '_id' field is set by the database and cannot be inserted"
        : "The '_creationTime' field is set by the database and cannot be inserted",
    );
  }
  if (old[name] === value) return;
  throw new FunctionError(
    name === "_id"
      ? `Provided document ID ${JSON.stringify(value)} doesn't match '_id' field ` +
          JSON.stringify(old[name])
      : `Provided creation time ${JSON.stringify(value)} doesn't match '_creationTime' field ` +
          JSON.stringify(old[name]),
  );
}

const nextUpBits = new DataView(new ArrayBuffer(8));

/** The next larger float: documents of one transaction keep their order of insertion. */
function nextUp(value: number): number {
  nextUpBits.setFloat64(0, value);
  nextUpBits.setBigUint64(0, nextUpBits.getBigUint64(0) + 1n);
  return nextUpBits.getFloat64(0);
}
