/**
 * Lessons, courses and avatars from JSON files.
 *
 * Rows are found by slug, so an import can be repeated. What a file leaves out stays as it is. All
 * files are read and checked as one before the first write: they may refer to each other.
 * @module
 */
import { v } from "convex/values";
import type { Infer } from "convex/values";
import type { Doc, Id } from "../_generated/dataModel";
import type { MutationCtx } from "../_generated/server";
import { fail } from "../errors";
import type { ErrorData } from "../errors";
import { vAvatarContent, vCourseContent, vLessonContent } from "../lessonValidators";
import { SCHOOL } from "../limits";
import { vSlide } from "../schoolValidators";
import { addToCourse, courseEnd } from "./courses";
import type { CourseEnd } from "./courses";
import { checkCount, checkLength, checkRange } from "./fields";
import {
  avatarProblems,
  caught,
  courseProblems,
  lessonProblems,
  slideSetProblems,
  togetherProblems,
} from "./lessonChecks";
import type { Draft } from "./lessonChecks";
import { slidesOf } from "./lessons";
import { read } from "./reading";

const vPublished = { published: v.optional(v.boolean()) };

const vImportAvatar = vAvatarContent.extend(vPublished);
const vImportCourse = vCourseContent.omit("published").extend(vPublished);
const vImportLesson = vLessonContent.extend({
  ...vPublished,
  slug: v.string(),
  slides: v.optional(v.array(vSlide)),
  /** Slugs of rows that are in the files or on the deployment. */
  course: v.optional(v.string()),
  avatar: v.optional(v.string()),
  /** Place in the course; without it the lesson is the last, or stays where it is. */
  position: v.optional(v.number()),
});
const vDocument = v.object({
  avatars: v.optional(v.array(vImportAvatar)),
  courses: v.optional(v.array(vImportCourse)),
  lessons: v.optional(v.array(vImportLesson)),
});
type ImportAvatar = Infer<typeof vImportAvatar>;
type ImportCourse = Infer<typeof vImportCourse>;
type ImportLesson = Infer<typeof vImportLesson>;

/** One file: its name, for what is said of it, and its text. */
export const vImportFile = v.object({ name: v.string(), text: v.string() });
export type ImportFile = Infer<typeof vImportFile>;

/** What was written. */
export const vImported = v.object({
  avatars: v.array(v.object({ slug: v.string(), avatarId: v.id("avatars") })),
  courses: v.array(v.object({ slug: v.string(), courseId: v.id("courses") })),
  lessons: v.array(v.object({ slug: v.string(), lessonId: v.id("lessons") })),
});
export type Imported = Infer<typeof vImported>;

/** A part of a file, and where it stands: `a.json: lessons[0].`. */
type Found<T> = { file: string; at: string; part: T };
type Parts<A, C, L> = { avatars: Found<A>[]; courses: Found<C>[]; lessons: Found<L>[] };
type Drafts = Parts<Draft<ImportAvatar>, Draft<ImportCourse>, Draft<ImportLesson>>;

/** The ends of the courses that lessons were added to. */
type CourseEnds = Map<Id<"courses">, CourseEnd>;

/** Collects what is wrong, a line each. */
class Faults {
  readonly lines: string[] = [];

  add(file: string, path: string, problem: string): void {
    this.lines.push([file, path, problem].filter((part) => part !== "").join(": "));
  }

  addAll(file: string, problems: Iterable<ErrorData>): void {
    for (const { field = "", message } of problems) {
      this.add(file, field, message.slice(field.length).trim());
    }
  }
}

/**
 * Writes what the files hold, or nothing.
 *
 * @throws ConvexError `invalid_value` with `problems`; `too_many_items`, `field_too_long`.
 */
export async function importFiles(ctx: MutationCtx, files: ImportFile[]): Promise<Imported> {
  checkCount("files", files.length, SCHOOL.maxImportFiles);
  checkLength("files", files.map(({ text }) => text).join(""), SCHOOL.maxImportBytes);
  const faults = new Faults();
  const parts: Drafts = { avatars: [], courses: [], lessons: [] };
  for (const file of files) readFile(file, parts, faults);
  checkParts(parts, faults);
  await checkTogether(ctx, parts, faults);
  refuseIfAny(faults);
  // Nothing was left out of the parts, or it would have been a fault.
  return await write(ctx, parts as Parts<ImportAvatar, ImportCourse, ImportLesson>);
}

function refuseIfAny({ lines }: Faults): void {
  if (lines.length === 0) return;
  const told = lines.slice(0, SCHOOL.maxImportProblems);
  const more = lines.length - told.length;
  if (more > 0) told[told.length - 1] = `… and ${more + 1} problems more`;
  fail({
    code: "invalid_value",
    message: `Nothing was imported: ${lines.length} problems, the first: ${lines[0]}`,
    problems: told,
  });
}

function readFile({ name: file, text }: ImportFile, parts: Drafts, faults: Faults): void {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    faults.add(file, "", `is not JSON: ${(error as Error).message}`);
    return;
  }
  const draft = read(vDocument, value, (path, problem) => faults.add(file, path, problem));
  const found = <T>(name: string, list: (T | undefined)[] | undefined): Found<T>[] =>
    (list ?? []).flatMap((part, i) =>
      part === undefined ? [] : [{ file, at: `${name}[${i}].`, part }],
    );
  parts.avatars.push(...found("avatars", draft?.avatars));
  parts.courses.push(...found("courses", draft?.courses));
  parts.lessons.push(...found("lessons", draft?.lessons));
}

/** Each part for itself. */
function checkParts({ avatars, courses, lessons }: Drafts, faults: Faults): void {
  for (const { file, at, part } of avatars) faults.addAll(file, avatarProblems(at, part));
  for (const { file, at, part } of courses) faults.addAll(file, courseProblems(at, part));
  for (const { file, at, part } of lessons) {
    const { slides, position, ...content } = part;
    faults.addAll(file, lessonProblems(at, content));
    faults.addAll(file, slideSetProblems(at, { slides }));
    faults.addAll(
      file,
      caught(() => {
        if (position !== undefined) checkRange(`${at}position`, position, 0, MAX_POSITION);
      }),
    );
  }
  for (const list of [avatars, courses, lessons]) checkSlugs(list, faults);
}

/** Room for numbers such as 10, 20, 30. */
const MAX_POSITION = 1_000_000;

function checkSlugs(list: Found<{ slug?: string }>[], faults: Faults): void {
  const known = new Set<string>();
  for (const { file, at, part } of list) {
    if (part.slug === undefined) continue;
    if (known.has(part.slug)) faults.add(file, `${at}slug`, `${part.slug} is there twice`);
    known.add(part.slug);
  }
}

/** The parts with each other and with what is on the deployment. */
async function checkTogether(ctx: MutationCtx, parts: Drafts, faults: Faults): Promise<void> {
  const courses = new Set(parts.courses.map(({ part }) => part.slug));
  const avatars = new Set(parts.avatars.map(({ part }) => part.slug));
  const sound = faults.lines.length === 0;
  for (const { file, at, part } of parts.lessons) {
    const { slug, course, avatar, slides, kind, exercises, published } = part;
    if (course !== undefined && !courses.has(course) && (await courseBySlug(ctx, course)) === null) {
      faults.add(file, `${at}course`, `there is no course ${course}, here or on the deployment`);
    }
    if (avatar !== undefined && !avatars.has(avatar) && (await avatarBySlug(ctx, avatar)) === null) {
      faults.add(file, `${at}avatar`, `there is no avatar ${avatar}, here or on the deployment`);
    }
    // Where parts are missing it cannot be told whether the rest belongs together.
    if (!sound || slug === undefined) continue;
    const known = await lessonBySlug(ctx, slug);
    const lesson = {
      kind,
      exercises: exercises ?? known?.exercises ?? [],
      published: published ?? known?.published ?? false,
    };
    const knownSlides = known === null ? [] : await slidesOf(ctx, known);
    faults.addAll(file, togetherProblems(at, lesson, (slides ?? knownSlides).length));
  }
}

async function write(
  ctx: MutationCtx,
  { avatars, courses, lessons }: Parts<ImportAvatar, ImportCourse, ImportLesson>,
): Promise<Imported> {
  const imported: Imported = { avatars: [], courses: [], lessons: [] };
  for (const { part } of avatars) {
    imported.avatars.push({ slug: part.slug, avatarId: await writeAvatar(ctx, part) });
  }
  for (const { part } of courses) {
    imported.courses.push({ slug: part.slug, courseId: await writeCourse(ctx, part) });
  }
  const ends: CourseEnds = new Map();
  for (const { part } of lessons) {
    imported.lessons.push({ slug: part.slug, lessonId: await writeLesson(ctx, part, ends) });
  }
  return imported;
}

async function writeAvatar(ctx: MutationCtx, avatar: ImportAvatar): Promise<Id<"avatars">> {
  const known = await avatarBySlug(ctx, avatar.slug);
  if (known === null) return await ctx.db.insert("avatars", { published: false, ...avatar });
  await ctx.db.patch("avatars", known._id, avatar);
  return known._id;
}

async function writeCourse(ctx: MutationCtx, course: ImportCourse): Promise<Id<"courses">> {
  const known = await courseBySlug(ctx, course.slug);
  if (known === null) return await ctx.db.insert("courses", { published: false, ...course });
  await ctx.db.patch("courses", known._id, course);
  return known._id;
}

async function writeLesson(
  ctx: MutationCtx,
  lesson: ImportLesson,
  ends: CourseEnds,
): Promise<Id<"lessons">> {
  const { course, avatar, slides, position, ...content } = lesson;
  const known = await lessonBySlug(ctx, lesson.slug);
  const inCourse = course === undefined ? null : await courseBySlug(ctx, course);
  const withAvatar = avatar === undefined ? null : await avatarBySlug(ctx, avatar);
  const fields = {
    ...content,
    ...(slides === undefined ? {} : await writeSlides(ctx, known, lesson.title, slides)),
    ...(position === undefined ? {} : { position }),
    ...(inCourse === null ? {} : await placeIn(ctx, known, inCourse._id, position, ends)),
    ...(withAvatar === null ? {} : { avatarId: withAvatar._id }),
  };
  if (known === null) return await ctx.db.insert("lessons", { published: false, ...fields });
  await ctx.db.patch("lessons", known._id, fields);
  return known._id;
}

async function placeIn(
  ctx: MutationCtx,
  known: Doc<"lessons"> | null,
  courseId: Id<"courses">,
  position: number | undefined,
  ends: CourseEnds,
) {
  if (known?.courseId === courseId) return { courseId };
  const end = ends.get(courseId) ?? (await courseEnd(ctx, courseId));
  ends.set(courseId, end);
  return { courseId, position: addToCourse(end, position) };
}

async function writeSlides(
  ctx: MutationCtx,
  known: Doc<"lessons"> | null,
  title: string,
  slides: Infer<typeof vSlide>[],
): Promise<{ slideSetId: Id<"slideSets"> | undefined }> {
  const given = known?.slideSetId;
  const set = given === undefined ? null : await ctx.db.get("slideSets", given);
  if (slides.length === 0) {
    if (set !== null) await ctx.db.delete("slideSets", set._id);
    return { slideSetId: undefined };
  }
  if (set === null) return { slideSetId: await ctx.db.insert("slideSets", { title, slides }) };
  await ctx.db.replace("slideSets", set._id, { title, slides });
  return { slideSetId: set._id };
}

async function lessonBySlug(ctx: MutationCtx, slug: string): Promise<Doc<"lessons"> | null> {
  return await ctx.db
    .query("lessons")
    .withIndex("by_slug", (q) => q.eq("slug", slug))
    .unique();
}

async function courseBySlug(ctx: MutationCtx, slug: string): Promise<Doc<"courses"> | null> {
  return await ctx.db
    .query("courses")
    .withIndex("by_slug", (q) => q.eq("slug", slug))
    .unique();
}

async function avatarBySlug(ctx: MutationCtx, slug: string): Promise<Doc<"avatars"> | null> {
  return await ctx.db
    .query("avatars")
    .withIndex("by_slug", (q) => q.eq("slug", slug))
    .unique();
}
