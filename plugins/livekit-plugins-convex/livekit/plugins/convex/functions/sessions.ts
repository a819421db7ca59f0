/**
 * What the LiveKit plugin `livekit-plugins-convex` records of agent sessions: the tables, the fold,
 * and what reads them. One file to copy, made to be changed.
 *
 * It must be `convex/sessions.ts`, since the plugin calls `sessions:record` and
 * `sessions:recordVersions`. Your schema takes its tables:
 *
 *     import { defineSchema } from "convex/server";
 *     import { sessionTables } from "./sessions";
 *     export default defineSchema({ ...sessionTables });
 *
 * `AGENT_JWT_ISSUER` and `AGENT_JWKS` of the deployment say whose tokens are an agent's
 * (`auth.config.ts`, in the plugin's README).
 *
 * - A record whose `seq` is folded already is skipped, so any batch may be repeated.
 * - All of a batch is checked before its first write, and all of it is one transaction.
 * - Runs may arrive in any order, also days late: the times in the records decide, and no clock.
 *
 * Instants are milliseconds since the epoch, durations end in `Ms`, an optional field that has no
 * value is an absent key.
 * @module
 */
import {
  defineTable,
  mutationGeneric,
  paginationOptsValidator,
  paginationResultValidator,
  queryGeneric,
} from "convex/server";
import type {
  DataModelFromSchemaDefinition,
  DocumentByName,
  GenericMutationCtx,
  GenericQueryCtx,
  MutationBuilder,
  PaginationOptions,
  QueryBuilder,
  SchemaDefinition,
  TableNamesInDataModel,
} from "convex/server";
import { ConvexError, v } from "convex/values";
import type { GenericId, Infer } from "convex/values";

declare const process: { readonly env: Readonly<Record<string, string | undefined>> };

// ---------------------------------------------------------------------------------------------
// What a run may record, held equal to the plugin by its tests

/** Record versions that are folded here, ascending. */
export const RECORD_VERSIONS = [1];

/** Sizes are UTF-8 bytes; instants are 2020-01-01 and 2100-01-01. */
export const LIMITS = {
  MAX_BATCH_RECORDS: 64,
  MAX_TEXT_BYTES: 65_536,
  MAX_NAME_BYTES: 1_024,
  MAX_USAGE_MODELS: 16,
  MIN_INSTANT_MS: 1_577_836_800_000,
  MAX_INSTANT_MS: 4_102_444_800_000,
};

/**
 * Codes that condemn one record, named by its `seq`: the plugin sets it aside and goes on. On any
 * other error it keeps the journal and tries again, until the functions are mended.
 */
export const PERMANENT_CODES = [
  "text_too_long",
  "field_too_long",
  "instant_out_of_range",
  "number_out_of_range",
  "too_many_items",
] as const;

/** The fields that hold what people and tools say; every other string is a name, and shorter. */
const TEXT_FIELDS = ["text", "arguments", "output"];

const UTF8 = new TextEncoder();

const recordFields = { seq: v.number(), createdAt: v.number() };

const startFields = {
  room: v.string(),
  jobId: v.string(),
  agentName: v.string(),
  lessonId: v.optional(v.string()),
  participantIdentity: v.optional(v.string()),
};

const saidFields = {
  role: v.union(v.literal("user"), v.literal("assistant")),
  text: v.string(),
  interrupted: v.boolean(),
  language: v.optional(v.string()),
  transcriptConfidence: v.optional(v.number()),
};

const timingFields = {
  startedSpeakingAt: v.optional(v.number()),
  stoppedSpeakingAt: v.optional(v.number()),
  /** LiveKit's per-turn latencies. Any of them may be negative when speech overlapped. */
  metrics: v.optional(
    v.object({
      transcriptionDelayMs: v.optional(v.number()),
      endOfTurnDelayMs: v.optional(v.number()),
      turnCompletedDelayMs: v.optional(v.number()),
      e2eLatencyMs: v.optional(v.number()),
      llmTtftMs: v.optional(v.number()),
      ttsTtfbMs: v.optional(v.number()),
      playbackLatencyMs: v.optional(v.number()),
    }),
  ),
};

/** What one model used, cumulative since its run began. */
const vModelUsage = v.object({
  type: v.string(),
  provider: v.string(),
  model: v.string(),
  inputTokens: v.optional(v.number()),
  outputTokens: v.optional(v.number()),
  characters: v.optional(v.number()),
  audioMs: v.optional(v.number()),
});

/** `arguments` is JSON text. */
const toolCallFields = {
  kind: v.literal("toolCall"),
  callId: v.string(),
  name: v.string(),
  arguments: v.string(),
  output: v.optional(v.string()),
  isError: v.boolean(),
};

/** Without `oldAgent`, the first agent has begun. */
const handoffFields = {
  kind: v.literal("handoff"),
  itemId: v.string(),
  oldAgent: v.optional(v.string()),
  newAgent: v.string(),
};

/** Only from recorders that were asked for states. */
const stateChangedFields = {
  kind: v.literal("stateChanged"),
  who: v.union(v.literal("user"), v.literal("agent")),
  state: v.string(),
};

const errorFields = {
  kind: v.literal("error"),
  source: v.string(),
  errorType: v.string(),
  recoverable: v.boolean(),
};

/** The records `fromSeq` to `toSeq` are gone; its own `seq` is `toSeq`. */
const lostFields = {
  kind: v.literal("lost"),
  fromSeq: v.number(),
  toSeq: v.number(),
  reason: v.string(),
};

/** Stands where a record was that was refused for good. */
const setAsideFields = {
  kind: v.literal("setAside"),
  code: v.string(),
  field: v.optional(v.string()),
  ofKind: v.string(),
};

const vStarted = v.object({
  kind: v.literal("sessionStarted"),
  ...recordFields,
  sessionKey: v.string(),
  ...startFields,
});
const vResumed = v.object({
  kind: v.literal("sessionResumed"),
  ...recordFields,
  sessionKey: v.string(),
  ...startFields,
  lastSeenAt: v.optional(v.number()),
});
const vMessage = v.object({
  kind: v.literal("message"),
  ...recordFields,
  itemId: v.string(),
  ...saidFields,
  ...timingFields,
});
const vTranscript = v.object({
  kind: v.literal("transcript"),
  ...recordFields,
  text: v.string(),
  itemId: v.optional(v.string()),
  language: v.optional(v.string()),
  speakerId: v.optional(v.string()),
});
const vToolCall = v.object({
  ...toolCallFields,
  ...recordFields,
  /** The call had reported before it was done, in the record of that `seq`: this has the result. */
  resultOf: v.optional(v.number()),
});
const vUsage = v.object({ kind: v.literal("usage"), ...recordFields, models: v.array(vModelUsage) });
const vSessionEnded = v.object({
  kind: v.literal("sessionEnded"),
  ...recordFields,
  reason: v.string(),
  errorType: v.optional(v.string()),
});
const vRunEnded = v.object({ kind: v.literal("runEnded"), ...recordFields, reason: v.string() });

/**
 * One record. A kind of your own (a subclass of the plugin's `Record`) is added here and in `fold`;
 * until then the validator refuses its batch, and the plugin keeps its journal.
 */
export const vRecord = v.union(
  vStarted,
  vResumed,
  vMessage,
  vTranscript,
  vToolCall,
  v.object({ ...handoffFields, ...recordFields }),
  v.object({ ...stateChangedFields, ...recordFields }),
  vUsage,
  v.object({ ...errorFields, ...recordFields }),
  vSessionEnded,
  vRunEnded,
  v.object({ ...lostFields, ...recordFields }),
  v.object({ ...setAsideFields, ...recordFields }),
);
type SessionRecord = Infer<typeof vRecord>;
type RecordOf<Kind extends SessionRecord["kind"]> = Extract<SessionRecord, { kind: Kind }>;

/** A record's place in its session: by its run's start, then run, then `seq`. */
const vPlace = v.object({ runStartedAt: v.number(), runId: v.string(), seq: v.number() });
type Place = Infer<typeof vPlace>;

// ---------------------------------------------------------------------------------------------
// Tables. All are written by `record` alone; when rows go is for you to decide.

/** Spread them into your schema. */
export const sessionTables = {
  // One row per conversation. It changes when a run begins or ends, and not with each message.
  agentSessions: defineTable({
    /** As its first run named it; that run's id where the name was somebody else's already. */
    sessionKey: v.string(),
    /** The `sub` of the tokens that may write to it: `student:<id>` or `guest:<session key>`. */
    subject: v.string(),
    startedAt: v.number(),
    /** Attempts that carried it, and the latest of them. */
    runs: v.number(),
    lastRunId: v.string(),
    lastRunStartedAt: v.number(),
    /** The latest end that a run announced. */
    announcedEnd: v.optional(
      v.object({
        at: v.number(),
        reason: v.string(),
        runId: v.string(),
        errorType: v.optional(v.string()),
      }),
    ),
    status: v.union(v.literal("active"), v.literal("ended")),
    endedAt: v.optional(v.number()),
    endReason: v.optional(v.string()),
    /** Its last run ended without a word about the session: a later run takes this back. */
    provisionalEnd: v.boolean(),
  })
    .index("by_sessionKey", ["sessionKey"])
    .index("by_subject_and_startedAt", ["subject", "startedAt"])
    .index("by_status_and_startedAt", ["status", "startedAt"]),

  // One row per run: one attempt of one job to carry a session. It changes with every batch.
  agentRuns: defineTable({
    runId: v.string(),
    /** Who wrote its first batch; nobody else may go on. */
    subject: v.string(),
    sessionId: v.id("agentSessions"),
    startedAt: v.number(),
    /** The highest `seq` that is folded. */
    seq: v.number(),
    room: v.optional(v.string()),
    jobId: v.optional(v.string()),
    agentName: v.optional(v.string()),
    lessonId: v.optional(v.string()),
    participantIdentity: v.optional(v.string()),
    /** Present if `runEnded` is its last record. */
    end: v.optional(v.object({ at: v.number(), reason: v.string() })),
    /** The last usage snapshot, at most 16 models. */
    usage: v.array(vModelUsage),
    /** Records that are gone, and that were refused for good. */
    lostRecords: v.number(),
    setAsideRecords: v.number(),
  })
    .index("by_runId", ["runId"])
    .index("by_sessionId_and_startedAt", ["sessionId", "startedAt"]),

  // One row per chat item, and one per final transcript that no message holds yet.
  agentMessages: defineTable({
    sessionId: v.id("agentSessions"),
    /** LiveKit's id of the item; `transcript:<runId>:<seq>` where provisional. */
    itemId: v.string(),
    ...vPlace.fields,
    createdAt: v.number(),
    ...saidFields,
    ...timingFields,
    provisional: v.boolean(),
    /** Where provisional: the item that the transcript belongs to, if the recogniser said so. */
    transcriptOf: v.optional(v.string()),
    speakerId: v.optional(v.string()),
    /** The records that words and timings come from, where the item was repeated. */
    contentFrom: v.optional(vPlace),
    timingsFrom: v.optional(vPlace),
  })
    .index("by_sessionId_and_runStartedAt_and_createdAt_and_seq", [
      "sessionId",
      "runStartedAt",
      "createdAt",
      "seq",
    ])
    .index("by_sessionId_and_itemId", ["sessionId", "itemId"])
    .index("by_sessionId_and_transcriptOf", ["sessionId", "transcriptOf"])
    .index("by_runId_and_provisional_and_seq", ["runId", "provisional", "seq"]),

  // What happened beside the talk, one row per record; a tool's late result is in its call's row.
  agentEvents: defineTable({
    sessionId: v.id("agentSessions"),
    runId: v.string(),
    seq: v.number(),
    createdAt: v.number(),
    event: v.union(
      v.object(toolCallFields),
      v.object(handoffFields),
      v.object(stateChangedFields),
      v.object(errorFields),
      v.object(lostFields),
      v.object(setAsideFields),
    ),
  })
    .index("by_sessionId_and_createdAt", ["sessionId", "createdAt"])
    .index("by_runId_and_seq", ["runId", "seq"]),
};

// The types of these tables alone, so that the file fits into any schema.
type DataModel = DataModelFromSchemaDefinition<SchemaDefinition<typeof sessionTables, true>>;
type QueryCtx = GenericQueryCtx<DataModel>;
type MutationCtx = GenericMutationCtx<DataModel>;
type Doc<Table extends TableNamesInDataModel<DataModel>> = DocumentByName<DataModel, Table>;
type Run = Doc<"agentRuns">;
type Event = Doc<"agentEvents">["event"];
const query = queryGeneric as QueryBuilder<DataModel, "public">;
const mutation = mutationGeneric as MutationBuilder<DataModel, "public">;

/** Rows in one page of a reader: a tool call may be 130 KiB, and one answer holds at most 16 MiB. */
const MAX_PAGE_ROWS = 50;

/** Provisional rows looked through for one message, the newest of the run. A turn has a handful. */
const MAX_PROVISIONAL_READ = 64;

// ---------------------------------------------------------------------------------------------
// Functions

/**
 * Fold the next records of one run into the tables.
 *
 * Safe to repeat. The first call binds the run to the token's subject. All or nothing: when it
 * throws, nothing of the batch is kept.
 *
 * @param records - At most 64, ascending `seq`.
 * @returns The highest `seq` now folded, -1 if none.
 * @throws ConvexError `{ code: "gap", expected }` if a `seq` is missing; one of `PERMANENT_CODES`
 *   with `seq` and `field` for a record that can never be accepted; `version_unsupported`,
 *   `too_many_records`, `unauthenticated`, `forbidden`.
 */
export const record = mutation({
  args: { version: v.number(), runId: v.string(), records: v.array(vRecord) },
  returns: v.object({ seq: v.number() }),
  handler: async (ctx, { version, runId, records }) => {
    const subject = await agentSubject(ctx);
    requireBatch(version, records);
    const known = await findRun(ctx, runId);
    if (known !== null && known.subject !== subject) {
      fail({ code: "forbidden", message: "sessions:record: the run is another subject's." });
    }
    const fresh = recordsAfter(known?.seq ?? -1, records);
    for (const next of fresh) check(next);
    const first = fresh[0];
    if (first === undefined) return { seq: known?.seq ?? -1 };

    const run = known ?? (await openRun(ctx, subject, runId, first));
    const hadEnded = run.end !== undefined;
    for (const next of fresh) {
      run.end = undefined;
      await fold(ctx, run, next);
      run.seq = next.seq;
    }
    await ctx.db.replace("agentRuns", run._id, run);
    const announced = fresh.some(({ kind }) => kind === "sessionEnded");
    if (known === null || announced || hadEnded || run.end !== undefined) {
      await refreshState(ctx, run.sessionId);
    }
    return { seq: run.seq };
  },
});

/** The record versions that `sessions:record` folds here. A worker asks before it sends. */
export const recordVersions = query({
  args: {},
  returns: v.array(v.number()),
  handler: async (ctx) => {
    await agentSubject(ctx);
    return RECORD_VERSIONS;
  },
});

/**
 * How a session stands; null before its first record is folded.
 *
 * @throws ConvexError `forbidden` if it is somebody else's.
 */
export const get = query({
  args: { sessionKey: v.string() },
  returns: v.union(
    v.object({
      _id: v.id("agentSessions"),
      _creationTime: v.number(),
      ...sessionTables.agentSessions.validator.fields,
    }),
    v.null(),
  ),
  handler: async (ctx, { sessionKey }) => await readableSession(ctx, sessionKey),
});

/**
 * A page of what was said, in order; at most 50 rows. Empty before the first record is folded.
 *
 * @throws ConvexError `forbidden` if the session is somebody else's.
 */
export const messages = query({
  args: { sessionKey: v.string(), paginationOpts: paginationOptsValidator },
  returns: paginationResultValidator(
    v.object({
      _id: v.id("agentMessages"),
      _creationTime: v.number(),
      ...sessionTables.agentMessages.validator.fields,
    }),
  ),
  handler: async (ctx, { sessionKey, paginationOpts }) => {
    const session = await readableSession(ctx, sessionKey);
    if (session === null) return { page: [], isDone: true, continueCursor: "" };
    return await ctx.db
      .query("agentMessages")
      .withIndex("by_sessionId_and_runStartedAt_and_createdAt_and_seq", (q) =>
        q.eq("sessionId", session._id),
      )
      .paginate(pageOf(paginationOpts));
  },
});

/**
 * A page of tool calls, handoffs, errors, states and losses, by time; at most 50 rows.
 *
 * @throws ConvexError `forbidden` if the session is somebody else's.
 */
export const events = query({
  args: { sessionKey: v.string(), paginationOpts: paginationOptsValidator },
  returns: paginationResultValidator(
    v.object({
      _id: v.id("agentEvents"),
      _creationTime: v.number(),
      ...sessionTables.agentEvents.validator.fields,
    }),
  ),
  handler: async (ctx, { sessionKey, paginationOpts }) => {
    const session = await readableSession(ctx, sessionKey);
    if (session === null) return { page: [], isDone: true, continueCursor: "" };
    return await ctx.db
      .query("agentEvents")
      .withIndex("by_sessionId_and_createdAt", (q) => q.eq("sessionId", session._id))
      .paginate(pageOf(paginationOpts));
  },
});

function pageOf(asked: PaginationOptions): PaginationOptions {
  return { ...asked, numItems: Math.min(asked.numItems, MAX_PAGE_ROWS) };
}

// ---------------------------------------------------------------------------------------------
// Who is calling

/**
 * The subject of an agent's token. The role counts only from the agents' own issuer, since users of
 * another provider may choose their claims.
 */
async function agentSubject(ctx: QueryCtx): Promise<string> {
  const identity = await ctx.auth.getUserIdentity();
  if (identity === null) {
    fail({ code: "unauthenticated", message: "A valid token is needed." });
  }
  if (identity.issuer !== process.env.AGENT_JWT_ISSUER || identity.role !== "agent") {
    fail({ code: "forbidden", message: "This function is for agents alone." });
  }
  return identity.subject;
}

/** The session, if the caller may read it: the agent whose it is. Say here who else may. */
async function readableSession(
  ctx: QueryCtx,
  sessionKey: string,
): Promise<Doc<"agentSessions"> | null> {
  const subject = await agentSubject(ctx);
  const session = await findSession(ctx, sessionKey);
  if (session !== null && session.subject !== subject) {
    fail({ code: "forbidden", message: "The session is another subject's." });
  }
  return session;
}

// ---------------------------------------------------------------------------------------------
// What is accepted

type ErrorData = {
  code: string;
  /** For people: never what somebody said. */
  message: string;
  seq?: number;
  field?: string;
  expected?: number;
  limit?: number;
  supported?: number[];
};

function fail(data: ErrorData): never {
  throw new ConvexError(data);
}

function requireBatch(version: number, records: readonly SessionRecord[]): void {
  if (!RECORD_VERSIONS.includes(version)) {
    fail({
      code: "version_unsupported",
      message: `sessions:record: records of version ${version} are not known: update sessions.ts.`,
      supported: RECORD_VERSIONS,
    });
  }
  if (records.length > LIMITS.MAX_BATCH_RECORDS) {
    fail({
      code: "too_many_records",
      message: `sessions:record: ${records.length} records in one call.`,
      limit: LIMITS.MAX_BATCH_RECORDS,
    });
  }
}

/** The records that are not folded yet, without holes. */
function recordsAfter(last: number, records: readonly SessionRecord[]): SessionRecord[] {
  const fresh: SessionRecord[] = [];
  let next = last + 1;
  for (const record of records) {
    if (Number.isSafeInteger(record.seq) && record.seq < next) continue;
    const from = record.kind === "lost" ? Math.min(record.fromSeq, record.seq) : record.seq;
    if (!Number.isSafeInteger(record.seq) || from > next) {
      fail({
        code: "gap",
        message: `sessions:record: seq ${next} is missing before ${record.seq}.`,
        seq: record.seq,
        expected: last + 1,
      });
    }
    fresh.push(record);
    next = record.seq + 1;
  }
  return fresh;
}

/** Refuses for good a record with a field that is beyond its limit. */
function check(record: SessionRecord): void {
  checkFields(record, "", record);
  if (record.kind !== "lost") return;
  const { fromSeq, toSeq, seq } = record;
  if (toSeq !== seq) refuse(record, "toSeq", "number_out_of_range", seq);
  if (!Number.isSafeInteger(fromSeq) || fromSeq < 0 || fromSeq > seq) {
    refuse(record, "fromSeq", "number_out_of_range", seq);
  }
}

function checkFields(record: SessionRecord, path: string, fields: Record<string, unknown>): void {
  for (const [name, value] of Object.entries(fields)) {
    const field = `${path}${name}`;
    if (typeof value === "string") {
      const isText = TEXT_FIELDS.includes(name);
      const limit = isText ? LIMITS.MAX_TEXT_BYTES : LIMITS.MAX_NAME_BYTES;
      // No character has more than three bytes per unit.
      if (value.length * 3 <= limit || UTF8.encode(value).length <= limit) continue;
      refuse(record, field, isText ? "text_too_long" : "field_too_long", limit);
    } else if (typeof value === "number") {
      if (name.endsWith("At")) {
        if (value >= LIMITS.MIN_INSTANT_MS && value <= LIMITS.MAX_INSTANT_MS) continue;
        const late = value > LIMITS.MAX_INSTANT_MS;
        const limit = late ? LIMITS.MAX_INSTANT_MS : LIMITS.MIN_INSTANT_MS;
        refuse(record, field, "instant_out_of_range", limit);
      } else if (!Number.isFinite(value)) {
        refuse(record, field, "number_out_of_range");
      }
    } else if (Array.isArray(value)) {
      if (value.length > LIMITS.MAX_USAGE_MODELS) {
        refuse(record, field, "too_many_items", LIMITS.MAX_USAGE_MODELS);
      }
      value.forEach((item: Record<string, unknown>, i) => {
        checkFields(record, `${field}[${i}].`, item);
      });
    } else if (typeof value === "object" && value !== null) {
      checkFields(record, `${field}.`, value as Record<string, unknown>);
    }
  }
}

function refuse(
  { seq, kind }: SessionRecord,
  field: string,
  code: (typeof PERMANENT_CODES)[number],
  limit?: number,
): never {
  fail({
    code,
    message: `sessions:record: record ${seq} (${kind}): ${field} is refused: ${code}.`,
    seq,
    field,
    ...(limit === undefined ? {} : { limit }),
  });
}

// ---------------------------------------------------------------------------------------------
// The fold

/** Applies one record. `run` is changed in memory, and written by the caller. */
async function fold(ctx: MutationCtx, run: Run, record: SessionRecord): Promise<void> {
  switch (record.kind) {
    case "sessionStarted":
    case "sessionResumed": {
      const { room, jobId, agentName, lessonId, participantIdentity } = record;
      Object.assign(run, { room, jobId, agentName, lessonId, participantIdentity });
      return;
    }
    case "message":
      await foldMessage(ctx, run, record);
      return;
    case "transcript":
      await foldTranscript(ctx, run, record);
      return;
    case "toolCall":
      await foldToolCall(ctx, run, record);
      return;
    case "handoff": {
      const { kind, itemId, oldAgent, newAgent } = record;
      await insertEvent(ctx, run, record, { kind, itemId, oldAgent, newAgent });
      return;
    }
    case "stateChanged": {
      const { kind, who, state } = record;
      await insertEvent(ctx, run, record, { kind, who, state });
      return;
    }
    case "usage":
      run.usage = record.models;
      return;
    case "error": {
      const { kind, source, errorType, recoverable } = record;
      await insertEvent(ctx, run, record, { kind, source, errorType, recoverable });
      return;
    }
    case "sessionEnded":
      await announceEnd(ctx, run, record);
      return;
    case "runEnded":
      run.end = { at: record.createdAt, reason: record.reason };
      return;
    case "lost": {
      const { kind, toSeq, reason } = record;
      // Records before `fromSeq` may have arrived after all: only what is missing is lost.
      const fromSeq = Math.max(record.fromSeq, run.seq + 1);
      run.lostRecords += toSeq - fromSeq + 1;
      await insertEvent(ctx, run, record, { kind, fromSeq, toSeq, reason });
      return;
    }
    case "setAside": {
      const { kind, code, field, ofKind } = record;
      run.setAsideRecords += 1;
      await insertEvent(ctx, run, record, { kind, code, field, ofKind });
      return;
    }
    default:
      record satisfies never;
  }
}

async function findRun(ctx: QueryCtx, runId: string): Promise<Run | null> {
  return await ctx.db
    .query("agentRuns")
    .withIndex("by_runId", (q) => q.eq("runId", runId))
    .unique();
}

async function findSession(
  ctx: QueryCtx,
  sessionKey: string,
): Promise<Doc<"agentSessions"> | null> {
  return await ctx.db
    .query("agentSessions")
    .withIndex("by_sessionKey", (q) => q.eq("sessionKey", sessionKey))
    .unique();
}

/** Makes the run's row, bound to the subject for good, and lets it join its session. */
async function openRun(
  ctx: MutationCtx,
  subject: string,
  runId: string,
  first: SessionRecord,
): Promise<Run> {
  const startedAt = first.createdAt;
  // A run whose start is lost has the key that it would have had unnamed.
  const named = first.kind === "sessionStarted" || first.kind === "sessionResumed";
  const wanted = named ? first.sessionKey : (/^guest:(.+)$/s.exec(subject)?.[1] ?? runId);
  const sessionId = await joinSession(ctx, { subject, runId, startedAt, wanted });
  const id = await ctx.db.insert("agentRuns", {
    runId,
    subject,
    sessionId,
    startedAt,
    seq: -1,
    usage: [],
    lostRecords: 0,
    setAsideRecords: 0,
  });
  const run = await ctx.db.get("agentRuns", id);
  if (run === null) throw new Error("a row that was just inserted is not there");
  return run;
}

/**
 * The session of the wanted key, with this run added; made if there is none.
 *
 * A key that is somebody else's leads to a session of the run's own: refused, its journal would wait
 * for ever, and joined, one would read the other's conversation.
 */
async function joinSession(
  ctx: MutationCtx,
  run: { subject: string; runId: string; startedAt: number; wanted: string },
): Promise<GenericId<"agentSessions">> {
  const { subject, runId, startedAt, wanted } = run;
  for (const sessionKey of [wanted, runId]) {
    const session = await findSession(ctx, sessionKey);
    if (session === null) {
      return await ctx.db.insert("agentSessions", {
        sessionKey,
        subject,
        startedAt,
        runs: 1,
        lastRunId: runId,
        lastRunStartedAt: startedAt,
        status: "active",
        provisionalEnd: false,
      });
    }
    if (session.subject !== subject) continue;
    const { lastRunId, lastRunStartedAt } = session;
    const isLatest =
      startedAt > lastRunStartedAt || (startedAt === lastRunStartedAt && runId > lastRunId);
    await ctx.db.patch("agentSessions", session._id, {
      startedAt: Math.min(session.startedAt, startedAt),
      runs: session.runs + 1,
      ...(isLatest ? { lastRunId: runId, lastRunStartedAt: startedAt } : {}),
    });
    return session._id;
  }
  fail({ code: "forbidden", message: "sessions:record: the session is another subject's." });
}

async function announceEnd(
  ctx: MutationCtx,
  run: Run,
  { createdAt: at, reason, errorType }: RecordOf<"sessionEnded">,
): Promise<void> {
  const session = await ctx.db.get("agentSessions", run.sessionId);
  if (session === null) return;
  const { runId } = run;
  const known = session.announcedEnd;
  const isLater =
    known === undefined || at > known.at || (at === known.at && runId >= known.runId);
  if (!isLater) return;
  await ctx.db.patch("agentSessions", session._id, {
    announcedEnd: { at, reason, runId, errorType },
  });
}

/**
 * Derives whether the session runs: an announced end counts unless a run began after it, else the
 * end of its latest run ends it provisionally.
 */
async function refreshState(
  ctx: MutationCtx,
  sessionId: GenericId<"agentSessions">,
): Promise<void> {
  const session = await ctx.db.get("agentSessions", sessionId);
  if (session === null) return;
  const { announcedEnd, lastRunId, lastRunStartedAt } = session;
  const announced = announcedEnd !== undefined && announcedEnd.at >= lastRunStartedAt;
  const end = announced ? announcedEnd : (await findRun(ctx, lastRunId))?.end;
  await ctx.db.patch("agentSessions", sessionId, {
    status: end === undefined ? "active" : "ended",
    // A clock that was set back may date the end of a run before its start.
    endedAt: end === undefined ? undefined : Math.max(end.at, lastRunStartedAt),
    endReason: end?.reason,
    provisionalEnd: end !== undefined && !announced,
  });
}

/**
 * Stores a chat item, or a further snapshot of one that is there: realtime models repeat items.
 *
 * Its place in the session comes from the earliest record of the item, what was said from the
 * latest, timings from the latest that has any.
 */
async function foldMessage(
  ctx: MutationCtx,
  run: Run,
  record: RecordOf<"message">,
): Promise<void> {
  await dropTranscripts(ctx, run, record);
  const { itemId, createdAt, role, text, interrupted, language, transcriptConfidence } = record;
  const { startedSpeakingAt, stoppedSpeakingAt, metrics } = record;
  const place = placeIn(run, record);
  const said = { role, text, interrupted, language, transcriptConfidence };
  const timings = { startedSpeakingAt, stoppedSpeakingAt, metrics };
  const timed = (startedSpeakingAt ?? stoppedSpeakingAt ?? metrics) !== undefined;
  const known = await ctx.db
    .query("agentMessages")
    .withIndex("by_sessionId_and_itemId", (q) =>
      q.eq("sessionId", run.sessionId).eq("itemId", itemId),
    )
    .unique();
  if (known === null) {
    await ctx.db.insert("agentMessages", {
      sessionId: run.sessionId,
      itemId,
      ...place,
      createdAt,
      ...said,
      ...timings,
      provisional: false,
      contentFrom: place,
      timingsFrom: timed ? place : undefined,
    });
    return;
  }
  await ctx.db.patch("agentMessages", known._id, {
    ...(comesAfter(known, place) ? { ...place, createdAt } : {}),
    ...(comesAfter(place, known.contentFrom) ? { ...said, contentFrom: place } : {}),
    ...(timed && comesAfter(place, known.timingsFrom) ? { ...timings, timingsFrom: place } : {}),
  });
}

/** Stores a final transcript until the message that contains it comes; later it is not needed. */
async function foldTranscript(
  ctx: MutationCtx,
  run: Run,
  record: RecordOf<"transcript">,
): Promise<void> {
  const { itemId, text, language, speakerId, createdAt, seq } = record;
  if (itemId !== undefined) {
    const message = await ctx.db
      .query("agentMessages")
      .withIndex("by_sessionId_and_itemId", (q) =>
        q.eq("sessionId", run.sessionId).eq("itemId", itemId),
      )
      .unique();
    if (message !== null) return;
  }
  await ctx.db.insert("agentMessages", {
    sessionId: run.sessionId,
    itemId: `transcript:${run.runId}:${seq}`,
    ...placeIn(run, record),
    createdAt,
    role: "user",
    text,
    interrupted: false,
    language,
    provisional: true,
    transcriptOf: itemId,
    speakerId,
  });
}

/** Deletes the transcripts of the message's item, and those of this run whose words it contains. */
async function dropTranscripts(
  ctx: MutationCtx,
  run: Run,
  { itemId, role, text }: RecordOf<"message">,
): Promise<void> {
  const ofItem = await ctx.db
    .query("agentMessages")
    .withIndex("by_sessionId_and_transcriptOf", (q) =>
      q.eq("sessionId", run.sessionId).eq("transcriptOf", itemId),
    )
    .take(MAX_PROVISIONAL_READ);
  for (const row of ofItem) await ctx.db.delete("agentMessages", row._id);
  if (role !== "user") return;

  const newest = await ctx.db
    .query("agentMessages")
    .withIndex("by_runId_and_provisional_and_seq", (q) =>
      q.eq("runId", run.runId).eq("provisional", true),
    )
    .order("desc")
    .take(MAX_PROVISIONAL_READ);
  let remaining = ` ${wordsOf(text)} `;
  for (const row of newest.reverse()) {
    const words = ` ${wordsOf(row.text)} `;
    const at = words.trim() === "" ? 0 : remaining.indexOf(words);
    if (at < 0) continue;
    // Each stretch stands for one transcript; no word holds a "|", so none matches across the gap.
    if (words.trim() !== "") {
      remaining = `${remaining.slice(0, at)} | ${remaining.slice(at + words.length)}`;
    }
    await ctx.db.delete("agentMessages", row._id);
  }
}

/** The words as they compare: lower case, composed, one space for all that is no word. */
function wordsOf(text: string): string {
  return text
    .normalize("NFKC")
    .toLowerCase()
    .replace(/[^\p{L}\p{N}\p{M}]+/gu, " ")
    .trim();
}

async function foldToolCall(
  ctx: MutationCtx,
  run: Run,
  record: RecordOf<"toolCall">,
): Promise<void> {
  const { kind, callId, name, arguments: args, output, isError, resultOf } = record;
  const event: Event = { kind, callId, name, arguments: args, output, isError };
  if (resultOf !== undefined) {
    const call = await ctx.db
      .query("agentEvents")
      .withIndex("by_runId_and_seq", (q) => q.eq("runId", run.runId).eq("seq", resultOf))
      .unique();
    if (call?.event.kind === "toolCall") {
      await ctx.db.patch("agentEvents", call._id, { event });
      return;
    }
  }
  await insertEvent(ctx, run, record, event);
}

async function insertEvent(
  ctx: MutationCtx,
  { sessionId, runId }: Run,
  { seq, createdAt }: { seq: number; createdAt: number },
  event: Event,
): Promise<void> {
  await ctx.db.insert("agentEvents", { sessionId, runId, seq, createdAt, event });
}

function placeIn(run: Run, { seq }: { seq: number }): Place {
  return { runStartedAt: run.startedAt, runId: run.runId, seq };
}

/** Whether `a` comes later in the session than `b`; anything comes after nothing. */
function comesAfter(a: Place, b: Place | undefined): boolean {
  if (b === undefined) return true;
  if (a.runStartedAt !== b.runStartedAt) return a.runStartedAt > b.runStartedAt;
  if (a.runId !== b.runId) return a.runId > b.runId;
  return a.seq > b.seq;
}
