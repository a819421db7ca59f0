/**
 * Rows that go: their student is erased, or their time has come.
 * @module
 */
import { v } from "convex/values";
import { internalMutation } from "./_generated/server";
import { continueErasure } from "./model/erasures";
import { beginRetention, removeExpiredGuest, removeExpiredRows } from "./model/retention";
import { vRetainedTable } from "./schoolValidators";

/** The next page of a student's rows. Scheduled by `students:erase` until none is left. */
export const eraseNext = internalMutation({
  args: { erasureId: v.id("erasures") },
  returns: v.null(),
  handler: async (ctx, { erasureId }) => {
    await continueErasure(ctx, erasureId);
    return null;
  },
});

/** Begins to delete whatever is older than the school keeps it. For the daily cron. */
export const begin = internalMutation({
  args: {},
  returns: v.null(),
  handler: async (ctx) => {
    await beginRetention(ctx);
    return null;
  },
});

/**
 * The next page of one table's rows.
 *
 * @param before - Milliseconds since the epoch: what is older goes.
 */
export const removeRows = internalMutation({
  args: { table: vRetainedTable, before: v.number() },
  returns: v.null(),
  handler: async (ctx, { table, before }) => {
    await removeExpiredRows(ctx, table, before);
    return null;
  },
});

/**
 * A page of the rows of the next guest whose last lesson began before `before`.
 *
 * @param cursor - Where the guests' sessions were read up to; null at the beginning.
 * @param guest - Whose rows are not all gone yet.
 */
export const removeGuests = internalMutation({
  args: {
    before: v.number(),
    cursor: v.union(v.string(), v.null()),
    guest: v.optional(v.string()),
  },
  returns: v.null(),
  handler: async (ctx, place) => {
    await removeExpiredGuest(ctx, place);
    return null;
  },
});
