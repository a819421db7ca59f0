import { defineSchema } from "convex/server";
import { sessionTables } from "./sessions";

export default defineSchema({ ...sessionTables });
