import { inspect } from "node:util";
import { compareValues as referenceOrder, convexToJson, type Value } from "convex/values";
import { describe, expect, test } from "vitest";
import { afterKey, afterPrefix, encodeKey } from "../../src/keys.ts";
import { open } from "./support.ts";

/** Small and seeded, so that a failure can be repeated. */
function chance(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

const NEGATIVE_NAN = new Float64Array(
  new BigUint64Array([0xfff8000000000000n]).buffer,
)[0] as number;

const SCALARS: (Value | undefined)[] = [
  undefined,
  null,
  -(2n ** 63n),
  -1n,
  0n,
  1n,
  255n,
  256n,
  2n ** 63n - 1n,
  -Infinity,
  -Number.MAX_VALUE,
  -1.5,
  -Number.MIN_VALUE,
  -0,
  0,
  Number.MIN_VALUE,
  1,
  1.0000000000000002,
  256,
  Number.MAX_VALUE,
  Infinity,
  NaN,
  false,
  true,
  "",
  "\0",
  "\0\0",
  "\0a",
  "\x01",
  "a",
  "a\0",
  "a\0\0b",
  "ab",
  "b",
  "é",
  "\uffff",
  "😀",
  new ArrayBuffer(0),
  new Uint8Array([0]).buffer,
  new Uint8Array([0, 0]).buffer,
  new Uint8Array([0, 255]).buffer,
  new Uint8Array([1]).buffer,
  new Uint8Array([255, 255]).buffer,
];

function randomValue(random: () => number, depth: number): Value {
  const kind = random();
  if (depth > 0 && kind < 0.25) {
    return Array.from({ length: Math.floor(random() * 4) }, () => randomValue(random, depth - 1));
  }
  if (depth > 0 && kind < 0.5) {
    const names = ["a", "b", "aa", "A", "_", "z"].filter(() => random() < 0.4);
    return Object.fromEntries(names.map((name) => [name, randomValue(random, depth - 1)]));
  }
  if (kind < 0.6)
    return random() * 10 ** Math.floor(random() * 40 - 20) * (random() < 0.5 ? -1 : 1);
  if (kind < 0.7) {
    const codes = Array.from({ length: Math.floor(random() * 4) }, () => random() * 0x300);
    return String.fromCodePoint(...codes.map(Math.floor));
  }
  return SCALARS[1 + Math.floor(random() * (SCALARS.length - 1))] as Value;
}

const keyOf = (value: Value | undefined): Buffer =>
  encodeKey([value === undefined ? undefined : convexToJson(value)]);

describe("index keys", () => {
  test("order every pair of scalars as Convex does", () => {
    for (const left of SCALARS) {
      for (const right of SCALARS) {
        expect([left, right, Math.sign(Buffer.compare(keyOf(left), keyOf(right)))]).toEqual([
          left,
          right,
          Math.sign(referenceOrder(left, right)),
        ]);
      }
    }
  });

  test("order random nested values as Convex does", () => {
    const random = chance(20261123);
    for (let i = 0; i < 20_000; i += 1) {
      const [left, right] = [randomValue(random, 3), randomValue(random, 3)];
      const order = Math.sign(Buffer.compare(keyOf(left), keyOf(right)));
      if (order !== Math.sign(referenceOrder(left, right))) expect.fail(inspect({ left, right }));
    }
  });

  test("order rows of values by their first difference", () => {
    const random = chance(7);
    for (let i = 0; i < 5_000; i += 1) {
      const row = (): Value[] => [randomValue(random, 1), randomValue(random, 1)];
      const [left, right] = [row(), row()];
      const keys = [left, right].map((values) => encodeKey(values.map((v) => convexToJson(v))));
      const expected = referenceOrder(left[0], right[0]) || referenceOrder(left[1], right[1]);
      const order = Math.sign(Buffer.compare(keys[0] as Buffer, keys[1] as Buffer));
      if (order !== Math.sign(expected)) expect.fail(inspect({ left, right }));
    }
  });

  test("put a negative NaN before everything and a positive one after", () => {
    const bits = (hex: string): Buffer =>
      encodeKey([{ $float: Buffer.from(hex, "hex").reverse().toString("base64") }]);
    expect(Number.isNaN(NEGATIVE_NAN)).toBe(true);
    expect(Buffer.compare(bits("fff8000000000000"), keyOf(-Infinity))).toBe(-1);
    expect(Buffer.compare(bits("7ff8000000000000"), keyOf(Infinity))).toBe(1);
  });

  test("no key lies between a key and the one after it", () => {
    const key = keyOf("abc");
    expect(Buffer.compare(key, afterKey(key))).toBe(-1);
    expect(afterKey(key).subarray(0, -1).equals(key)).toBe(true);
    expect(afterPrefix(Buffer.from([1, 255, 255]))).toEqual(Buffer.from([2]));
    expect(afterPrefix(Buffer.from([255, 255]))).toBeNull();
  });
});

test("an index gives documents back in the order of their values", async () => {
  const { mutation, query } = await open({ project: "values" });
  const random = chance(11);
  const values = [
    ...SCALARS.slice(1),
    ...Array.from({ length: 200 }, () => randomValue(random, 2)),
  ];
  for (const value of values) {
    await mutation("values:add", { value: convexToJson(value as Value) });
  }
  await mutation("values:add", {});
  const expected = values.map((value) => value as Value).sort(referenceOrder);
  expect(await query("values:ordered")).toEqual(["missing", ...expected.map(convexToJson)]);
});
