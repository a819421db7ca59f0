/**
 * Scheduled functions as rows: what functions see in `_scheduled_functions`, and when each is due.
 */
import { FunctionError } from "./errors.ts";
import { newId } from "./ids.ts";
import {
  MAX_SCHEDULED,
  MAX_SCHEDULED_ARGUMENT_BYTES,
  MAX_SCHEDULED_TOTAL_ARGUMENT_BYTES,
} from "./limits.ts";
import { SCHEDULED_FUNCTIONS, type Store } from "./store.ts";
import type { Transaction } from "./transaction.ts";
import type { JSONValue } from "./types.ts";
import { formatBytes, normalize, type JSONObject } from "./values.ts";

/** `pending`, `running` (an action between its two transactions) or `done`. */
type JobState = "pending" | "running" | "done";

export interface Job {
  id: string;
  /** Canonical path of the function. */
  path: string;
  args: JSONValue;
}

type Ending = { kind: "success" } | { kind: "failed"; error: string } | { kind: "canceled" };

/** Adds a function to run at `dueMs` (milliseconds since the epoch); returns its id. */
export function scheduleJob(tx: Transaction, path: string, args: JSONValue, dueMs: number): string {
  const { size, value } = normalize(args);
  if (size > MAX_SCHEDULED_ARGUMENT_BYTES) {
    throw new FunctionError(
      `Arguments of a scheduled function are too large (${formatBytes(size)} > maximum size ` +
        `${formatBytes(MAX_SCHEDULED_ARGUMENT_BYTES)})`,
    );
  }
  tx.scheduled += 1;
  tx.scheduledBytes += size;
  if (tx.scheduled > MAX_SCHEDULED) {
    throw new FunctionError(
      `Too many functions scheduled by this mutation (limit: ${MAX_SCHEDULED})`,
    );
  }
  if (tx.scheduledBytes > MAX_SCHEDULED_TOTAL_ARGUMENT_BYTES) {
    throw new FunctionError(
      "Too large total size of the arguments of scheduled functions from this mutation " +
        `(limit: ${MAX_SCHEDULED_TOTAL_ARGUMENT_BYTES} bytes)`,
    );
  }
  const table = tx.store.ensureTable(SCHEDULED_FUNCTIONS);
  const id = newId(table.number);
  tx.writeSystem(table, id, null, {
    name: path.replace(/:([^:]*)$/, ".js:$1"),
    args: [value],
    scheduledTime: dueMs,
    state: { kind: "pending" },
  });
  setState(tx.store, id, "pending", dueMs);
  tx.touchedJobs = true;
  return id;
}

/** Cancels what has not begun; what runs goes on, and schedules nothing more that counts. */
export function cancelJob(tx: Transaction, id: string, nowMs: number): void {
  if (tx.tableOfId(id) !== SCHEDULED_FUNCTIONS) {
    throw new FunctionError(
      "Invalid scheduled function ID. The ID must be an ID on the '_scheduled_functions' table.",
    );
  }
  const state = stateOf(tx.store, id);
  if (state === "pending" || state === "running") finishJob(tx, id, { kind: "canceled" }, nowMs);
}

/** The job that is due and has waited longest; null when none is. */
export function nextDue(store: Store, nowMs: number): Job | null {
  const row = store.get(
    "SELECT id FROM jobs WHERE state = 'pending' AND due <= ? ORDER BY due LIMIT 1",
    nowMs,
  );
  if (row === undefined) return null;
  const id = row["id"] as string;
  const { name, args } = documentOf(store, id) as { name: string; args: JSONValue[] };
  return { id, path: name.replace(/\.js:([^:]*)$/, ":$1"), args: args[0] ?? {} };
}

/** When the earliest pending job is due, in milliseconds; null when there is none. */
export function nextDueTime(store: Store): number | null {
  const row = store.get("SELECT min(due) AS due FROM jobs WHERE state = 'pending'");
  return (row?.["due"] ?? null) as number | null;
}

/** An action has begun: from here on it is never started again. */
export function beginJob(tx: Transaction, id: string, nowMs: number): void {
  update(tx, id, { state: { kind: "inProgress" } });
  setState(tx.store, id, "running", nowMs);
}

export function finishJob(tx: Transaction, id: string, ending: Ending, nowMs: number): void {
  // A cancelled job stays cancelled, though its action ran to its end.
  if (stateOf(tx.store, id) === "done") return;
  update(tx, id, { state: ending, completedTime: nowMs });
  setState(tx.store, id, "done", nowMs);
}

/** Ids of the actions that were running when the process ended. */
export const runningJobs = (store: Store): string[] =>
  store.all("SELECT id FROM jobs WHERE state = 'running'").map((row) => row["id"] as string);

/** Forgets what ended before `beforeMs`, up to 500 jobs at a time. */
export function forgetJobs(tx: Transaction, beforeMs: number): void {
  const ended = "SELECT id FROM jobs WHERE state = 'done' AND due < ? LIMIT 500";
  for (const row of tx.store.all(ended, beforeMs)) {
    const id = row["id"] as string;
    tx.eraseSystem(id);
    tx.store.run("DELETE FROM jobs WHERE id = ?", id);
  }
}

function update(tx: Transaction, id: string, changes: JSONObject): void {
  const old = documentOf(tx.store, id);
  const { _id, _creationTime, ...fields } = old;
  tx.writeSystem(tx.store.ensureTable(SCHEDULED_FUNCTIONS), id, old, { ...fields, ...changes });
}

const documentOf = (store: Store, id: string): JSONObject =>
  JSON.parse(store.document(id)?.json ?? "{}") as JSONObject;

function stateOf(store: Store, id: string): JobState | null {
  return (store.get("SELECT state FROM jobs WHERE id = ?", id)?.["state"] ??
    null) as JobState | null;
}

function setState(store: Store, id: string, state: JobState, due: number): void {
  store.run("INSERT OR REPLACE INTO jobs (id, state, due) VALUES (?, ?, ?)", id, state, due);
}
