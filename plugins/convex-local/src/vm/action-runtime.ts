/**
 * Runs actions: one context with `fetch`, timers and the rest, in which actions share the
 * process's event loop and interleave.
 */
import { AsyncLocalStorage } from "node:async_hooks";
import { randomUUID } from "node:crypto";
import { createRequire } from "node:module";
import path from "node:path";
import vm from "node:vm";
import { MODULES_GLOBAL, type Code } from "../bundle.ts";
import { FunctionError } from "../errors.ts";
import { ACTION_TIMEOUT_MS, NODE_ACTION_TIMEOUT_MS } from "../limits.ts";
import type { Thrown } from "../stack.ts";
import type { JSONValue } from "../types.ts";
import { createContext, LogLines } from "./context.ts";
import { describeThrown } from "./describe.ts";

export interface ActionRun {
  module: string;
  name: string;
  environment: "isolate" | "node";
  /** JSON of the array of arguments. */
  args: string;
  logs: LogLines;
  /** Answers with JSON; a `FunctionError` becomes an error inside the action. */
  syscall(operation: string, args: JSONValue): Promise<string>;
}

export type ActionResult = { result: string } | { thrown: Thrown };

type InvokeAction = (requestId: string, args: string) => Promise<string>;

export class ActionRuntime {
  private readonly context: vm.Context;
  private readonly runs = new Map<string, ActionRun>();
  /** Whose console line is this? */
  private readonly running = new AsyncLocalStorage<ActionRun>();

  /** Throws what the modules throw when they are imported. */
  constructor(code: Code, functionsDir: string, env: Readonly<Record<string, string>>) {
    this.context = createContext({
      name: code.filename,
      env,
      ownPromises: false,
      log: (level, values) => {
        this.running.getStore()?.logs.add(level, values);
      },
      globals: {
        fetch,
        crypto,
        performance,
        queueMicrotask,
        setTimeout,
        setInterval,
        setImmediate,
        clearTimeout,
        clearInterval,
        clearImmediate,
        ReadableStream,
        WritableStream,
        TransformStream,
        WebSocket,
        Buffer,
        CompressionStream,
        DecompressionStream,
        require: createRequire(path.join(functionsDir, "_.js")),
        Convex: this.syscalls(),
      },
    });
    new vm.Script(code.text, { filename: code.filename }).runInContext(this.context);
  }

  get modules(): Record<string, Record<string, unknown>> {
    const scope = this.context as Record<string, unknown>;
    return (scope[MODULES_GLOBAL] as { modules: Record<string, Record<string, unknown>> }).modules;
  }

  async run(run: ActionRun): Promise<ActionResult> {
    const requestId = randomUUID();
    this.runs.set(requestId, run);
    const limitMs = run.environment === "node" ? NODE_ACTION_TIMEOUT_MS : ACTION_TIMEOUT_MS;
    let timer: NodeJS.Timeout | undefined;
    try {
      const action = this.modules[run.module]?.[run.name] as { invokeAction: InvokeAction };
      const timeout = new Promise<never>((_resolve, reject) => {
        timer = setTimeout(() => {
          reject(
            new FunctionError(
              `Function execution timed out (maximum duration: ${limitMs / 1000}s)`,
            ),
          );
        }, limitMs);
        timer.unref();
      });
      const result = await Promise.race([
        this.running.run(run, () => action.invokeAction(requestId, run.args)),
        timeout,
      ]);
      return { result };
    } catch (error) {
      if (error instanceof FunctionError) throw error;
      return { thrown: describeThrown(error) };
    } finally {
      clearTimeout(timer);
      // Calls that an action makes after its end find nobody to answer them.
      this.runs.delete(requestId);
    }
  }

  private syscalls(): unknown {
    const refuse = (operation: string): never => {
      throw new Error(`The syscall ${operation} cannot be used in actions`);
    };
    return Object.freeze({
      syscall: refuse,
      jsSyscall: (operation: string): never => {
        throw new Error(`convex-local does not have the syscall ${operation}`);
      },
      asyncSyscall: async (operation: string, text: string): Promise<string> => {
        const args = JSON.parse(text) as { requestId?: string };
        const run = this.runs.get(args.requestId ?? "") ?? this.running.getStore();
        if (run === undefined) throw new Error(`${operation}: the action has already ended`);
        try {
          return await run.syscall(operation, args);
        } catch (error) {
          if (!(error instanceof FunctionError) || error.data === undefined) throw error;
          throw Object.assign(new Error(error.message), { data: error.data });
        }
      },
    });
  }
}
