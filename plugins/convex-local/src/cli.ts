/** The program: starts a deployment for one project and keeps its functions fresh. */
import { existsSync, mkdirSync, watch, writeFileSync } from "node:fs";
import { dirname, isAbsolute, join, relative, sep } from "node:path";
import { CompileError, StorageError } from "./backend.ts";
import { HELP, parseOptions, UsageError } from "./options.ts";
import type { Options } from "./options.ts";
import { LocalServer } from "./server.ts";

/** Editors write a file in several steps; this long after the last one it is read. */
const RELOAD_DELAY_MS = 150;

/** What a program reads with `--json`. */
type Event =
  | { event: "ready"; url: string; adminKey: string }
  | { event: "reloaded" }
  | { event: "compile_error"; message: string };

async function main(options: Options): Promise<void> {
  const say = (event: Event) => {
    process.stdout.write(`${options.json ? JSON.stringify(event) : human(event)}\n`);
  };
  const server = await LocalServer.start({
    ...options,
    dbPath: options.dbPath ?? defaultDatabase(options.projectDir),
    log: (line) => process.stderr.write(`${line}\n`),
  });
  let stopping = false;
  const stop = () => {
    if (stopping) return;
    stopping = true;
    // A function that never ends must not keep the process.
    setTimeout(() => process.exit(0), 2000).unref();
    server.close().then(
      () => process.exit(0),
      (error: unknown) => fail(error, options),
    );
  };
  process.on("SIGINT", stop);
  process.on("SIGTERM", stop);
  if (options.exitWithParent) {
    process.stdin.on("end", stop).on("close", stop).on("error", stop).resume();
  }
  // Whoever reads our lines may be gone first; that must not look like a crash.
  process.stdout.on("error", stop);
  if (options.watch) watchFunctions(options.projectDir, server, say);
  say({ event: "ready", url: server.url, adminKey: server.adminKey });
}

function human(event: Event): string {
  switch (event.event) {
    case "ready":
      return `convex-local is ready at ${event.url} (admin key ${event.adminKey})`;
    case "reloaded":
      return "convex-local: functions reloaded";
    case "compile_error":
      return `convex-local: the old functions stay, the new ones do not compile:\n${event.message}`;
  }
}

/** Keeps the file beside the project without asking its .gitignore for a line. */
function defaultDatabase(projectDir: string): string {
  const path = join(projectDir, ".convex-local", "db.sqlite3");
  const isProject = ["convex", "convex.json"].some((name) => existsSync(join(projectDir, name)));
  if (isProject && !existsSync(dirname(path))) {
    mkdirSync(dirname(path));
    writeFileSync(join(dirname(path), ".gitignore"), "*\n");
  }
  return path;
}

function watchFunctions(projectDir: string, server: LocalServer, say: (event: Event) => void) {
  const { functionsDir } = server;
  const directory = isAbsolute(functionsDir) ? functionsDir : join(projectDir, functionsDir);
  let timer: NodeJS.Timeout | undefined;
  let working: Promise<void> = Promise.resolve();
  const reload = async () => {
    try {
      await server.reload();
      say({ event: "reloaded" });
    } catch (error) {
      say({ event: "compile_error", message: explain(error, undefined) });
    }
  };
  const watcher = watch(directory, { recursive: true }, (_change, file) => {
    if (file !== null && !isSource(relative(directory, join(directory, file)))) return;
    clearTimeout(timer);
    timer = setTimeout(() => {
      working = working.then(reload);
    }, RELOAD_DELAY_MS);
  });
  watcher.on("error", (error) => {
    process.stderr.write(`convex-local: no longer watching ${directory}: ${error.message}\n`);
  });
}

/** Generated code only names what lies beside it: writing it changes no function. */
function isSource(path: string): boolean {
  return !path.split(sep).includes("_generated") && /\.(?:[cm]?[jt]sx?|json)$/.test(path);
}

function fail(error: unknown, options: Pick<Options, "port"> | null): never {
  process.stderr.write(`convex-local: ${explain(error, options?.port)}\n`);
  process.exit(error instanceof UsageError ? 2 : 1);
}

/** One line with the remedy for what a user can mend; the stack for what only we can. */
function explain(error: unknown, port: number | undefined): string {
  if (error instanceof CompileError || error instanceof StorageError) return error.message;
  if (error instanceof UsageError) return error.message;
  const { code } = error as NodeJS.ErrnoException;
  if (code === "EADDRINUSE") {
    return `port ${port} is in use; end what runs there, or take another: --port 0 for a free one.`;
  }
  if (code === "EACCES") return `port ${port} is not allowed; take one above 1023.`;
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

function readOptions(): Options {
  try {
    return parseOptions(process.argv.slice(2));
  } catch (error) {
    fail(error, null);
  }
}

/** Reads the command line and runs until a signal, or until the parent is gone. */
export async function run(): Promise<void> {
  const options = readOptions();
  if (options.help) process.stdout.write(HELP);
  else await main(options).catch((error: unknown) => fail(error, options));
}
