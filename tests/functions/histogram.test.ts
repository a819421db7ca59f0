/** Sums that may be added, taken back and merged in any order: latencies, and counts by name. */
import { describe, expect, test } from "vitest";
import type { ErrorKind } from "../../convex/learningValidators.ts";
import { MAX_ERROR_KINDS, addErrorKinds, countError } from "../../convex/model/errorKinds.ts";
import {
  BUCKETS,
  addHistogram,
  bucketOf,
  countDuration,
  emptyHistogram,
  percentile,
  totalOf,
} from "../../convex/model/histogram.ts";
import { MAX_SESSION_MODELS, addUsage } from "../../convex/model/usage.ts";

function histogramOf(durations: number[]): number[] {
  let histogram = emptyHistogram();
  for (const duration of durations) histogram = countDuration(histogram, duration);
  return histogram;
}

describe("a histogram", () => {
  test.each([
    [-250, 0],
    [0, 0],
    [9.99, 0],
    [10, 1],
    [11.49, 1],
    [11.51, 2],
    [51_000, BUCKETS - 2],
    [60_000, BUCKETS - 1],
    [1e9, BUCKETS - 1],
  ])("has %d ms in bucket %d", (durationMs, bucket) => {
    expect(bucketOf(durationMs)).toBe(bucket);
  });

  test("tells percentiles within 7.3 % of what they are", () => {
    const durations = Array.from({ length: 1_000 }, (_, i) => 20 + i * 3);
    const histogram = histogramOf(durations);
    for (const [share, exact] of [
      [0.5, 1_517],
      [0.95, 2_867],
      [0.99, 2_987],
    ] as const) {
      const told = percentile(histogram, share) ?? 0;
      expect(Math.abs(told - exact) / exact).toBeLessThan(0.073);
    }
  });

  test("of nothing has no percentile, of one thing every one", () => {
    expect(percentile(emptyHistogram(), 0.5)).toBeNull();
    const one = histogramOf([800]);
    expect(percentile(one, 0)).toBe(percentile(one, 1));
  });

  test("merged is the histogram of all, and taken back what was there before", () => {
    const [a, b] = [[5, 800, 800], [900, 70_000]];
    const merged = addHistogram(histogramOf(a), histogramOf(b));
    expect(merged).toEqual(histogramOf([...a, ...b]));
    expect(totalOf(merged)).toBe(5);
    expect(addHistogram(merged, histogramOf(b), -1)).toEqual(histogramOf(a));
    expect(countDuration(histogramOf(a), 5, -1)).toEqual(histogramOf([800, 800]));
  });
});

/** Forty kinds of error, as often as their number, in an order of their own. */
function fortyErrors(step: number): { source: string; errorType: string }[] {
  return Array.from({ length: 40 }, (_, i) => (i * step) % 40).flatMap((n) =>
    Array.from({ length: n + 1 }, () => ({ source: "LLM", errorType: `E${n + 10}` })),
  );
}

describe("errors by kind", () => {
  const counted = (errors: { source: string; errorType: string }[]) => {
    let kinds: ErrorKind[] = [];
    for (const error of errors) kinds = countError(kinds, error);
    return kinds;
  };

  test("are counted apart up to a limit, the rest as one, in whatever order they come", () => {
    const kinds = counted(fortyErrors(1));
    expect(kinds).toHaveLength(MAX_ERROR_KINDS);
    expect(kinds[0]).toEqual({ source: "LLM", errorType: "E10", count: 1 });
    expect(kinds.at(-1)).toEqual({ source: "other", errorType: "other", count: 324 });
    for (const step of [3, 7, 39]) expect(counted(fortyErrors(step))).toEqual(kinds);
  });

  test("of two sessions merge as if they were one, and can be taken back", () => {
    const [some, others] = [fortyErrors(1).slice(0, 300), fortyErrors(1).slice(300)];
    const merged = addErrorKinds(counted(some), counted(others), 1);
    expect(merged).toEqual(counted(fortyErrors(1)));
    const few = counted(some.slice(0, 20));
    expect(addErrorKinds(addErrorKinds(few, counted(some.slice(5, 9)), 1), few, -1)).toEqual(
      counted(some.slice(5, 9)),
    );
    expect(addErrorKinds(few, few, -1)).toEqual([]);
    // Also where some were counted as other.
    const left = addErrorKinds(merged, counted(some), -1);
    expect(addErrorKinds(left, counted(others), -1)).toEqual([]);
  });

  test("have names that do not fill a row: no more than 64 characters, none of them broken", () => {
    const [kind] = counted([{ source: "🍎".repeat(100), errorType: "e".repeat(1_000) }]);
    expect(kind).toEqual({ source: "🍎".repeat(64), errorType: "e".repeat(64), count: 1 });
  });
});

test("usage of more models than a session sums apart is the same in any order of runs", () => {
  const runs = Array.from({ length: 6 }, (_, run) =>
    Array.from({ length: 16 }, (_, i) => ({
      type: "llm",
      provider: "p",
      model: `m${(i * 6 + run) % 96}`,
      inputTokens: run + i,
    })),
  );
  const summed = (order: typeof runs) => {
    let sums: ReturnType<typeof addUsage> = [];
    for (const models of order) sums = addUsage(sums, models.slice(0, 3), models.slice(0, 3));
    for (const models of order) sums = addUsage(sums, [], models);
    return sums;
  };
  expect(summed(runs)).toHaveLength(MAX_SESSION_MODELS);
  expect(summed(runs.toReversed())).toEqual(summed(runs));
});
