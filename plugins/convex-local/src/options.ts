/** The command line of convex-local. */
import { existsSync, readFileSync } from "node:fs";
import { resolve } from "node:path";
import { parseArgs, parseEnv } from "node:util";

export const HELP = `convex-local: runs a project's own convex/ functions on Node and SQLite.

Usage: convex-local [options]

  --project DIR        the project, which holds convex.json or convex/ (default: .)
  --db FILE            SQLite file, or :memory: (default: DIR/.convex-local/db.sqlite3)
  --port N             port on 127.0.0.1, 0 for a free one (default: 3210)
  --env NAME=VALUE     environment variable of the functions; may be repeated
  --env-file FILE      file of such lines; --env wins
  --admin-key KEY      the key for admin calls (default: a new one at each start)
  --no-watch           do not reload the functions when their files change
  --json               one JSON object per line on stdout, for programs
  --exit-with-parent   end when standard input ends
  --faults             allow failures on request and counters at /_local (for tests)
  --help               this text
`;

/** A mistake of the person at the command line; the message says how to mend it. */
export class UsageError extends Error {
  override name = "UsageError";
}

export interface Options {
  projectDir: string;
  /** Null: the file in the project directory. */
  dbPath: string | null;
  port: number;
  env: Record<string, string>;
  /** Null: a random one. */
  adminKey: string | null;
  watch: boolean;
  json: boolean;
  exitWithParent: boolean;
  faults: boolean;
  help: boolean;
}

/** @throws UsageError */
export function parseOptions(argv: string[]): Options {
  const values = parse(argv);
  return {
    projectDir: resolve(values.project ?? "."),
    dbPath: databasePath(values.db),
    port: portNumber(values.port ?? "3210"),
    env: { ...envFile(values["env-file"]), ...envPairs(values.env ?? []) },
    adminKey: adminKey(values["admin-key"]),
    watch: values.watch ?? true,
    json: values.json ?? false,
    exitWithParent: values["exit-with-parent"] ?? false,
    faults: values.faults ?? false,
    help: values.help ?? false,
  };
}

function parse(argv: string[]) {
  try {
    return parseArgs({
      args: argv,
      allowNegative: true,
      options: {
        project: { type: "string" },
        db: { type: "string" },
        port: { type: "string" },
        env: { type: "string", multiple: true },
        "env-file": { type: "string" },
        "admin-key": { type: "string" },
        watch: { type: "boolean" },
        json: { type: "boolean" },
        "exit-with-parent": { type: "boolean" },
        faults: { type: "boolean" },
        help: { type: "boolean", short: "h" },
      },
    }).values;
  } catch (error) {
    const [sentence] = (error as Error).message.split(". ");
    throw new UsageError(`${sentence}. See --help.`);
  }
}

function databasePath(given: string | undefined): string | null {
  if (given === undefined) return null;
  if (given === "") throw new UsageError("--db is empty; name a file, or use --db :memory:.");
  return given === ":memory:" ? given : resolve(given);
}

function portNumber(text: string): number {
  const port = Number(text);
  if (!/^\d+$/.test(text) || port > 65535) {
    throw new UsageError(
      `--port ${text} is no port; use a number up to 65535, or 0 for a free one.`,
    );
  }
  return port;
}

function adminKey(given: string | undefined): string | null {
  if (given === undefined) return null;
  // `:` starts the acting-as identity in an Authorization header.
  if (!/^[\w|.-]+$/.test(given)) {
    throw new UsageError("--admin-key may hold only letters, digits and _ | . -");
  }
  return given;
}

function envPairs(pairs: string[]): Record<string, string> {
  return Object.fromEntries(
    pairs.map((pair) => {
      const match = /^([A-Za-z_]\w*)=([\s\S]*)$/.exec(pair);
      if (match === null) {
        // The value may be a secret: name only what stands before it.
        throw new UsageError(`--env ${pair.split("=")[0]} is not of the form NAME=VALUE.`);
      }
      const [, name = "", value = ""] = match;
      return [name, value];
    }),
  );
}

function envFile(path: string | undefined): Record<string, string> {
  if (path === undefined) return {};
  if (!existsSync(path)) throw new UsageError(`--env-file ${path} does not exist.`);
  try {
    return parseEnv(readFileSync(path, "utf8")) as Record<string, string>;
  } catch (error) {
    throw new UsageError(`--env-file ${path} cannot be read: ${(error as Error).message}`);
  }
}
