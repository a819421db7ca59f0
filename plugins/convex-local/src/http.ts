/**
 * The HTTP server: connections, bodies, CORS, errors; WebSockets are handed on. What is answered
 * lies in `api.ts` and `codegen.ts`.
 */
import { Buffer } from "node:buffer";
import { createServer } from "node:http";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { Duplex } from "node:stream";
import { promisify } from "node:util";
import { brotliDecompress, gunzip } from "node:zlib";
import { ROUTES, runByPath } from "./api.ts";
import { ApiError, badRequest, toApiError } from "./api-error.ts";
import { Authenticator, tokenFromRequest } from "./auth.ts";
import type { Authenticated } from "./auth.ts";
import type { Backend } from "./backend.ts";
import { codegenRoutes } from "./codegen.ts";
import { NoAnswer } from "./faults.ts";
import type { Faults } from "./faults.ts";
import type { JSONValue } from "./types.ts";

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

export type Route = (call: Call) => Reply | Promise<Reply>;

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
      await discardBody(request);
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
  response.setHeader(
    "Vary",
    "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
  );
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

/** A client that is still writing reads no answer: it would only see its connection break. */
async function discardBody(request: IncomingMessage): Promise<void> {
  if (request.complete || request.destroyed) return;
  const over = new Promise<void>((resolve) => {
    request.once("end", resolve).once("close", resolve);
  });
  request.resume();
  await over;
}

async function readBody(request: IncomingMessage, encoding: string | undefined): Promise<string> {
  const limit = encoding === undefined ? MAX_BODY_BYTES : MAX_PUSH_BYTES;
  const tooLong = () =>
    badRequest("BadJsonBody", "Failed to buffer the request body: length limit exceeded");
  if (Number(request.headers["content-length"] ?? 0) > limit) throw tooLong();
  const chunks: Buffer[] = [];
  let length = 0;
  const body = request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>;
  for await (const chunk of body) {
    length += chunk.length;
    if (length > limit) throw tooLong();
    chunks.push(chunk);
  }
  const bytes = Buffer.concat(chunks);
  if (encoding === "br") return (await promisify(brotliDecompress)(bytes)).toString();
  if (encoding === "gzip") return (await promisify(gunzip)(bytes)).toString();
  return bytes.toString();
}

const ALL_ROUTES: Record<string, Route> = { ...ROUTES, ...codegenRoutes };
const PATHS = new Set(Object.keys(ALL_ROUTES).map((key) => key.split(" ").at(-1)));

function route(method: string, url: URL): Route {
  const found = ALL_ROUTES[`${method} ${url.pathname}`];
  if (found !== undefined) return found;
  if (url.pathname.startsWith("/api/run/") && method === "POST") return runByPath;
  return () => {
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
