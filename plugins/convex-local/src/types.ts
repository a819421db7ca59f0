/**
 * The types that the engine and the servers around it share.
 *
 * Values cross this border as Convex JSON: `{$integer}`, `{$float}` and `{$bytes}` for what JSON
 * cannot say, everything else as itself.
 */
import type { JSONValue } from "convex/values";
import type { ReadSet } from "./readset.ts";

export type { JSONValue } from "convex/values";

/** Who calls. `attributes` is what `ctx.auth.getUserIdentity()` returns to functions. */
export interface Identity {
  kind: "user" | "admin" | "none";
  attributes: Record<string, JSONValue> | null;
}

/** What one call read and wrote: documents consumed by the function, not rows looked at. */
export interface Usage {
  documentsRead: number;
  bytesRead: number;
  documentsWritten: number;
  bytesWritten: number;
  ranges: number;
}

/** How a function ended. A thrown `ConvexError` sets `errorData`. */
export type Outcome =
  | { status: "success"; value: JSONValue; logLines: string[]; usage: Usage }
  | {
      status: "error";
      errorMessage: string;
      errorData?: JSONValue;
      logLines: string[];
      usage: Usage;
    };

export interface QueryCall {
  /** `module:function`; `module` alone means its default export. */
  path: string;
  /** The arguments object, or an array of at most one. */
  args: JSONValue;
  identity: Identity;
  /** Journal of the previous run of the same subscription: keeps the end of a page where it was. */
  journal?: string | null;
  /** Accepted and ignored: a query always reads the newest state. */
  ts?: bigint;
}

export interface QueryOutcome {
  outcome: Outcome;
  readSet: ReadSet;
  /** The state that was read, as `Backend.currentTs`. */
  ts: bigint;
  journal: string | null;
}

export interface MutationCall {
  path: string;
  args: JSONValue;
  identity: Identity;
  /** Makes a repeat of the same request return the first outcome instead of running again. */
  request?: { sessionId: string; requestId: number };
  /** Called after the commit and before anybody is told, with the commit's timestamp. */
  afterCommit?: (ts: bigint) => void;
  /** Called inside the transaction, before the commit; a throw rolls back and is rethrown. */
  beforeCommit?: () => void;
}

export interface MutationOutcome {
  outcome: Outcome;
  /** Timestamp of the commit; null when nothing was committed. */
  ts: bigint | null;
}

export interface ActionCall {
  path: string;
  args: JSONValue;
  identity: Identity;
}

/** One commit, or one reload of the functions (which touches everything). */
export interface Commit {
  ts: bigint;
  touches(readSet: ReadSet): boolean;
}

export type CommitListener = (commit: Commit) => void;

/** One entry of `auth.config.ts`, evaluated with the deployment's environment variables. */
export type AuthProvider =
  | { type: "oidc"; domain: string; applicationID: string }
  | {
      type: "customJwt";
      applicationID?: string;
      issuer: string;
      jwks: string;
      algorithm: "RS256" | "ES256";
    };

export type FunctionType = "query" | "mutation" | "action";

export interface AnalyzedFunction {
  name: string;
  type: FunctionType | "httpAction";
  visibility: "public" | "internal";
  /** Validator JSON, `{type: "any"}` where the function declares none. */
  args: JSONValue;
  returns: JSONValue;
}

export interface AnalyzedModule {
  /** Path below `convex/` without extension, with `/`: `sessions`, `model/fold`. */
  path: string;
  /** File below `convex/`, with extension. */
  file: string;
  environment: "isolate" | "node";
  functions: AnalyzedFunction[];
}

export interface AnalyzedCron {
  name: string;
  function: string;
  args: JSONValue;
  schedule: JSONValue;
}

/** What the bundled project declares. `schema` is `defineSchema(...).export()` parsed, or null. */
export interface Analyzed {
  functionsDir: string;
  modules: AnalyzedModule[];
  schema: JSONValue | null;
  crons: AnalyzedCron[];
  /** Files of `convex/` that only configure, when present. */
  hasAuthConfig: boolean;
}

export interface BackendOptions {
  /** Directory that holds `convex.json` or `convex/`. */
  projectDir: string;
  /** SQLite file, or `:memory:`. */
  dbPath: string;
  /** What functions see as `process.env`. */
  env: Record<string, string>;
  /** Called once per line for logs of scheduled functions, crons and actions nobody waits for. */
  log: (line: string) => void;
}
