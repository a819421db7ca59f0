/** The embedded backend: one project's functions on one SQLite file. */
import { Engine } from "./engine.ts";
import { applySchema } from "./migrate.ts";
import { loadProgram } from "./program.ts";
import { containRejections } from "./rejections.ts";
import { Scheduler } from "./scheduler.ts";
import { Store } from "./store.ts";
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

export class Backend {
  private readonly options: BackendOptions;
  private readonly engine: Engine;
  private readonly scheduler: Scheduler;
  private readonly releaseRejections: () => void;
  private reloading: Promise<void> = Promise.resolve();
  private closed = false;

  /**
   * Opens the database, bundles the project and starts its scheduler.
   *
   * Sets the process's time zone to UTC, which is the backend's.
   *
   * @throws CompileError when `convex/` does not compile or existing rows do not fit its schema.
   * @throws StorageError when the database file cannot be used.
   */
  static async open(options: BackendOptions): Promise<Backend> {
    process.env["TZ"] = "UTC";
    const program = await loadProgram(options.projectDir, options.env);
    const store = await Store.open(options.dbPath);
    try {
      applySchema(store, program.schema);
      for (const warning of program.warnings) options.log(warning);
      const backend = new Backend(options, new Engine(store, program, options.log));
      backend.scheduler.start();
      return backend;
    } catch (error) {
      store.close();
      throw error;
    }
  }

  private constructor(options: BackendOptions, engine: Engine) {
    this.options = options;
    this.engine = engine;
    this.scheduler = new Scheduler(engine, options.log);
    this.releaseRejections = containRejections(options.log);
  }

  async runQuery(call: QueryCall): Promise<QueryOutcome> {
    return await Promise.resolve(this.engine.query(call, "public"));
  }

  async runMutation(call: MutationCall): Promise<MutationOutcome> {
    return await Promise.resolve(this.engine.mutation(call, "public"));
  }

  async runAction(call: ActionCall): Promise<Outcome> {
    return await this.engine.action(call, "public");
  }

  /** Hears every commit, after it is durable; returns the function that stops listening. */
  onCommit(listener: CommitListener): () => void {
    return this.engine.listen(listener);
  }

  /** Nanoseconds since the epoch of the newest commit; never decreases, also across restarts. */
  currentTs(): bigint {
    return this.engine.currentTs();
  }

  /** Type of a function, whatever its visibility; null when there is none of that name. */
  functionType(path: string): FunctionType | null {
    return this.engine.find(path)?.type ?? null;
  }

  /**
   * Bundles again and swaps functions, schema, indexes and crons in one step.
   *
   * @throws CompileError and keeps the old ones.
   */
  async reload(): Promise<void> {
    // One after another: a slow bundle must not replace a newer one.
    const reload = this.reloading.then(() => this.reloadNow());
    this.reloading = reload.catch(() => undefined);
    await reload;
  }

  private async reloadNow(): Promise<void> {
    const program = await loadProgram(this.options.projectDir, this.options.env);
    if (this.closed) return;
    applySchema(this.engine.store, program.schema);
    this.engine.program = program;
    for (const warning of program.warnings) this.options.log(warning);
    this.scheduler.programChanged();
    this.engine.announceReload();
  }

  authConfig(): AuthProvider[] {
    return this.engine.program.authProviders;
  }

  analyzed(): Analyzed {
    return this.engine.program.analyzed;
  }

  /** Stops the scheduler and closes the file. Actions that still run count as failed. */
  close(): Promise<void> {
    if (!this.closed) {
      this.closed = true;
      this.scheduler.stop();
      this.releaseRejections();
      this.engine.store.close();
    }
    return Promise.resolve();
  }
}
