/**
 * Students as the school keeps them: who they are, and how far they came.
 * @module
 */
import type { PaginationOptions, PaginationResult } from "convex/server";
import type { Doc, Id } from "../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../_generated/server";
import { fail } from "../errors";
import type { UserCaller } from "../functions";
import { SCHOOL } from "../limits";
import type {
  NewStudent,
  Preferences,
  StudentChanges,
  StudentProfile,
  StudentSummary,
  Totals,
} from "../schoolValidators";
import { addDays } from "./days";
import { checkLanguage, checkName, checkNames, checkRange, checkTimeZone } from "./fields";
import { pageOf } from "./pages";
import { link } from "./studentAccess";
import { DEFAULT_PREFERENCES, toStudent } from "./students";

const NO_TOTALS: Totals = { sessions: 0, durationMs: 0, messages: 0, streakDays: 0 };

/** Makes the student; a teacher who does is linked. @throws ConvexError as `students:create`. */
export async function createStudent(
  ctx: MutationCtx,
  { user }: UserCaller,
  said: NewStudent,
): Promise<Id<"students">> {
  await checkStudent(ctx, said, null);
  const studentId = await ctx.db.insert("students", { preferences: DEFAULT_PREFERENCES, ...said });
  if (user.role === "teacher") await link(ctx, user, studentId);
  return studentId;
}

/** Changes the student. @throws ConvexError as `students:update`. */
export async function updateStudent(
  ctx: MutationCtx,
  studentId: Id<"students">,
  changes: StudentChanges,
): Promise<void> {
  await checkStudent(ctx, changes, studentId);
  const { reference, courseId, avatarId, ...kept } = changes;
  await ctx.db.patch("students", studentId, {
    ...kept,
    ...changed("reference", reference),
    ...changed("courseId", courseId),
    ...changed("avatarId", avatarId),
  });
}

/** @throws ConvexError `number_out_of_range`. */
export function checkPreferences({ speechRate }: Preferences): void {
  const { minSpeechRate, maxSpeechRate } = SCHOOL;
  checkRange("preferences.speechRate", speechRate, minSpeechRate, maxSpeechRate);
}

/**
 * The student, their totals as they stand on the day `today`.
 *
 * @throws ConvexError `student_unknown`.
 */
export async function loadProfile(
  ctx: QueryCtx,
  studentId: Id<"students">,
  today: string,
): Promise<StudentProfile> {
  const student = await ctx.db.get("students", studentId);
  if (student === null) fail({ code: "student_unknown", message: "There is no such student." });
  const { reference, preferences, courseId, avatarId, totals = NO_TOTALS } = student;
  const { lastDay, streakDays } = totals;
  const stands = lastDay !== undefined && lastDay >= addDays(today, -1);
  return {
    ...toStudent(student),
    ...(reference === undefined ? {} : { reference }),
    preferences,
    ...(courseId === undefined ? {} : { courseId }),
    ...(avatarId === undefined ? {} : { avatarId }),
    totals: { ...totals, streakDays: stands ? streakDays : 0 },
  };
}

/**
 * A page of the students whom the user may see, by age of the student or of the link.
 *
 * Reads a student's row for each, and for teachers and guardians the link.
 */
export async function listStudents(
  ctx: QueryCtx,
  { role, user }: UserCaller,
  paginationOpts: PaginationOptions,
): Promise<PaginationResult<StudentSummary>> {
  if (role === "administrator") {
    const result = await ctx.db.query("students").paginate(pageOf(paginationOpts));
    return { ...result, page: result.page.map((student) => toSummary(student)) };
  }
  const result = await ctx.db
    .query("studentAccess")
    .withIndex("by_userId_and_studentId", (q) => q.eq("userId", user._id))
    .paginate(pageOf(paginationOpts));
  const page: StudentSummary[] = [];
  for (const { studentId, consent } of result.page) {
    const student = await ctx.db.get("students", studentId);
    if (student !== null) page.push({ ...toSummary(student), ...(consent && { consent }) });
  }
  return { ...result, page };
}

function toSummary({ _id, name, level, totals }: Doc<"students">): StudentSummary {
  return { studentId: _id, name, level, totals: totals ?? NO_TOTALS };
}

/** The field as a patch takes it: null takes it away, absent leaves it. */
function changed<Name extends string, Value>(
  name: Name,
  value: Value | null | undefined,
): Partial<Record<Name, Value | undefined>> {
  if (value === undefined) return {};
  return { [name]: value ?? undefined } as Partial<Record<Name, Value | undefined>>;
}

/** Every field that is there. `studentId` is the row that may have the reference already. */
async function checkStudent(
  ctx: QueryCtx,
  said: StudentChanges,
  studentId: Id<"students"> | null,
): Promise<void> {
  checkName("name", said.name);
  checkLanguage("nativeLanguage", said.nativeLanguage);
  checkLanguage("targetLanguage", said.targetLanguage);
  checkTimeZone("timeZone", said.timeZone);
  checkNames("goals", said.goals, SCHOOL.maxGoals);
  checkNames("interests", said.interests, SCHOOL.maxGoals);
  if (said.preferences !== undefined) checkPreferences(said.preferences);
  await checkReference(ctx, said.reference ?? undefined, studentId);
  const course = said.courseId ? await ctx.db.get("courses", said.courseId) : undefined;
  if (course === null) notFound("courseId", "course");
  const avatar = said.avatarId ? await ctx.db.get("avatars", said.avatarId) : undefined;
  if (avatar === null) notFound("avatarId", "avatar");
}

async function checkReference(
  ctx: QueryCtx,
  reference: string | undefined,
  studentId: Id<"students"> | null,
): Promise<void> {
  checkName("reference", reference);
  if (reference === undefined) return;
  const known = await ctx.db
    .query("students")
    .withIndex("by_reference", (q) => q.eq("reference", reference))
    .unique();
  if (known === null || known._id === studentId) return;
  fail({
    code: "already_exists",
    message: "reference is that of another student",
    field: "reference",
  });
}

function notFound(field: string, what: string): never {
  fail({ code: "not_found", message: `There is no such ${what}.`, field });
}
