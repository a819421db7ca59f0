/**
 * Values from outside, such as a file's JSON, read as a validator says and with all their faults.
 * @module
 */
import type { GenericValidator, Infer, Validator } from "convex/values";
import type { Draft } from "./lessonChecks";

/** Told once for each fault; `path` is empty for the whole, and `problem` goes on from it. */
export type Report = (path: string, problem: string) => void;

type AnyValidator = Validator<unknown, "optional" | "required", string>;

/**
 * The parts of `value` that are as the validator says; every other part is reported and left out.
 *
 * Knows objects, arrays, texts, numbers, booleans and unions of literals: what JSON can hold. Fields
 * that the validator does not have are faults too, so that a slip of the pen is not passed over.
 */
export function read<V extends GenericValidator>(
  validator: V,
  value: unknown,
  report: Report,
): Draft<Infer<V>> | undefined {
  return readAt("", validator as AnyValidator, value, report) as Draft<Infer<V>> | undefined;
}

function readAt(path: string, validator: AnyValidator, value: unknown, report: Report): unknown {
  switch (validator.kind) {
    case "object":
      return readObject(path, validator.fields as Record<string, AnyValidator>, value, report);
    case "array": {
      if (!Array.isArray(value)) return wrong(path, "a list", value, report);
      const element = validator.element as AnyValidator;
      return value.map((item, i) => readAt(`${path}[${i}]`, element, item, report));
    }
    case "string":
      if (typeof value !== "string") return wrong(path, "a text", value, report);
      if (!/\p{Surrogate}/u.test(value)) return value;
      return fault(path, "holds half of a surrogate pair, which is no character", report);
    case "float64":
      return typeof value === "number" ? value : wrong(path, "a number", value, report);
    case "boolean":
      return typeof value === "boolean" ? value : wrong(path, "true or false", value, report);
    case "union": {
      const known = validator.members.map((member) => (member as { value?: unknown }).value);
      if (known.includes(value)) return value;
      return fault(path, `${shown(value)} is none of ${known.map(String).join(", ")}`, report);
    }
    default:
      throw new Error(`a file cannot hold a value of kind ${validator.kind}`);
  }
}

function readObject(
  path: string,
  fields: Record<string, AnyValidator>,
  value: unknown,
  report: Report,
): unknown {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return wrong(path, "an object", value, report);
  }
  const within = path === "" ? "" : `${path}.`;
  const draft: Record<string, unknown> = {};
  for (const [name, part] of Object.entries(value)) {
    const field = Object.hasOwn(fields, name) ? fields[name] : undefined;
    if (field === undefined) {
      report(`${within}${name}`, `is no field here; known are ${Object.keys(fields).join(", ")}`);
    } else {
      draft[name] = readAt(`${within}${name}`, field, part, report);
    }
  }
  for (const [name, field] of Object.entries(fields)) {
    if (field.isOptional === "required" && !Object.hasOwn(value, name)) {
      report(`${within}${name}`, "is missing");
    }
  }
  return draft;
}

function wrong(path: string, wanted: string, value: unknown, report: Report): unknown {
  return fault(path, `is ${shown(value)}; it must be ${wanted}`, report);
}

function fault(path: string, problem: string, report: Report): unknown {
  report(path, problem);
  return undefined;
}

/** A value as it stands in the file, cut where it is long. */
function shown(value: unknown): string {
  if (Array.isArray(value)) return "a list";
  if (typeof value === "object" && value !== null) return "an object";
  const text = JSON.stringify(value);
  return text.length > 40 ? `${text.slice(0, 40)}…` : text;
}
