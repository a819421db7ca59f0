/**
 * Validators in the JSON form that functions and schemas export, and checks of values by them.
 *
 * The texts are the backend's (`common/src/schemas/validator.rs`).
 */
import { display, int64Of, isPlainObject, kindOf, type JSONObject } from "./values.ts";
import type { JSONValue } from "./types.ts";

export type ValidatorJSON =
  | { type: "any" | "null" | "number" | "bigint" | "commitTs" | "boolean" | "string" | "bytes" }
  | { type: "id"; tableName: string }
  | { type: "literal"; value: JSONValue }
  | { type: "array"; value: ValidatorJSON }
  | { type: "object"; value: Record<string, FieldJSON> }
  | { type: "record"; keys: ValidatorJSON; values: FieldJSON }
  | { type: "union"; value: ValidatorJSON[] };

export interface FieldJSON {
  fieldType: ValidatorJSON;
  optional: boolean;
}

/** Name of the table that an id belongs to; null for a string that is no id of a known table. */
export type TableOfId = (id: string) => string | null;

interface Mismatch {
  /** Outermost step last. */
  path: string[];
  text: (path: string) => string;
}

/** Why a value does not fit a validator, in the backend's words; null when it fits. */
export function validate(
  validator: ValidatorJSON,
  value: JSONValue,
  tableOfId: TableOfId,
): string | null {
  const mismatch = check(validator, value, tableOfId);
  if (mismatch === null) return null;
  const path = mismatch.path.reverse().join("");
  return mismatch.text(path === "" ? "" : `Path: ${path}`);
}

function check(validator: ValidatorJSON, value: JSONValue, tableOfId: TableOfId): Mismatch | null {
  const kind = kindOf(value);
  const matches = (wanted: string): Mismatch | null =>
    kind === wanted ? null : noMatch(validator, value);
  switch (validator.type) {
    case "any":
      return null;
    case "null":
      return matches("null");
    case "number":
      return matches("float64");
    case "bigint":
    case "commitTs":
      return matches("int64");
    case "boolean":
      return matches("boolean");
    case "string":
      return matches("string");
    case "bytes":
      return matches("bytes");
    case "id":
      return checkId(validator, value, tableOfId);
    case "literal":
      return JSON.stringify(value) === JSON.stringify(validator.value)
        ? null
        : {
            path: [],
            text: (path) =>
              `\`${display(value)}\` does not match literal validator ` +
              `\`${show(validator)}\`.${path}`,
          };
    case "array": {
      if (kind !== "array") return noMatch(validator, value);
      for (const [index, item] of (value as JSONValue[]).entries()) {
        const mismatch = check(validator.value, item, tableOfId);
        if (mismatch !== null) return within(mismatch, `[${index}]`);
      }
      return null;
    }
    case "record": {
      if (!isPlainObject(value)) return noMatch(validator, value);
      for (const [name, field] of Object.entries(value)) {
        const key = check(validator.keys, name, tableOfId);
        if (key !== null) return within(key, ".keys()");
        const mismatch = check(validator.values.fieldType, field, tableOfId);
        if (mismatch !== null) return within(mismatch, ".values()");
      }
      return null;
    }
    case "object":
      return isPlainObject(value)
        ? checkFields(validator, value, tableOfId)
        : noMatch(validator, value);
    case "union": {
      const [only] = validator.value;
      if (only !== undefined && validator.value.length === 1) return check(only, value, tableOfId);
      return validator.value.some((member) => check(member, value, tableOfId) === null)
        ? null
        : noMatch(validator, value);
    }
  }
}

function checkFields(
  validator: ValidatorJSON & { type: "object" },
  object: JSONObject,
  tableOfId: TableOfId,
): Mismatch | null {
  const about =
    (first: string) =>
    (path: string): string =>
      `${first}\n${path}\nObject: ${display(object)}\nValidator: ${show(validator)}`;
  for (const name of Object.keys(validator.value).sort()) {
    const field = validator.value[name] as FieldJSON;
    const value = Object.hasOwn(object, name) ? object[name] : undefined;
    if (value !== undefined) {
      const mismatch = check(field.fieldType, value, tableOfId);
      if (mismatch !== null) return within(mismatch, `.${name}`);
    } else if (!field.optional) {
      return {
        path: [],
        text: about(
          `Object is missing the required field \`${name}\`. Consider wrapping the field ` +
            "validator in `v.optional(...)` if this is expected.",
        ),
      };
    }
  }
  for (const name of Object.keys(object)) {
    if (!Object.hasOwn(validator.value, name)) {
      return {
        path: [],
        text: about(`Object contains extra field \`${name}\` that is not in the validator.`),
      };
    }
  }
  return null;
}

function checkId(
  validator: ValidatorJSON & { type: "id" },
  value: JSONValue,
  tableOfId: TableOfId,
): Mismatch | null {
  const table = typeof value === "string" ? tableOfId(value) : null;
  if (table === null) return noMatch(validator, value);
  if (table === validator.tableName) return null;
  const found = table.startsWith("_")
    ? `Found ID "${value as string}" from a system table, which`
    : `Found ID "${value as string}" from table \`${table}\`, which`;
  return {
    path: [],
    text: (path) =>
      `${found} does not match the table name in validator \`${show(validator)}\`.${path}`,
  };
}

const noMatch = (validator: ValidatorJSON, value: JSONValue): Mismatch => ({
  path: [],
  text: (path) =>
    `Value does not match validator.\n${path}\nValue: ${display(value)}\n` +
    `Validator: ${show(validator)}`,
});

function within(mismatch: Mismatch, step: string): Mismatch {
  mismatch.path.push(step);
  return mismatch;
}

/** A validator as its author wrote it. */
function show(validator: ValidatorJSON): string {
  switch (validator.type) {
    case "number":
      return "v.float64()";
    case "bigint":
      return "v.int64()";
    case "id":
      return `v.id("${validator.tableName}")`;
    case "literal":
      return kindOf(validator.value) === "int64"
        ? `v.literal(${int64Of(validator.value)}n)`
        : `v.literal(${JSON.stringify(validator.value)})`;
    case "array":
      return `v.array(${show(validator.value)})`;
    case "record":
      return `v.record(${show(validator.keys)}, ${show(validator.values.fieldType)})`;
    case "object":
      return `v.object({${Object.keys(validator.value)
        .sort()
        .map((name) => `${name}: ${showField(validator.value[name] as FieldJSON)}`)
        .join(", ")}})`;
    case "union":
      return `v.union(${validator.value.map(show).join(", ")})`;
    default:
      return `v.${validator.type}()`;
  }
}

const showField = (field: FieldJSON): string =>
  field.optional ? `v.optional(${show(field.fieldType)})` : show(field.fieldType);
