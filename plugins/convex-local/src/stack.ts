/** Stack traces of the project's own code, at the positions its author wrote. */
import path from "node:path";
import type { Code } from "./bundle.ts";

const MAX_FRAMES = 10;

/** What a script reports of a thrown value, taken apart while still inside its context. */
export interface Thrown {
  name: string;
  message: string;
  stack: string;
  /** JSON of a `ConvexError`'s data. */
  data?: string;
}

/**
 * Frames of `stack` that lie in the project, as `    at handler (../convex/sessions.ts:10:5)`.
 * Frames of libraries and of convex-local are left out.
 */
export function projectFrames(stack: string, codes: readonly Code[]): string[] {
  const frames: string[] = [];
  for (const line of stack.split("\n")) {
    const found = /^\s+at (?:(.*?) \()?(convex-local:[\w.]+):(\d+):(\d+)\)?$/.exec(line);
    if (found === null) continue;
    const [, name, filename, row, column] = found;
    const code = codes.find((candidate) => candidate.filename === filename);
    const entry = code?.map.findEntry(Number(row) - 1, Number(column) - 1);
    if (entry === undefined || !("originalSource" in entry)) continue;
    const source = entry.originalSource;
    if (source.includes("node_modules/") || source.includes("convex-local-entry")) continue;
    const where = `${path.posix.join("../convex", source)}:${entry.originalLine + 1}:${
      entry.originalColumn + 1
    }`;
    const label = name === undefined || name === "" ? "<anonymous>" : name;
    frames.push(`    at ${label} (${where})`);
    if (frames.length === MAX_FRAMES) break;
  }
  return frames;
}

/** An error of the engine itself, for the log. */
export const traceOf = (error: unknown): string =>
  error instanceof Error ? (error.stack ?? error.message) : String(error);

/** "Uncaught Error: text" and the project's frames below it, as the backend words it. */
export function uncaught(thrown: Thrown, codes: readonly Code[]): string {
  const head = thrown.name === "" ? thrown.message : `${thrown.name}: ${thrown.message}`;
  return [`Uncaught ${head}`, ...projectFrames(thrown.stack, codes)].join("\n");
}
