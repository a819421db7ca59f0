/**
 * The slides of a lesson: every function names the lesson, which has one set or none.
 * @module
 */
import { v } from "convex/values";
import type { Doc, Id } from "./_generated/dataModel";
import type { MutationCtx, QueryCtx } from "./_generated/server";
import { fail } from "./errors";
import { studentQuery, teacherMutation, teacherQuery } from "./functions";
import { vCurrentSlide, vSlideSet } from "./lessonValidators";
import type { SlideSet } from "./lessonValidators";
import { noSlide, refuseFirst, slideSetProblems, togetherProblems } from "./model/lessonChecks";
import { requireLesson, slidesOf } from "./model/lessons";
import { findSession, liveOf } from "./model/sessions";
import { vSlide } from "./schoolValidators";

const vLessonId = { lessonId: v.id("lessons") };

/** The lesson and its slide set, to be changed. */
async function openSet(ctx: QueryCtx, lessonId: Id<"lessons">) {
  const lesson = await requireLesson(ctx, lessonId);
  const { slideSetId } = lesson;
  const set = slideSetId === undefined ? null : await ctx.db.get("slideSets", slideSetId);
  if (set === null) {
    fail({ code: "not_found", message: "The lesson has no slides yet.", field: "lessonId" });
  }
  return { lesson, set };
}

/** Writes the slides; refused where the lesson's exercises then name one that is not there. */
async function putSlides(
  ctx: MutationCtx,
  { lesson, set }: { lesson: Doc<"lessons">; set: Doc<"slideSets"> },
  changes: Partial<SlideSet>,
): Promise<void> {
  const changed = { title: set.title, slides: set.slides, ...changes };
  const published = { ...lesson, published: lesson.published === true };
  refuseFirst(
    slideSetProblems("", changed),
    togetherProblems("", published, changed.slides.length),
  );
  await ctx.db.patch("slideSets", set._id, changed);
}

function requireSlide(field: string, index: number, set: SlideSet): void {
  if (set.slides[index] === undefined) fail(noSlide(field, index, set.slides.length));
}

/**
 * A lesson's slides, with the tutor's notes; null while it has none.
 *
 * @throws ConvexError `not_found` (lesson).
 */
export const get = teacherQuery({
  args: vLessonId,
  returns: v.union(vSlideSet, v.null()),
  handler: async (ctx, { lessonId }) => {
    const { slideSetId } = await requireLesson(ctx, lessonId);
    const set = slideSetId === undefined ? null : await ctx.db.get("slideSets", slideSetId);
    return set === null ? null : { title: set.title, slides: set.slides };
  },
});

/**
 * Gives a lesson its slides.
 *
 * @param slides - At most 32; text and notes at most 8 KiB each.
 * @throws ConvexError `not_found` (lesson), `already_exists`, `too_many_items`, `text_too_long`,
 *   `field_too_long`, `invalid_value`.
 */
export const create = teacherMutation({
  args: { ...vLessonId, ...vSlideSet.fields },
  returns: v.null(),
  handler: async (ctx, { lessonId, ...set }) => {
    const lesson = await requireLesson(ctx, lessonId);
    const { slideSetId } = lesson;
    if (slideSetId !== undefined && (await ctx.db.get("slideSets", slideSetId)) !== null) {
      const message = "The lesson has slides already: presentations:setSlides changes them.";
      fail({ code: "already_exists", message, field: "lessonId" });
    }
    refuseFirst(slideSetProblems("", set));
    await ctx.db.patch("lessons", lessonId, {
      slideSetId: await ctx.db.insert("slideSets", set),
    });
    return null;
  },
});

/**
 * Changes the set's title, or one slide.
 *
 * @param slide - Which one, counted from 0, and what it says from now on.
 * @throws ConvexError `not_found` for a lesson, its slides or a slide that is not there; and as
 *   `create`.
 */
export const update = teacherMutation({
  args: {
    ...vLessonId,
    title: v.optional(v.string()),
    slide: v.optional(v.object({ index: v.number(), content: vSlide })),
  },
  returns: v.null(),
  handler: async (ctx, { lessonId, title, slide }) => {
    const opened = await openSet(ctx, lessonId);
    const slides = [...opened.set.slides];
    if (slide !== undefined) {
      requireSlide("slide.index", slide.index, opened.set);
      slides[slide.index] = slide.content;
    }
    await putSlides(ctx, opened, { slides, ...(title === undefined ? {} : { title }) });
    return null;
  },
});

/**
 * Replaces all slides.
 *
 * @throws ConvexError as `create`; `not_found` too where an exercise names a slide that is then not
 *   there, `invalid_value` where a published guided lesson would have none.
 */
export const setSlides = teacherMutation({
  args: { ...vLessonId, slides: v.array(vSlide) },
  returns: v.null(),
  handler: async (ctx, { lessonId, slides }) => {
    await putSlides(ctx, await openSet(ctx, lessonId), { slides });
    return null;
  },
});

/**
 * Moves a slide to another place; those between make room. Exercises stay with their slides.
 *
 * @throws ConvexError `not_found` for a lesson, its slides, or a place that is not there.
 */
export const moveSlide = teacherMutation({
  args: { ...vLessonId, from: v.number(), to: v.number() },
  returns: v.null(),
  handler: async (ctx, { lessonId, from, to }) => {
    const { lesson, set } = await openSet(ctx, lessonId);
    requireSlide("from", from, set);
    requireSlide("to", to, set);
    const places = set.slides.map((_, place) => place);
    places.splice(to, 0, ...places.splice(from, 1));
    const slides = places.flatMap((place) => set.slides[place] ?? []);
    const exercises = lesson.exercises?.map((exercise) => {
      const slide = exercise.slide === undefined ? -1 : places.indexOf(exercise.slide);
      return slide < 0 ? exercise : { ...exercise, slide };
    });
    await ctx.db.patch("slideSets", set._id, { slides });
    if (exercises !== undefined) await ctx.db.patch("lessons", lessonId, { exercises });
    return null;
  },
});

/**
 * The slide that is on in a session, without the tutor's notes; null before the session exists.
 *
 * `slide` is null before the first one, and where the teacher has taken it away meanwhile.
 *
 * @throws ConvexError `forbidden` if the session is somebody else's.
 */
export const current = studentQuery({
  args: { sessionKey: v.string() },
  returns: v.union(vCurrentSlide, v.null()),
  handler: async (ctx, { sessionKey }) => {
    const session = await findSession(ctx, ctx.about, sessionKey);
    if (session === null) return null;
    const live = await liveOf(ctx, session._id);
    const lesson =
      session.lessonId === undefined ? null : await ctx.db.get("lessons", session.lessonId);
    const slides = lesson === null ? [] : await slidesOf(ctx, lesson);
    const index = live?.slide?.slide ?? null;
    const on = index === null ? undefined : slides[index];
    return {
      index,
      count: slides.length,
      slide: on === undefined ? null : { title: on.title, text: on.text },
    };
  },
});
