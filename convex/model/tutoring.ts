/**
 * The fold of what the tutor notes beside the talk: corrections, words, exercises, slides, steps.
 *
 * The row that each record becomes does not depend on the order in which the runs of a student
 * arrive: where several records tell of one thing, their places decide.
 * @module
 */
import type { Doc } from "../_generated/dataModel";
import type { MutationCtx } from "../_generated/server";
import type { TutoringRecord, TutoringRecordOf } from "../learningValidators";
import { foldCorrection } from "./corrections";
import { comparePlaces, placeIn } from "./places";
import type { JoinedRun } from "./runs";
import { foldWordIntroduced, foldWordReviewed } from "./vocabulary";

/** Applies one record; counts in `live`, which the caller writes. */
export async function foldTutoring(
  ctx: MutationCtx,
  run: JoinedRun,
  live: Doc<"sessionLive">,
  record: Exclude<TutoringRecord, { kind: "sessionSummary" }>,
): Promise<void> {
  switch (record.kind) {
    case "correction":
      await foldCorrection(ctx, run, live, record);
      return;
    case "wordIntroduced":
      await foldWordIntroduced(ctx, run, record);
      return;
    case "wordReviewed":
      await foldWordReviewed(ctx, run, record);
      return;
    case "exerciseResult":
      await insertResult(ctx, run, record);
      return;
    case "slideShown": {
      const from = placeIn(run, record);
      if (live.slide !== undefined && comparePlaces(from, live.slide.from) < 0) return;
      live.slide = { slide: record.slide, from };
      return;
    }
    case "stepEntered": {
      const from = placeIn(run, record);
      if (live.step !== undefined && comparePlaces(from, live.step.from) < 0) return;
      live.step = { step: record.step, from };
      return;
    }
    case "lessonFinished":
      await finishLesson(ctx, run, record.createdAt);
      return;
    default:
      record satisfies never;
  }
}

async function insertResult(
  ctx: MutationCtx,
  run: JoinedRun,
  record: TutoringRecordOf<"exerciseResult">,
): Promise<void> {
  const { runId, sessionId, studentId, guest } = run;
  const { seq, exerciseId, score, answer, createdAt } = record;
  await ctx.db.insert("exerciseResults", {
    sessionId,
    studentId,
    guest,
    runId,
    seq,
    exerciseId,
    score,
    answer,
    createdAt,
  });
}

/** The objectives were reached when the earliest record says so. */
async function finishLesson(ctx: MutationCtx, run: JoinedRun, at: number): Promise<void> {
  const session = await ctx.db.get("sessions", run.sessionId);
  if (session === null) return;
  if (session.completedAt !== undefined && session.completedAt <= at) return;
  await ctx.db.patch("sessions", session._id, { completedAt: at });
}
