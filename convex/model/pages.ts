/**
 * Pages of lists.
 * @module
 */
import type { PaginationOptions, PaginationResult } from "convex/server";
import { SCHOOL } from "../limits";

/** What the caller asks for, no larger than a page may be. */
export function pageOf(options: PaginationOptions): PaginationOptions {
  return { ...options, numItems: Math.min(options.numItems, SCHOOL.maxPageItems) };
}

/** A list of nothing. */
export function emptyPage(): PaginationResult<never> {
  return { page: [], isDone: true, continueCursor: "" };
}
