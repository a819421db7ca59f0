/**
 * Read sets and write sets: which index keys a transaction depends on, and which it changed.
 *
 * A read set holds half-open intervals of index keys, narrowed to what the function consumed: a
 * `take(20)` that found 20 documents ends at the twentieth. A commit touches a read set when one
 * of the keys it added, removed or rewrote lies in one of the intervals.
 */
import { Buffer } from "node:buffer";

/** Keys `lo <= key < hi` of one index; `hi` null means up to the index's end. */
export interface Interval {
  index: number;
  lo: Buffer;
  hi: Buffer | null;
}

export class ReadSet {
  readonly intervals: Interval[] = [];

  add(interval: Interval): void {
    this.intervals.push(interval);
  }

  /** Takes over every interval of another read set. */
  addAll(other: ReadSet): void {
    for (const interval of other.intervals) this.intervals.push(interval);
  }
}

export class WriteSet {
  readonly keys = new Map<number, Buffer[]>();

  add(index: number, key: Buffer): void {
    const keys = this.keys.get(index);
    if (keys === undefined) this.keys.set(index, [key]);
    else keys.push(key);
  }

  addAll(other: WriteSet): void {
    for (const [index, keys] of other.keys) {
      for (const key of keys) this.add(index, key);
    }
  }

  get isEmpty(): boolean {
    return this.keys.size === 0;
  }

  touches(readSet: ReadSet): boolean {
    return readSet.intervals.some(({ index, lo, hi }) => {
      const keys = this.keys.get(index);
      if (keys === undefined) return false;
      return keys.some(
        (key) => Buffer.compare(key, lo) >= 0 && (hi === null || Buffer.compare(key, hi) < 0),
      );
    });
  }
}
