/**
 * Students: the agent's view.
 * @module
 */
import { v } from "convex/values";
import { agentQuery, requireStudent } from "./functions";
import { loadTutoringContext } from "./model/students";
import { vTutoringContext } from "./learningValidators";

/**
 * Everything the tutor knows before the first word, in one bounded query.
 *
 * @param lessonId - Unknown, or of another table or deployment: `lesson` is null.
 * @throws ConvexError `student_unknown` if the token names no student who exists: also for guests.
 */
export const tutoringContext = agentQuery({
  args: { lessonId: v.optional(v.string()) },
  returns: vTutoringContext,
  handler: async (ctx, { lessonId }) =>
    await loadTutoringContext(ctx, requireStudent(ctx.caller), lessonId),
});
