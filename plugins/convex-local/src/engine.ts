/** Runs functions: finds and checks them, opens their transactions, commits and tells. */
import { randomInt } from "node:crypto";
import { runAction } from "./actions.ts";
import { FunctionError } from "./errors.ts";
import { MAX_ARGUMENT_BYTES, MAX_RESULT_BYTES } from "./limits.ts";
import { canonicalPath, type Program, type ProjectFunction } from "./program.ts";
import { argumentsOf, failure, resultOf } from "./outcomes.ts";
import { firstOutcomeOf, remember } from "./requests.ts";
import { traceOf } from "./stack.ts";
import type { Store } from "./store.ts";
import { UdfSyscalls } from "./syscalls.ts";
import { Transaction } from "./transaction.ts";
import type {
  ActionCall,
  Commit,
  CommitListener,
  Identity,
  JSONValue,
  MutationCall,
  MutationOutcome,
  Outcome,
  QueryCall,
  QueryOutcome,
} from "./types.ts";
import { validate } from "./validators.ts";
import { formatBytes, normalize } from "./values.ts";
import { LogLines } from "./vm/context.ts";
import type { Budget } from "./vm/udf-runtime.ts";

const NANOSECONDS_PER_MS = 1_000_000n;

/** Who runs scheduled functions, crons, and functions that functions call. */
export const NOBODY: Identity = { kind: "none", attributes: null };

/** Who may call what: outside callers see public functions only. */
export type Reach = "public" | "internal";

interface Invocation {
  tx: Transaction;
  identity: Identity;
  logs: LogLines;
  budget: Budget;
  nowMs: number;
  journalBefore: string | null;
  journalAfter: string | null;
}

export interface MutationHooks {
  /** Inside the transaction, after the function has succeeded. */
  finish?: (tx: Transaction) => void;
}

export class Engine {
  program: Program;
  readonly store: Store;
  /** Called after a commit that scheduled or cancelled something. */
  onScheduled: () => void = () => undefined;
  private readonly log: (line: string) => void;
  private readonly listeners = new Set<CommitListener>();
  private ts: bigint;

  constructor(store: Store, program: Program, log: (line: string) => void) {
    this.store = store;
    this.program = program;
    this.log = log;
    const stored = BigInt(store.meta("ts") ?? "0");
    const now = wallClockNs();
    this.ts = stored > now ? stored : now;
  }

  currentTs(): bigint {
    return this.ts;
  }

  listen(listener: CommitListener): () => void {
    this.listeners.add(listener);
    return () => {
      this.listeners.delete(listener);
    };
  }

  find(path: string): ProjectFunction | null {
    return this.program.functions.get(canonicalPath(path)) ?? null;
  }

  // Queries

  query(call: QueryCall, reach: Reach): QueryOutcome {
    const invocation = this.begin(call.identity, true);
    invocation.journalBefore = call.journal ?? null;
    const outcome = this.outcome(invocation, () => {
      const found = this.resolve(call.path, "query", call.identity, reach);
      return this.invoke(found, argumentsOf(call.args), invocation, 0);
    });
    return {
      outcome,
      readSet: invocation.tx.readSet,
      ts: this.ts,
      journal: outcome.status === "success" ? invocation.journalAfter : null,
    };
  }

  // Mutations

  mutation(call: MutationCall, reach: Reach, hooks: MutationHooks = {}): MutationOutcome {
    const invocation = this.begin(call.identity, false);
    const { tx } = invocation;
    // Set inside the transaction below.
    const seen: { repeated: MutationOutcome | null; refused: boolean; ts: bigint } = {
      repeated: null,
      refused: false,
      ts: 0n,
    };
    const outcome = this.outcome(
      invocation,
      () => {
        const found = this.resolve(call.path, "mutation", call.identity, reach);
        return this.store.transaction(() => {
          seen.repeated = firstOutcomeOf(this.store, call.request);
          if (seen.repeated !== null) return null;
          const value = this.invoke(found, argumentsOf(call.args), invocation, 0);
          hooks.finish?.(tx);
          seen.ts = this.nextTs();
          if (call.request !== undefined) remember(this.store, call.request, seen.ts, value);
          if (!tx.writeSet.isEmpty || call.request !== undefined) {
            this.store.setMeta("ts", String(seen.ts));
          }
          seen.refused = true;
          call.beforeCommit?.();
          seen.refused = false;
          return value;
        });
      },
      () => !seen.refused,
    );
    if (seen.repeated !== null) return seen.repeated;
    if (outcome.status === "error") return { outcome, ts: null };
    this.committed(seen.ts, tx, call.afterCommit);
    return { outcome, ts: seen.ts };
  }

  /** A transaction of the engine itself, on system tables. */
  systemTransaction(body: (tx: Transaction, nowMs: number) => void): void {
    const { tx, nowMs } = this.begin(NOBODY, false);
    const ts = this.nextTs();
    this.store.transaction(() => {
      body(tx, nowMs);
      this.store.setMeta("ts", String(ts));
    });
    this.committed(ts, tx);
  }

  /** Tells everybody that everything may have changed: the functions were swapped. */
  announceReload(): void {
    this.ts = this.nextTs();
    this.store.setMeta("ts", String(this.ts));
    this.tell({ ts: this.ts, touches: () => true });
  }

  private nextTs(): bigint {
    const now = wallClockNs();
    return now > this.ts ? now : this.ts + 1n;
  }

  private committed(ts: bigint, tx: Transaction, afterCommit?: (ts: bigint) => void): void {
    this.ts = ts;
    afterCommit?.(ts);
    const { writeSet } = tx;
    if (!writeSet.isEmpty) this.tell({ ts, touches: (readSet) => writeSet.touches(readSet) });
    if (tx.touchedJobs) this.onScheduled();
  }

  private tell(commit: Commit): void {
    for (const listener of this.listeners) {
      try {
        listener(commit);
      } catch (error) {
        this.log(`A commit listener failed: ${traceOf(error)}`);
      }
    }
  }

  async action(call: ActionCall, reach: Reach): Promise<Outcome> {
    return await runAction(this, call, reach);
  }

  // One function

  private begin(identity: Identity, readOnly: boolean): Invocation {
    const startedAt = performance.timeOrigin + performance.now();
    const tx = new Transaction({
      store: this.store,
      schema: this.program.schema,
      readOnly,
      startedAt,
    });
    return {
      tx,
      identity,
      logs: new LogLines(),
      budget: { userMs: 0, systemMs: 0 },
      nowMs: Math.floor(startedAt),
      journalBefore: null,
      journalAfter: null,
    };
  }

  /** Turns the result or the error of `body` into what a caller is told. */
  private outcome(
    { tx, logs }: Invocation,
    body: () => JSONValue,
    isFunctions: () => boolean = () => true,
  ): Outcome {
    try {
      return { status: "success", value: body(), logLines: logs.lines, usage: tx.usage };
    } catch (error) {
      if (!isFunctions()) throw error;
      return failure(error, logs, tx.usage);
    }
  }

  /** @throws FunctionError when there is none that this caller may see. */
  resolve(
    path: string,
    type: ProjectFunction["type"],
    identity: Identity,
    reach: Reach,
  ): ProjectFunction {
    const found = this.find(path);
    const visible = reach === "internal" || identity.kind === "admin";
    if (found === null || (found.visibility === "internal" && !visible)) {
      throw new FunctionError(
        `Could not find public function for '${displayPath(path)}'. Did you forget to run ` +
          "`npx convex dev`?",
      );
    }
    if (found.type !== type) {
      throw new FunctionError(
        `Trying to execute ${displayPath(path)} as ${capital(type)}, but it is defined as ` +
          `${capital(found.type)}.`,
      );
    }
    return found;
  }

  private invoke(
    found: ProjectFunction,
    given: JSONValue,
    invocation: Invocation,
    depth: number,
  ): JSONValue {
    const { tx } = invocation;
    const { program } = this;
    const args = this.checkedArguments(found, given);
    const frame = {
      tx,
      function: found,
      identity: invocation.identity,
      nowMs: invocation.nowMs,
      ts: this.ts,
      journalBefore: depth === 0 ? invocation.journalBefore : null,
      journalAfter: null as string | null,
      find: (path: string) => this.find(path),
      runNested: (path: string, type: "query" | "mutation", inner: JSONValue): string => {
        const nested = this.resolve(path, type, invocation.identity, "internal");
        const run = (): JSONValue => this.invoke(nested, argumentsOf(inner), invocation, depth + 1);
        return JSON.stringify(type === "mutation" ? tx.nested(run) : run());
      },
    };
    const syscalls = new UdfSyscalls(frame);
    const ended = program.udfs.run({
      module: found.module,
      name: found.name,
      method: found.type === "query" ? "invokeQuery" : "invokeMutation",
      args: JSON.stringify([args]),
      now: invocation.nowMs,
      seed: randomInt(2 ** 32),
      depth,
      budget: invocation.budget,
      logs: invocation.logs,
      syscall: (operation, inner) => syscalls.call(operation, inner as Record<string, JSONValue>),
      runsOutside: (operation) => operation === "1.0/runUdf",
    });
    if (depth === 0) invocation.journalAfter = frame.journalAfter;
    return this.checkedResult(found, resultOf(ended, program));
  }

  private tableOfId = (id: string): string | null =>
    new Transaction({
      store: this.store,
      schema: null,
      readOnly: true,
      startedAt: 0,
    }).tableOfId(id);

  checkedArguments(found: ProjectFunction, given: JSONValue): JSONValue {
    const { value, size } = normalize(given);
    if (size > MAX_ARGUMENT_BYTES) {
      throw new FunctionError(
        `Arguments for ${found.path} are too large (actual: ${formatBytes(size)}, limit: ` +
          `${formatBytes(MAX_ARGUMENT_BYTES)})`,
      );
    }
    const problem = validate(found.args, value, this.tableOfId);
    if (problem !== null) throw new FunctionError(`ArgumentValidationError: ${problem}`);
    return value;
  }

  checkedResult(found: ProjectFunction, given: JSONValue): JSONValue {
    const { value, size } = normalize(given);
    if (size > MAX_RESULT_BYTES) {
      throw new FunctionError(
        `Function ${found.path} return value is too large (actual: ${formatBytes(size)}, limit: ` +
          `${formatBytes(MAX_RESULT_BYTES)})`,
      );
    }
    const problem = found.returns === null ? null : validate(found.returns, value, this.tableOfId);
    if (problem !== null) throw new FunctionError(`ReturnsValidationError: ${problem}`);
    return value;
  }
}

const displayPath = (path: string): string => canonicalPath(path).replace(/:default$/, "");

const capital = (type: string): string => type.charAt(0).toUpperCase() + type.slice(1);

const wallClockNs = (): bigint => BigInt(Date.now()) * NANOSECONDS_PER_MS;
