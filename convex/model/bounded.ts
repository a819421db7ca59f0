/**
 * Sums by name, in a list that has a bound.
 *
 * The first names, in their own order, are summed apart and the rest as one. So it does not matter
 * in which order they came: a name that is among the first was never summed with the rest.
 * @module
 */

/** What is summed, and up to how many. */
export type Summing<Sum> = {
  /** Sums in the list, the one of the rest with them. */
  limit: number;
  /** Under which the rest is summed. */
  other: Sum;
  nameOf: (sum: Sum) => string;
  /** A sum of nothing, under the name of the one given. */
  emptyOf: (sum: Sum) => Sum;
  add: (to: Sum, from: Sum, sign: 1 | -1) => void;
};

/** `sums` with those of `added` added, or taken back; a copy, sorted by name. */
export function addBounded<Sum>(
  { limit, other, nameOf, emptyOf, add }: Summing<Sum>,
  sums: readonly Sum[],
  added: readonly Sum[],
  sign: 1 | -1,
): Sum[] {
  const otherName = nameOf(other);
  const named = new Map<string, Sum>();
  const into = (name: string, from: Sum, by: 1 | -1) => {
    const sum = named.get(name) ?? emptyOf(name === otherName ? other : from);
    add(sum, from, by);
    named.set(name, sum);
  };
  for (const sum of sums) into(nameOf(sum), sum, 1);
  for (const sum of added) {
    const name = nameOf(sum);
    const apart = [...named.keys()].filter((known) => known !== otherName).sort();
    const last = apart.at(-1);
    if (named.has(name) || name === otherName || apart.length < limit - 1) {
      into(name, sum, sign);
    } else if (last === undefined || name > last) {
      into(otherName, sum, sign);
    } else {
      const moved = named.get(last);
      named.delete(last);
      if (moved !== undefined) into(otherName, moved, 1);
      into(name, sum, sign);
    }
  }
  return [...named].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, sum]) => sum);
}
