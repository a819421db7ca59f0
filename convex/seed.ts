/**
 * Rows to try things with.
 * @module
 */
import { v } from "convex/values";
import { internalMutation } from "./_generated/server";
import { seedDemo } from "./model/demo";
import { seedShortLesson } from "./model/shortLesson";

/**
 * Makes the demo's student, lesson and slide set, or brings them back to what they were.
 *
 * Repeatable, from the command line too: `npx convex run seed:demo`.
 *
 * @param sessionKeyPrefix - Given: the student has also held one lesson before, two days ago at
 *   the first call, under the key `<prefix>:previous`. Without it the history is left as it is.
 */
export const demo = internalMutation({
  args: { sessionKeyPrefix: v.optional(v.string()) },
  returns: v.object({ studentId: v.id("students"), lessonId: v.id("lessons") }),
  handler: async (ctx, { sessionKeyPrefix }) => await seedDemo(ctx, sessionKeyPrefix),
});

/**
 * Makes a student with three lessons behind her, a word that is due and the short lesson that comes
 * next; or brings them back to that, without what was learnt since.
 *
 * Repeatable, from the command line too: `npx convex run seed:shortLesson`.
 */
export const shortLesson = internalMutation({
  args: {},
  returns: v.object({ studentId: v.id("students"), lessonId: v.id("lessons") }),
  handler: async (ctx) => await seedShortLesson(ctx),
});
