/**
 * What a deployment is told by its environment variables, beside who may sign tokens.
 *
 *     npx convex env set NAME value
 * @module
 */
import { fail } from "../errors";

/** 128 bits as hexadecimal digits: nobody finds the key by trying. */
const MIN_KEY_LENGTH = 32;

/** ERASURE_KEY; null where it is not set, or is too short to be a secret. */
export function findErasureKey(): string | null {
  const key = process.env.ERASURE_KEY?.trim() ?? "";
  return key.length < MIN_KEY_LENGTH ? null : key;
}

/** As `findErasureKey`; throws `not_configured` where there is none. */
export function requireErasureKey(): string {
  const key = findErasureKey();
  if (key === null) {
    fail({
      code: "not_configured",
      message:
        `ERASURE_KEY is not set on the deployment, or has less than ${MIN_KEY_LENGTH} characters: ` +
        'set it once with `npx convex env set ERASURE_KEY "$(openssl rand -hex 32)"`, keep a copy, ' +
        "and never change it: with another key nobody who was erased is known any more.",
    });
  }
  return key;
}

/**
 * Days from an environment variable; `byDefault` where it is not set.
 *
 * What is no positive number is an error in the log and null: then nothing may be deleted.
 */
export function daysFrom(name: string, byDefault: number | null): number | null {
  const value = process.env[name]?.trim() ?? "";
  if (value === "") return byDefault;
  const days = Number(value);
  if (Number.isFinite(days) && days > 0) return days;
  console.error(`${name} is not a positive number of days: nothing is deleted by it.`);
  return null;
}
