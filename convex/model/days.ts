/**
 * Days as `YYYY-MM-DD`, which sort as text.
 * @module
 */

/** The day on which the instant falls in the IANA time zone; in UTC where there is no such zone. */
export function dayOf(instantMs: number, timeZone: string): string {
  try {
    // The one locale whose short date is ISO 8601.
    return new Intl.DateTimeFormat("sv-SE", { timeZone }).format(instantMs);
  } catch {
    return new Date(instantMs).toISOString().slice(0, 10);
  }
}

/** The day `days` after `day`, or before it. */
export function addDays(day: string, days: number): string {
  const date = new Date(`${day}T00:00:00Z`);
  date.setUTCDate(date.getUTCDate() + days);
  return date.toISOString().slice(0, 10);
}
