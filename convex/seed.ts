/**
 * Rows to try things with.
 * @module
 */
import { v } from "convex/values";
import { internalMutation } from "./_generated/server";
import { seedDemo } from "./model/demo";

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
