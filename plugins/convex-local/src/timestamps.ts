/** Timestamps of the wire: base64 of 8 bytes, little endian, nanoseconds since the epoch. */
import { Buffer } from "node:buffer";
import { badRequest } from "./api-error.ts";

export function encodeTs(ts: bigint): string {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(ts);
  return bytes.toString("base64");
}

/** @throws ApiError 400 */
export function decodeTs(text: unknown): bigint {
  const bytes = Buffer.from(typeof text === "string" ? text : "", "base64");
  if (bytes.length !== 8) throw badRequest("BadTimestamp", "Wrong number of bytes for ts.");
  return bytes.readBigUInt64LE();
}
