/** What a call gives back: a value, or what its caller is told instead. */
import { FunctionError } from "./errors.ts";
import type { Program } from "./program.ts";
import { uncaught, type Thrown } from "./stack.ts";
import type { JSONValue, Outcome, Usage } from "./types.ts";
import type { LogLines } from "./vm/context.ts";
import { TimeoutError } from "./vm/udf-runtime.ts";

/** The result, or a throw of what the function threw, at the project's own lines. */
export function resultOf(
  ended: { result: string } | { thrown: Thrown },
  program: Program,
): JSONValue {
  if ("result" in ended) return JSON.parse(ended.result) as JSONValue;
  const { thrown } = ended;
  const data = thrown.data === undefined ? undefined : (JSON.parse(thrown.data) as JSONValue);
  throw new FunctionError(uncaught(thrown, program.codes), data);
}

/** An object, or the one element of an array. */
export function argumentsOf(args: JSONValue): JSONValue {
  if (!Array.isArray(args)) return args;
  if (args.length > 1) throw new FunctionError("Functions take a single arguments object");
  return args[0] ?? {};
}

/** Rethrows what is no fault of the function's. */
export function failure(error: unknown, logs: LogLines, usage: Usage): Outcome {
  const isKnown = error instanceof FunctionError || error instanceof TimeoutError;
  if (!isKnown) throw error;
  const data = error instanceof FunctionError ? error.data : undefined;
  return {
    status: "error",
    errorMessage: error.message,
    ...(data === undefined ? {} : { errorData: data }),
    logLines: logs.lines,
    usage,
  };
}

export const noUsage = (): Usage => ({
  documentsRead: 0,
  bytesRead: 0,
  documentsWritten: 0,
  bytesWritten: 0,
  ranges: 0,
});
