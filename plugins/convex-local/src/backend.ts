/** The embedded backend: one project's functions on one SQLite file. */
import type {
  ActionCall,
  Analyzed,
  AuthProvider,
  BackendOptions,
  CommitListener,
  FunctionType,
  MutationCall,
  MutationOutcome,
  Outcome,
  QueryCall,
  QueryOutcome,
} from "./types.ts";

export type * from "./types.ts";
export { CompileError, FunctionError, StorageError } from "./errors.ts";
export { ReadSet } from "./readset.ts";

const pending = (): never => {
  throw new Error("convex-local: the engine is being built");
};

export class Backend {
  /**
   * Opens the database, bundles the project and starts its scheduler.
   *
   * @throws CompileError when `convex/` does not compile.
   */
  static async open(options: BackendOptions): Promise<Backend> {
    return new Backend(options);
  }

  private constructor(_options: BackendOptions) {}

  async runQuery(_call: QueryCall): Promise<QueryOutcome> {
    return pending();
  }

  async runMutation(_call: MutationCall): Promise<MutationOutcome> {
    return pending();
  }

  async runAction(_call: ActionCall): Promise<Outcome> {
    return pending();
  }

  /** Hears every commit, after it is durable; returns the function that stops listening. */
  onCommit(_listener: CommitListener): () => void {
    return pending();
  }

  /** Nanoseconds since the epoch of the newest commit; never decreases, also across restarts. */
  currentTs(): bigint {
    return pending();
  }

  /** Type of a function, whatever its visibility; null when there is none of that name. */
  functionType(_path: string): FunctionType | null {
    return pending();
  }

  /**
   * Bundles again and swaps functions, schema, indexes and crons in one step.
   *
   * @throws CompileError and keeps the old ones.
   */
  async reload(): Promise<void> {
    return pending();
  }

  authConfig(): AuthProvider[] {
    return pending();
  }

  analyzed(): Analyzed {
    return pending();
  }

  async close(): Promise<void> {
    return pending();
  }
}
