/** When a cron runs next. All times are UTC and milliseconds since the epoch. */
import { createHash } from "node:crypto";
import { CompileError } from "./errors.ts";

const MINUTE_MS = 60_000;
const DAY_MS = 24 * 3600 * 1000;
/** The longest distance between two matches of a date: 29 February over a skipped leap year. */
const SEARCH_DAYS = 366 * 8 + 2;

const DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const MONTHS = ["jan", "feb", "mar", "apr", "may", "jun"].concat([
  "jul",
  "aug",
  "sep",
  "oct",
  "nov",
  "dec",
]);

export type CronSchedule =
  | { type: "interval"; seconds?: number; minutes?: number; hours?: number }
  | { type: "hourly"; minuteUTC?: number }
  | { type: "daily"; hourUTC: number; minuteUTC?: number }
  | { type: "weekly"; dayOfWeek: string; hourUTC: number; minuteUTC?: number }
  | { type: "monthly"; day: number; hourUTC: number; minuteUTC?: number }
  | { type: "cron"; cron: string };

/** Minutes, hours, days of the month, months (from 1), days of the week (Sunday is 0). */
interface Pattern {
  minutes: Set<number>;
  hours: Set<number>;
  days: Set<number> | null;
  months: Set<number>;
  weekdays: Set<number> | null;
}

/**
 * The first run after `nowMs`. An interval counts from its previous run and begins at once; runs
 * that were missed while nothing ran are skipped.
 *
 * @param previousMs - When the last run was due; null for a cron that is new.
 */
export function nextCronRun(
  name: string,
  schedule: CronSchedule,
  previousMs: number | null,
  nowMs: number,
): number {
  if (schedule.type !== "interval") return nextMatch(patternOf(name, schedule), nowMs);
  const seconds =
    (schedule.seconds ?? 0) + (schedule.minutes ?? 0) * 60 + (schedule.hours ?? 0) * 3600;
  if (previousMs === null) return nowMs;
  const step = seconds * 1000;
  const missed = Math.max(0, Math.floor((nowMs - previousMs) / step));
  return previousMs + (missed + 1) * step;
}

function patternOf(name: string, schedule: Exclude<CronSchedule, { type: "interval" }>): Pattern {
  if (schedule.type === "cron") return parseCron(schedule.cron);
  // Without a minute the backend spreads runs over the hour; a name always has the same one.
  const minute =
    schedule.minuteUTC ?? createHash("sha256").update(name).digest().readUInt16BE() % 60;
  const hour = "hourUTC" in schedule ? String(schedule.hourUTC) : "*";
  const day = schedule.type === "monthly" ? String(schedule.day) : "*";
  const weekday = schedule.type === "weekly" ? schedule.dayOfWeek.slice(0, 3) : "*";
  return parseCron(`${minute} ${hour} ${day} * ${weekday}`);
}

/** @throws CompileError for an expression that is no cron expression. */
export function parseCron(expression: string): Pattern {
  const fields = expression.trim().split(/\s+/);
  const [minute, hour, day, month, weekday] = fields;
  if (fields.length !== 5) throw invalid(expression, "it needs five fields");
  const read = (text: string | undefined, low: number, high: number, names: string[] = []) =>
    parseField(expression, text ?? "", low, high, names);
  const isAny = (text: string | undefined): boolean => text === "*" || text === "?";
  const weekdays = read(weekday, 0, 7, DAYS);
  // 7 is Sunday as well.
  if (weekdays.has(7)) weekdays.add(0);
  return {
    minutes: read(minute, 0, 59),
    hours: read(hour, 0, 23),
    days: isAny(day) ? null : read(day, 1, 31),
    months: read(month, 1, 12, ["", ...MONTHS]),
    weekdays: isAny(weekday) ? null : weekdays,
  };
}

function parseField(
  expression: string,
  text: string,
  low: number,
  high: number,
  names: string[],
): Set<number> {
  const values = new Set<number>();
  const read = (part: string): number => {
    const named = names.indexOf(part.toLowerCase());
    const value = named > -1 && part !== "" ? named : /^\d+$/.test(part) ? Number(part) : NaN;
    if (!(value >= low && value <= high)) throw invalid(expression, `"${part}" is out of range`);
    return value;
  };
  for (const part of text.split(",")) {
    const [range = "", stepText] = part.split("/");
    const step = stepText === undefined ? 1 : Number(stepText);
    if (!Number.isInteger(step) || step < 1) throw invalid(expression, `"${part}" has no step`);
    const [firstText = "", lastText] = range.split("-");
    const isAny = range === "*" || range === "?";
    const first = isAny ? low : read(firstText);
    const open = isAny || (lastText === undefined && stepText !== undefined);
    const last = open ? high : lastText === undefined ? first : read(lastText);
    if (last < first) throw invalid(expression, `"${part}" runs backwards`);
    for (let value = first; value <= last; value += step) values.add(value);
  }
  return values;
}

const invalid = (expression: string, reason: string): CompileError =>
  new CompileError(`Invalid cron expression "${expression}": ${reason}`);

function nextMatch(pattern: Pattern, nowMs: number): number {
  const start = (Math.floor(nowMs / MINUTE_MS) + 1) * MINUTE_MS;
  const hours = [...pattern.hours].sort((a, b) => a - b);
  const minutes = [...pattern.minutes].sort((a, b) => a - b);
  const firstDay = Math.floor(start / DAY_MS) * DAY_MS;
  for (let i = 0; i < SEARCH_DAYS; i += 1) {
    const day = firstDay + i * DAY_MS;
    if (!isDay(pattern, new Date(day))) continue;
    for (const hour of hours) {
      for (const minute of minutes) {
        const time = day + (hour * 60 + minute) * MINUTE_MS;
        if (time >= start) return time;
      }
    }
  }
  // 31 February: never.
  return Number.MAX_SAFE_INTEGER;
}

function isDay({ days, months, weekdays }: Pattern, date: Date): boolean {
  if (!months.has(date.getUTCMonth() + 1)) return false;
  const inMonth = days?.has(date.getUTCDate()) ?? false;
  const inWeek = weekdays?.has(date.getUTCDay()) ?? false;
  // As cron has it: when both are restricted, either is enough.
  if (days !== null && weekdays !== null) return inMonth || inWeek;
  return (days === null || inMonth) && (weekdays === null || inWeek);
}
