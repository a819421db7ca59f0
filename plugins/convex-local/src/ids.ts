/**
 * Document ids: base32 of the table's number (vint), 16 random bytes and a checksum.
 *
 * Source of the format: `value/src/id_v6.rs` and `value/src/base32.rs` of the backend.
 */
import { randomFillSync } from "node:crypto";

/** Crockford's alphabet in lower case: no i, l, o, u. */
const ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz";
const VALUES = new Map(Array.from(ALPHABET, (letter, value) => [letter, value]));
const RANDOM_LENGTH = 16;
const FOOTER_LENGTH = 2;
const MIN_LENGTH = 31;
const MAX_LENGTH = 37;

/** A new id of the table with this number. */
export function newId(tableNumber: number): string {
  const bytes: number[] = [];
  for (let rest = tableNumber; ; rest >>>= 7) {
    if (rest < 0x80) {
      bytes.push(rest);
      break;
    }
    bytes.push((rest & 0x7f) | 0x80);
  }
  bytes.push(...randomBytes());
  const sum = fletcher16(bytes);
  bytes.push(sum & 0xff, sum >> 8);
  return encodeBase32(bytes);
}

/** Drawn many at a time: one call to the system costs more than everything else about an id. */
const pool = new Uint8Array(RANDOM_LENGTH * 256);
let used = pool.length;

function randomBytes(): Uint8Array {
  if (used === pool.length) {
    randomFillSync(pool);
    used = 0;
  }
  used += RANDOM_LENGTH;
  return pool.subarray(used - RANDOM_LENGTH, used);
}

/** The number of the table that an id names; null for a string that is no id. */
export function tableNumberOf(id: string): number | null {
  if (id.length < MIN_LENGTH || id.length > MAX_LENGTH) return null;
  const bytes = decodeBase32(id);
  if (bytes === null) return null;
  let tableNumber = 0;
  let length = 0;
  for (; ; length += 1) {
    const byte = bytes[length];
    if (byte === undefined || length > 4) return null;
    tableNumber |= (byte & 0x7f) << (7 * length);
    if (byte < 0x80) break;
  }
  const checked = length + 1 + RANDOM_LENGTH;
  if (bytes.length !== checked + FOOTER_LENGTH || tableNumber === 0) return null;
  const footer = (bytes[checked] as number) | ((bytes[checked + 1] as number) << 8);
  if (footer !== fletcher16(bytes.slice(0, checked))) return null;
  return encodeBase32(bytes) === id ? tableNumber : null;
}

function fletcher16(bytes: readonly number[]): number {
  let first = 0;
  let second = 0;
  for (const byte of bytes) {
    first = (first + byte) % 255;
    second = (second + first) % 255;
  }
  return (second << 8) | first;
}

function encodeBase32(bytes: readonly number[]): string {
  let text = "";
  let bits = 0;
  let held = 0;
  for (const byte of bytes) {
    held = (held << 8) | byte;
    bits += 8;
    while (bits >= 5) {
      bits -= 5;
      text += ALPHABET.charAt((held >> bits) & 31);
    }
    held &= (1 << bits) - 1;
  }
  return bits > 0 ? text + ALPHABET.charAt((held << (5 - bits)) & 31) : text;
}

function decodeBase32(text: string): number[] | null {
  const bytes: number[] = [];
  let bits = 0;
  let held = 0;
  for (const letter of text) {
    const value = VALUES.get(letter);
    if (value === undefined) return null;
    held = (held << 5) | value;
    bits += 5;
    if (bits >= 8) {
      bits -= 8;
      bytes.push((held >> bits) & 0xff);
      held &= (1 << bits) - 1;
    }
  }
  return bytes;
}
