/**
 * Chance that can be had again, so that a failing round can be named.
 * @module
 */

/** `below(n)`: a whole number from 0, below `n`. `chance(p)`: true with that probability. */
export type Random = { below: (n: number) => number; chance: (p: number) => boolean };

/** mulberry32: small, and the same everywhere. */
export function random(seedOf: number): Random {
  let state = seedOf >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = Math.imul(state ^ (state >>> 15), 1 | state);
    x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x;
    return ((x ^ (x >>> 14)) >>> 0) / 4_294_967_296;
  };
  return { below: (n) => Math.floor(next() * n), chance: (p) => next() < p };
}
