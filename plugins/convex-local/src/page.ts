/**
 * Pages of a query (`.paginate`), with cursors that a rerun can hold on to.
 *
 * A subscribed page keeps its end: the journal of its first run names the last document, and a
 * rerun reads up to there instead of `numItems`, so that neighbouring pages never overlap or gap.
 */
import { createHash } from "node:crypto";
import { FunctionError } from "./errors.ts";
import { MAX_BYTES_READ, MAX_DOCUMENTS_READ, SOFT_MAX_PAGE_LENGTH, softLimit } from "./limits.ts";
import { QueryStream, type SerializedQuery } from "./query.ts";
import type { Transaction } from "./transaction.ts";

export interface PageRequest {
  query: SerializedQuery;
  cursor: string | null;
  endCursor: string | null;
  pageSize: number;
  maximumRowsRead: number | null;
  maximumBytesRead?: number | null;
}

export interface Page {
  /** JSON of the documents. */
  documents: string[];
  isDone: boolean;
  continueCursor: string;
  splitCursor: string | null;
  pageStatus: "SplitRecommended" | "SplitRequired" | null;
}

/** Key of the last document before the cursor; null for the end of the query. */
type Position = Buffer | null;

export function readPage(tx: Transaction, request: PageRequest, journal: string | null): Page {
  checkRequest(request);
  const { pageSize } = request;
  const fingerprint = fingerprintOf(request.query);
  const start = request.cursor === null ? undefined : decodeCursor(request.cursor, fingerprint);
  const endCursor = request.endCursor ?? journal;
  const end = endCursor === null ? undefined : decodeCursor(endCursor, fingerprint);
  if (start === null) return emptyPage(fingerprint);

  const stream = new QueryStream(tx, request.query, {
    ...(start === undefined ? {} : { after: start }),
    ...(end === undefined || end === null ? {} : { through: end }),
  });
  const documents: string[] = [];
  const positions: Buffer[] = [];
  const full = (): boolean => end === undefined && documents.length >= pageSize;
  let pageStatus: Page["pageStatus"] = null;
  let done = false;
  while (!full()) {
    if (end === undefined && isOverBudget(stream, request)) {
      pageStatus = "SplitRequired";
      break;
    }
    const budget = end === undefined ? budgetOf(stream, request) : Infinity;
    const document = stream.nextWithin(budget);
    if (document === undefined) continue;
    if (document === null) {
      done = true;
      break;
    }
    documents.push(document);
    positions.push(stream.position as Buffer);
  }
  if (pageStatus === null && isLarge(stream, documents, request)) pageStatus = "SplitRecommended";
  const position = end !== undefined ? end : done ? null : stream.position;
  const middle = positions.length > 2 ? positions[Math.floor(positions.length / 2)] : undefined;
  return {
    documents,
    isDone: position === null,
    continueCursor: encodeCursor(position, fingerprint),
    splitCursor: middle === undefined ? null : encodeCursor(middle, fingerprint),
    pageStatus,
  };
}

function checkRequest({ pageSize, maximumRowsRead, maximumBytesRead }: PageRequest): void {
  if (pageSize < 1) throw new FunctionError("Must request at least 1 document while paginating");
  if (pageSize > MAX_DOCUMENTS_READ) {
    throw new FunctionError(`Requested too many items: ${pageSize}`);
  }
  if (maximumRowsRead === 0 || maximumBytesRead === 0) {
    throw new FunctionError("maximumRowsRead and maximumBytesRead must be greater than 0");
  }
}

const isOverBudget = (stream: QueryStream, request: PageRequest): boolean =>
  stream.rowsRead >= (request.maximumRowsRead ?? Infinity) ||
  stream.bytesRead >= (request.maximumBytesRead ?? Infinity);

/** Documents that may still be looked at; one at a time when bytes are limited. */
const budgetOf = (stream: QueryStream, request: PageRequest): number =>
  request.maximumBytesRead == null ? (request.maximumRowsRead ?? Infinity) - stream.rowsRead : 1;

const isLarge = (stream: QueryStream, documents: string[], request: PageRequest): boolean =>
  documents.length > SOFT_MAX_PAGE_LENGTH ||
  stream.rowsRead >
    softLimit(Math.min(request.maximumRowsRead ?? MAX_DOCUMENTS_READ, MAX_DOCUMENTS_READ)) ||
  stream.bytesRead >
    softLimit(Math.min(request.maximumBytesRead ?? MAX_BYTES_READ, MAX_BYTES_READ));

const emptyPage = (fingerprint: string): Page => ({
  documents: [],
  isDone: true,
  continueCursor: encodeCursor(null, fingerprint),
  splitCursor: null,
  pageStatus: null,
});

// A cursor belongs to one query: the same range, order and filters.
const fingerprintOf = (query: SerializedQuery): string =>
  createHash("sha256").update(JSON.stringify(query)).digest("base64url").slice(0, 16);

const encodeCursor = (position: Position, fingerprint: string): string =>
  `${fingerprint}.${position === null ? "end" : `k${position.toString("base64url")}`}`;

function decodeCursor(cursor: string, fingerprint: string): Position {
  const [owner, position] = cursor.split(".");
  if (owner !== fingerprint || position === undefined) {
    throw new FunctionError(
      "InvalidCursor: Tried to run a query starting from a cursor, but it looks like this " +
        "cursor is from a different query.",
      // React's usePaginatedQuery starts over when it sees this.
      { isConvexSystemError: true, paginationError: "InvalidCursor" },
    );
  }
  return position === "end" ? null : Buffer.from(position.slice(1), "base64url");
}
