/**
 * Checks of what people fill in on pages and in imports. All run before the first write.
 *
 * Each takes the field's path as the caller knows it, and throws ConvexError with it in `field`.
 * @module
 */
import { fail } from "../errors";
import { MAX_INSTANT_MS, MAX_NAME_BYTES, MIN_INSTANT_MS } from "../limits";
import { utf8Length } from "./text";

const DAY_MS = 24 * 60 * 60_000;

/** @throws ConvexError `field_too_long`. An absent value is left alone. */
export function checkLength(field: string, value: string | undefined, limit: number): void {
  if (value === undefined) return;
  const size = utf8Length(value);
  if (size <= limit) return;
  fail({
    code: "field_too_long",
    message: `${field} is ${size} bytes; the limit is ${limit}`,
    field,
    limit,
  });
}

/**
 * A name or title, with something in it.
 *
 * @throws ConvexError `field_too_long`, `invalid_value`. An absent value is left alone.
 */
export function checkName(field: string, value: string | undefined): void {
  checkLength(field, value, MAX_NAME_BYTES);
  if (value?.trim() === "") invalid(field, "is empty");
}

/** @throws ConvexError `too_many_items`; `field_too_long`, `invalid_value` for one of them. */
export function checkNames(field: string, values: string[] | undefined, limit: number): void {
  if (values === undefined) return;
  checkCount(field, values.length, limit);
  values.forEach((value, i) => checkName(`${field}[${i}]`, value));
}

/** @throws ConvexError `too_many_items`. */
export function checkCount(field: string, count: number, limit: number): void {
  if (count <= limit) return;
  fail({
    code: "too_many_items",
    message: `${field} has ${count} items; the limit is ${limit}`,
    field,
    limit,
  });
}

/** @throws ConvexError `number_out_of_range` below `least`, above `most`, and for NaN. */
export function checkRange(field: string, value: number, least: number, most: number): void {
  if (value >= least && value <= most) return;
  fail({
    code: "number_out_of_range",
    message: `${field} is ${value}; it must be from ${least} to ${most}`,
    field,
    limit: value > most ? most : least,
  });
}

/** @throws ConvexError `instant_out_of_range`, as for an instant in seconds. */
export function checkInstant(field: string, value: number): void {
  if (value >= MIN_INSTANT_MS && value <= MAX_INSTANT_MS) return;
  fail({
    code: "instant_out_of_range",
    message: `${field} is ${value}; instants are milliseconds from ${MIN_INSTANT_MS} to ${MAX_INSTANT_MS}`,
    field,
    limit: value > MAX_INSTANT_MS ? MAX_INSTANT_MS : MIN_INSTANT_MS,
  });
}

/** @throws ConvexError `invalid_value` unless the value is a BCP 47 tag. Absent: left alone. */
export function checkLanguage(field: string, value: string | undefined): void {
  checkName(field, value);
  if (value === undefined || accepts(() => Intl.getCanonicalLocales(value))) return;
  invalid(field, "is no BCP 47 language tag, such as en or pt-BR");
}

/** @throws ConvexError `invalid_value` unless the value is an IANA zone. Absent: left alone. */
export function checkTimeZone(field: string, value: string | undefined): void {
  checkName(field, value);
  if (value === undefined) return;
  // Engines take offsets such as +02:00 too; those know no summer time.
  const isNamed = /^[A-Za-z]/.test(value);
  if (isNamed && accepts(() => new Intl.DateTimeFormat("en", { timeZone: value }))) return;
  invalid(field, "is no IANA time zone, such as Europe/Lisbon");
}

/** @throws ConvexError `invalid_value` unless the value is a day of the calendar, `YYYY-MM-DD`. */
export function checkDay(field: string, value: string): void {
  const isShaped = /^\d{4}-\d{2}-\d{2}$/.test(value);
  const instant = isShaped ? Date.parse(`${value}T00:00:00Z`) : Number.NaN;
  // Some engines take 30 February for 2 March.
  if (!Number.isNaN(instant) && new Date(instant).toISOString().startsWith(value)) return;
  invalid(field, "is no day as YYYY-MM-DD");
}

/**
 * A stretch of days, both ends in it.
 *
 * @throws ConvexError `invalid_value`; `too_many_items` for more than `limit` days.
 */
export function checkDays({ from, to }: { from: string; to: string }, limit: number): void {
  checkDay("from", from);
  checkDay("to", to);
  if (to < from) invalid("to", "is before from");
  checkCount("to", (Date.parse(to) - Date.parse(from)) / DAY_MS + 1, limit);
}

function accepts(call: () => unknown): boolean {
  try {
    call();
    return true;
  } catch {
    return false;
  }
}

/** Refuses the field; `problem` goes on from its name and shows no value, which may be personal. */
export function invalid(field: string, problem: string): never {
  fail({ code: "invalid_value", message: `${field} ${problem}`, field });
}
