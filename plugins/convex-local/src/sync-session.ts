/**
 * One client's side of the sync protocol: its queries, its identity, its mutations.
 *
 * Follows `crates/sync/src/worker.rs` and `state.rs` of the backend. What clients rely on:
 * - messages take effect strictly in order, a token check included;
 * - mutations run one after another, with the identity of the moment they arrived; actions at once;
 * - a Transition follows every response, at or past its timestamp, and never overtakes it: clients
 *   finish a mutation only then, and drop its optimistic update at the same moment;
 * - all queries are valid at the timestamp of the Transition that carries them;
 * - after an error nothing more is processed: the client sends it all again.
 */
import { ApiError, badRequest, refuseComponents, serverError, toApiError } from "./api-error.ts";
import { NOBODY } from "./auth.ts";
import type { Authenticated, Authenticator, Token } from "./auth.ts";
import type { Backend } from "./backend.ts";
import { afterRun, beforeRun, NoAnswer, rollback } from "./faults.ts";
import type { Faults } from "./faults.ts";
import { exportValue } from "./format.ts";
import { parseClientMessage } from "./sync-protocol.ts";
import type { AddQuery, ClientMessage, FunctionCall, ServerMessage } from "./sync-protocol.ts";
import { QuerySet } from "./sync-queries.ts";
import type { QueryModification } from "./sync-queries.ts";
import { decodeTs, encodeTs } from "./timestamps.ts";
import type { Commit, Identity, Outcome } from "./types.ts";

/** OPERATION_QUEUE_BUFFER_SIZE of the backend. */
const MAX_PENDING = 1000;

/** Rounds of reruns in one Transition; writers faster than that get it one commit stale. */
const MAX_ROUNDS = 20;

/** The connection, as the session sees it. */
export interface Transport {
  send(message: ServerMessage): void;
  /** Resolves once the client has taken most of what was sent. */
  drained(): Promise<void>;
  close(code: number | null, reason: string): void;
  /** Ends the connection without a word. */
  terminate(): void;
}

export class SyncSession {
  readonly #backend: Backend;
  readonly #auth: Authenticator;
  readonly #faults: Faults;
  readonly #transport: Transport;
  readonly #stopListening: () => void;

  #ended = false;
  #sessionId: string | null = null;
  #clientClockSkew: number | null = null;
  #who: Authenticated = NOBODY;

  /** What the client has asked for, and what the last Transition told it. */
  #received = { querySet: 0, identity: 0 };
  #version = { querySet: 0, identity: 0, ts: 0n };
  #modifications: QueryModification[] = [];
  readonly #queries = new QuerySet((...call) => this.#runQuery(...call));

  #inbox: Promise<void> = Promise.resolve();
  #mutations: Promise<void> = Promise.resolve();
  #pendingMutations = 0;
  #pendingActions = 0;

  /** Own mutations that are committed and not answered yet. */
  #unanswered = 0;
  #onAnswered: (() => void) | null = null;

  #updateScheduled = false;
  #updating = false;

  constructor(parts: {
    backend: Backend;
    auth: Authenticator;
    faults: Faults;
    transport: Transport;
  }) {
    this.#backend = parts.backend;
    this.#auth = parts.auth;
    this.#faults = parts.faults;
    this.#transport = parts.transport;
    this.#stopListening = parts.backend.onCommit((commit) => this.#onCommit(commit));
  }

  /** Takes one message; it is handled after the ones before it. */
  receive(text: string): void {
    this.#inbox = this.#inbox.then(async () => {
      if (this.#ended) return;
      try {
        await this.#handle(parseClientMessage(text));
      } catch (error) {
        this.#fail(error);
      }
    });
  }

  /** The connection is gone: what runs may finish, nobody is told. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#stopListening();
    this.#queries.clear();
    this.#onAnswered?.();
  }

  async #handle(message: ClientMessage): Promise<void> {
    switch (message.type) {
      case "Connect": {
        this.#connect(message);
        return;
      }
      case "ModifyQuerySet": {
        this.#modifyQuerySet(message);
        return;
      }
      case "Authenticate":
        return this.#authenticate(message);
      case "Mutation": {
        this.#enqueueMutation(message);
        return;
      }
      case "Action": {
        this.#startAction(message);
        return;
      }
      case "Event":
        return;
    }
  }

  #connect(message: ClientMessage & { type: "Connect" }): void {
    this.#sessionId = message.sessionId;
    if (typeof message.clientTs === "number") {
      this.#clientClockSkew = Math.round(message.clientTs - Date.now());
    }
    const seen = message.maxObservedTimestamp;
    if (typeof seen !== "string") return;
    if (decodeTs(seen) > this.#backend.currentTs()) {
      // It has seen writes that this database never had.
      throw new ApiError(
        "internal",
        "InternalServerError",
        "Client has observed a timestamp ahead of the latest known timestamp",
      );
    }
  }

  #modifyQuerySet(message: ClientMessage & { type: "ModifyQuerySet" }): void {
    const current = this.#received.querySet;
    if (message.baseVersion !== current || message.newVersion <= message.baseVersion) {
      throw badRequest(
        "BaseVersionMismatch",
        `Base version ${message.baseVersion} passed up doesn't match the current version ${current}`,
      );
    }
    this.#modifications.push(...message.modifications);
    this.#received.querySet = message.newVersion;
    this.#scheduleUpdate();
  }

  async #authenticate(message: ClientMessage & { type: "Authenticate" }): Promise<void> {
    let who: Authenticated;
    try {
      who = await this.#auth.authenticate(tokenOf(message));
    } catch (error) {
      const { kind, code, message: text } = toApiError(error);
      const rejected = ["unauthenticated", "forbidden", "badRequest"].includes(kind);
      throw rejected ? new ApiError("authUpdateFailed", code, text) : error;
    }
    if (message.baseVersion !== this.#received.identity) {
      throw new ApiError("internal", "InternalServerError", "Identity version mismatch");
    }
    this.#who = who;
    this.#received.identity += 1;
    this.#scheduleUpdate();
  }

  /** The identity for something that begins now. @throws ApiError once its token has expired. */
  #identity(): Identity {
    this.#auth.requireCurrent(this.#who);
    return this.#who.identity;
  }

  // ---- mutations and actions ----

  #enqueueMutation(call: FunctionCall): void {
    refuseComponents(call.componentPath);
    const identity = this.#identity();
    if (this.#pendingMutations >= MAX_PENDING) {
      throw new ApiError(
        "rateLimited",
        "TooManyConcurrentMutations",
        `Too many concurrent mutations. Only up to ${MAX_PENDING} pending mutations allowed on a ` +
          "single websocket.",
      );
    }
    this.#pendingMutations += 1;
    this.#mutations = this.#mutations.then(async () => {
      await this.#guarded(() => this.#runMutation(call, identity));
      this.#pendingMutations -= 1;
    });
  }

  async #runMutation(call: FunctionCall, identity: Identity): Promise<void> {
    const { requestId, udfPath: path, args } = call;
    const fault = this.#faults.take(path, "mutation");
    beforeRun(fault);
    const commit = { done: false };
    try {
      const { outcome, ts } = await this.#backend.runMutation({
        path,
        args,
        identity,
        ...(this.#sessionId === null ? {} : { request: { sessionId: this.#sessionId, requestId } }),
        afterCommit: () => {
          commit.done = true;
          this.#unanswered += 1;
        },
        ...rollback(fault),
      });
      this.#faults.record(path, outcome);
      await afterRun(fault);
      const answered = outcome.status === "success" ? (ts ?? this.#backend.currentTs()) : null;
      this.#send({
        type: "MutationResponse",
        ts: answered === null ? null : encodeTs(answered),
        ...response(requestId, outcome),
      });
    } finally {
      if (commit.done) {
        this.#unanswered -= 1;
        if (this.#unanswered === 0) this.#onAnswered?.();
      }
    }
    this.#scheduleUpdate();
  }

  async #answered(): Promise<void> {
    await new Promise<void>((resolve) => (this.#onAnswered = resolve));
    this.#onAnswered = null;
  }

  #startAction(call: FunctionCall): void {
    refuseComponents(call.componentPath);
    const identity = this.#identity();
    if (this.#pendingActions > MAX_PENDING) {
      throw new ApiError(
        "rateLimited",
        "TooManyInflightActionsForSingleClient",
        `Inflight actions overloaded for a single client, max concurrency: ${MAX_PENDING}`,
      );
    }
    this.#pendingActions += 1;
    void this.#guarded(() => this.#runAction(call, identity)).then(() => {
      this.#pendingActions -= 1;
    });
  }

  async #runAction(call: FunctionCall, identity: Identity): Promise<void> {
    const { requestId, udfPath: path, args } = call;
    const fault = this.#faults.take(path, "action");
    beforeRun(fault);
    const outcome = await this.#backend.runAction({ path, args, identity });
    this.#faults.record(path, outcome);
    await afterRun(fault);
    this.#send({ type: "ActionResponse", ...response(requestId, outcome) });
    this.#scheduleUpdate();
  }

  /** Runs a piece of work; what it throws ends the session, a wished-for hang never returns. */
  async #guarded(work: () => Promise<void>): Promise<void> {
    if (this.#ended) return;
    try {
      await work();
    } catch (error) {
      if (error instanceof NoAnswer && error.kind === "hang") await new Promise(() => {});
      this.#fail(error);
    }
  }

  // ---- queries ----

  #onCommit(commit: Commit): void {
    if (this.#queries.invalidateTouched(commit)) this.#scheduleUpdate();
  }

  #scheduleUpdate(): void {
    this.#updateScheduled = true;
    if (this.#updating || this.#ended) return;
    this.#updating = true;
    // After the messages that arrived together, so that one Transition answers them all.
    setImmediate(() => {
      void this.#guarded(() => this.#updates());
    });
  }

  async #updates(): Promise<void> {
    while (this.#updateScheduled && !this.#ended) {
      await this.#transport.drained();
      this.#updateScheduled = false;
      await this.#update();
    }
    this.#updating = false;
  }

  /** Computes and sends one Transition. */
  async #update(): Promise<void> {
    const identity = this.#identity();
    const { querySet, identity: identityVersion } = this.#received;
    const modifications = this.#queries.apply(this.#modifications.splice(0));
    if (identityVersion !== this.#version.identity) this.#queries.invalidateAll();
    for (let round = 0; ;) {
      if (this.#ended) return;
      if (round < MAX_ROUNDS && (await this.#queries.refresh(identity))) round += 1;
      else if (this.#unanswered > 0) await this.#answered();
      else break;
    }
    // What stayed stale after the last round has its turn in the next Transition.
    if (this.#queries.hasStale) this.#updateScheduled = true;
    modifications.push(...this.#queries.takeNews());
    const { ts: startTs, ...start } = this.#version;
    this.#version = { querySet, identity: identityVersion, ts: this.#backend.currentTs() };
    const { ts, ...end } = this.#version;
    this.#send({
      type: "Transition",
      startVersion: { ...start, ts: encodeTs(startTs) },
      endVersion: { ...end, ts: encodeTs(ts) },
      modifications,
      clientClockSkew: this.#clientClockSkew,
      serverTs: Date.now() * 1_000_000,
    });
  }

  async #runQuery(request: AddQuery, identity: Identity, journal: string | null) {
    const { udfPath: path, args } = request;
    const fault = this.#faults.take(path, "query");
    beforeRun(fault);
    const result = await this.#backend.runQuery({ path, args, identity, journal });
    this.#faults.record(path, result.outcome);
    await afterRun(fault);
    return result;
  }

  // ---- the end ----

  #send(message: ServerMessage): void {
    if (!this.#ended) this.#transport.send(message);
  }

  #fail(error: unknown): void {
    if (this.#ended) return;
    if (error instanceof NoAnswer) {
      this.end();
      this.#transport.terminate();
      return;
    }
    if (!(error instanceof ApiError)) {
      const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
      process.stderr.write(`convex-local: ${text}\n`);
    }
    const { kind, code, message, closeCode, isFatal } = toApiError(error);
    if (kind === "unauthenticated" || kind === "authUpdateFailed") {
      this.#send({
        type: "AuthError",
        error: message,
        baseVersion: this.#version.identity,
        authUpdateAttempted: kind === "authUpdateFailed",
      });
    } else if (isFatal) {
      this.#send({ type: "FatalError", error: message });
    }
    this.end();
    this.#transport.close(closeCode, code);
  }
}

function tokenOf(message: ClientMessage & { type: "Authenticate" }): Token {
  switch (message.tokenType) {
    case "None":
      return { type: "none" };
    case "User":
      return { type: "user", jwt: message.value };
    case "Admin": {
      const actingAs = message.impersonating ?? message.acting_as;
      return actingAs === undefined || actingAs === null
        ? { type: "admin", key: message.value }
        : { type: "admin", key: message.value, actingAs };
    }
  }
}

function response(requestId: number, outcome: Outcome) {
  const { logLines } = outcome;
  if (outcome.status === "success") {
    return { requestId, success: true, result: exportValue(outcome.value, "encoded"), logLines };
  }
  const { errorMessage, errorData } = outcome;
  return {
    requestId,
    success: false,
    result: serverError(errorMessage),
    ...(errorData === undefined ? {} : { errorData: exportValue(errorData, "encoded") }),
    logLines,
  };
}
