/**
 * Places of records among all records of a session, and of a student: by run, not by arrival.
 * @module
 */
import type { Place } from "../validators";
import type { JoinedRun } from "./runs";

/** Where a record of `run` stands. */
export function placeIn({ startedAt, runId }: JoinedRun, { seq }: { seq: number }): Place {
  return { runStartedAt: startedAt, runId, seq };
}

/** Negative where `a` comes before `b`, as `Array.sort` takes it. */
export function comparePlaces(a: Place, b: Place): number {
  if (a.runStartedAt !== b.runStartedAt) return a.runStartedAt - b.runStartedAt;
  if (a.runId !== b.runId) return a.runId < b.runId ? -1 : 1;
  return a.seq - b.seq;
}
