/**
 * Lessons with their slides.
 * @module
 */
import type { QueryCtx } from "../_generated/server";
import type { Lesson } from "../schoolValidators";

/** The lesson of that id, or null: unknown, deleted, or an id of another table or deployment. */
export async function loadLesson(
  ctx: QueryCtx,
  lessonId: string | undefined,
): Promise<Lesson | null> {
  const id = lessonId === undefined ? null : ctx.db.normalizeId("lessons", lessonId);
  const lesson = id === null ? null : await ctx.db.get("lessons", id);
  if (lesson === null) return null;
  const slideSet =
    lesson.slideSetId === undefined ? null : await ctx.db.get("slideSets", lesson.slideSetId);
  const { _id, title, level, language, kind, objectives, targetWords, exercises } = lesson;
  return {
    lessonId: _id,
    title,
    level,
    language,
    kind,
    objectives,
    targetWords,
    slides: slideSet?.slides ?? [],
    exercises: exercises ?? [],
  };
}
