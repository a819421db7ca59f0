/**
 * Errors of the engine.
 *
 * Error
 * ├── CompileError      `convex/` cannot be bundled, evaluated or used as a schema
 * ├── FunctionError     what a caller of a function is told: its message, and data of a ConvexError
 * └── StorageError      the database file cannot be opened or is of another program
 */
import type { JSONValue } from "./types.ts";

/** `convex/` does not compile; the message is the compiler's own. */
export class CompileError extends Error {
  override name = "CompileError";
}

/** Ends the running function; the caller sees the message (and the data of a `ConvexError`). */
export class FunctionError extends Error {
  override name = "FunctionError";
  readonly data: JSONValue | undefined;

  constructor(message: string, data?: JSONValue) {
    super(message);
    this.data = data;
  }
}

/** The database file cannot be used. */
export class StorageError extends Error {
  override name = "StorageError";
}
