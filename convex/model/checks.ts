/**
 * Field checks of records. All of a batch run before its first write.
 * @module
 */
import { fail } from "../errors";
import type { PermanentCode } from "../errors";
import {
  MAX_INSTANT_MS,
  MAX_NAME_BYTES,
  MAX_TEXT_BYTES,
  MAX_USAGE_MODELS,
  MIN_INSTANT_MS,
  SCHOOL,
} from "../limits";
import type { SessionRecord } from "../validators";
import { utf8Length } from "./text";

type Checks = {
  text: (field: string, value: string | undefined) => void;
  name: (field: string, value: string | undefined) => void;
  summary: (field: string, value: string) => void;
  instant: (field: string, value: number | undefined) => void;
  /** Any finite number, negative ones too. */
  finite: (field: string, value: number | undefined) => void;
  /** A finite number that is not negative. */
  amount: (field: string, value: number | undefined) => void;
  /** From 0 to 1. */
  share: (field: string, value: number) => void;
  /** A whole number from 0, below `limit`. */
  index: (field: string, value: number, limit: number) => void;
  items: (field: string, count: number, limit: number) => void;
};

/** Refuses `record` for good, with the field and the limit. */
export function refuse(
  record: SessionRecord,
  refusal: { code: PermanentCode; field: string; problem: string; limit?: number },
): never {
  const { code, field, problem, limit } = refusal;
  fail({
    code,
    message: `sessions:record: record ${record.seq} (${record.kind}): ${field} ${problem}`,
    seq: record.seq,
    field,
    ...(limit === undefined ? {} : { limit }),
  });
}

function checksOf(record: SessionRecord): Checks {
  const bytes =
    (code: "text_too_long" | "field_too_long", limit: number) =>
    (field: string, value: string | undefined) => {
      if (value === undefined) return;
      const size = utf8Length(value);
      if (size > limit) {
        refuse(record, { code, field, problem: `is ${size} bytes; the limit is ${limit}`, limit });
      }
    };
  const number = (field: string, value: number | undefined, min: number) => {
    if (value === undefined || (Number.isFinite(value) && value >= min)) return;
    refuse(record, {
      code: "number_out_of_range",
      field,
      problem: Number.isFinite(value) ? `is ${value}; the least is ${min}` : "is not finite",
      ...(Number.isFinite(min) ? { limit: min } : {}),
    });
  };
  return {
    text: bytes("text_too_long", MAX_TEXT_BYTES),
    name: bytes("field_too_long", MAX_NAME_BYTES),
    summary: bytes("text_too_long", SCHOOL.maxSummaryBytes),
    instant: (field, value) => {
      if (value === undefined) return;
      if (value >= MIN_INSTANT_MS && value <= MAX_INSTANT_MS) return;
      const limit = value > MAX_INSTANT_MS ? MAX_INSTANT_MS : MIN_INSTANT_MS;
      refuse(record, {
        code: "instant_out_of_range",
        field,
        problem: `is ${value}; instants are milliseconds from ${MIN_INSTANT_MS} to ${MAX_INSTANT_MS}`,
        limit,
      });
    },
    finite: (field, value) => {
      number(field, value, Number.NEGATIVE_INFINITY);
    },
    amount: (field, value) => {
      number(field, value, 0);
    },
    share: (field, value) => {
      number(field, value, 0);
      if (value <= 1) return;
      refuse(record, {
        code: "number_out_of_range",
        field,
        problem: `is ${value}; the most is 1`,
        limit: 1,
      });
    },
    index: (field, value, limit) => {
      if (Number.isSafeInteger(value) && value >= 0 && value < limit) return;
      refuse(record, {
        code: "number_out_of_range",
        field,
        problem: `is ${value}; it must be a whole number from 0, below ${limit}`,
        limit,
      });
    },
    items: (field, count, limit) => {
      if (count <= limit) return;
      refuse(record, {
        code: "too_many_items",
        field,
        problem: `has ${count} items; the limit is ${limit}`,
        limit,
      });
    },
  };
}

/**
 * Checks every field of one record against the limits.
 *
 * @throws ConvexError with a permanent code, the record's `seq` and the `field`.
 */
export function checkRecord(record: SessionRecord): void {
  const check = checksOf(record);
  check.instant("createdAt", record.createdAt);
  switch (record.kind) {
    case "sessionStarted":
    case "sessionResumed":
      check.name("sessionKey", record.sessionKey);
      check.name("room", record.room);
      check.name("jobId", record.jobId);
      check.name("agentName", record.agentName);
      check.name("lessonId", record.lessonId);
      check.name("participantIdentity", record.participantIdentity);
      if (record.kind === "sessionResumed") check.instant("lastSeenAt", record.lastSeenAt);
      return;
    case "message":
      check.name("itemId", record.itemId);
      check.text("text", record.text);
      check.name("language", record.language);
      check.finite("transcriptConfidence", record.transcriptConfidence);
      check.instant("startedSpeakingAt", record.startedSpeakingAt);
      check.instant("stoppedSpeakingAt", record.stoppedSpeakingAt);
      for (const [name, value] of Object.entries(record.metrics ?? {})) {
        check.finite(`metrics.${name}`, value);
      }
      return;
    case "transcript":
      check.text("text", record.text);
      check.name("itemId", record.itemId);
      check.name("language", record.language);
      check.name("speakerId", record.speakerId);
      return;
    case "toolCall":
      check.name("callId", record.callId);
      check.name("name", record.name);
      check.text("arguments", record.arguments);
      check.text("output", record.output);
      if (record.resultOf !== undefined) check.index("resultOf", record.resultOf, record.seq);
      return;
    case "handoff":
      check.name("itemId", record.itemId);
      check.name("oldAgent", record.oldAgent);
      check.name("newAgent", record.newAgent);
      return;
    case "stateChanged":
      check.name("state", record.state);
      return;
    case "usage":
      check.items("models", record.models.length, MAX_USAGE_MODELS);
      record.models.forEach((model, i) => {
        check.name(`models[${i}].type`, model.type);
        check.name(`models[${i}].provider`, model.provider);
        check.name(`models[${i}].model`, model.model);
        check.amount(`models[${i}].inputTokens`, model.inputTokens);
        check.amount(`models[${i}].outputTokens`, model.outputTokens);
        check.amount(`models[${i}].characters`, model.characters);
        check.amount(`models[${i}].audioMs`, model.audioMs);
      });
      return;
    case "error":
      check.name("source", record.source);
      check.name("errorType", record.errorType);
      return;
    case "sessionEnded":
      check.name("reason", record.reason);
      check.name("errorType", record.errorType);
      return;
    case "runEnded":
      check.name("reason", record.reason);
      return;
    case "lost":
      check.name("reason", record.reason);
      checkStretch(record);
      return;
    case "setAside":
      check.name("code", record.code);
      check.name("field", record.field);
      check.name("ofKind", record.ofKind);
      return;
    case "correction":
      check.name("correctionId", record.correctionId);
      check.name("itemId", record.itemId);
      check.name("said", record.said);
      check.name("target", record.target);
      check.name("explanation", record.explanation);
      return;
    case "wordIntroduced":
      check.name("word", record.word);
      check.name("language", record.language);
      check.name("meaning", record.meaning);
      check.name("example", record.example);
      return;
    case "wordReviewed":
      check.name("word", record.word);
      check.name("language", record.language);
      return;
    case "exerciseResult":
      check.name("exerciseId", record.exerciseId);
      check.name("answer", record.answer);
      check.share("score", record.score);
      return;
    case "slideShown":
      check.index("slide", record.slide, SCHOOL.maxSlides);
      return;
    case "stepEntered":
    case "lessonFinished":
      return;
    case "sessionSummary":
      check.summary("forStudent", record.forStudent);
      check.summary("forTeacher", record.forTeacher);
      return;
    default:
      record satisfies never;
  }
}

/** A `lost` record covers whole numbers from `fromSeq` to its own `seq`. */
function checkStretch(record: Extract<SessionRecord, { kind: "lost" }>): void {
  if (record.toSeq !== record.seq) {
    refuse(record, {
      code: "number_out_of_range",
      field: "toSeq",
      problem: `is ${record.toSeq}; it must be the record's own seq`,
      limit: record.seq,
    });
  }
  if (!Number.isSafeInteger(record.fromSeq) || record.fromSeq < 0 || record.fromSeq > record.seq) {
    refuse(record, {
      code: "number_out_of_range",
      field: "fromSeq",
      problem: `is ${record.fromSeq}; it must be a whole number from 0 to toSeq`,
      limit: record.seq,
    });
  }
}
