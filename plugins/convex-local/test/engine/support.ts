/** Opens backends on fixture projects, and calls their functions without ceremony. */
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { onTestFinished } from "vitest";
import { Backend, type Identity, type JSONValue, type Outcome } from "../../src/backend.ts";

const HERE = import.meta.dirname;
export const FIXTURES = path.join(HERE, "../fixtures");
const NODE_MODULES = path.join(HERE, "../../../../node_modules");

export const nobody: Identity = { kind: "none", attributes: null };
export const admin: Identity = { kind: "admin", attributes: null };

export interface Opened {
  backend: Backend;
  logs: string[];
  query: (path: string, args?: JSONValue) => Promise<JSONValue>;
  mutation: (path: string, args?: JSONValue) => Promise<JSONValue>;
  action: (path: string, args?: JSONValue) => Promise<JSONValue>;
}

/** A call that failed, with what the caller is told. */
export class CallFailed extends Error {
  readonly outcome: Outcome & { status: "error" };

  constructor(outcome: Outcome & { status: "error" }) {
    super(outcome.errorMessage);
    this.outcome = outcome;
  }
}

export function valueOf(outcome: Outcome): JSONValue {
  if (outcome.status === "error") throw new CallFailed(outcome);
  return outcome.value;
}

export interface OpenOptions {
  /** Name of a fixture, or a directory. */
  project?: string;
  dbPath?: string;
  env?: Record<string, string>;
}

/** Opens a backend that is closed when the test ends. */
export async function open(options: OpenOptions = {}): Promise<Opened> {
  const logs: string[] = [];
  const backend = await Backend.open({
    projectDir: path.resolve(FIXTURES, options.project ?? "basic"),
    dbPath: options.dbPath ?? ":memory:",
    env: options.env ?? {},
    log: (line) => {
      logs.push(line);
    },
  });
  onTestFinished(() => backend.close());
  const call = { identity: nobody };
  return {
    backend,
    logs,
    query: async (name, args = {}) =>
      valueOf((await backend.runQuery({ ...call, path: name, args })).outcome),
    mutation: async (name, args = {}) =>
      valueOf((await backend.runMutation({ ...call, path: name, args })).outcome),
    action: async (name, args = {}) =>
      valueOf(await backend.runAction({ ...call, path: name, args })),
  };
}

/** A directory that is removed when the test ends. */
export function temporaryDirectory(): string {
  const directory = mkdtempSync(path.join(tmpdir(), "convex-local-"));
  onTestFinished(() => {
    rmSync(directory, { recursive: true, force: true });
  });
  return directory;
}

/** A project made of the given files of `convex/`, which a test may change. */
export function project(files: Record<string, string>): string {
  const directory = temporaryDirectory();
  symlinkSync(NODE_MODULES, path.join(directory, "node_modules"));
  mkdirSync(path.join(directory, "convex"));
  write(directory, files);
  return directory;
}

export function write(projectDir: string, files: Record<string, string>): void {
  for (const [name, text] of Object.entries(files)) {
    const file = path.join(projectDir, "convex", name);
    mkdirSync(path.dirname(file), { recursive: true });
    writeFileSync(file, text);
  }
}

export function copyFixture(name: string): string {
  const directory = project({});
  cpSync(path.join(FIXTURES, name), directory, { recursive: true });
  return directory;
}

/** Waits until `check` gives a value; the condition is looked at after every turn of the loop. */
export async function eventually<T>(
  check: () => Promise<T | null | undefined | false>,
  timeoutMs = 10_000,
): Promise<T> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const value = await check();
    if (value !== null && value !== undefined && value !== false) return value;
    if (Date.now() > deadline) throw new Error("It never happened");
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
