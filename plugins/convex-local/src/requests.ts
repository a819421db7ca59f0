/**
 * Mutations that a client may send again: the outcome of each is kept, in the transaction that it
 * describes, so that a repeat gets the first outcome and changes nothing.
 */
import { REQUEST_KEPT_MS } from "./limits.ts";
import { noUsage } from "./outcomes.ts";
import type { Store } from "./store.ts";
import type { JSONValue, MutationCall, MutationOutcome } from "./types.ts";

type Request = NonNullable<MutationCall["request"]>;

export function firstOutcomeOf(store: Store, request: Request | undefined): MutationOutcome | null {
  if (request === undefined) return null;
  const row = store.get(
    "SELECT ts, value FROM requests WHERE session = ? AND request = ?",
    request.sessionId,
    request.requestId,
  );
  if (row === undefined) return null;
  const value = JSON.parse(row["value"] as string) as JSONValue;
  return {
    outcome: { status: "success", value, logLines: [], usage: noUsage() },
    ts: BigInt(row["ts"] as string),
  };
}

/** Keeps an outcome, and forgets what nobody can send again. */
export function remember(store: Store, request: Request, ts: bigint, value: JSONValue): void {
  const now = Date.now();
  store.run(
    "INSERT INTO requests (session, request, ts, value, created) VALUES (?, ?, ?, ?, ?)",
    request.sessionId,
    request.requestId,
    String(ts),
    JSON.stringify(value),
    now,
  );
  store.run("DELETE FROM requests WHERE created < ?", now - REQUEST_KEPT_MS);
}
