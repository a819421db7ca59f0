/**
 * Telemetry: what pages and workers send on the side, and may lose.
 * @module
 */
import type { TelemetryEvent, TelemetryType } from "../analyticsValidators";
import type { Doc } from "../_generated/dataModel";
import type { MutationCtx } from "../_generated/server";
import { maySee } from "../functions";
import type { Caller, UserCaller } from "../functions";
import { MAX_NAME_BYTES, SCHOOL } from "../limits";
import {
  vConnectionChangedEvent,
  vDeviceFailedEvent,
  vMeasuredEvent,
  vPageOpenedEvent,
} from "../validators";
import { checkCount, checkInstant, checkLength, invalid } from "./fields";
import { guestName } from "./runs";
import { sessionOfKey } from "./sessions";

/** The fields that belong to each type. No two types have the same. */
const FIELDS: Record<TelemetryType, string[]> = {
  page_opened: Object.keys(vPageOpenedEvent.fields),
  connection_changed: Object.keys(vConnectionChangedEvent.fields),
  device_failed: Object.keys(vDeviceFailedEvent.fields),
  measured: Object.keys(vMeasuredEvent.fields),
};

/**
 * Stores the events in the caller's name, all or none.
 *
 * A session that is not the caller's, or not there, is left out: an event says little, and says it
 * without. Of a student who does not exist nothing is stored: the name may be of one who was erased.
 */
export async function storeEvents(
  ctx: MutationCtx,
  caller: Caller | UserCaller,
  events: TelemetryEvent[],
): Promise<void> {
  checkCount("events", events.length, SCHOOL.maxEvents);
  events.forEach((event, i) => checkEvent(`events[${i}]`, event));
  if (!("user" in caller) && caller.studentId === null && caller.claimedStudentId !== null) return;
  const sessions = new Map<string, Doc<"sessions"> | null>();
  for (const { eventType, createdAt, eventData, sessionKey } of events) {
    let session: Doc<"sessions"> | null = null;
    if (sessionKey !== undefined && !("user" in caller)) {
      session = sessions.get(sessionKey) ?? (await ownSession(ctx, caller, sessionKey));
      sessions.set(sessionKey, session);
    }
    await ctx.db.insert("analyticsEvents", {
      eventType,
      createdAt,
      eventData,
      sessionId: session?._id,
      ...ownerOf(caller),
    });
  }
}

function ownerOf(caller: Caller | UserCaller): Pick<Doc<"analyticsEvents">, "studentId" | "guest"> {
  if ("user" in caller) return {};
  if (caller.studentId !== null) return { studentId: caller.studentId };
  return { guest: guestName(caller) };
}

async function ownSession(
  ctx: MutationCtx,
  caller: Caller,
  sessionKey: string,
): Promise<Doc<"sessions"> | null> {
  const session = await sessionOfKey(ctx, sessionKey);
  return session !== null && maySee(caller, session) ? session : null;
}

function checkEvent(path: string, event: TelemetryEvent): void {
  const { eventType, createdAt, eventData, sessionKey } = event;
  checkInstant(`${path}.createdAt`, createdAt);
  checkLength(`${path}.sessionKey`, sessionKey, MAX_NAME_BYTES);
  const wanted = FIELDS[eventType];
  if (!wanted.every((name) => name in eventData)) {
    invalid(`${path}.eventData`, `is not of a ${eventType}: it must have ${wanted.join(", ")}`);
  }
  for (const [name, value] of Object.entries(eventData)) {
    const field = `${path}.eventData.${name}`;
    if (typeof value === "string") checkLength(field, value, MAX_NAME_BYTES);
    else if (!Number.isFinite(value)) invalid(field, "is not finite");
  }
}
