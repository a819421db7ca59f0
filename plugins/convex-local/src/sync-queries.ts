/** The queries one client subscribes to: which are stale, and what it was last told of each. */
import { badRequest, refuseComponents, serverError } from "./api-error.ts";
import { exportValue } from "./format.ts";
import type { AddQuery, StateModification } from "./sync-protocol.ts";
import type { Commit, Identity, QueryOutcome } from "./types.ts";

export type QueryModification = AddQuery | { type: "Remove"; queryId: number };

/** Runs the function of one query. */
export type RunQuery = (
  request: AddQuery,
  identity: Identity,
  journal: string | null,
) => Promise<QueryOutcome>;

interface Query {
  request: AddQuery;
  journal: string | null;
  result: QueryOutcome | null;
  /** What the client was last sent, to leave out what is equal. */
  sent: string | null;
  stale: boolean;
  /** Commits since the current run began; null while it is not running. */
  meanwhile: Commit[] | null;
}

export class QuerySet {
  readonly #queries = new Map<number, Query>();
  readonly #run: RunQuery;
  /** Queries that ran since the client was last told. */
  #ran = new Set<Query>();

  constructor(run: RunQuery) {
    this.#run = run;
  }

  /**
   * Adds and removes queries.
   *
   * @returns What the client is to be told of the removed ones.
   * @throws ApiError 400 when an id is taken, or not there.
   */
  apply(modifications: QueryModification[]): StateModification[] {
    const removed: StateModification[] = [];
    for (const modification of modifications) {
      const { queryId } = modification;
      const known = this.#queries.get(queryId);
      if (modification.type === "Remove") {
        if (known === undefined) throw badRequest("BadQueryId", `Nonexistent query id: ${queryId}`);
        this.#queries.delete(queryId);
        this.#ran.delete(known);
        removed.push({ type: "QueryRemoved", queryId });
        continue;
      }
      if (known !== undefined) throw badRequest("BadQueryId", `Duplicate query ID: ${queryId}`);
      refuseComponents(modification.componentPath);
      this.#queries.set(queryId, {
        request: modification,
        journal: modification.journal ?? null,
        result: null,
        sent: null,
        stale: true,
        meanwhile: null,
      });
    }
    return removed;
  }

  /** The caller is another now, so every result may be. */
  invalidateAll(): void {
    for (const query of this.#queries.values()) query.stale = true;
  }

  /** @returns Whether the commit made a query stale. */
  invalidateTouched(commit: Commit): boolean {
    let any = false;
    for (const query of this.#queries.values()) {
      query.meanwhile?.push(commit);
      if (query.stale || query.result === null) continue;
      if (!commit.touches(query.result.readSet)) continue;
      query.stale = true;
      any = true;
    }
    return any;
  }

  /**
   * Runs what is stale, once each; a commit of that time may leave some of it stale again.
   *
   * @returns Whether there was any.
   */
  async refresh(identity: Identity): Promise<boolean> {
    const stale = [...this.#queries.values()].filter((query) => query.stale);
    for (const query of stale) {
      query.stale = false;
      query.meanwhile = [];
      const result = await this.#run(query.request, identity, query.journal);
      const { meanwhile } = query;
      query.meanwhile = null;
      query.result = result;
      query.journal = result.journal;
      query.stale = meanwhile.some(
        (commit) => commit.ts > result.ts && commit.touches(result.readSet),
      );
      this.#ran.add(query);
    }
    return stale.length > 0;
  }

  get hasStale(): boolean {
    return [...this.#queries.values()].some((query) => query.stale);
  }

  /** What the client does not know yet of the queries that ran; it is told now. */
  takeNews(): StateModification[] {
    const news = [...this.#ran].flatMap((query) => takeNews(query));
    this.#ran = new Set();
    return news;
  }

  clear(): void {
    this.#queries.clear();
    this.#ran.clear();
  }
}

function takeNews(query: Query): StateModification[] {
  if (query.result === null) return [];
  const { outcome, journal } = query.result;
  const { queryId } = query.request;
  const { logLines } = outcome;
  if (outcome.status === "success") {
    const { value } = outcome;
    return isNews(query, ["value", value])
      ? [{ type: "QueryUpdated", queryId, value: exportValue(value, "encoded"), logLines, journal }]
      : [];
  }
  const { errorMessage, errorData } = outcome;
  if (!isNews(query, ["error", errorMessage, errorData ?? null])) return [];
  return [
    {
      type: "QueryFailed",
      queryId,
      errorMessage: serverError(errorMessage),
      ...(errorData === undefined ? {} : { errorData: exportValue(errorData, "encoded") }),
      logLines,
      journal,
    },
  ];
}

function isNews(query: Query, result: unknown): boolean {
  const digest = JSON.stringify(result);
  if (digest === query.sent) return false;
  query.sent = digest;
  return true;
}
