/**
 * Convex values in their JSON form: kinds, rules, sizes, fields and texts for errors.
 *
 * Everything the engine holds stays in this form. `undefined` stands for a missing field.
 */
import { Buffer } from "node:buffer";
import { FunctionError } from "./errors.ts";
import {
  MAX_ARRAY_LENGTH,
  MAX_DOCUMENT_BYTES,
  MAX_DOCUMENT_NESTING,
  MAX_FIELD_NAME_LENGTH,
  MAX_OBJECT_FIELDS,
  MAX_VALUE_BYTES,
  MAX_VALUE_NESTING,
} from "./limits.ts";
import type { JSONValue } from "./types.ts";

export type JSONObject = { [key: string]: JSONValue };
export type MaybeValue = JSONValue | undefined;

export type Kind =
  "undefined" | "null" | "int64" | "float64" | "boolean" | "string" | "bytes" | "array" | "object";

/** The kind of a value that `normalize` has passed. */
export function kindOf(value: MaybeValue): Kind {
  switch (typeof value) {
    case "undefined":
      return "undefined";
    case "number":
      return "float64";
    case "boolean":
      return "boolean";
    case "string":
      return "string";
  }
  if (value === null) return "null";
  if (Array.isArray(value)) return "array";
  for (const key in value) {
    if (key === "$integer") return "int64";
    if (key === "$float") return "float64";
    if (key === "$bytes") return "bytes";
    break;
  }
  return "object";
}

const base64Of = (value: JSONValue, key: string): Buffer =>
  Buffer.from((value as Record<string, string>)[key] ?? "", "base64");

export const int64Of = (value: JSONValue): bigint => base64Of(value, "$integer").readBigInt64LE(0);

export const float64Of = (value: JSONValue): number =>
  typeof value === "number" ? value : base64Of(value, "$float").readDoubleLE(0);

export const bytesOf = (value: JSONValue): Buffer => base64Of(value, "$bytes");

export function int64(value: bigint): JSONValue {
  const buffer = Buffer.alloc(8);
  buffer.writeBigInt64LE(value);
  return { $integer: buffer.toString("base64") };
}

const isSpecial = (value: number): boolean => !Number.isFinite(value) || Object.is(value, -0);

export function float64(value: number): JSONValue {
  if (!isSpecial(value)) return value;
  const buffer = Buffer.alloc(8);
  buffer.writeDoubleLE(value);
  return { $float: buffer.toString("base64") };
}

export const isPlainObject = (value: MaybeValue): value is JSONObject => kindOf(value) === "object";

/** A value that keeps the rules, with what the rules measured. */
export interface Normalized {
  value: JSONValue;
  /** Bytes, as `getConvexSize` counts them. */
  size: number;
  /** 0 for scalars, 1 for an array of scalars, and so on. */
  nesting: number;
}

/**
 * Checks a value against the rules every value keeps, and makes its form canonical (sorted fields,
 * special numbers encoded), so that equal values have equal JSON.
 *
 * @throws FunctionError in the backend's words.
 */
export function normalize(value: MaybeValue): Normalized {
  const result = normalizeAt(value, 0);
  if (result.size > MAX_VALUE_BYTES) throw tooLarge(result.size, MAX_VALUE_BYTES);
  return result;
}

/** As `normalize`, with the stricter nesting of documents. System fields are the caller's. */
export function checkDocumentShape(document: Normalized): void {
  if (document.nesting > MAX_DOCUMENT_NESTING) {
    throw new FunctionError(
      `Document is too nested (nested ${document.nesting} levels deep > maximum nesting ` +
        `${MAX_DOCUMENT_NESTING})`,
    );
  }
  if (document.size > MAX_DOCUMENT_BYTES) throw tooLarge(document.size, MAX_DOCUMENT_BYTES);
}

const tooLarge = (size: number, limit: number): FunctionError =>
  new FunctionError(
    `Value is too large (${formatBytes(size)} > maximum size ${formatBytes(limit)})`,
  );

/** 1048577 as "1.00 MiB", 1048576 as "1 MiB". */
export function formatBytes(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB"];
  let unit = 0;
  let amount = bytes;
  while (amount >= 1024 && unit < units.length - 1) {
    amount /= 1024;
    unit += 1;
  }
  return `${Number.isInteger(amount) ? amount : amount.toFixed(2)} ${units[unit]}`;
}

function normalizeAt(value: MaybeValue, depth: number): Normalized {
  switch (typeof value) {
    case "boolean":
      return { value, size: 1, nesting: 0 };
    case "number":
      return { value: float64(value), size: 9, nesting: 0 };
    case "string":
      checkString(value);
      return { value, size: 2 + Buffer.byteLength(value), nesting: 0 };
    case "undefined":
      throw new FunctionError("undefined is not a valid Convex value.");
  }
  if (value === null) return { value, size: 1, nesting: 0 };
  // One level beyond the limit is enough to know; deeper recursion would only risk the stack.
  if (depth > MAX_VALUE_NESTING) throw tooNested(depth);
  return Array.isArray(value) ? normalizeArray(value, depth) : normalizeObject(value, depth);
}

function normalizeArray(value: JSONValue[], depth: number): Normalized {
  if (value.length > MAX_ARRAY_LENGTH) {
    throw new FunctionError(
      `Array length is too long (${value.length} > maximum length ${MAX_ARRAY_LENGTH})`,
    );
  }
  let size = 2;
  let nesting = 0;
  const items = value.map((item) => {
    const inner = normalizeAt(item, depth + 1);
    size += inner.size;
    nesting = Math.max(nesting, inner.nesting);
    return inner.value;
  });
  return nested(items, size, nesting);
}

function normalizeObject(value: JSONObject, depth: number): Normalized {
  const names = Object.keys(value);
  if (names.length === 1 && names[0]?.startsWith("$") === true) {
    return normalizeSpecial(value, names[0]);
  }
  if (names.length > MAX_OBJECT_FIELDS) {
    throw new FunctionError(
      `Object has too many fields (${names.length} > maximum number ${MAX_OBJECT_FIELDS})`,
    );
  }
  let size = 2;
  let nesting = 0;
  const fields: JSONObject = {};
  for (const name of names.sort()) {
    checkFieldName(name);
    const inner = normalizeAt(value[name], depth + 1);
    size += name.length + 1 + inner.size;
    nesting = Math.max(nesting, inner.nesting);
    // A plain assignment to "__proto__" would set the prototype instead of a field.
    if (name === "__proto__") {
      Object.defineProperty(fields, name, {
        value: inner.value,
        enumerable: true,
        configurable: true,
        writable: true,
      });
    } else fields[name] = inner.value;
  }
  return nested(fields, size, nesting);
}

function nested(value: JSONValue, size: number, inner: number): Normalized {
  if (inner + 1 > MAX_VALUE_NESTING) throw tooNested(inner + 1);
  return { value, size, nesting: inner + 1 };
}

const tooNested = (levels: number): FunctionError =>
  new FunctionError(
    `Value is too nested (nested ${levels} levels deep > maximum nesting ${MAX_VALUE_NESTING})`,
  );

function normalizeSpecial(value: JSONObject, name: string): Normalized {
  const text = value[name];
  const decoded = typeof text === "string" ? Buffer.from(text, "base64") : null;
  if (name === "$integer" || name === "$float" || name === "$bytes") {
    if (decoded === null) throw new FunctionError(`Malformed ${name} field`);
    if (name === "$bytes") {
      const canonical = { $bytes: decoded.toString("base64") };
      return { value: canonical, size: 2 + decoded.length, nesting: 0 };
    }
    if (decoded.length !== 8) {
      throw new FunctionError(`Received ${decoded.length} bytes, expected 8 for ${name}`);
    }
    if (name === "$float") {
      const number = decoded.readDoubleLE(0);
      if (!isSpecial(number)) {
        throw new FunctionError(`Float ${number} should be encoded as a number`);
      }
    }
    return { value: { [name]: decoded.toString("base64") }, size: 9, nesting: 0 };
  }
  if (name === "$commitTs") {
    throw new FunctionError("convex-local has no commit timestamps (`db.vars.commitTs`).");
  }
  checkFieldName(name);
  throw new FunctionError(`Malformed ${name} field`);
}

function checkString(value: string): void {
  if (!value.isWellFormed()) {
    throw new FunctionError("String contains an unpaired surrogate, which is not valid Unicode");
  }
}

/** Source: `convex/sync_types/src/identifier.rs` and npm `values/value.ts`. */
function checkFieldName(name: string): void {
  if (name.length > MAX_FIELD_NAME_LENGTH) {
    throw new FunctionError(
      `Field name is too long (${name.length} > maximum ${MAX_FIELD_NAME_LENGTH})`,
    );
  }
  if (name.startsWith("$")) {
    throw new FunctionError(`Field name '${name}' starts with '$', which is reserved.`);
  }
  for (let i = 0; i < name.length; i += 1) {
    const code = name.charCodeAt(i);
    if (code < 32 || code >= 127) {
      throw new FunctionError(
        `Field name '${name}' has invalid character '${name[i]}': Field names can only contain ` +
          "non-control ASCII characters",
      );
    }
  }
}

/** The value at a dotted path of a document; undefined where a step is missing. */
export function fieldAt(document: JSONValue, path: readonly string[]): MaybeValue {
  let value: MaybeValue = document;
  for (const name of path) {
    if (value === null || typeof value !== "object" || Array.isArray(value)) return undefined;
    value = Object.hasOwn(value, name) ? value[name] : undefined;
  }
  return value;
}

/** A value as the backend prints it in error messages. */
export function display(value: MaybeValue): string {
  switch (kindOf(value)) {
    case "undefined":
      return "undefined";
    case "int64":
      return `${int64Of(value as JSONValue)}n`;
    case "float64": {
      const number = float64Of(value as JSONValue);
      if (Object.is(number, -0)) return "-0.0";
      return Number.isInteger(number) ? number.toFixed(1) : String(number);
    }
    case "bytes":
      return `b"${bytesOf(value as JSONValue).toString("hex")}"`;
    case "array":
      return `[${(value as JSONValue[]).map(display).join(", ")}]`;
    case "object":
      return `{${Object.entries(value as JSONObject)
        .map(([name, field]) => `${displayName(name)}: ${display(field)}`)
        .join(", ")}}`;
    default:
      return JSON.stringify(value);
  }
}

const displayName = (name: string): string =>
  /^[A-Za-z_][A-Za-z0-9_]*$/.test(name) ? name : JSON.stringify(name);
