/**
 * What makes a lesson, a course or an avatar one that can be kept.
 *
 * Each function tells everything that is wrong, lazily: a page's call is refused with the first, an
 * import lists them all. Parts that are missing are left alone: validators and the import's own
 * reading see to those.
 * @module
 */
import { ConvexError } from "convex/values";
import { fail } from "../errors";
import type { ErrorData } from "../errors";
import type { AvatarContent, CourseContent, LessonContent, SlideSet } from "../lessonValidators";
import { SCHOOL } from "../limits";
import type { Exercise } from "../schoolValidators";
import { checkCount, checkLanguage, checkLength, checkName, checkRange, invalid } from "./fields";
import { utf8Length } from "./text";

/** A value of which any part may be missing. */
export type Draft<T> = T extends (infer Item)[]
  ? (Draft<Item> | undefined)[]
  : T extends object
    ? { [Key in keyof T]?: Draft<T[Key]> }
    : T;

type Problems = Generator<ErrorData, void>;

/** Ends the function with the first of the problems, if there is one. */
export function refuseFirst(...problems: Iterable<ErrorData>[]): void {
  for (const some of problems) {
    for (const problem of some) fail(problem);
  }
}

/** What is wrong with a lesson's own fields; `at` stands in front of each path, `lessons[0].`. */
export function* lessonProblems(at: string, lesson: Draft<LessonContent>): Problems {
  yield* slugProblems(`${at}slug`, lesson.slug);
  yield* caught(() => checkName(`${at}title`, lesson.title));
  yield* caught(() => checkLanguage(`${at}language`, lesson.language));
  yield* namesProblems(`${at}objectives`, lesson.objectives, SCHOOL.maxObjectives);
  yield* namesProblems(`${at}targetWords`, lesson.targetWords, SCHOOL.maxTargetWords);
  yield* exercisesProblems(`${at}exercises`, lesson.exercises ?? []);
  yield* caught(() => {
    const field = at === "" ? "lesson" : at.slice(0, -1);
    checkLength(field, JSON.stringify(lesson), SCHOOL.maxLessonBytes);
  });
}

function* exercisesProblems(at: string, exercises: (Draft<Exercise> | undefined)[]): Problems {
  yield* caught(() => checkCount(at, exercises.length, SCHOOL.maxExercises));
  const known = new Set<string>();
  for (const [i, exercise] of exercises.entries()) {
    if (exercise === undefined) continue;
    const { exerciseId, kind, prompt, answers, slide } = exercise;
    const here = `${at}[${i}]`;
    yield* caught(() => checkName(`${here}.exerciseId`, exerciseId));
    if (exerciseId !== undefined) {
      yield* caught(() => {
        if (known.has(exerciseId)) invalid(`${here}.exerciseId`, "is another exercise's too");
      });
      known.add(exerciseId);
    }
    yield* caught(() => checkName(`${here}.prompt`, prompt));
    yield* namesProblems(`${here}.answers`, answers, SCHOOL.maxAnswers);
    yield* caught(() => {
      const closed = kind === "fill_in" || kind === "choose";
      if (closed && answers?.length === 0) invalid(`${here}.answers`, `is empty; ${kind} needs one`);
    });
    yield* caught(() => {
      if (slide === undefined) return;
      checkRange(`${here}.slide`, slide, 0, SCHOOL.maxSlides - 1);
      if (!Number.isInteger(slide)) invalid(`${here}.slide`, "is no whole number");
    });
  }
}

/** What is wrong with the slides themselves. */
export function* slideSetProblems(at: string, { title, slides = [] }: Draft<SlideSet>): Problems {
  yield* caught(() => checkName(`${at}title`, title));
  yield* caught(() => checkCount(`${at}slides`, slides.length, SCHOOL.maxSlides));
  for (const [i, slide] of slides.entries()) {
    yield* caught(() => checkName(`${at}slides[${i}].title`, slide?.title));
    yield* textProblems(`${at}slides[${i}].text`, slide?.text, SCHOOL.maxSlideBytes);
    yield* textProblems(`${at}slides[${i}].notes`, slide?.notes, SCHOOL.maxSlideBytes);
  }
}

/** Whether a lesson and its slides belong together. */
export function* togetherProblems(
  at: string,
  lesson: Draft<LessonContent> & { published?: boolean },
  slideCount: number,
): Problems {
  for (const [i, exercise] of (lesson.exercises ?? []).entries()) {
    const slide = exercise?.slide;
    if (slide === undefined || slide < slideCount) continue;
    yield noSlide(`${at}exercises[${i}].slide`, slide, slideCount);
  }
  yield* caught(() => {
    const bare = lesson.kind === "guided" && lesson.published === true && slideCount === 0;
    if (bare) invalid(`${at}published`, "cannot be: a guided lesson needs slides");
  });
}

/** The refusal of a slide that is not in the set. */
export function noSlide(field: string, index: number, slideCount: number): ErrorData {
  return {
    code: "not_found",
    message: `${field} is ${index}; there is no such slide, of ${slideCount} counted from 0`,
    field,
    limit: slideCount,
  };
}

/** What is wrong with a course. */
export function* courseProblems(at: string, course: Draft<CourseContent>): Problems {
  yield* slugProblems(`${at}slug`, course.slug);
  yield* caught(() => checkName(`${at}title`, course.title));
  yield* caught(() => checkLanguage(`${at}language`, course.language));
}

/** What is wrong with an avatar. */
export function* avatarProblems(at: string, avatar: Draft<AvatarContent>): Problems {
  yield* slugProblems(`${at}slug`, avatar.slug);
  yield* caught(() => checkName(`${at}name`, avatar.name));
  yield* textProblems(`${at}persona`, avatar.persona, SCHOOL.maxPersonaBytes);
  yield* caught(() => checkName(`${at}voice`, avatar.voice));
  yield* caught(() => checkLanguage(`${at}language`, avatar.language));
  yield* caught(() => checkName(`${at}talkingHead.provider`, avatar.talkingHead?.provider));
  yield* caught(() => checkName(`${at}talkingHead.face`, avatar.talkingHead?.face));
}

function* slugProblems(field: string, slug: string | undefined): Problems {
  yield* caught(() => {
    checkLength(field, slug, SCHOOL.maxSlugBytes);
    if (slug === undefined || /^[a-z0-9]+(-[a-z0-9]+)*$/.test(slug)) return;
    invalid(field, "is not made of small letters and digits joined by hyphens");
  });
}

function* namesProblems(
  field: string,
  values: (string | undefined)[] | undefined,
  limit: number,
): Problems {
  if (values === undefined) return;
  yield* caught(() => checkCount(field, values.length, limit));
  for (const [i, value] of values.entries()) {
    yield* caught(() => checkName(`${field}[${i}]`, value));
  }
}

function* textProblems(field: string, text: string | undefined, limit: number): Problems {
  if (text === undefined) return;
  const size = utf8Length(text);
  if (size <= limit) return;
  const message = `${field} is ${size} bytes; the limit is ${limit}`;
  yield { code: "text_too_long", message, field, limit };
}

/** The refusal that the check ends in, as a problem. */
export function* caught(check: () => void): Problems {
  try {
    check();
  } catch (error) {
    if (!(error instanceof ConvexError)) throw error;
    yield error.data as ErrorData;
  }
}
