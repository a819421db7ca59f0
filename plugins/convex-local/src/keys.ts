/**
 * Index keys: bytes that compare as the values do.
 *
 * Order: undefined < null < int64 < float64 < boolean < string (UTF-8) < bytes < array < object;
 * floats in total order (-NaN … -0 < +0 … NaN), arrays and objects element by element. Every
 * encoding is self-delimiting, so that "all keys that begin with this value" is a byte prefix.
 *
 * Source of the order: npm `convex/src/values/compare.ts`.
 */
import { Buffer } from "node:buffer";
import { bytesOf, int64Of, kindOf, type JSONObject, type MaybeValue } from "./values.ts";
import type { JSONValue } from "./types.ts";

const UNDEFINED = 0x01;
const NULL = 0x02;
const INT64 = 0x03;
const FLOAT64 = 0x04;
const FALSE = 0x05;
const TRUE = 0x06;
const STRING = 0x07;
const BYTES = 0x08;
const ARRAY = 0x09;
const OBJECT = 0x0a;
/** Ends an array, an object, a string or bytes: smaller than every tag and every byte inside. */
const END = 0x00;
/** Follows a 0x00 that is part of a string or bytes. */
const ESCAPE = 0xff;

const SIGN = 1n << 63n;
const ALL = (1n << 64n) - 1n;

/** Grows as needed; one is shared, since encoding never yields. */
class Writer {
  private buffer = Buffer.allocUnsafe(4096);
  private length = 0;

  reset(): void {
    this.length = 0;
  }

  take(): Buffer {
    return Buffer.from(this.buffer.subarray(0, this.length));
  }

  byte(value: number): void {
    this.reserve(1);
    this.buffer[this.length] = value;
    this.length += 1;
  }

  uint64(value: bigint): void {
    this.reserve(8);
    this.buffer.writeBigUInt64BE(value, this.length);
    this.length += 8;
  }

  escaped(bytes: Buffer): void {
    // Worst case: every byte is 0x00.
    this.reserve(bytes.length * 2 + 2);
    for (const byte of bytes) {
      this.buffer[this.length] = byte;
      this.length += 1;
      if (byte === 0) {
        this.buffer[this.length] = ESCAPE;
        this.length += 1;
      }
    }
    this.buffer[this.length] = END;
    this.buffer[this.length + 1] = END;
    this.length += 2;
  }

  private reserve(bytes: number): void {
    if (this.length + bytes <= this.buffer.length) return;
    const larger = Buffer.allocUnsafe(Math.max(this.buffer.length * 2, this.length + bytes));
    this.buffer.copy(larger, 0, 0, this.length);
    this.buffer = larger;
  }
}

const shared = new Writer();

/** The key of a row of values: the concatenation of their encodings. */
export function encodeKey(values: readonly MaybeValue[]): Buffer {
  shared.reset();
  for (const value of values) write(shared, value);
  return shared.take();
}

function write(out: Writer, value: MaybeValue): void {
  switch (kindOf(value)) {
    case "undefined": {
      out.byte(UNDEFINED);
      return;
    }
    case "null": {
      out.byte(NULL);
      return;
    }
    case "int64":
      out.byte(INT64);
      {
        out.uint64(BigInt.asUintN(64, int64Of(value as JSONValue)) ^ SIGN);
        return;
      }
    case "float64":
      out.byte(FLOAT64);
      {
        out.uint64(orderedFloat(floatBits(value as JSONValue)));
        return;
      }
    case "boolean": {
      out.byte(value === true ? TRUE : FALSE);
      return;
    }
    case "string":
      out.byte(STRING);
      {
        out.escaped(Buffer.from(value as string, "utf8"));
        return;
      }
    case "bytes":
      out.byte(BYTES);
      {
        out.escaped(bytesOf(value as JSONValue));
        return;
      }
    case "array":
      out.byte(ARRAY);
      for (const item of value as JSONValue[]) write(out, item);
      {
        out.byte(END);
        return;
      }
    case "object":
      out.byte(OBJECT);
      for (const name of Object.keys(value as JSONObject).sort()) {
        write(out, name);
        write(out, (value as JSONObject)[name]);
      }
      {
        out.byte(END);
        return;
      }
  }
}

const scratch = Buffer.alloc(8);

/** From the encoded form where there is one: a NaN's sign does not survive a JavaScript number. */
function floatBits(value: JSONValue): bigint {
  if (typeof value !== "number") {
    return Buffer.from((value as { $float: string }).$float, "base64").readBigUInt64LE();
  }
  scratch.writeDoubleBE(value);
  return scratch.readBigUInt64BE();
}

/** Bits so that unsigned order is numeric order: negatives inverted, others raised. */
const orderedFloat = (bits: bigint): bigint => (bits & SIGN ? bits ^ ALL : bits | SIGN);

/** The smallest key greater than every key that begins with `prefix`; null when there is none. */
export function afterPrefix(prefix: Buffer): Buffer | null {
  for (let end = prefix.length; end > 0; end -= 1) {
    const last = prefix[end - 1] as number;
    if (last < 0xff) {
      const key = Buffer.from(prefix.subarray(0, end));
      key[end - 1] = last + 1;
      return key;
    }
  }
  return null;
}

/** The smallest key greater than `key` itself. */
export function afterKey(key: Buffer): Buffer {
  return Buffer.concat([key, Buffer.of(END)]);
}

/** Negative, zero or positive, as an index orders the two values. */
export function compareValues(left: MaybeValue, right: MaybeValue): number {
  return Buffer.compare(encodeKey([left]), encodeKey([right]));
}
