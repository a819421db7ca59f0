/**
 * Pages of lists.
 * @module
 */
import type { PaginationOptions, PaginationResult } from "convex/server";
import { fail } from "../errors";
import { SCHOOL } from "../limits";

/**
 * What the caller asks for, no larger than a page may be.
 *
 * @param most - Rows in a page of this list.
 * @throws ConvexError `number_out_of_range` for a page of less than one row: Convex answers those in
 *   ways of its own, up to the end of a list that has not ended.
 */
export function pageOf(
  options: PaginationOptions,
  most: number = SCHOOL.maxPageItems,
): PaginationOptions {
  const { numItems } = options;
  if (!(numItems >= 1)) {
    fail({
      code: "number_out_of_range",
      message: `paginationOpts.numItems is ${numItems}; the least is 1`,
      field: "paginationOpts.numItems",
      limit: 1,
    });
  }
  return { ...options, numItems: Math.min(Math.floor(numItems), most) };
}

/** A list of nothing. */
export function emptyPage(): PaginationResult<never> {
  return { page: [], isDone: true, continueCursor: "" };
}
