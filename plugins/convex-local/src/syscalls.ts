/** What queries and mutations can ask of the engine. */
import { FunctionError } from "./errors.ts";
import { cancelJob, scheduleJob } from "./jobs.ts";
import { readPage, type PageRequest } from "./page.ts";
import { canonicalPath, type ProjectFunction } from "./program.ts";
import { QueryStream, type SerializedQuery } from "./query.ts";
import type { Transaction } from "./transaction.ts";
import type { Identity, JSONValue } from "./types.ts";
import { int64 } from "./values.ts";

const HANDLE_PREFIX = "function://;";

/** Where a call names its function: by path, or by a handle made of one. */
export interface FunctionAddress {
  name?: string;
  functionHandle?: string;
  reference?: string;
}

/** Canonical path of the addressed function. */
export function addressed({ name, functionHandle, reference }: FunctionAddress): string {
  if (name !== undefined) return canonicalPath(name);
  if (functionHandle?.startsWith(HANDLE_PREFIX) === true) {
    return functionHandle.slice(HANDLE_PREFIX.length);
  }
  throw new FunctionError(
    `convex-local has no components: ${reference ?? functionHandle ?? "this"} cannot be called`,
  );
}

export const functionHandle = (path: string): string => `${HANDLE_PREFIX}${path}`;

/** One clear error for what is not there. */
export function unsupported(operation: string): FunctionError {
  const feature = operation.startsWith("1.0/storage")
    ? " (file storage)"
    : operation.includes("vectorSearch")
      ? " (vector search)"
      : "";
  return new FunctionError(`convex-local does not have the syscall ${operation}${feature}`);
}

export interface UdfFrame {
  tx: Transaction;
  function: ProjectFunction;
  identity: Identity;
  nowMs: number;
  ts: bigint;
  /** Cursor that an earlier run of this subscription ended its page with. */
  journalBefore: string | null;
  journalAfter: string | null;
  find(path: string): ProjectFunction | null;
  /** Runs another function of the project in this transaction; its result as JSON. */
  runNested(path: string, type: "query" | "mutation", args: JSONValue): string;
}

type Args = Record<string, JSONValue>;

export class UdfSyscalls {
  private readonly frame: UdfFrame;
  private readonly streams = new Map<number, QueryStream>();
  private nextStream = 0;

  constructor(frame: UdfFrame) {
    this.frame = frame;
  }

  /** @returns JSON text. */
  call(operation: string, args: Args): string {
    const { tx } = this.frame;
    switch (operation) {
      case "1.0/queryStream":
        return this.openStream(args["query"] as unknown as SerializedQuery);
      case "1.0/queryStreamNext":
        return this.streamNext(args["queryId"] as number);
      case "1.0/queryCleanup":
        return String(this.streams.delete(args["queryId"] as number));
      case "1.0/queryPage":
        return this.page(args as unknown as PageRequest);
      case "1.0/get":
        return this.get(args);
      case "1.0/count":
        return this.count(args["table"] as string);
      case "1.0/insert":
        this.requireMutation(operation);
        return JSON.stringify({
          _id: tx.insert(args["table"] as string, args["value"] as JSONValue),
        });
      case "1.0/shallowMerge":
        this.requireMutation(operation);
        tx.patch(this.idOf(args), args["value"] as JSONValue);
        return "null";
      case "1.0/replace":
        this.requireMutation(operation);
        tx.replace(this.idOf(args), args["value"] as JSONValue);
        return "null";
      case "1.0/remove":
        this.requireMutation(operation);
        tx.remove(this.idOf(args));
        return "null";
      case "1.0/db/normalizeId":
        return this.normalizeId(args["table"] as string, args["idString"] as string);
      case "1.0/getSnapshotTs":
        return JSON.stringify(int64(this.frame.ts));
      case "1.0/getUserIdentity":
        return JSON.stringify(this.frame.identity.attributes);
      case "1.0/getFunctionMetadata":
        return JSON.stringify({ name: this.frame.function.path, componentPath: "" });
      case "1.0/createFunctionHandle":
        return JSON.stringify(functionHandle(addressed(args)));
      case "1.0/runUdf":
        return this.runUdf(args);
      case "1.0/schedule":
        return this.schedule(args);
      case "1.0/cancel_job":
        this.requireMutation(operation);
        cancelJob(tx, args["id"] as string, this.frame.nowMs);
        return "null";
      default:
        throw unsupported(operation);
    }
  }

  private openStream(query: SerializedQuery): string {
    this.nextStream += 1;
    this.streams.set(this.nextStream, new QueryStream(this.frame.tx, query));
    return JSON.stringify({ queryId: this.nextStream });
  }

  private streamNext(queryId: number): string {
    const stream = this.streams.get(queryId);
    if (stream === undefined) throw new FunctionError("The query is closed");
    const document = stream.next();
    return document === null ? '{"value":null,"done":true}' : `{"value":${document},"done":false}`;
  }

  private page(request: PageRequest): string {
    if (this.frame.journalAfter !== null) {
      throw new FunctionError(
        "This query or mutation function ran multiple paginated queries. Convex only supports a " +
          "single paginated query in each function.",
      );
    }
    const page = readPage(this.frame.tx, request, this.frame.journalBefore);
    this.frame.journalAfter = page.continueCursor;
    const { documents, ...rest } = page;
    return `{"page":[${documents.join(",")}],${JSON.stringify(rest).slice(1)}`;
  }

  private get(args: Args): string {
    const id = this.idOf(args);
    const table = this.frame.tx.tableOfId(id);
    if (table !== null && table.startsWith("_") !== (args["isSystem"] === true)) {
      throw new FunctionError(
        table.startsWith("_")
          ? "System tables can only be accessed with db.system."
          : "User tables cannot be accessed with db.system.",
      );
    }
    return this.frame.tx.get(id) ?? "null";
  }

  private idOf(args: Args): string {
    const { id, table } = args;
    if (typeof id !== "string") throw new FunctionError("The id must be a string");
    if (typeof table === "string") {
      const found = this.frame.tx.tableOfId(id);
      if (found !== null && found !== table) {
        throw new FunctionError(
          `The ID "${id}" is from table \`${found}\`, which is not the given table \`${table}\`.`,
        );
      }
    }
    return id;
  }

  private count(table: string): string {
    const { tx } = this.frame;
    const { store } = tx;
    const counted = store.ensureTable(table);
    const index = counted.indexes.get("by_id");
    if (index !== undefined) tx.startRange(index, Buffer.alloc(0), null);
    return String(store.count(counted));
  }

  private normalizeId(table: string, id: string): string {
    return JSON.stringify({ id: this.frame.tx.tableOfId(id) === table ? id : null });
  }

  private runUdf(args: Args): string {
    const type = args["udfType"];
    if (type === "snapshotQuery") {
      throw new FunctionError("convex-local has no stale snapshots (`useStaleSnapshot`)");
    }
    if (type !== "query" && type !== "mutation") {
      throw new FunctionError(
        `Only queries and mutations can be called, got ${JSON.stringify(type)}`,
      );
    }
    if (type === "mutation" && this.frame.function.type === "query") {
      throw new FunctionError("Cannot call a Mutation function from a Query function");
    }
    return this.frame.runNested(addressed(args), type, args["args"] as JSONValue);
  }

  private schedule(args: Args): string {
    this.requireMutation("1.0/schedule");
    const path = schedulable(args, (name) => this.frame.find(name));
    return JSON.stringify(
      scheduleJob(this.frame.tx, path, args["args"] as JSONValue, (args["ts"] as number) * 1000),
    );
  }

  private requireMutation(operation: string): void {
    if (this.frame.function.type !== "mutation") {
      throw new FunctionError(`${operation} can only be called in a mutation`);
    }
  }
}

/** Canonical path of a function that can be scheduled. */
export function schedulable(args: Args, find: (path: string) => ProjectFunction | null): string {
  const path = addressed(args);
  const found = find(path);
  if (found === null) {
    throw new FunctionError(`Attempted to schedule function at nonexistent path: ${path}`);
  }
  if (found.type === "query") {
    throw new FunctionError(`Attempted to schedule ${path}, which is a Query`);
  }
  return path;
}
