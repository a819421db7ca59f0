/**
 * Students: what the tutor, their own page and the school know of them.
 * @module
 */
import { paginationOptsValidator, paginationResultValidator } from "convex/server";
import { v } from "convex/values";
import { internalMutation, internalQuery } from "./_generated/server";
import { fail } from "./errors";
import {
  adminMutation,
  adminQuery,
  agentQuery,
  requireAccess,
  requireStudent,
  studentMutation,
  studentQuery,
  teacherMutation,
  userQuery,
} from "./functions";
import { vTutoringContext } from "./learningValidators";
import { beginErasure, loadReceipt } from "./model/erasures";
import { loadExportedPage, requireStudentId, vExportedPage } from "./model/exports";
import { checkDay, checkInstant } from "./model/fields";
import {
  checkPreferences,
  createStudent,
  listStudents,
  loadProfile,
  updateStudent,
} from "./model/studentProfiles";
import { loadTutoringContext } from "./model/students";
import {
  vErasureReceipt,
  vNewStudent,
  vPreferences,
  vStudentChanges,
  vStudentProfile,
  vStudentSummary,
} from "./schoolValidators";

/**
 * Everything the tutor knows before the first word, in one bounded query.
 *
 * @param lessonId - Unknown, or of another table or deployment: `lesson` is null.
 * @param sessionKey - The session that is about to be held, or goes on: not the last one.
 * @param now - For what is due and what is long ago: milliseconds since the epoch, rounded to the
 *   hour by who subscribes. Absent: the moment at which it is asked.
 * @throws ConvexError `instant_out_of_range`; `student_unknown` if the token names no student who exists: also for guests.
 */
export const tutoringContext = agentQuery({
  args: {
    lessonId: v.optional(v.string()),
    sessionKey: v.optional(v.string()),
    now: v.optional(v.number()),
  },
  returns: vTutoringContext,
  handler: async (ctx, { now = Date.now(), ...about }) => {
    checkInstant("now", now);
    return await loadTutoringContext(ctx, requireStudent(ctx.caller), { ...about, now });
  },
});

/**
 * Takes a student in. A teacher who does may see them from then on.
 *
 * @throws ConvexError `already_exists` where another student has the `reference`; `not_found` for
 *   the course or avatar; `invalid_value` for a language that is no BCP 47 tag and a time zone that
 *   is no IANA zone; `too_many_items`, `field_too_long`, `number_out_of_range`.
 */
export const create = teacherMutation({
  args: vNewStudent,
  returns: v.id("students"),
  handler: async (ctx, student) => await createStudent(ctx, ctx.caller, student),
});

/**
 * Changes what is given; a `reference`, course or avatar that is null is taken away.
 *
 * @throws ConvexError as `students:create`; `forbidden` unless the teacher may see the student.
 */
export const update = teacherMutation({
  args: { studentId: v.id("students"), changes: vStudentChanges },
  returns: v.null(),
  handler: async (ctx, { studentId, changes }) => {
    await requireAccess(ctx, ctx.caller, studentId);
    await updateStudent(ctx, studentId, changes);
    return null;
  },
});

/**
 * How the calling student likes to be taught; a lesson that is on follows at once.
 *
 * @throws ConvexError `number_out_of_range` for a speech rate below 0.5 or above 2.
 */
export const setPreferences = studentMutation({
  args: { preferences: vPreferences },
  returns: v.null(),
  handler: async (ctx, { preferences }) => {
    checkPreferences(preferences);
    await ctx.db.patch("students", ctx.about.studentId, { preferences });
    return null;
  },
});

/**
 * A student and their totals.
 *
 * @param today - `YYYY-MM-DD` where the student lives: a streak that ended before yesterday is 0.
 * @throws ConvexError `invalid_value`; `student_unknown` to the agent of a guest.
 */
export const profile = studentQuery({
  args: { today: v.string() },
  returns: vStudentProfile,
  handler: async (ctx, { today }) => {
    checkDay("today", today);
    return await loadProfile(ctx, requireStudent(ctx.about), today);
  },
});

/**
 * A page of the students whom the calling user may see, at most 200: teachers and guardians those
 * they are linked to, administrators all.
 *
 * Reads two rows for each; for administrators one.
 */
export const mine = userQuery({
  args: { paginationOpts: paginationOptsValidator },
  returns: paginationResultValidator(vStudentSummary),
  handler: async (ctx, { paginationOpts }) => await listStudents(ctx, ctx.caller, paginationOpts),
});

/**
 * Erases a student: blocks them at once, then deletes their rows everywhere, a page at a time.
 *
 * Called again it goes on and gives the same receipt. A lesson that is being held, and a journal
 * that arrives afterwards, bring nothing back: their records are answered `erased`.
 *
 * @returns The receipt so far; `students:erasure` tells when it is `finishedAt`.
 * @throws ConvexError `student_unknown`; `not_configured` without ERASURE_KEY on the deployment.
 */
export const erase = adminMutation({
  args: { studentId: v.id("students") },
  returns: vErasureReceipt,
  handler: async (ctx, { studentId }) => await beginErasure(ctx, studentId),
});

/** `students:erase` for the command line: `npx convex run students:eraseInternal`. */
export const eraseInternal = internalMutation({
  args: { studentId: v.string() },
  returns: vErasureReceipt,
  handler: async (ctx, { studentId }) => await beginErasure(ctx, requireStudentId(ctx, studentId)),
});

/**
 * The receipt of a student's erasure: rows deleted so far, by table; null if they were not erased.
 *
 * @throws ConvexError `not_configured` without ERASURE_KEY on the deployment.
 */
export const erasure = adminQuery({
  args: { studentId: v.id("students") },
  returns: v.union(vErasureReceipt, v.null()),
  handler: async (ctx, { studentId }) => await loadReceipt(ctx, studentId),
});

/** `students:erasure` for the command line. */
export const erasureInternal = internalQuery({
  args: { studentId: v.string() },
  returns: v.union(vErasureReceipt, v.null()),
  handler: async (ctx, { studentId }) => await loadReceipt(ctx, studentId),
});

/**
 * Everything held about a student, as it is stored: at most 100 rows and some 4 MiB a page.
 *
 * For the student, their guardians and administrators. Not for teachers, whose business is the
 * teaching, nor for agents.
 *
 * @param cursor - As the page before gave it; null for the first.
 * @throws ConvexError `forbidden`; `student_unknown`; `invalid_value` for a cursor of no page.
 */
export const exportData = studentQuery({
  args: { cursor: v.union(v.string(), v.null()) },
  returns: vExportedPage,
  handler: async (ctx, { cursor }) => {
    if (ctx.caller.role === "agent" || ctx.caller.role === "teacher") {
      fail({
        code: "forbidden",
        message: "This function is for the student, their guardians and administrators.",
      });
    }
    return await loadExportedPage(ctx, requireStudent(ctx.about), cursor);
  },
});

/** `students:exportData` for the command line. */
export const exportDataInternal = internalQuery({
  args: { studentId: v.string(), cursor: v.union(v.string(), v.null()) },
  returns: vExportedPage,
  handler: async (ctx, { studentId, cursor }) =>
    await loadExportedPage(ctx, requireStudentId(ctx, studentId), cursor),
});
