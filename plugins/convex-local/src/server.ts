/** One running deployment: the engine, its HTTP API and its sync protocol, on one port. */
import { randomBytes } from "node:crypto";
import { Authenticator } from "./auth.ts";
import { Backend } from "./backend.ts";
import { Faults } from "./faults.ts";
import { HttpServer } from "./http.ts";
import { SyncServer } from "./sync.ts";

export interface ServerOptions {
  projectDir: string;
  /** SQLite file, or `:memory:`. */
  dbPath: string;
  /** 0 for a free port. */
  port: number;
  /** What functions see as `process.env`, beside CONVEX_CLOUD_URL and CONVEX_SITE_URL. */
  env: Record<string, string>;
  /** Null: a random one. */
  adminKey: string | null;
  faults: boolean;
  log: (line: string) => void;
}

export class LocalServer {
  readonly url: string;
  readonly adminKey: string;
  readonly #backend: Backend;
  readonly #http: HttpServer;
  readonly #sync: SyncServer;

  private constructor(parts: {
    url: string;
    adminKey: string;
    backend: Backend;
    http: HttpServer;
    sync: SyncServer;
  }) {
    this.url = parts.url;
    this.adminKey = parts.adminKey;
    this.#backend = parts.backend;
    this.#http = parts.http;
    this.#sync = parts.sync;
  }

  /**
   * @throws CompileError when `convex/` does not compile, StorageError for an unusable database,
   *   the system's error when the port is not to be had.
   */
  static async start(options: ServerOptions): Promise<LocalServer> {
    const http = new HttpServer();
    const url = await http.listen(options.port);
    try {
      const backend = await Backend.open({
        projectDir: options.projectDir,
        dbPath: options.dbPath,
        // As on a real deployment; the project's own values win.
        env: { CONVEX_CLOUD_URL: url, CONVEX_SITE_URL: url, ...options.env },
        log: options.log,
      });
      const adminKey = options.adminKey ?? `convex-local|${randomBytes(24).toString("hex")}`;
      const auth = new Authenticator({ adminKey, providers: () => backend.authConfig() });
      const faults = new Faults({ enabled: options.faults });
      const sync = new SyncServer({ backend, auth, faults });
      http.start({ backend, auth, faults, onSyncUpgrade: sync.upgrade });
      return new LocalServer({ url, adminKey, backend, http, sync });
    } catch (error) {
      await http.close();
      throw error;
    }
  }

  /** Loads the functions anew. @throws CompileError and keeps the old ones. */
  async reload(): Promise<void> {
    await this.#backend.reload();
  }

  get functionsDir(): string {
    return this.#backend.analyzed().functionsDir;
  }

  async close(): Promise<void> {
    this.#sync.close();
    await this.#http.close();
    await this.#backend.close();
  }
}
