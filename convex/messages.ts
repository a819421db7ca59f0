/**
 * What was said in a session.
 * @module
 */
import { paginationOptsValidator, paginationResultValidator } from "convex/server";
import { v } from "convex/values";
import { studentQuery } from "./functions";
import { toMessage } from "./model/messages";
import { emptyPage, pageOf } from "./model/pages";
import { findSession } from "./model/sessions";
import { vMessage } from "./validators";

/**
 * A page of a session's messages, in the order in which they were said; at most 200 a page.
 *
 * Provisional rows are transcripts that no message contains yet. Empty while the session does not
 * exist.
 *
 * @throws ConvexError `forbidden` if the session is somebody else's.
 */
export const list = studentQuery({
  args: { sessionKey: v.string(), paginationOpts: paginationOptsValidator },
  returns: paginationResultValidator(vMessage),
  handler: async (ctx, { sessionKey, paginationOpts }) => {
    const session = await findSession(ctx, ctx.about, sessionKey);
    if (session === null) return emptyPage();
    const result = await ctx.db
      .query("messages")
      .withIndex("by_sessionId_and_runStartedAt_and_createdAt_and_seq", (q) =>
        q.eq("sessionId", session._id),
      )
      .paginate(pageOf(paginationOpts));
    return { ...result, page: result.page.map(toMessage) };
  },
});
