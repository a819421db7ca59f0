/** Contexts that the project's code runs in. They separate it; they do not jail it. */
import vm from "node:vm";
import { inspect } from "node:util";
import { MAX_LOG_LINES, MAX_LOG_LINE_LENGTH } from "../limits.ts";

/**
 * Binary types of the host, so that buffers pass `instanceof` on both sides, and what the default
 * Convex runtime offers besides the language.
 */
function sharedGlobals(env: Readonly<Record<string, string>>): Record<string, unknown> {
  return {
    ArrayBuffer,
    Uint8Array,
    Int8Array,
    Uint8ClampedArray,
    Uint16Array,
    Int16Array,
    Uint32Array,
    Int32Array,
    Float32Array,
    Float64Array,
    BigInt64Array,
    BigUint64Array,
    DataView,
    TextEncoder,
    TextDecoder,
    URL,
    URLSearchParams,
    Headers,
    Request,
    Response,
    Blob,
    FormData,
    AbortController,
    AbortSignal,
    Event,
    EventTarget,
    DOMException,
    atob,
    btoa,
    structuredClone,
    process: Object.freeze({ env: Object.freeze({ ...env }) }),
  };
}

export interface ContextOptions {
  name: string;
  env: Readonly<Record<string, string>>;
  globals?: Record<string, unknown>;
  /** Gets what the code says through `console`; without it nobody listens. */
  log?: (level: string, values: unknown[]) => void;
  /** Drain the context's own promises before each entry returns; else they join the process's. */
  ownPromises: boolean;
}

export function createContext(options: ContextOptions): vm.Context {
  const context = vm.createContext(
    {
      ...sharedGlobals(options.env),
      console: consoleOf(options.log ?? (() => undefined)),
      ...options.globals,
    },
    {
      name: options.name,
      ...(options.ownPromises ? { microtaskMode: "afterEvaluate" as const } : {}),
    },
  );
  vm.runInContext("globalThis.self = globalThis", context);
  return context;
}

/** The console of Convex's runtime; its timers say nothing. */
function consoleOf(log: NonNullable<ContextOptions["log"]>): unknown {
  const logger =
    (level: string) =>
    (...values: unknown[]): void => {
      log(level, values);
    };
  return Object.freeze({
    log: logger("LOG"),
    debug: logger("DEBUG"),
    info: logger("INFO"),
    warn: logger("WARN"),
    error: logger("ERROR"),
    trace: logger("LOG"),
    dir: logger("LOG"),
    time: () => undefined,
    timeLog: () => undefined,
    timeEnd: () => undefined,
  });
}

/** Lines that a function logs, in the form clients print: `[LOG] 'text' 1`. */
export class LogLines {
  readonly lines: string[] = [];

  add(level: string, values: unknown[]): void {
    if (this.lines.length >= MAX_LOG_LINES) return;
    if (this.lines.length === MAX_LOG_LINES - 1) {
      this.lines.push(`[ERROR] Log overflow (maximum ${MAX_LOG_LINES}). Remaining logs omitted.`);
      return;
    }
    const text = values.map((value) => inspect(value)).join(" ");
    const cut = text.length > MAX_LOG_LINE_LENGTH;
    this.lines.push(
      `[${level}] ${cut ? `${text.slice(0, MAX_LOG_LINE_LENGTH)} (truncated)` : text}`,
    );
  }
}
