/**
 * Failures on request and counters of calls, for tests of clients (`--faults`).
 */
import { setTimeout as sleep } from "node:timers/promises";
import { badRequest, occFailure, tooManyRequests } from "./api-error.ts";
import type { FunctionType, JSONValue, Usage } from "./types.ts";

const KINDS = ["drop_reply", "unavailable", "occ", "delay", "hang"] as const;

/**
 * - `drop_reply`: runs and commits, then the connection closes without an answer.
 * - `unavailable`: refused before running, 503.
 * - `occ`: runs, rolls back, 503 `OptimisticConcurrencyControlFailure`; mutations only.
 * - `delay`: answers `delayMs` late (after running).
 * - `hang`: never runs, never answers.
 */
export type FaultKind = (typeof KINDS)[number];

export interface Fault {
  kind: FaultKind;
  /** Only calls of this function; every call when absent. */
  path?: string;
  /** How often it happens; until it is cleared when absent. */
  times?: number;
  /** Chance of each call to be hit, 0 to 1; 1 when absent. */
  probability?: number;
  delayMs?: number;
}

/** Thrown when a call is to get no answer; whoever holds the connection acts on `kind`. */
export class NoAnswer extends Error {
  override name = "NoAnswer";
  readonly kind: "drop_reply" | "hang";

  constructor(kind: "drop_reply" | "hang") {
    super(kind);
    this.kind = kind;
  }
}

/** `mod:fn` for every way to write it: `mod.js:fn`, `mod`, `mod:default`. */
export function canonicalPath(path: string): string {
  const [module = "", name = "default"] = path.split(":");
  return `${module.replace(/\.[jt]s$/, "")}:${name}`;
}

interface Counts extends Usage {
  calls: number;
  errors: number;
  faults: number;
}

export class Faults {
  readonly enabled: boolean;
  readonly #random: () => number;
  #faults: Fault[] = [];
  #counts = new Map<string, Counts>();

  constructor(options: { enabled: boolean; random?: () => number }) {
    this.enabled = options.enabled;
    this.#random = options.random ?? Math.random;
  }

  /** @throws ApiError 400 naming what is wrong with the request. */
  add(request: unknown): Fault {
    const fault = parseFault(request);
    this.#faults.push(fault);
    return fault;
  }

  clear(): void {
    this.#faults = [];
  }

  /** What the functions were asked so far, by path. */
  counts(): Record<string, Counts> {
    return Object.fromEntries(this.#counts);
  }

  /**
   * The fault that hits this call, if one does; counts the call.
   *
   * @param path - As the client wrote it.
   */
  take(path: string, type: FunctionType): Fault | null {
    if (!this.enabled) return null;
    const name = canonicalPath(path);
    const counts = this.#countsOf(name);
    counts.calls += 1;
    const hit = this.#faults.find(
      (fault) =>
        (fault.path === undefined || fault.path === name) &&
        (fault.kind !== "occ" || type === "mutation") &&
        (fault.probability === undefined || this.#random() < fault.probability),
    );
    if (hit === undefined) return null;
    counts.faults += 1;
    if (hit.times !== undefined) {
      hit.times -= 1;
      if (hit.times === 0) this.#faults = this.#faults.filter((fault) => fault !== hit);
    }
    return { ...hit };
  }

  /** Adds what a call used. */
  record(path: string, outcome: { status: "success" | "error"; usage: Usage }): void {
    if (!this.enabled) return;
    const counts = this.#countsOf(canonicalPath(path));
    if (outcome.status === "error") counts.errors += 1;
    for (const key of Object.keys(outcome.usage) as (keyof Usage)[]) {
      counts[key] += outcome.usage[key];
    }
  }

  #countsOf(name: string): Counts {
    let counts = this.#counts.get(name);
    if (counts === undefined) {
      counts = {
        calls: 0,
        errors: 0,
        faults: 0,
        documentsRead: 0,
        bytesRead: 0,
        documentsWritten: 0,
        bytesWritten: 0,
        ranges: 0,
      };
      this.#counts.set(name, counts);
    }
    return counts;
  }
}

/** What happens before the function runs. @throws ApiError or NoAnswer. */
export function beforeRun(fault: Fault | null): void {
  if (fault?.kind === "unavailable") throw tooManyRequests();
  if (fault?.kind === "hang") throw new NoAnswer("hang");
}

/** Options of a mutation hit by `occ`: the throw before its commit rolls everything back. */
export function rollback(fault: Fault | null): { beforeCommit?: () => void } {
  if (fault?.kind !== "occ") return {};
  return {
    beforeCommit: () => {
      throw occFailure();
    },
  };
}

/** What happens between the commit and the answer. @throws ApiError or NoAnswer. */
export async function afterRun(fault: Fault | null): Promise<void> {
  switch (fault?.kind) {
    case "delay":
      await sleep(fault.delayMs ?? 1000, undefined, { ref: false });
      return;
    case "drop_reply":
      throw new NoAnswer("drop_reply");
    default:
  }
}

function parseFault(request: unknown): Fault {
  const wrong = (what: string) => badRequest("BadFault", what);
  if (request === null || typeof request !== "object" || Array.isArray(request)) {
    throw wrong("A fault is an object: {kind, path?, times?, probability?, delayMs?}.");
  }
  const given = request as Record<string, JSONValue | undefined>;
  const unknown = Object.keys(given).find(
    (key) => !["kind", "path", "times", "probability", "delayMs"].includes(key),
  );
  if (unknown !== undefined) throw wrong(`A fault has no field \`${unknown}\`.`);
  const kind = KINDS.find((name) => name === given["kind"]);
  if (kind === undefined) throw wrong(`kind must be one of ${KINDS.join(", ")}.`);
  const number = (name: string, low: number, high: number, whole: boolean) => {
    const value = given[name];
    if (value === undefined) return undefined;
    if (typeof value !== "number" || value < low || value > high || (whole && value % 1 !== 0)) {
      throw wrong(`${name} must be a ${whole ? "whole number" : "number"} from ${low} to ${high}.`);
    }
    return value;
  };
  const path = given["path"];
  if (path !== undefined && typeof path !== "string") {
    throw wrong('path must be a function\'s name, such as "sessions:record".');
  }
  const times = number("times", 1, Number.MAX_SAFE_INTEGER, true);
  const probability = number("probability", 0, 1, false);
  const delayMs = number("delayMs", 0, 3_600_000, false);
  return {
    kind,
    ...(path === undefined ? {} : { path: canonicalPath(path) }),
    ...(times === undefined ? {} : { times }),
    ...(probability === undefined ? {} : { probability }),
    ...(delayMs === undefined ? {} : { delayMs }),
  };
}
