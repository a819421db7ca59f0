/**
 * Sums of what models used.
 * @module
 */
import type { ModelUsage } from "../validators";

/** Models that a session sums apart; what further ones use is summed as one. */
export const MAX_SESSION_MODELS = 64;

const OTHER = { type: "other", provider: "other", model: "other" };
const COUNTS = ["inputTokens", "outputTokens", "characters", "audioMs"] as const;

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
  const result = sums.map((sum) => ({ ...sum }));
  for (const model of before) add(result, model, -1);
  for (const model of after) add(result, model, 1);
  return result.sort((a, b) => compareStrings(nameOf(a), nameOf(b)));
}

function add(sums: ModelUsage[], model: ModelUsage, sign: 1 | -1): void {
  const sum = find(sums, model) ?? open(sums, model);
  for (const count of COUNTS) {
    const amount = model[count];
    // Whole units: sums of fractions would depend on the order of adding.
    if (amount !== undefined) sum[count] = (sum[count] ?? 0) + sign * Math.round(amount);
  }
}

function open(sums: ModelUsage[], model: ModelUsage): ModelUsage {
  const { type, provider, model: name } = model;
  const full = sums.length >= MAX_SESSION_MODELS - 1;
  const known = full ? find(sums, OTHER) : undefined;
  if (known !== undefined) return known;
  const opened = full ? { ...OTHER } : { type, provider, model: name };
  sums.push(opened);
  return opened;
}

function find(sums: ModelUsage[], model: ModelUsage): ModelUsage | undefined {
  return sums.find((sum) => nameOf(sum) === nameOf(model));
}

function nameOf({ type, provider, model }: ModelUsage): string {
  return JSON.stringify([type, provider, model]);
}

function compareStrings(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
