/**
 * Errors that are the deployment's answer instead of a function's: an HTTP status with
 * `{code, message}`, or the end of a WebSocket.
 *
 * Names, codes and statuses follow the open source backend, `crates/errors/src/lib.rs`.
 */
import { randomBytes } from "node:crypto";

/** What the client is to make of it; decides the HTTP status and how a WebSocket ends. */
export type ApiErrorKind =
  | "badRequest"
  | "unauthenticated"
  | "authUpdateFailed"
  | "forbidden"
  | "notFound"
  | "rateLimited"
  | "overloaded"
  | "occ"
  | "internal";

const STATUS: Record<ApiErrorKind, number> = {
  badRequest: 400,
  unauthenticated: 401,
  authUpdateFailed: 401,
  forbidden: 403,
  notFound: 404,
  rateLimited: 429,
  overloaded: 503,
  occ: 503,
  internal: 500,
};

/** WebSocket close codes: 1000 normal, 1011 error, 1013 try again; none for a client's mistake. */
const CLOSE_CODE: Record<ApiErrorKind, number | null> = {
  badRequest: null,
  unauthenticated: null,
  authUpdateFailed: null,
  forbidden: 1000,
  notFound: 1000,
  rateLimited: 1013,
  overloaded: 1013,
  occ: 1013,
  internal: 1011,
};

/** Kinds after which a client must not simply try again. */
const FATAL = new Set<ApiErrorKind>(["badRequest", "forbidden"]);

export class ApiError extends Error {
  override name = "ApiError";
  readonly kind: ApiErrorKind;
  /** Short name in ScreamingCamelCase: `code` in JSON, the reason of a closed WebSocket. */
  readonly code: string;

  constructor(kind: ApiErrorKind, code: string, message: string) {
    super(message);
    this.kind = kind;
    this.code = code;
  }

  get status(): number {
    return STATUS[this.kind];
  }

  get closeCode(): number | null {
    return CLOSE_CODE[this.kind];
  }

  get isFatal(): boolean {
    return FATAL.has(this.kind);
  }
}

/** A mistake in the request itself. */
export function badRequest(code: string, message: string): ApiError {
  return new ApiError("badRequest", code, message);
}

/** Whatever was thrown, as something that may be told to a client. */
export function toApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  return new ApiError(
    "internal",
    "InternalServerError",
    "Your request couldn't be completed. Try again later.",
  );
}

/** The answer of a mutation that lost against other writes on every retry. */
export function occFailure(): ApiError {
  return new ApiError(
    "occ",
    "OptimisticConcurrencyControlFailure",
    "Documents read from or written to some table changed while this mutation was being run and " +
      "on every subsequent retry. See https://docs.convex.dev/error#1",
  );
}

/** The answer of a deployment that has no room for another request. */
export function tooManyRequests(): ApiError {
  return new ApiError(
    "overloaded",
    "TooManyConcurrentRequests",
    "Too many concurrent requests. Your request couldn't be completed. Try again later.",
  );
}

/** @throws ApiError 400 for a function of a component. */
export function refuseComponents(path: unknown): void {
  if (path === undefined || path === null || path === "") return;
  throw badRequest("ComponentsUnsupported", "convex-local runs no components.");
}

/** What a caller reads of a function's error: a development deployment tells it in full. */
export function serverError(message: string): string {
  return `[Request ID: ${randomBytes(8).toString("hex")}] Server Error\n${message}`;
}
