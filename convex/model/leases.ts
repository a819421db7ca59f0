/**
 * Leases: a session of which nothing more comes is taken for dead.
 *
 * An active session has a lease, which each of its records renews (model/fold.ts). Ending it is
 * provisional: a later record of it, or the real end of its run, decides anew. So journals that come
 * days late end in the same rows, whenever this ran between them.
 * @module
 */
import type { MutationCtx } from "../_generated/server";
import { refreshSession } from "./sessionState";

/** Sessions ended in one call. */
const PAGE = 32;

/**
 * Ends the sessions whose lease ran out before `now`, as of their last record.
 *
 * @returns Whether there may be more.
 */
export async function closeExpired(ctx: MutationCtx, now: number): Promise<boolean> {
  const expired = await ctx.db
    .query("sessionLive")
    // Without a lease, a row sorts before every number.
    .withIndex("by_leaseUntil", (q) => q.gt("leaseUntil", 0).lt("leaseUntil", now))
    .take(PAGE);
  for (const { _id, sessionId } of expired) {
    // First of all, so that it does not come up again, even if its session is being erased.
    await ctx.db.patch("sessionLive", _id, { leaseUntil: undefined });
    await refreshSession(ctx, sessionId, { silent: true });
  }
  return expired.length === PAGE;
}
