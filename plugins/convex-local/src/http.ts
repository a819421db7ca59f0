/**
 * The HTTP API of a deployment: functions, versions, faults; upgrades to the sync protocol.
 *
 * Follows `crates/local_backend/src/public_api.rs` and `router.rs` of the backend. A function that
 * fails is HTTP 200 with `status: "error"`; any other status is the deployment's own answer.
 */
import { Buffer } from "node:buffer";
import { createServer } from "node:http";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { Duplex } from "node:stream";
import { promisify } from "node:util";
import { brotliDecompress, gunzip } from "node:zlib";
import { ApiError, badRequest, toApiError } from "./api-error.ts";
import { Authenticator, tokenFromRequest } from "./auth.ts";
import type { Authenticated } from "./auth.ts";
import type { Backend } from "./backend.ts";
import { codegenRoutes } from "./codegen.ts";
import { afterRun, beforeRun, NoAnswer, rollback } from "./faults.ts";
import type { Faults } from "./faults.ts";
import { chooseFormat, exportValue } from "./format.ts";
import { decodeTs, encodeTs } from "./timestamps.ts";
import type { FunctionType, JSONValue, Outcome, Usage } from "./types.ts";

/** MAX_BACKEND_PUBLIC_API_REQUEST_SIZE of the backend: 16 MiB of arguments and room for the rest. */
const MAX_BODY_BYTES = 16 * 1024 * 1024 + 2000;
/** Code pushes are compressed and larger; only `convex codegen` sends them here. */
const MAX_PUSH_BYTES = 64 * 1024 * 1024;

/** A WebSocket upgrade, already matched to the sync path. */
export type Upgrade = (
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
  clientVersion: string | null,
) => void;

export interface HttpApp {
  backend: Backend;
  auth: Authenticator;
  faults: Faults;
  onSyncUpgrade: Upgrade;
}

/** One request on its way through a route. */
export interface Call {
  app: HttpApp;
  request: IncomingMessage;
  url: URL;
  /** Whom the Authorization header names; checked before any function runs. */
  caller(): Promise<Authenticated>;
  /** @throws ApiError 401 or 403 unless the admin key was given. */
  requireAdmin(): Promise<void>;
  /** The body as JSON. @throws ApiError 400. */
  body(): Promise<Record<string, JSONValue | undefined>>;
}

export interface Reply {
  status?: number;
  headers?: Record<string, string>;
  /** JSON, unless it is a string: that goes out as text. */
  body: unknown;
}

export type Route = (call: Call) => Promise<Reply>;

/**
 * Listens on the loopback interface.
 *
 * Until `start` is called every request is told to come back: the address is needed before the
 * functions are loaded, since they may read it from their environment.
 */
export class HttpServer {
  readonly #server: Server;
  #app: HttpApp | null = null;

  constructor() {
    this.#server = createServer((request, response) => {
      void this.#handle(request, response);
    });
    this.#server.on("upgrade", (request, socket, head) => this.#upgrade(request, socket, head));
    // Clients keep connections alive between calls; Node's 5 s would close them in their hands.
    this.#server.keepAliveTimeout = 65_000;
  }

  /** @returns The bound address, `http://127.0.0.1:<port>`. @throws The system's error. */
  async listen(port: number): Promise<string> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once("error", reject);
      this.#server.listen({ host: "127.0.0.1", port }, () => {
        this.#server.off("error", reject);
        resolve();
      });
    });
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  start(app: HttpApp): void {
    this.#app = app;
  }

  /** Stops listening and cuts what is still open. */
  async close(): Promise<void> {
    if (!this.#server.listening) return;
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.#server.closeAllConnections();
    await closed;
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    setCors(request, response);
    try {
      if (request.method === "OPTIONS") {
        response.writeHead(200).end();
        return;
      }
      if (this.#app === null) {
        throw new ApiError("overloaded", "Starting", "The deployment is starting. Try again.");
      }
      const url = new URL(request.url ?? "/", "http://localhost");
      const reply = await route(request.method ?? "GET", url)(makeCall(this.#app, request, url));
      send(response, reply);
    } catch (error) {
      if (error instanceof NoAnswer) {
        if (error.kind === "drop_reply") request.socket.destroy();
        return;
      }
      if (!(error instanceof ApiError)) reportUnexpected(error);
      const { status, code, message } = toApiError(error);
      // What is left of an unread body would be taken for the next request.
      if (!request.complete) response.setHeader("Connection", "close");
      send(response, { status, body: { code, message } });
    }
  }

  #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    const { pathname } = new URL(request.url ?? "/", "http://localhost");
    const match = /^\/api\/(?:([^/]+)\/)?sync$/.exec(pathname);
    if (match === null || this.#app === null) {
      const status = match === null ? "404 Not Found" : "503 Service Unavailable";
      socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
      return;
    }
    this.#app.onSyncUpgrade(request, socket, head, match[1] ?? null);
  }
}

function reportUnexpected(error: unknown): void {
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  process.stderr.write(`convex-local: ${text}\n`);
}

/** As the backend: any origin, any header, with credentials. Pages of every port may call. */
function setCors(request: IncomingMessage, response: ServerResponse): void {
  const { origin } = request.headers;
  if (origin !== undefined) {
    response.setHeader("Access-Control-Allow-Origin", origin);
    response.setHeader("Access-Control-Allow-Credentials", "true");
    response.setHeader("Access-Control-Expose-Headers", "Convex-Local-Usage");
  }
  response.setHeader("Vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers");
  if (request.method !== "OPTIONS") return;
  const wanted = request.headers["access-control-request-headers"];
  if (wanted !== undefined) response.setHeader("Access-Control-Allow-Headers", wanted);
  response.setHeader("Access-Control-Allow-Methods", "GET,POST,OPTIONS,PATCH,DELETE,PUT");
  response.setHeader("Access-Control-Max-Age", "86400");
}

function send(response: ServerResponse, { status = 200, headers = {}, body }: Reply): void {
  if (response.destroyed) return;
  const isText = typeof body === "string";
  const bytes = Buffer.from(isText ? body : JSON.stringify(body));
  response
    .writeHead(status, {
      "Content-Type": isText ? "text/plain; charset=utf-8" : "application/json",
      "Content-Length": bytes.length,
      ...headers,
    })
    .end(bytes);
}

function makeCall(app: HttpApp, request: IncomingMessage, url: URL): Call {
  const caller = async () =>
    app.auth.authenticate(
      tokenFromRequest(request.headers.authorization, url.searchParams.get("adminKey")),
    );
  return {
    app,
    request,
    url,
    caller,
    requireAdmin: async () => {
      const { identity } = await caller();
      if (identity.kind === "admin") return;
      throw new ApiError("forbidden", "AdminRequired", "This needs the admin key.");
    },
    body: () => readJson(request),
  };
}

async function readJson(request: IncomingMessage): Promise<Record<string, JSONValue | undefined>> {
  const type = request.headers["content-type"] ?? "";
  if (!/^application\/(?:[\w.+-]+\+)?json\b/i.test(type)) {
    throw badRequest("BadJsonBody", "Expected request with `Content-Type: application/json`");
  }
  const encoding = request.headers["content-encoding"];
  const text = await readBody(request, encoding);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw badRequest(
      "BadJsonBody",
      `Failed to parse the request body as JSON: ${(error as Error).message}`,
    );
  }
  if (value === null || typeof value !== "object" || Array.isArray(value)) {
    throw badRequest("BadJsonBody", "Expected a JSON object as the request body.");
  }
  return value as Record<string, JSONValue | undefined>;
}

async function readBody(request: IncomingMessage, encoding: string | undefined): Promise<string> {
  const limit = encoding === undefined ? MAX_BODY_BYTES : MAX_PUSH_BYTES;
  const tooLong = () =>
    badRequest("BadJsonBody", "Failed to buffer the request body: length limit exceeded");
  if (Number(request.headers["content-length"] ?? 0) > limit) throw tooLong();
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > limit) throw tooLong();
    chunks.push(chunk);
  }
  const bytes = Buffer.concat(chunks);
  if (encoding === "br") return (await promisify(brotliDecompress)(bytes)).toString();
  if (encoding === "gzip") return (await promisify(gunzip)(bytes)).toString();
  return bytes.toString();
}

// ---- routes ----

const ROUTES: Record<string, Route> = {
  "GET /": async () => ({ body: "This is a Convex deployment, run by convex-local.\n" }),
  "GET /version": async () => ({ body: "convex-local" }),
  "GET /instance_version": async () => ({ body: "convex-local" }),
  "GET /instance_name": async () => ({ body: "convex-local" }),
  "POST /api/query": async (call) => runPosted(call, "query"),
  "GET /api/query": async (call) => {
    const { searchParams } = call.url;
    const request = {
      path: searchParams.get("path") ?? undefined,
      args: parseArgsParameter(searchParams.get("args")),
      format: searchParams.get("format") ?? undefined,
    };
    return replyWith(call, await run(call, request, "query"), request.format);
  },
  "POST /api/mutation": async (call) => runPosted(call, "mutation"),
  "POST /api/action": async (call) => runPosted(call, "action"),
  "POST /api/function": async (call) => runPosted(call, null),
  "POST /api/query_ts": async (call) => ({
    body: { ts: encodeTs(call.app.backend.currentTs()) },
  }),
  "POST /api/query_at_ts": async (call) => {
    const request = await call.body();
    decodeTs(request["ts"]);
    return replyWith(call, await run(call, request, "query"), request["format"]);
  },
  "POST /api/query_batch": queryBatch,
  "POST /_local/faults": async (call) => {
    await requireFaults(call);
    return { body: call.app.faults.add(await call.body()) };
  },
  "DELETE /_local/faults": async (call) => {
    await requireFaults(call);
    call.app.faults.clear();
    return { body: {} };
  },
  "GET /_local/calls": async (call) => {
    await requireFaults(call);
    return { body: call.app.faults.counts() };
  },
  ...codegenRoutes,
};

const PATHS = new Set(Object.keys(ROUTES).map((key) => key.split(" ")[1]!));

function route(method: string, url: URL): Route {
  const found = ROUTES[`${method} ${url.pathname}`];
  if (found !== undefined) return found;
  if (url.pathname.startsWith("/api/run/") && method === "POST") return runByPath;
  return async () => {
    if (!PATHS.has(url.pathname)) {
      throw new ApiError(
        "notFound",
        "NotFound",
        `convex-local has nothing at ${method} ${url.pathname}.`,
      );
    }
    return { status: 405, body: "" };
  };
}

async function requireFaults(call: Call): Promise<void> {
  if (!call.app.faults.enabled) {
    throw new ApiError("notFound", "FaultsDisabled", "Start convex-local with --faults for this.");
  }
  await call.requireAdmin();
}

function parseArgsParameter(text: string | null): JSONValue {
  try {
    return JSON.parse(text ?? "{}");
  } catch {
    throw badRequest("BadQueryArgs", "args must be JSON");
  }
}

interface FunctionRequest {
  path?: JSONValue | undefined;
  args?: JSONValue | undefined;
  format?: JSONValue | undefined;
  componentPath?: JSONValue | undefined;
}

async function runPosted(call: Call, type: FunctionType | null): Promise<Reply> {
  const request = await call.body();
  return replyWith(call, await run(call, request, type), request["format"]);
}

async function runByPath(call: Call): Promise<Reply> {
  const parts = call.url.pathname.slice("/api/run/".length).split("/").map(decodeURIComponent);
  if (parts.length < 2 || parts.includes("")) {
    throw badRequest(
      "MissingIdentifier",
      "Path or function name not provided in path, e.g. /api/run/messages/list",
    );
  }
  const { args, format } = await call.body();
  const path = `${parts.slice(0, -1).join("/")}:${parts.at(-1)}`;
  return replyWith(call, await run(call, { path, args, format }, null), format ?? "json");
}

async function queryBatch(call: Call): Promise<Reply> {
  const { queries } = await call.body();
  if (!Array.isArray(queries)) throw badRequest("BadJsonBody", "queries must be an array");
  const requests = queries as FunctionRequest[];
  const outcomes: Outcome[] = [];
  for (const request of requests) outcomes.push(await run(call, request, "query"));
  const client = clientVersion(call);
  return {
    headers: usageHeader(outcomes.map(({ usage }) => usage)),
    body: {
      results: outcomes.map((outcome, index) =>
        encodeOutcome(outcome, requests[index]!.format, client),
      ),
    },
  };
}

/** Runs one function as the caller. `type` null: whatever the function is. */
async function run(
  call: Call,
  { path, args, componentPath }: FunctionRequest,
  type: FunctionType | null,
): Promise<Outcome> {
  if (typeof path !== "string") throw badRequest("BadJsonBody", "missing field `path`");
  if (args === undefined) throw badRequest("BadJsonBody", "missing field `args`");
  if (componentPath !== undefined && componentPath !== null && componentPath !== "") {
    throw badRequest("ComponentsUnsupported", "convex-local runs no components.");
  }
  const { backend, faults } = call.app;
  const { identity } = await call.caller();
  const kind = type ?? backend.functionType(path) ?? "query";
  const fault = faults.take(path, kind);
  beforeRun(fault);
  const outcome = await runAs();
  faults.record(path, outcome);
  await afterRun(fault);
  return outcome;

  async function runAs(): Promise<Outcome> {
    const request = { path: path as string, args: args!, identity };
    if (kind === "query") return (await backend.runQuery(request)).outcome;
    if (kind === "action") return backend.runAction(request);
    return (await backend.runMutation({ ...request, ...rollback(fault) })).outcome;
  }
}

function clientVersion(call: Call): string | undefined {
  return call.request.headers["convex-client"] as string | undefined;
}

function replyWith(call: Call, outcome: Outcome, format: unknown): Reply {
  return {
    headers: usageHeader([outcome.usage]),
    body: encodeOutcome(outcome, format, clientVersion(call)),
  };
}

function encodeOutcome(outcome: Outcome, format: unknown, client: string | undefined): unknown {
  const wanted = chooseFormat(format, client);
  const logLines = outcome.logLines.length === 0 ? {} : { logLines: outcome.logLines };
  if (outcome.status === "success") {
    return { status: "success", value: exportValue(outcome.value, wanted), ...logLines };
  }
  const { errorMessage, errorData } = outcome;
  return {
    status: "error",
    errorMessage,
    ...(errorData === undefined ? {} : { errorData: exportValue(errorData, wanted) }),
    ...logLines,
  };
}

/** What a call used, for tests that count: sums over a batch. */
function usageHeader(usages: Usage[]): Record<string, string> {
  const sum: Usage = {
    documentsRead: 0,
    bytesRead: 0,
    documentsWritten: 0,
    bytesWritten: 0,
    ranges: 0,
  };
  for (const usage of usages) {
    for (const key of Object.keys(sum) as (keyof Usage)[]) sum[key] += usage[key];
  }
  return { "Convex-Local-Usage": JSON.stringify(sum) };
}
