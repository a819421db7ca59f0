/**
 * What the HTTP API answers: functions, versions, faults and counters.
 *
 * Follows `crates/local_backend/src/public_api.rs` of the backend. A function that fails is HTTP
 * 200 with `status: "error"`; any other status is the deployment's own answer.
 */
import { ApiError, badRequest, refuseComponents, serverError } from "./api-error.ts";
import type { Backend } from "./backend.ts";
import { afterRun, beforeRun, rollback } from "./faults.ts";
import { chooseFormat, exportValue } from "./format.ts";
import type { Call, Reply, Route } from "./http.ts";
import { decodeTs, encodeTs } from "./timestamps.ts";
import type { FunctionType, JSONValue, MutationCall, Outcome, Usage } from "./types.ts";

/** Routes by `METHOD path`. */
export const ROUTES: Record<string, Route> = {
  "GET /": () => ({ body: "This is a Convex deployment, run by convex-local.\n" }),
  "GET /version": () => ({ body: "convex-local" }),
  "GET /instance_version": () => ({ body: "convex-local" }),
  "GET /instance_name": () => ({ body: "convex-local" }),
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
  "POST /api/query_ts": (call) => ({
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
};

async function requireFaults(call: Call): Promise<void> {
  if (!call.app.faults.enabled) {
    throw new ApiError("notFound", "FaultsDisabled", "Start convex-local with --faults for this.");
  }
  await call.requireAdmin();
}

function parseArgsParameter(text: string | null): JSONValue {
  try {
    return JSON.parse(text ?? "{}") as JSONValue;
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

export async function runByPath(call: Call): Promise<Reply> {
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
  const client = clientVersion(call);
  const usages: Usage[] = [];
  const results: unknown[] = [];
  for (const request of requests) {
    const outcome = await run(call, request, "query");
    usages.push(outcome.usage);
    results.push(encodeOutcome(outcome, request.format, client));
  }
  return { headers: usageHeader(usages), body: { results } };
}

/** Runs one function as the caller. `type` null: whatever the function is. */
async function run(
  call: Call,
  { path, args, componentPath }: FunctionRequest,
  type: FunctionType | null,
): Promise<Outcome> {
  if (typeof path !== "string") throw badRequest("BadJsonBody", "missing field `path`");
  if (args === undefined) throw badRequest("BadJsonBody", "missing field `args`");
  refuseComponents(componentPath);
  const { backend, faults } = call.app;
  const { identity } = await call.caller();
  const kind = type ?? backend.functionType(path) ?? "query";
  const fault = faults.take(path, kind);
  beforeRun(fault);
  const request = { path, args, identity, ...rollback(fault) };
  const outcome = await runners[kind](backend, request);
  faults.record(path, outcome);
  await afterRun(fault);
  return outcome;
}

const runners: Record<FunctionType, (backend: Backend, call: MutationCall) => Promise<Outcome>> = {
  query: async (backend, call) => (await backend.runQuery(call)).outcome,
  mutation: async (backend, call) => (await backend.runMutation(call)).outcome,
  action: async (backend, call) => await backend.runAction(call),
};

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
    errorMessage: serverError(errorMessage),
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
