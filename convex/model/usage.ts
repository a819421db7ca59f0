/**
 * Sums of what models used.
 * @module
 */
import { MAX_USAGE_MODELS } from "../limits";
import type { ModelUsage } from "../validators";
import { addBounded } from "./bounded";

/** Models that a session sums apart, the one called "other" with them. */
export const MAX_SESSION_MODELS = 64;

const COUNTS = ["inputTokens", "outputTokens", "characters", "audioMs"] as const;

const MODELS = {
  limit: MAX_SESSION_MODELS,
  other: { type: "other", provider: "other", model: "other" },
  nameOf: ({ type, provider, model }: ModelUsage) => JSON.stringify([type, provider, model]),
  emptyOf: ({ type, provider, model }: ModelUsage): ModelUsage => ({ type, provider, model }),
  add: (to: ModelUsage, from: ModelUsage, sign: 1 | -1) => {
    for (const count of COUNTS) {
      const amount = from[count];
      // Whole units: sums of fractions would depend on the order of adding.
      if (amount !== undefined) to[count] = (to[count] ?? 0) + sign * Math.round(amount);
    }
  },
};

/**
 * The session's sums after one of its runs went from `before` to `after`.
 *
 * Snapshots are cumulative, so the difference is added: whatever the order in which the batches of
 * several runs arrive, the sums come out the same.
 */
export function addUsage(
  sums: readonly ModelUsage[],
  before: readonly ModelUsage[],
  after: readonly ModelUsage[],
): ModelUsage[] {
  return addBounded(MODELS, addBounded(MODELS, sums, before, -1), after, 1);
}

/**
 * The later of two snapshots of one run, whichever that is: of each model the higher counts, since
 * counts only grow.
 *
 * @param known - Its models come first, and stay where both together pass the limit.
 */
export function laterSnapshot(
  known: readonly ModelUsage[],
  other: readonly ModelUsage[],
): ModelUsage[] {
  const later = new Map(known.map((model) => [MODELS.nameOf(model), { ...model }]));
  for (const model of other) {
    const same = later.get(MODELS.nameOf(model)) ?? MODELS.emptyOf(model);
    for (const count of COUNTS) {
      const amount = model[count];
      if (amount !== undefined) same[count] = Math.max(same[count] ?? 0, amount);
    }
    later.set(MODELS.nameOf(model), same);
  }
  return [...later.values()].slice(0, MAX_USAGE_MODELS);
}
