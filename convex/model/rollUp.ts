/**
 * The school's day: sums over all sessions, folded from rows per session and per student.
 *
 * Only this writes `schoolDays`, so that lessons never wait for each other. Each row remembers what
 * the school has of it, and the difference is added.
 * @module
 */
import type { WithoutSystemFields } from "convex/server";
import type { Doc, Id } from "../_generated/dataModel";
import type { MutationCtx } from "../_generated/server";
import type { SessionSums } from "../learningValidators";
import { isEmptyDay } from "./dailyStats";
import { addErrorKinds } from "./errorKinds";
import { addHistogram, emptyHistogram } from "./histogram";

/** Rows of each kind folded in one call. */
const PAGE = 64;

/**
 * Folds the rows that changed since they were folded last.
 *
 * @returns Whether there may be more.
 */
export async function rollUp(ctx: MutationCtx): Promise<boolean> {
  const school = new School(ctx);
  const stats = await ctx.db
    .query("sessionStats")
    .withIndex("by_pending", (q) => q.eq("pending", true))
    .take(PAGE);
  for (const row of stats) await rollUpSession(ctx, school, row);
  const days = await ctx.db
    .query("dailyStats")
    .withIndex("by_pending", (q) => q.eq("pending", true))
    .take(PAGE);
  for (const row of days) await rollUpActive(ctx, school, row);
  await school.write();
  return stats.length === PAGE || days.length === PAGE;
}

type Contribution = SessionSums & { day: string; lessonId?: Id<"lessons"> | undefined };

async function rollUpSession(
  ctx: MutationCtx,
  school: School,
  row: Doc<"sessionStats">,
): Promise<void> {
  const { day, lessonId, durationMs, messages, errorsDetected, errorsCorrected } = row;
  const { latency, errorKinds } = row;
  const rolledUp: Contribution = {
    day,
    lessonId,
    durationMs,
    messages,
    errorsDetected,
    errorsCorrected,
    latency,
    errorKinds,
  };
  if (row.rolledUp !== undefined) await addSession(school, row.rolledUp, -1);
  await addSession(school, rolledUp, 1);
  await ctx.db.patch("sessionStats", row._id, { pending: false, rolledUp });
}

/** To the whole school, and to the lesson if there is one. */
async function addSession(school: School, added: Contribution, sign: 1 | -1): Promise<void> {
  for (const lessonId of new Set([undefined, added.lessonId])) {
    const day = await school.day(added.day, lessonId);
    day.sessions += sign;
    day.durationMs += sign * added.durationMs;
    day.messages += sign * added.messages;
    day.errorsDetected += sign * added.errorsDetected;
    day.errorsCorrected += sign * added.errorsCorrected;
    day.latency = addHistogram(day.latency, added.latency, sign);
    day.errorKinds = addErrorKinds(day.errorKinds, added.errorKinds, sign);
  }
}

async function rollUpActive(
  ctx: MutationCtx,
  school: School,
  row: Doc<"dailyStats">,
): Promise<void> {
  const countedActive = row.sessions > 0;
  const day = await school.day(row.day, undefined);
  day.activeStudents += Number(countedActive) - Number(row.countedActive);
  const counted = { ...row, countedActive, pending: false };
  if (isEmptyDay(counted)) {
    await ctx.db.delete("dailyStats", row._id);
  } else {
    await ctx.db.replace("dailyStats", row._id, counted);
  }
}

type SchoolDay = WithoutSystemFields<Doc<"schoolDays">>;

/** The rows that one call changes, each read once and written once. */
class School {
  private readonly days = new Map<string, { id: Id<"schoolDays"> | null; sums: SchoolDay }>();

  constructor(private readonly ctx: MutationCtx) {}

  /** The row to be changed; without a lesson, that of the whole school. */
  async day(day: string, lessonId: Id<"lessons"> | undefined): Promise<SchoolDay> {
    const key = `${day} ${lessonId ?? ""}`;
    const known = this.days.get(key);
    if (known !== undefined) return known.sums;
    const row = await this.ctx.db
      .query("schoolDays")
      .withIndex("by_lessonId_and_day", (q) => q.eq("lessonId", lessonId).eq("day", day))
      .unique();
    const opened = row === null ? { id: null, sums: nothing(day, lessonId) } : openedFrom(row);
    this.days.set(key, opened);
    return opened.sums;
  }

  /** Writes the rows; one that nothing is left of goes. */
  async write(): Promise<void> {
    for (const { id, sums } of this.days.values()) {
      const isEmpty = sums.sessions === 0 && sums.activeStudents === 0;
      if (id === null) {
        if (!isEmpty) await this.ctx.db.insert("schoolDays", sums);
      } else if (isEmpty) {
        await this.ctx.db.delete("schoolDays", id);
      } else {
        await this.ctx.db.replace("schoolDays", id, sums);
      }
    }
  }
}

function openedFrom({ _id, _creationTime, ...sums }: Doc<"schoolDays">) {
  return { id: _id, sums };
}

function nothing(day: string, lessonId: Id<"lessons"> | undefined): SchoolDay {
  return {
    day,
    lessonId,
    sessions: 0,
    activeStudents: 0,
    durationMs: 0,
    messages: 0,
    errorsDetected: 0,
    errorsCorrected: 0,
    latency: emptyHistogram(),
    errorKinds: [],
  };
}
