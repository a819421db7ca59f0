/**
 * Database queries: a range of an index, streamed, filtered and limited.
 *
 * Documents come in batches, and whatever is fetched beyond what the function consumes is neither
 * counted nor part of the read set.
 */
import { FunctionError } from "./errors.ts";
import { passes } from "./filters.ts";
import { afterKey, afterPrefix, encodeKey } from "./keys.ts";
import type { Interval } from "./readset.ts";
import { isIdentifier } from "./schema.ts";
import type { Index, Row, Table } from "./store.ts";
import type { Transaction } from "./transaction.ts";
import type { JSONValue } from "./types.ts";
import { display, type MaybeValue } from "./values.ts";

const FIRST_BATCH = 32;
const MAX_BATCH = 256;
const SYSTEM_FIELDS_HELP = "For more information see https://docs.convex.dev/using/indexes.";

interface RangeExpression {
  type: "Eq" | "Gt" | "Gte" | "Lt" | "Lte";
  fieldPath: string;
  value: JSONValue;
}

type Source =
  | { type: "FullTableScan"; tableName: string; order: "asc" | "desc" | null }
  | {
      type: "IndexRange";
      indexName: string;
      range: RangeExpression[];
      order: "asc" | "desc" | null;
    }
  | { type: "Search"; indexName: string };

/** A query as npm `convex` serialises it. */
export interface SerializedQuery {
  source: Source;
  operators: ({ filter: JSONValue } | { limit: number })[];
}

/** Where reading begins and ends, besides the query's own range. */
export interface Bounds {
  /** Only what comes after this key, in the query's order. */
  after?: Buffer;
  /** Up to this key and no further. */
  through?: Buffer;
}

/** A filter, or how many documents may still go through a limit. */
type Step = { filter: JSONValue } | { left: number };

export class QueryStream {
  /** Key of the last document looked at; null before the first. */
  position: Buffer | null = null;
  exhausted = false;
  /** Documents looked at and their bytes, those that a filter dropped included. */
  rowsRead = 0;
  bytesRead = 0;
  private readonly tx: Transaction;
  private readonly index: Index;
  private readonly steps: Step[];
  private readonly descending: boolean;
  private lo: Buffer;
  private hi: Buffer | null;
  private interval: Interval | null = null;
  private batch: Row[] = [];
  private batchSize: number;
  private batchIsLast = false;
  private batchVersion = -1;

  constructor(tx: Transaction, query: SerializedQuery, bounds: Bounds = {}) {
    this.tx = tx;
    const { index, lo, hi, descending } = resolveRange(tx, query.source);
    this.index = index;
    this.lo = lo;
    this.hi = hi;
    this.descending = descending;
    if (bounds.after !== undefined) this.cutStart(bounds.after);
    if (bounds.through !== undefined) this.cutEnd(bounds.through);
    this.steps = query.operators.map((operator) =>
      "limit" in operator ? { left: operator.limit } : operator,
    );
    const [first] = this.steps;
    const wanted = first !== undefined && "left" in first ? first.left : FIRST_BATCH;
    this.batchSize = Math.min(wanted, MAX_BATCH);
  }

  /** JSON of the next document; null at the end. */
  next(): string | null {
    return this.nextWithin(Infinity) as string | null;
  }

  /** As `next`, but `undefined` once it has looked at `rows` documents that a filter dropped. */
  nextWithin(rows: number): string | null | undefined {
    for (let looked = 0; ; looked += 1) {
      if (looked >= rows) return undefined;
      if (this.steps.some((step) => "left" in step && step.left <= 0)) return null;
      const row = this.nextRow();
      if (row === null) return null;
      if (this.goesThrough(row)) return row.json;
    }
  }

  private goesThrough(row: Row): boolean {
    let document: JSONValue | undefined;
    for (const step of this.steps) {
      if ("left" in step) step.left -= 1;
      else {
        document ??= JSON.parse(row.json) as JSONValue;
        if (!passes(step.filter, document)) return false;
      }
    }
    return true;
  }

  private nextRow(): Row | null {
    if (this.exhausted) return null;
    this.interval ??= this.tx.startRange(this.index, this.lo, this.hi);
    if (this.batchVersion !== this.tx.version && this.batchVersion !== -1) {
      // This transaction wrote since the batch was read: look again, a little at a time.
      this.batch = [];
      this.batchIsLast = false;
      this.batchSize = 2;
    }
    if (this.batch.length === 0 && !this.batchIsLast) this.fetch();
    const row = this.batch.shift();
    if (row === undefined) {
      this.exhausted = true;
      this.interval.lo = this.lo;
      this.interval.hi = this.hi;
      return null;
    }
    this.position = row.key;
    this.rowsRead += 1;
    this.bytesRead += row.size;
    if (this.descending) this.interval.lo = row.key;
    else this.interval.hi = afterKey(row.key);
    this.tx.recordDocument(row.size);
    return row;
  }

  private fetch(): void {
    let { lo, hi } = this;
    if (this.position !== null) {
      if (this.descending) hi = this.position;
      else lo = afterKey(this.position);
    }
    const size = Math.max(1, this.batchSize);
    const { rows, isLast } = this.tx.store.rows(this.index.id, lo, hi, this.descending, size);
    this.batch = rows;
    this.batchIsLast = isLast;
    this.batchVersion = this.tx.version;
    this.batchSize = Math.min(size * 4, MAX_BATCH);
  }

  private cutStart(after: Buffer): void {
    if (this.descending) this.hi = smaller(this.hi, after);
    else this.lo = larger(this.lo, afterKey(after));
  }

  private cutEnd(through: Buffer): void {
    if (this.descending) this.lo = larger(this.lo, through);
    else this.hi = smaller(this.hi, afterKey(through));
  }
}

const larger = (left: Buffer, right: Buffer): Buffer =>
  Buffer.compare(left, right) > 0 ? left : right;

const smaller = (left: Buffer | null, right: Buffer): Buffer =>
  left !== null && Buffer.compare(left, right) < 0 ? left : right;

interface ResolvedRange {
  index: Index;
  lo: Buffer;
  hi: Buffer | null;
  descending: boolean;
}

function resolveRange(tx: Transaction, source: Source): ResolvedRange {
  const nothing = Buffer.alloc(0);
  if (source.type === "Search") {
    throw new FunctionError(
      `convex-local has no full text search: ${source.indexName} cannot be queried`,
    );
  }
  const descending = source.order === "desc";
  if (source.type === "FullTableScan") {
    const table = tableForReading(tx, source.tableName);
    const index = table.indexes.get("by_creation_time") as Index;
    return { index, lo: nothing, hi: null, descending };
  }
  const dot = source.indexName.indexOf(".");
  const table = tableForReading(tx, source.indexName.slice(0, dot));
  const index = table.indexes.get(source.indexName.slice(dot + 1));
  if (index === undefined) {
    throw new FunctionError(`Index ${source.indexName} not found.`);
  }
  return { index, ...compileRange(source.indexName, index, source.range), descending };
}

/** A table that was never written has no rows, but reading it must be remembered all the same. */
function tableForReading(tx: Transaction, name: string): Table {
  const table = tx.store.table(name);
  if (table !== null) return table;
  if (name.startsWith("_")) throw new FunctionError(`convex-local has no system table ${name}`);
  if (!isIdentifier(name)) throw new FunctionError(`Invalid table name ${JSON.stringify(name)}`);
  return tx.store.ensureTable(name);
}

/** Source: `common/src/query.rs` IndexRange::compile, whose texts these are. */
function compileRange(
  name: string,
  index: Index,
  range: RangeExpression[],
): { lo: Buffer; hi: Buffer | null } {
  const fields = index.paths.map((path) => path.join("."));
  const equal = new Map<string, MaybeValue>();
  const bounds: { lower?: RangeExpression; upper?: RangeExpression } = {};
  for (const expression of range) {
    const { fieldPath, type } = expression;
    if (!fields.includes(fieldPath)) {
      throw new FunctionError(
        `The index range included a comparison with "${fieldPath}", but ${name} with fields ` +
          `${showFields(fields)} doesn't index this field. ${SYSTEM_FIELDS_HELP}`,
      );
    }
    if (type === "Eq") {
      if (equal.has(fieldPath)) throw alreadyBound("equality", expression);
      equal.set(fieldPath, valueOf(expression));
      continue;
    }
    const side = type.startsWith("L") ? "upper" : "lower";
    if (bounds[side] !== undefined) throw alreadyBound(side, expression);
    bounds[side] = expression;
  }
  const bounded = boundedField(name, bounds);
  if (bounded !== null && equal.has(bounded)) {
    throw alreadyBound("inequality", (bounds.lower ?? bounds.upper) as RangeExpression);
  }
  const used = [...equal.keys()].sort((a, b) => fields.indexOf(a) - fields.indexOf(b));
  if (bounded !== null) used.push(bounded);
  for (const [rank, field] of used.entries()) {
    if (fields[rank] === field) continue;
    throw new FunctionError(
      `Tried to query index ${name} but the query didn't use the index fields in order.\n` +
        `Index fields: ${showFields(fields)}\nQuery fields: ${showFields(used)}\n` +
        `First incorrect field: ${field}\n${SYSTEM_FIELDS_HELP}`,
    );
  }
  const prefix = used.slice(0, equal.size).map((field) => equal.get(field));
  return boundsOf(prefix, bounds);
}

function boundsOf(
  prefix: MaybeValue[],
  { lower, upper }: { lower?: RangeExpression; upper?: RangeExpression },
): { lo: Buffer; hi: Buffer | null } {
  const whole = encodeKey(prefix);
  const at = (expression: RangeExpression): Buffer => encodeKey([...prefix, valueOf(expression)]);
  let lo = whole;
  if (lower?.type === "Gte") lo = at(lower);
  // Encodings are self-delimiting and no tag is 0xff: there always is a key after one's prefix.
  if (lower?.type === "Gt") lo = afterPrefix(at(lower)) as Buffer;
  let hi = prefix.length === 0 ? null : afterPrefix(whole);
  if (upper?.type === "Lt") hi = at(upper);
  if (upper?.type === "Lte") hi = afterPrefix(at(upper));
  return { lo, hi };
}

function boundedField(
  name: string,
  { lower, upper }: { lower?: RangeExpression; upper?: RangeExpression },
): string | null {
  if (lower !== undefined && upper !== undefined && lower.fieldPath !== upper.fieldPath) {
    throw new FunctionError(
      "Upper and lower bounds in `range` can only be applied to a single index field. This query " +
        `against index ${name} attempted to set a range bound on both "${lower.fieldPath}" and ` +
        `"${upper.fieldPath}". Consider using \`filter\` instead. See ` +
        "https://docs.convex.dev/using/indexes for more info.",
    );
  }
  return (lower ?? upper)?.fieldPath ?? null;
}

const COMPARATORS = { Eq: "==", Gt: ">", Gte: ">=", Lt: "<", Lte: "<=" };

const alreadyBound = (kind: string, { fieldPath, type, ...rest }: RangeExpression): FunctionError =>
  new FunctionError(
    `Already defined ${kind} bound in index range. Can't add "${fieldPath}" ` +
      `${COMPARATORS[type]} ${display(rest.value)}.`,
  );

function valueOf({ value }: RangeExpression): MaybeValue {
  return typeof value === "object" && value !== null && "$undefined" in value ? undefined : value;
}

const showFields = (fields: string[]): string =>
  `[${fields.map((field) => JSON.stringify(field)).join(", ")}]`;
