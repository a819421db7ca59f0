/**
 * Runs queries and mutations to their end, synchronously.
 *
 * A context drains its own promises before an entry into it returns, and syscalls are answered on
 * the spot. So a whole function, `await`s included, runs under one `vm` timeout; only a nested
 * function, or a call after many slow ones, is answered between two entries.
 */
import vm from "node:vm";
import { MODULES_GLOBAL, type Code } from "../bundle.ts";
import { FunctionError } from "../errors.ts";
import { MAX_CALL_DEPTH, SYSTEM_TIMEOUT_MS, USER_TIMEOUT_MS } from "../limits.ts";
import type { Thrown } from "../stack.ts";
import type { JSONValue } from "../types.ts";
import { createContext, type LogLines } from "./context.ts";
import { describeThrown } from "./describe.ts";
import { installUdfGlobals, type UdfHost, type UdfJob } from "./udf-globals.ts";

const ENTER_GLOBAL = "__convexLocalEnter";

/**
 * Time in syscalls that one entry may spend on top of the user's: the vm timeout cannot tell them
 * apart, so after this much the rest is answered between entries.
 */
const SYSCALL_SLACK_MS = 250;

/**
 * The vm timeout counts wall-clock time, the budget this thread's time on a processor: a busy
 * machine must not fail a function that is fast. A loop without end is ended after this many times
 * what it may use.
 */
const WALL_CLOCK_FACTOR = 3;

/** Milliseconds this thread has run; wall-clock time where Node (before 23.9) cannot tell. */
const threadMs: () => number =
  typeof process.threadCpuUsage === "function"
    ? () => {
        const { user, system } = process.threadCpuUsage();
        return (user + system) / 1000;
      }
    : () => performance.now();

/** Ends the whole transaction; a function cannot catch it. */
export class TimeoutError extends Error {
  override name = "TimeoutError";
}

/** Time used by a transaction, nested functions included. */
export interface Budget {
  userMs: number;
  systemMs: number;
}

export interface UdfRun {
  module: string;
  name: string;
  method: "invokeQuery" | "invokeMutation";
  /** JSON of the array of arguments. */
  args: string;
  now: number;
  seed: number;
  /** 0 for the transaction's own function, 1 for what it runs, and so on. */
  depth: number;
  budget: Budget;
  logs: LogLines;
  /** Answers with JSON; a `FunctionError` becomes an error inside the function. */
  syscall(operation: string, args: JSONValue): string;
  /** Must this one wait until the context has been left? */
  runsOutside(operation: string): boolean;
}

export type UdfResult = { result: string } | { thrown: Thrown };

export class UdfRuntime {
  private readonly code: Code;
  private readonly env: Readonly<Record<string, string>>;
  private readonly script: vm.Script;
  private readonly slots: (Slot | undefined)[] = [];

  constructor(code: Code, env: Readonly<Record<string, string>>) {
    this.code = code;
    this.env = env;
    this.script = new vm.Script(code.text, { filename: code.filename });
  }

  /** What the modules export, for analysis; evaluated on first use. Throws what they throw. */
  get modules(): Record<string, Record<string, unknown>> {
    const scope = this.slot(0).context as Record<string, unknown>;
    return (scope[MODULES_GLOBAL] as { modules: Record<string, Record<string, unknown>> }).modules;
  }

  /** @throws TimeoutError when the transaction has used up its time. */
  run(run: UdfRun): UdfResult {
    if (run.depth >= MAX_CALL_DEPTH) {
      throw new FunctionError(
        "Cross component call depth limit exceeded. Do you have an infinite loop in your app?",
      );
    }
    const slot = this.slot(run.depth);
    try {
      return slot.run(run);
    } catch (error) {
      // What the function left behind must not wake up inside the next one.
      this.slots[run.depth] = undefined;
      throw error;
    }
  }

  private slot(depth: number): Slot {
    const existing = this.slots[depth];
    if (existing !== undefined) return existing;
    const slot = new Slot(this.script, this.code.filename, this.env);
    this.slots[depth] = slot;
    return slot;
  }
}

const enterScript = new vm.Script(`${ENTER_GLOBAL}()`, { filename: "convex-local-enter" });
const noRun = (): never => {
  throw new Error("The database and other functions cannot be used while a module is imported");
};

/** One context, and the function that is running in it. */
class Slot {
  readonly context: vm.Context;
  private current: UdfRun | null = null;
  private outcome: UdfResult | null = null;
  private job: UdfJob | null = null;
  private deferred: { id: number; operation: string; args: string }[] = [];
  private nextId = 0;
  private entrySyscallMs = 0;
  /** Of the engine, not of the function. */
  private failure: { error: unknown } | null = null;

  constructor(script: vm.Script, name: string, env: Readonly<Record<string, string>>) {
    this.context = createContext({
      name,
      env,
      ownPromises: true,
      log: (level, values) => {
        this.current?.logs.add(level, values);
      },
    });
    const install = vm.runInContext(`(${installUdfGlobals.toString()})`, this.context, {
      filename: "convex-local-globals",
    }) as typeof installUdfGlobals;
    install(this.host(), describeThrown, MODULES_GLOBAL, ENTER_GLOBAL);
    script.runInContext(this.context, { timeout: SYSTEM_TIMEOUT_MS });
  }

  run(run: UdfRun): UdfResult {
    this.current = run;
    this.outcome = null;
    this.deferred = [];
    try {
      const { module, name, method, args, now, seed } = run;
      this.enter({ type: "start", module, name, method, args, now, seed });
      for (;;) {
        const outcome = this.settled();
        if (outcome !== null) return this.finish(run, outcome);
        if (this.deferred.length === 0) {
          throw new FunctionError(
            "The function can never return: it awaits a promise that no Convex call resolves.",
          );
        }
        const calls = this.deferred.splice(0);
        const answers = calls.map((call): [number, string] => [call.id, this.answer(call)]);
        this.enter({ type: "resume", answers });
      }
    } finally {
      this.current = null;
    }
  }

  private settled(): UdfResult | null {
    return this.outcome;
  }

  private finish(run: UdfRun, outcome: UdfResult): UdfResult {
    if (this.deferred.length > 0) {
      const names = this.deferred.map(({ operation }) => operation.replace("1.0/", ""));
      run.logs.add("WARN", [
        `${names.length} unawaited operation(s): [${names.join(", ")}]. Async operations should ` +
          "be awaited or they might not run.",
      ]);
    }
    return outcome;
  }

  /** Goes into the context until nothing in it can go on. */
  private enter(job: UdfJob): void {
    const { budget } = this.current as UdfRun;
    const left = USER_TIMEOUT_MS - budget.userMs;
    if (left <= 0) throw userTimeout();
    this.job = job;
    this.entrySyscallMs = 0;
    const started = threadMs();
    try {
      const timeout = Math.ceil(left * WALL_CLOCK_FACTOR) + SYSCALL_SLACK_MS;
      enterScript.runInContext(this.context, { timeout });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ERR_SCRIPT_EXECUTION_TIMEOUT") throw error;
      budget.userMs = USER_TIMEOUT_MS;
      throw userTimeout();
    }
    budget.userMs += threadMs() - started - this.entrySyscallMs;
    if (this.failure !== null) throw this.failure.error;
    if (budget.userMs > USER_TIMEOUT_MS) throw userTimeout();
    if (budget.systemMs > SYSTEM_TIMEOUT_MS) {
      throw new TimeoutError("Your request timed out performing too many system operations.");
    }
  }

  private answer({ operation, args }: { operation: string; args: string }): string {
    const run = this.current as UdfRun;
    const started = threadMs();
    const userMs = run.budget.userMs;
    try {
      return `+${run.syscall(operation, JSON.parse(args) as JSONValue)}`;
    } catch (error) {
      if (!(error instanceof FunctionError)) throw error;
      const { message, data } = error;
      return `-${JSON.stringify(data === undefined ? { message } : { message, data })}`;
    } finally {
      // A nested function's own time is already in the budget.
      const spent = threadMs() - started - (run.budget.userMs - userMs);
      run.budget.systemMs += spent;
      this.entrySyscallMs += spent;
    }
  }

  /** An answer for code inside the context: what is no `FunctionError` must not reach it. */
  private answerInside(call: { operation: string; args: string }): string {
    try {
      return this.answer(call);
    } catch (error) {
      this.failure ??= { error };
      return `-${JSON.stringify({ message: "convex-local failed" })}`;
    }
  }

  private host(): UdfHost {
    return {
      syscall: (operation, args) => {
        if (this.current === null) noRun();
        return this.answerInside({ operation, args });
      },
      asyncSyscall: (operation, args) => {
        const run = this.current ?? noRun();
        const waits =
          this.deferred.length > 0 ||
          this.entrySyscallMs > SYSCALL_SLACK_MS ||
          run.runsOutside(operation);
        if (!waits) return this.answerInside({ operation, args });
        this.nextId += 1;
        this.deferred.push({ id: this.nextId, operation, args });
        return this.nextId;
      },
      settle: (result, thrown) => {
        this.outcome =
          result === null ? { thrown: JSON.parse(thrown ?? "{}") as Thrown } : { result };
      },
      job: () => this.job as UdfJob,
    };
  }
}

const userTimeout = (): TimeoutError =>
  new TimeoutError("Function execution timed out (maximum duration: 1s)");
