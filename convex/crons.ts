/**
 * What runs by itself.
 * @module
 */
import { cronJobs } from "convex/server";
import { internal } from "./_generated/api";

const crons = cronJobs();

// Deletes what is older than the school keeps it (model/retention.ts).
crons.daily("retention", { hourUTC: 3, minuteUTC: 20 }, internal.retention.begin, {});

export default crons;
