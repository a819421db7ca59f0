/**
 * Shapes of telemetry, and of the school's numbers as readers see them.
 *
 * Instants are milliseconds since the epoch, days are `YYYY-MM-DD`, durations end in `Ms`.
 * @module
 */
import { v } from "convex/values";
import type { Infer } from "convex/values";
import { vErrorKind } from "./learningValidators";
import {
  vConnectionChangedEvent,
  vDeviceFailedEvent,
  vEventData,
  vEventType,
  vMeasuredEvent,
  vPageOpenedEvent,
} from "./validators";

/** What `analytics:track` takes; the other types come from the fold alone. */
export const vTelemetryType = v.union(
  v.literal("page_opened"),
  v.literal("connection_changed"),
  v.literal("device_failed"),
  v.literal("measured"),
);
export type TelemetryType = Infer<typeof vTelemetryType>;

/** What telemetry tells, of whichever type. */
export const vTelemetryData = v.union(
  vPageOpenedEvent,
  vConnectionChangedEvent,
  vDeviceFailedEvent,
  vMeasuredEvent,
);

/** `eventData` is the shape that belongs to `eventType`. */
export const vTelemetryEvent = v.object({
  eventType: vTelemetryType,
  createdAt: v.number(),
  eventData: vTelemetryData,
  /** The session that the event is about, if it is about one. */
  sessionKey: v.optional(v.string()),
});
export type TelemetryEvent = Infer<typeof vTelemetryEvent>;

/** Time to the first word of the answer, at most 7.3 % off; null where there were no answers. */
export const vLatency = v.object({
  answers: v.number(),
  p50Ms: v.union(v.number(), v.null()),
  p95Ms: v.union(v.number(), v.null()),
  p99Ms: v.union(v.number(), v.null()),
});
export type Latency = Infer<typeof vLatency>;

/** A day of the school, or of one lesson. */
export const vSchoolDay = v.object({
  day: v.string(),
  sessions: v.number(),
  minutes: v.number(),
  messages: v.number(),
  /** Students with a session on this day; absent where the day is of one lesson. */
  activeStudents: v.optional(v.number()),
  errorsDetected: v.number(),
  errorsCorrected: v.number(),
  /** Errors of models and services. */
  errors: v.array(vErrorKind),
  latency: vLatency,
});
export type SchoolDay = Infer<typeof vSchoolDay>;

/** An event as administrators see it. */
export const vEvent = v.object({
  eventId: v.id("analyticsEvents"),
  eventType: vEventType,
  createdAt: v.number(),
  eventData: vEventData,
  sessionId: v.optional(v.id("sessions")),
  studentId: v.optional(v.id("students")),
  guest: v.optional(v.string()),
});
export type Event = Infer<typeof vEvent>;
