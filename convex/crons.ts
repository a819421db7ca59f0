/**
 * What runs by itself.
 * @module
 */
import { cronJobs } from "convex/server";
import { internal } from "./_generated/api";

const crons = cronJobs();

// Ends, provisionally, sessions of which nothing more comes (model/leases.ts).
crons.interval("close expired leases", { minutes: 1 }, internal.sessions.closeExpired, {});

// Adds sessions that are over to what is told of days, students and lessons (model/settle.ts).
crons.interval("settle sessions", { minutes: 1 }, internal.sessions.settleDue, {});

// Adds what was settled to the school's days (model/rollUp.ts).
crons.interval("roll up school days", { minutes: 5 }, internal.analytics.rollUp, {});

// Deletes what is older than the school keeps it (model/retention.ts).
crons.daily("retention", { hourUTC: 3, minuteUTC: 20 }, internal.retention.begin, {});

export default crons;
