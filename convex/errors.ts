/**
 * Errors that a caller may branch on, all thrown as `ConvexError(ErrorData)`.
 *
 * A code of `PERMANENT_CODES` says that this one record will never be accepted: the worker sets it
 * aside and goes on. Every other error, also an opaque one, says nothing about the record: the
 * worker holds its journal and tries again.
 * @module
 */
import { ConvexError } from "convex/values";

/** Refusals of one record for good. Always thrown with its `seq` and the `field`. Closed list. */
export const PERMANENT_CODES = [
  "text_too_long",
  "field_too_long",
  "instant_out_of_range",
  "number_out_of_range",
  "too_many_items",
] as const;

/** Refusals of a call that may succeed later, unchanged or after a repair. */
export const HOLD_CODES = [
  "gap",
  "version_unsupported",
  "too_many_records",
  "unauthenticated",
  "forbidden",
  "student_unknown",
] as const;

/** The student was erased: the worker deletes the journal, nothing of it may come back. */
export const ERASED = "erased";

/** Refusals of calls that pages and the command line make. */
export const CALL_CODES = [
  "not_found",
  "already_exists",
  "invalid_value",
  "invitation_invalid",
  "not_configured",
] as const;

/** A code that sets one record aside. */
export type PermanentCode = (typeof PERMANENT_CODES)[number];
/** A code on which a worker waits and tries again. */
export type HoldCode = (typeof HOLD_CODES)[number];
/** A code for whoever made the call. */
export type CallCode = (typeof CALL_CODES)[number];

/** What a thrown `ConvexError` carries in `data`. An absent field is an absent key. */
export type ErrorData = {
  code: PermanentCode | HoldCode | CallCode | typeof ERASED;
  /** For people: names the function or field and the remedy, never what a student said. */
  message: string;
  /** The record that is refused, or that follows a hole. */
  seq?: number;
  /** Path of the refused field inside the record, as `metrics.llmTtftMs`. */
  field?: string;
  /** The limit that was passed. */
  limit?: number;
  /** With `gap`: the `seq` after the last one that is folded. Resending from here is always right. */
  expected?: number;
  /** With `invalid_value` for an import: a line for each problem, by file and path. */
  problems?: string[];
  /** With `version_unsupported`: the record versions that this deployment folds. */
  supported?: number[];
};

/** Ends the function with `data`; in a mutation nothing of it is kept. */
export function fail(data: ErrorData): never {
  throw new ConvexError(data);
}
