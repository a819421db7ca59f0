/**
 * What runs by itself.
 * @module
 */
import { cronJobs } from "convex/server";

const crons = cronJobs();

export default crons;
