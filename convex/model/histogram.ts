/**
 * Histograms of latencies with fixed buckets, so that sums of them are exact and percentiles of any
 * stretch of time cost the same.
 *
 * Bucket 0 holds all below 10 ms, each further one ends 15 % higher than the one before, the last
 * (63) has no end: it begins at about 58 s. A percentile is told as the geometric middle of its
 * bucket, so it is at most 7.3 % off.
 * @module
 */

/** Buckets of every histogram. */
export const BUCKETS = 64;

const FIRST_MS = 10;
const GROWTH = 1.15;

/** A histogram of nothing. */
export function emptyHistogram(): number[] {
  return new Array<number>(BUCKETS).fill(0);
}

/** The bucket of a duration; what overlapped (negative) counts as no wait. */
export function bucketOf(durationMs: number): number {
  if (durationMs < FIRST_MS) return 0;
  const bucket = 1 + Math.floor(Math.log(durationMs / FIRST_MS) / Math.log(GROWTH));
  return Math.min(bucket, BUCKETS - 1);
}

/** `histogram` with `sign` times `other` added; a copy. */
export function addHistogram(
  histogram: readonly number[],
  other: readonly number[],
  sign: 1 | -1 = 1,
): number[] {
  return emptyHistogram().map((_, i) => (histogram[i] ?? 0) + sign * (other[i] ?? 0));
}

/** `histogram` with one duration counted, or with `sign` -1 no longer counted; a copy. */
export function countDuration(
  histogram: readonly number[],
  durationMs: number,
  sign: 1 | -1 = 1,
): number[] {
  const counts = [...histogram];
  const bucket = bucketOf(durationMs);
  counts[bucket] = (counts[bucket] ?? 0) + sign;
  return counts;
}

/** How many durations were counted. */
export function totalOf(histogram: readonly number[]): number {
  return histogram.reduce((sum, count) => sum + count, 0);
}

/** The value that `share` (0 to 1) of all are not above, in milliseconds; null of nothing. */
export function percentile(histogram: readonly number[], share: number): number | null {
  const total = totalOf(histogram);
  if (total === 0) return null;
  const rank = Math.max(1, Math.ceil(share * total));
  let seen = 0;
  for (let bucket = 0; bucket < histogram.length; bucket++) {
    seen += histogram[bucket] ?? 0;
    if (seen >= rank) return middleOf(bucket);
  }
  return middleOf(BUCKETS - 1);
}

function middleOf(bucket: number): number {
  if (bucket === 0) return FIRST_MS / 2;
  return FIRST_MS * GROWTH ** (bucket - 0.5);
}
