/**
 * The globals of queries and mutations.
 *
 * `installUdfGlobals` is evaluated from its source text inside each context: it may use nothing
 * but its arguments and the language itself.
 */
import type { Thrown } from "../stack.ts";

/** What the context asks of the engine. Strings and numbers cross, so no object is shared. */
export interface UdfHost {
  /** "+result", or "-" and JSON of `{message, data?}`. */
  syscall(operation: string, args: string): string;
  /** As `syscall`, or a number: the answer comes with a later `Resume` of that number. */
  asyncSyscall(operation: string, args: string): string | number;
  settle(result: string | null, thrown: string | null): void;
  /** What to do now that the context has been entered. */
  job(): UdfJob;
}

export type UdfJob =
  | {
      type: "start";
      module: string;
      name: string;
      method: "invokeQuery" | "invokeMutation";
      args: string;
      /** Milliseconds since the epoch: stands still until the function ends. */
      now: number;
      seed: number;
    }
  | { type: "resume"; answers: [id: number, answer: string][] };

export function installUdfGlobals(
  host: UdfHost,
  describeThrown: (error: unknown) => Thrown,
  modulesGlobal: string,
  enterGlobal: string,
): void {
  const scope = globalThis as unknown as Record<string, unknown>;
  let now = 0;
  let random = 0;
  let waiting = new Map<number, [(value: string) => void, (error: Error) => void]>();

  const answerOf = (answer: string): string => {
    if (answer[0] === "+") return answer.slice(1);
    const { message, data } = JSON.parse(answer.slice(1)) as { message: string; data?: unknown };
    throw data === undefined ? new Error(message) : Object.assign(new Error(message), { data });
  };

  scope["Convex"] = Object.freeze({
    syscall: (operation: string, args: string) => answerOf(host.syscall(operation, args)),
    asyncSyscall: (operation: string, args: string): Promise<string> => {
      const answer = host.asyncSyscall(operation, args);
      return new Promise((resolve, reject) => {
        if (typeof answer === "number") waiting.set(answer, [resolve, reject]);
        else resolve(answerOf(answer));
      });
    },
    jsSyscall: (operation: string): never => {
      throw new Error(`convex-local does not have the syscall ${operation}`);
    },
  });

  const enter = (): void => {
    const job = host.job();
    if (job.type === "resume") {
      for (const [id, answer] of job.answers) {
        const [resolve, reject] = waiting.get(id) ?? [];
        waiting.delete(id);
        try {
          resolve?.(answerOf(answer));
        } catch (error) {
          reject?.(error as Error);
        }
      }
      return;
    }
    waiting = new Map();
    now = job.now;
    random = job.seed;
    const modules = (scope[modulesGlobal] as { modules: Record<string, Record<string, unknown>> })
      .modules;
    const invoke = (
      modules[job.module]?.[job.name] as Record<string, (args: string) => Promise<string>>
    )[job.method] as (args: string) => Promise<string>;
    invoke(job.args).then(
      (result) => {
        host.settle(result, null);
      },
      (error: unknown) => {
        host.settle(null, JSON.stringify(describeThrown(error)));
      },
    );
  };
  Object.defineProperty(scope, enterGlobal, { value: enter });

  // Time stands still, and chance is drawn from the transaction's seed.
  const RealDate = Date;
  const FrozenDate = function (this: unknown, ...parts: unknown[]): unknown {
    const isCall = (new.target as unknown) === undefined;
    if (isCall) return new RealDate(now).toString();
    return Reflect.construct(RealDate, parts.length === 0 ? [now] : parts, new.target);
  };
  FrozenDate.prototype = RealDate.prototype;
  RealDate.prototype.constructor = FrozenDate;
  Object.defineProperties(FrozenDate, {
    name: { value: "Date" },
    now: { value: () => now },
    parse: { value: RealDate.parse },
    UTC: { value: RealDate.UTC },
  });
  scope["Date"] = FrozenDate;

  // Mulberry32 (Tommy Ettinger, public domain): good enough to be unpredictable to nobody.
  const nextRandom = (): number => {
    random = (random + 0x6d2b79f5) | 0;
    let mixed = Math.imul(random ^ (random >>> 15), 1 | random);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
  Math.random = nextRandom;
  const getRandomValues = <T extends ArrayBufferView>(view: T): T => {
    const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
    for (let i = 0; i < bytes.length; i += 1) bytes[i] = Math.floor(nextRandom() * 256);
    return view;
  };
  const randomUUID = (): string => {
    const bytes = getRandomValues(new Uint8Array(16));
    bytes[6] = ((bytes[6] as number) & 0x0f) | 0x40;
    bytes[8] = ((bytes[8] as number) & 0x3f) | 0x80;
    const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
    return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
  };
  scope["crypto"] = Object.freeze({ getRandomValues, randomUUID });

  const refused = (name: string) => (): never => {
    throw new Error(
      `Can't use ${name} in queries and mutations. Please consider using an action. ` +
        "See https://docs.convex.dev/functions/actions for more details.",
    );
  };
  for (const name of ["fetch", "setTimeout", "setInterval", "setImmediate"]) {
    scope[name] = refused(`${name}()`);
  }
  for (const name of ["clearTimeout", "clearInterval", "clearImmediate"]) {
    scope[name] = () => undefined;
  }
}
