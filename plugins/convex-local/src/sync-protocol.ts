/**
 * Messages of the sync protocol: their types, how a client's are read, how ours are cut.
 *
 * Follows `crates/convex/sync_types/src/types/json.rs` of the backend.
 */
import { Buffer } from "node:buffer";
import { badRequest } from "./api-error.ts";
import type { JSONValue } from "./types.ts";
import { compareVersions, parseClientVersion } from "./versions.ts";

export interface AddQuery {
  type: "Add";
  queryId: number;
  udfPath: string;
  args: JSONValue;
  journal?: string | null;
  componentPath?: string;
}

export interface FunctionCall {
  requestId: number;
  udfPath: string;
  args: JSONValue;
  componentPath?: string;
}

export type ClientMessage =
  | {
      type: "Connect";
      sessionId: string;
      connectionCount: number;
      lastCloseReason?: string | null;
      maxObservedTimestamp?: string | null;
      clientTs?: number | null;
    }
  | {
      type: "ModifyQuerySet";
      baseVersion: number;
      newVersion: number;
      modifications: (AddQuery | { type: "Remove"; queryId: number })[];
    }
  | ({ type: "Mutation" } & FunctionCall)
  | ({ type: "Action" } & FunctionCall)
  | { type: "Authenticate"; baseVersion: number; tokenType: "None" }
  | { type: "Authenticate"; baseVersion: number; tokenType: "User"; value: string }
  | {
      type: "Authenticate";
      baseVersion: number;
      tokenType: "Admin";
      value: string;
      impersonating?: JSONValue;
      acting_as?: JSONValue;
    }
  | { type: "Event"; eventType: string; event: JSONValue };

export interface Version {
  querySet: number;
  identity: number;
  ts: string;
}

/** A value as it goes out, see `exportValue`. */
type WireValue = unknown;

export type StateModification =
  | {
      type: "QueryUpdated";
      queryId: number;
      value: WireValue;
      logLines: string[];
      journal: string | null;
    }
  | {
      type: "QueryFailed";
      queryId: number;
      errorMessage: string;
      errorData?: WireValue;
      logLines: string[];
      journal: string | null;
    }
  | { type: "QueryRemoved"; queryId: number };

interface Response {
  requestId: number;
  success: boolean;
  /** The value, or the message of the error. */
  result: WireValue;
  errorData?: WireValue;
  logLines: string[];
}

export type ServerMessage =
  | {
      type: "Transition";
      startVersion: Version;
      endVersion: Version;
      modifications: StateModification[];
      /** Milliseconds the client's clock is ahead, as it was when it connected. */
      clientClockSkew: number | null;
      /** Nanoseconds; a number, so it is only good to a few hundred of them. */
      serverTs: number;
    }
  | ({ type: "MutationResponse"; ts: string | null } & Response)
  | ({ type: "ActionResponse" } & Response)
  | { type: "AuthError"; error: string; baseVersion: number; authUpdateAttempted: boolean }
  | { type: "FatalError"; error: string }
  | {
      type: "TransitionChunk";
      chunk: string;
      partNumber: number;
      totalParts: number;
      transitionId: string;
    }
  | { type: "Ping" };

type Shape = Record<string, "string" | "number" | "array">;

const SHAPES: Record<string, Shape> = {
  Connect: { sessionId: "string", connectionCount: "number" },
  ModifyQuerySet: { baseVersion: "number", newVersion: "number", modifications: "array" },
  Mutation: { requestId: "number", udfPath: "string", args: "array" },
  Action: { requestId: "number", udfPath: "string", args: "array" },
  Authenticate: { baseVersion: "number", tokenType: "string" },
  Event: { eventType: "string" },
  Add: { queryId: "number", udfPath: "string" },
  Remove: { queryId: "number" },
};

const MESSAGE_TYPES = ["Connect", "ModifyQuerySet", "Mutation", "Action", "Authenticate", "Event"];

const SESSION_ID = /^[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$/i;

/** @throws ApiError 400 for what is no message. */
export function parseClientMessage(text: string): ClientMessage {
  const wrong = (reason: string) =>
    badRequest("WSMessageInvalidJson", `Received Invalid JSON on websocket: ${reason}`);
  let message: unknown;
  try {
    message = JSON.parse(text);
  } catch (error) {
    throw wrong((error as Error).message);
  }
  const problem = shapeProblem(message, MESSAGE_TYPES);
  if (problem !== null) throw wrong(problem);
  const checked = message as ClientMessage;
  if (checked.type === "Connect" && !SESSION_ID.test(checked.sessionId)) {
    throw wrong("sessionId is not a UUID");
  }
  if (checked.type === "ModifyQuerySet") {
    for (const modification of checked.modifications) {
      const inside = shapeProblem(modification, ["Add", "Remove"]);
      if (inside !== null) throw wrong(inside);
    }
  }
  if (checked.type === "Authenticate" && checked.tokenType !== "None") {
    if (!["User", "Admin"].includes(checked.tokenType)) throw wrong("unknown tokenType");
    if (typeof checked.value !== "string") throw wrong("missing field `value`");
  }
  return checked;
}

function shapeProblem(value: unknown, types: string[]): string | null {
  if (value === null || typeof value !== "object") return "expected an object";
  const given = value as Record<string, unknown>;
  const type = String(given["type"]);
  const shape = types.includes(type) ? SHAPES[type] : undefined;
  if (shape === undefined) return `unknown type \`${type}\``;
  for (const [field, wanted] of Object.entries(shape)) {
    const actual = Array.isArray(given[field]) ? "array" : typeof given[field];
    if (actual !== wanted) return `field \`${field}\` of ${type} must be: ${wanted}`;
  }
  return null;
}

/** Largest Transition sent in one piece to a client that understands pieces, in bytes. */
const MAX_MESSAGE_BYTES = 5_000_000;

/**
 * The frames of one message.
 *
 * @param supportsChunks - The npm client's own extension; others take a chunk for a broken message.
 */
export function encodeServerMessage(message: ServerMessage, supportsChunks: boolean): string[] {
  const text = JSON.stringify(message);
  if (!supportsChunks || message.type !== "Transition" || text.length * 3 <= MAX_MESSAGE_BYTES) {
    return [text];
  }
  const bytes = Buffer.from(text);
  if (bytes.length <= MAX_MESSAGE_BYTES) return [text];
  const chunks: string[] = [];
  for (let start = 0; start < bytes.length;) {
    let end = Math.min(start + MAX_MESSAGE_BYTES, bytes.length);
    // Back to the first byte of a character.
    while (((bytes[end] ?? 0) & 0xc0) === 0x80) end -= 1;
    chunks.push(bytes.toString("utf8", start, end));
    start = end;
  }
  return chunks.map((chunk, partNumber) =>
    JSON.stringify({
      type: "TransitionChunk",
      chunk,
      partNumber,
      totalParts: chunks.length,
      transitionId: String(bytes.length),
    } satisfies ServerMessage),
  );
}

/** MIN_NPM_VERSION_FOR_TRANSITION_CHUNKS of the backend. */
const FIRST_WITH_CHUNKS = "1.28.0";

/** Whether the client, as its header or (npm only) the path names it, joins chunks. */
export function supportsChunks(header: string | null, pathVersion: string | null): boolean {
  const client = parseClientVersion(header ?? (pathVersion === null ? null : `npm-${pathVersion}`));
  return client?.client === "npm" && compareVersions(client.version, FIRST_WITH_CHUNKS) >= 0;
}
