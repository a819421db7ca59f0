/**
 * Shapes of sessions, on the wire and in the tables. Types come from them with `Infer`.
 *
 * Instants are milliseconds since the epoch, durations are milliseconds and end in `Ms`.
 * An optional field that has no value is an absent key, never null.
 * @module
 */
import { v } from "convex/values";
import type { Infer } from "convex/values";
import { vCorrection, vStep, vTutoringRecord } from "./learningValidators";

// ---------------------------------------------------------------------------------------------
// Records: what one run learns, in the order of `seq`

const recordFields = { seq: v.number(), createdAt: v.number() };

const startFields = {
  ...recordFields,
  sessionKey: v.string(),
  room: v.string(),
  jobId: v.string(),
  agentName: v.string(),
  lessonId: v.optional(v.string()),
  participantIdentity: v.optional(v.string()),
};

/** Who speaks: the student or Emma. */
export const vRole = v.union(v.literal("user"), v.literal("assistant"));

/** LiveKit's per-turn latencies. Any of them may be negative when speech overlapped. */
export const vMessageMetrics = v.object({
  transcriptionDelayMs: v.optional(v.number()),
  endOfTurnDelayMs: v.optional(v.number()),
  turnCompletedDelayMs: v.optional(v.number()),
  e2eLatencyMs: v.optional(v.number()),
  llmTtftMs: v.optional(v.number()),
  ttsTtfbMs: v.optional(v.number()),
  playbackLatencyMs: v.optional(v.number()),
});

/** What one model used, cumulative since its run began. */
export const vModelUsage = v.object({
  type: v.string(),
  provider: v.string(),
  model: v.string(),
  inputTokens: v.optional(v.number()),
  outputTokens: v.optional(v.number()),
  characters: v.optional(v.number()),
  audioMs: v.optional(v.number()),
});
export type ModelUsage = Infer<typeof vModelUsage>;

/** Record 0 of a run that begins a session. */
export const vSessionStarted = v.object({ kind: v.literal("sessionStarted"), ...startFields });
/** `lastSeenAt`: the last that the resuming run knows of the session; it decides about the grace. */
export const vSessionResumed = v.object({
  kind: v.literal("sessionResumed"),
  ...startFields,
  lastSeenAt: v.optional(v.number()),
});

/** A committed chat item. The same `itemId` again is a newer snapshot of it. */
export const vMessageRecord = v.object({
  kind: v.literal("message"),
  ...recordFields,
  itemId: v.string(),
  role: vRole,
  text: v.string(),
  interrupted: v.boolean(),
  language: v.optional(v.string()),
  transcriptConfidence: v.optional(v.number()),
  startedSpeakingAt: v.optional(v.number()),
  stoppedSpeakingAt: v.optional(v.number()),
  metrics: v.optional(vMessageMetrics),
});

/** A final transcript, kept before its turn is committed. */
export const vTranscriptRecord = v.object({
  kind: v.literal("transcript"),
  ...recordFields,
  text: v.string(),
  itemId: v.optional(v.string()),
  language: v.optional(v.string()),
  speakerId: v.optional(v.string()),
});

/**
 * A function call of the model. `arguments` is JSON text. `resultOf` is the `seq` of the same call's
 * earlier record, where the tool had reported before it was done: this one has the result.
 */
export const vToolCallRecord = v.object({
  kind: v.literal("toolCall"),
  ...recordFields,
  callId: v.string(),
  name: v.string(),
  arguments: v.string(),
  output: v.optional(v.string()),
  isError: v.boolean(),
  resultOf: v.optional(v.number()),
});

/** Another agent has taken over; without `oldAgent`, the first one has begun. */
export const vHandoffRecord = v.object({
  kind: v.literal("handoff"),
  ...recordFields,
  itemId: v.string(),
  oldAgent: v.optional(v.string()),
  newAgent: v.string(),
});

/** LiveKit's `user_state` or `agent_state`; only from recorders that were asked for it. */
export const vStateChangedRecord = v.object({
  kind: v.literal("stateChanged"),
  ...recordFields,
  who: v.union(v.literal("user"), v.literal("agent")),
  state: v.string(),
});

/** Usage of all models of the run so far: the last snapshot wins. */
export const vUsageRecord = v.object({
  kind: v.literal("usage"),
  ...recordFields,
  models: v.array(vModelUsage),
});

/** An error of a model or service; `source` as LiveKit names it, `errorType` its class. */
export const vErrorRecord = v.object({
  kind: v.literal("error"),
  ...recordFields,
  source: v.string(),
  errorType: v.string(),
  recoverable: v.boolean(),
});

/** The session is over; `errorType` where an error ended it. */
export const vSessionEnded = v.object({
  kind: v.literal("sessionEnded"),
  ...recordFields,
  reason: v.string(),
  errorType: v.optional(v.string()),
});

/** The last record of a run: nothing more comes of it. */
export const vRunEnded = v.object({
  kind: v.literal("runEnded"),
  ...recordFields,
  reason: v.string(),
});

/** Stands for the records `fromSeq` to `toSeq`, which are gone. Its own `seq` is `toSeq`. */
export const vLostRecord = v.object({
  kind: v.literal("lost"),
  ...recordFields,
  fromSeq: v.number(),
  toSeq: v.number(),
  reason: v.string(),
});

/** Stands at the `seq` of a record that was refused for good, with the `code` it was refused with. */
export const vSetAsideRecord = v.object({
  kind: v.literal("setAside"),
  ...recordFields,
  code: v.string(),
  field: v.optional(v.string()),
  ofKind: v.string(),
});

/**
 * One record of version 1.
 *
 * This is checked before the handler runs: a kind or field of a newer version is refused by the
 * validator itself, with an opaque error, on which a worker holds its journal as it does on
 * `version_unsupported`.
 */
export const vRecord = v.union(
  vSessionStarted,
  vSessionResumed,
  vMessageRecord,
  vTranscriptRecord,
  vToolCallRecord,
  vHandoffRecord,
  vStateChangedRecord,
  vUsageRecord,
  vErrorRecord,
  vSessionEnded,
  vRunEnded,
  vLostRecord,
  vSetAsideRecord,
  ...vTutoringRecord.members,
);
export type SessionRecord = Infer<typeof vRecord>;
/** The record of one kind, as `RecordOf<"message">`. */
export type RecordOf<Kind extends SessionRecord["kind"]> = Extract<SessionRecord, { kind: Kind }>;

// ---------------------------------------------------------------------------------------------
// Sessions and messages, as readers see them

/** `superseded`: the student began a later session. */
export const vSessionStatus = v.union(
  v.literal("active"),
  v.literal("ended"),
  v.literal("superseded"),
);

/** A session with its counters. */
export const vSession = v.object({
  sessionKey: v.string(),
  status: vSessionStatus,
  startedAt: v.number(),
  endedAt: v.optional(v.number()),
  endReason: v.optional(v.string()),
  /** The end was concluded, not announced: a later record of the run or a resume takes it back. */
  provisionalEnd: v.boolean(),
  /** Committed messages, without provisional transcripts. */
  messageCount: v.number(),
  /** Errors that Emma noted, and those of them that the student then said right. */
  errorsDetected: v.number(),
  errorsCorrected: v.number(),
  /** Attempts that carried the session so far. */
  runs: v.number(),
});
export type Session = Infer<typeof vSession>;

/** A session in a list: without what changes while it runs, so that lists rerun seldom. */
export const vSessionSummary = v.object({
  sessionKey: v.string(),
  status: vSessionStatus,
  startedAt: v.number(),
  endedAt: v.optional(v.number()),
  endReason: v.optional(v.string()),
  provisionalEnd: v.boolean(),
  lessonId: v.optional(v.id("lessons")),
  /** When the lesson's objectives were reached. */
  completedAt: v.optional(v.number()),
  runs: v.number(),
});
export type SessionSummary = Infer<typeof vSessionSummary>;

/** One chat item, or a transcript that no item contains yet. */
export const vMessage = v.object({
  itemId: v.string(),
  role: vRole,
  text: v.string(),
  interrupted: v.boolean(),
  /** A transcript whose turn is not committed yet; replaced by the message that contains it. */
  provisional: v.boolean(),
  createdAt: v.number(),
  seq: v.number(),
  /** Orders messages of different runs; then `createdAt`, then `seq`. */
  runStartedAt: v.number(),
  /** When the row was stored. */
  storedAt: v.number(),
  language: v.optional(v.string()),
  /** From 0 to 1, how sure the recogniser was; it may have written down what a learner meant. */
  transcriptConfidence: v.optional(v.number()),
  metrics: v.optional(vMessageMetrics),
});
export type Message = Infer<typeof vMessage>;

/** What a run needs to go on with a session. */
export const vResumable = v.object({
  /** The key that the session has now; not the one asked for where that one's resume came too late. */
  sessionKey: v.string(),
  /** The latest record of it. */
  lastSeenAt: v.number(),
  /** It ended as it was meant to: a run said so, with the lesson completed or in its farewell. */
  over: v.boolean(),
  /** The lesson's objectives were reached in it. */
  finished: v.boolean(),
  lessonId: v.optional(v.id("lessons")),
  step: v.optional(vStep),
  /** Counted from 0. */
  slide: v.optional(v.number()),
  /** Committed messages, of which `messages` has the latest. */
  messageCount: v.number(),
  /** The latest, at most 24, in order; last of all what the student said that became none yet. */
  messages: v.array(
    v.object({
      itemId: v.string(),
      role: vRole,
      text: v.string(),
      interrupted: v.boolean(),
      createdAt: v.number(),
    }),
  ),
  /** Of the session so far, as the teacher reads it; absent until one is written. */
  summary: v.optional(v.string()),
  /** The latest, at most 50, in order. */
  corrections: v.array(vCorrection),
  /** Words that the student met in it for the first time: the latest, at most 40, in order. */
  newWords: v.array(
    v.object({
      word: v.string(),
      language: v.string(),
      meaning: v.optional(v.string()),
      example: v.optional(v.string()),
    }),
  ),
  /** To exercises: the latest, at most 32, in order. */
  answers: v.array(
    v.object({
      exerciseId: v.string(),
      score: v.number(),
      answer: v.string(),
      createdAt: v.number(),
    }),
  ),
});
export type Resumable = Infer<typeof vResumable>;

// ---------------------------------------------------------------------------------------------
// Parts of tables

/** Place of a record among all records of a session: by its run's start, then run, then `seq`. */
export const vPlace = v.object({ runStartedAt: v.number(), runId: v.string(), seq: v.number() });
export type Place = Infer<typeof vPlace>;

/** An end with the run that announced it, which also breaks ties. */
export const vEnd = v.object({
  at: v.number(),
  reason: v.string(),
  runId: v.string(),
  errorType: v.optional(v.string()),
});
export type End = Infer<typeof vEnd>;

/** The first four come from the fold and are exact; the others are telemetry and may miss some. */
export const vEventType = v.union(
  v.literal("tool_call"),
  v.literal("handoff"),
  v.literal("state_changed"),
  v.literal("error"),
  v.literal("page_opened"),
  v.literal("connection_changed"),
  v.literal("device_failed"),
  v.literal("measured"),
);

/** `arguments` is JSON text. */
export const vToolCallEvent = v.object({
  callId: v.string(),
  name: v.string(),
  arguments: v.string(),
  output: v.optional(v.string()),
  isError: v.boolean(),
});
/** One agent gave over to another; `oldAgent` is absent for the first. */
export const vHandoffEvent = v.object({
  itemId: v.string(),
  oldAgent: v.optional(v.string()),
  newAgent: v.string(),
});
/** `state` as LiveKit names it. */
export const vStateChangedEvent = v.object({
  who: v.union(v.literal("user"), v.literal("agent")),
  state: v.string(),
});
/** As the record tells it, without its place. */
export const vErrorEvent = v.object({
  source: v.string(),
  errorType: v.string(),
  recoverable: v.boolean(),
});
/** `page` is a name, never an address with a student's id. */
export const vPageOpenedEvent = v.object({ page: v.string() });
/** As LiveKit rates the connection of the student's page. */
export const vConnectionChangedEvent = v.object({
  quality: v.union(
    v.literal("excellent"),
    v.literal("good"),
    v.literal("poor"),
    v.literal("lost"),
  ),
});
/** A device that the page could not use; `errorType` as the browser names it. */
export const vDeviceFailedEvent = v.object({
  device: v.union(v.literal("microphone"), v.literal("speaker"), v.literal("camera")),
  errorType: v.string(),
});
/** A number of the worker's or the page's own; `unit` as "ms" or "bytes". */
export const vMeasuredEvent = v.object({ name: v.string(), value: v.number(), unit: v.string() });

/** What an event tells; its `eventType` says which of these it is. */
export const vEventData = v.union(
  vToolCallEvent,
  vHandoffEvent,
  vStateChangedEvent,
  vErrorEvent,
  vPageOpenedEvent,
  vConnectionChangedEvent,
  vDeviceFailedEvent,
  vMeasuredEvent,
);

/** Why records are missing. */
export const vTombstoneCause = v.union(
  v.literal("lost"),
  v.literal("setAside"),
  v.literal("erased"),
);
