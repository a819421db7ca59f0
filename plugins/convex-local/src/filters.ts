/** `.filter(q => …)` expressions in their JSON form, evaluated on documents. */
import { FunctionError } from "./errors.ts";
import { compareValues } from "./keys.ts";
import type { JSONValue } from "./types.ts";
import {
  display,
  fieldAt,
  float64,
  float64Of,
  int64,
  int64Of,
  kindOf,
  type JSONObject,
  type MaybeValue,
} from "./values.ts";

const MIN_INT64 = -(2n ** 63n);
const MAX_INT64 = 2n ** 63n - 1n;

/** Does the document pass? An expression that is no boolean is an error. */
export function passes(expression: JSONValue, document: JSONValue): boolean {
  return booleanOf(evaluate(expression, document));
}

function evaluate(expression: JSONValue, document: JSONValue): MaybeValue {
  const entries = Object.entries(expression as JSONObject);
  const [operator, operand] = entries[0] ?? ["", null];
  const pair = (): [MaybeValue, MaybeValue] => {
    const [left, right] = operand as [JSONValue, JSONValue];
    return [evaluate(left, document), evaluate(right, document)];
  };
  switch (operator) {
    case "$literal":
      return isUndefined(operand) ? undefined : operand;
    case "$field":
      return fieldAt(document, (operand as string).split("."));
    case "$eq":
      return compareValues(...pair()) === 0;
    case "$neq":
      return compareValues(...pair()) !== 0;
    case "$lt":
      return compareValues(...pair()) < 0;
    case "$lte":
      return compareValues(...pair()) <= 0;
    case "$gt":
      return compareValues(...pair()) > 0;
    case "$gte":
      return compareValues(...pair()) >= 0;
    case "$and":
      return (operand as JSONValue[]).every((part) => passes(part, document));
    case "$or":
      return (operand as JSONValue[]).some((part) => passes(part, document));
    case "$not":
      return !passes(operand, document);
    case "$neg":
      return negate(evaluate(operand, document));
    case "$add":
      return arithmetic("add", ...pair());
    case "$sub":
      return arithmetic("subtract", ...pair());
    case "$mul":
      return arithmetic("multiply", ...pair());
    case "$div":
      return arithmetic("divide", ...pair());
    case "$mod":
      return arithmetic("mod", ...pair());
    default:
      throw new FunctionError(`Unknown filter operator ${operator}`);
  }
}

const isUndefined = (value: JSONValue): boolean =>
  typeof value === "object" && value !== null && "$undefined" in value;

function booleanOf(value: MaybeValue): boolean {
  if (typeof value === "boolean") return value;
  throw new FunctionError(`Expected boolean but got ${display(value)} (type ${kindOf(value)})`);
}

type Operation = "add" | "subtract" | "multiply" | "divide" | "mod";

function arithmetic(name: Operation, left: MaybeValue, right: MaybeValue): JSONValue {
  const kind = kindOf(left);
  if (kind === "float64" && kindOf(right) === "float64") {
    const [a, b] = [float64Of(left as JSONValue), float64Of(right as JSONValue)];
    return float64(
      { add: a + b, subtract: a - b, multiply: a * b, divide: a / b, mod: a % b }[name],
    );
  }
  if (kind === "int64" && kindOf(right) === "int64") {
    const [a, b] = [int64Of(left as JSONValue), int64Of(right as JSONValue)];
    if (b === 0n && (name === "divide" || name === "mod")) {
      throw new FunctionError(`Cannot ${name} ${a} by zero`);
    }
    return int64(inRange(int64Result(name, a, b), `${name} ${a} and ${b}`));
  }
  throw new FunctionError(
    `Cannot ${name} ${display(left)} (type ${kind}) and ${display(right)} (type ${kindOf(right)})`,
  );
}

function int64Result(name: Operation, left: bigint, right: bigint): bigint {
  switch (name) {
    case "add":
      return left + right;
    case "subtract":
      return left - right;
    case "multiply":
      return left * right;
    case "divide":
      return left / right;
    case "mod":
      return left % right;
  }
}

function negate(value: MaybeValue): JSONValue {
  const kind = kindOf(value);
  if (kind === "float64") return float64(-float64Of(value as JSONValue));
  if (kind === "int64") {
    const number = int64Of(value as JSONValue);
    return int64(inRange(-number, `negate ${number}`));
  }
  throw new FunctionError(`Cannot negate ${display(value)} (type ${kind})`);
}

function inRange(value: bigint, what: string): bigint {
  if (value >= MIN_INT64 && value <= MAX_INT64) return value;
  throw new FunctionError(`Cannot ${what}: the result is out of range for Int64`);
}
