/**
 * Promises that the project's code leaves rejected.
 *
 * Node would end the process for one `void ctx.db.insert(...)` that fails. The backend ends the
 * function, so here it becomes a line in the log.
 */
import { describeThrown } from "./vm/describe.ts";

type Log = (line: string) => void;

const logs = new Set<Log>();

const contain = (reason: unknown): void => {
  const { name, message } = describeThrown(reason);
  for (const log of logs) log(`A promise was rejected and nobody handled it: ${name}: ${message}`);
};

/** Contains them while at least one backend is open; returns the function that ends it. */
export function containRejections(log: Log): () => void {
  if (logs.size === 0) process.on("unhandledRejection", contain);
  // A function of its own per backend: two may share one log.
  const own: Log = (line) => {
    log(line);
  };
  logs.add(own);
  return () => {
    logs.delete(own);
    if (logs.size === 0) process.off("unhandledRejection", contain);
  };
}
