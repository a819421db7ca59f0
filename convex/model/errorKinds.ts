/**
 * Errors of models and services, counted by where they came from and what they were.
 * @module
 */
import type { ErrorKind } from "../learningValidators";
import { addBounded } from "./bounded";

/** Kinds that are counted apart, the one called "other" with them. */
export const MAX_ERROR_KINDS = 32;

/** Characters of a name that tell kinds apart: a year of days must fit in what one query reads. */
const MAX_NAME = 64;

const KINDS = {
  limit: MAX_ERROR_KINDS,
  other: { source: "other", errorType: "other", count: 0 },
  nameOf: ({ source, errorType }: ErrorKind) => JSON.stringify([source, errorType]),
  emptyOf: (kind: ErrorKind) => ({ ...kind, count: 0 }),
  add: (to: ErrorKind, from: ErrorKind, sign: 1 | -1) => {
    to.count += sign * from.count;
  },
};

/** `kinds` with one more error; a copy. */
export function countError(
  kinds: readonly ErrorKind[],
  { source, errorType }: { source: string; errorType: string },
): ErrorKind[] {
  const kind = { source: cut(source), errorType: cut(errorType), count: 1 };
  return addErrorKinds(kinds, [kind], 1);
}

/** `kinds` with the others added, or taken back; a copy. */
export function addErrorKinds(
  kinds: readonly ErrorKind[],
  others: readonly ErrorKind[],
  sign: 1 | -1,
): ErrorKind[] {
  const sums = addBounded(KINDS, kinds, others, sign);
  const isOther = (kind: ErrorKind) => KINDS.nameOf(kind) === KINDS.nameOf(KINDS.other);
  // What is counted as other may belong to a name that would find room if another one went.
  return sums.some((kind) => isOther(kind) && kind.count !== 0)
    ? sums
    : sums.filter(({ count }) => count !== 0);
}

/** By characters, so that no pair of surrogates is broken. */
function cut(name: string): string {
  return name.length <= MAX_NAME ? name : Array.from(name).slice(0, MAX_NAME).join("");
}
