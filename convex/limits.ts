/**
 * Limits of what a session may record, held equal to the plugin's `limits.py` by a test.
 *
 * Sizes are UTF-8 bytes, instants are milliseconds since the epoch.
 * @module
 */

/** Record versions that `sessions:record` folds, newest last: the current one and the one before. */
export const RECORD_VERSIONS = [1];

/** Records in one call of `sessions:record`. */
export const MAX_BATCH_RECORDS = 64;

/**
 * Bytes of one encoded batch. The worker cuts its batches here, far below the backend's own
 * limit of 16 MiB of arguments per call, so that a retry after a lost reply stays cheap.
 */
export const MAX_BATCH_BYTES = 524_288;

/** Bytes of one encoded record: a quarter of the 1 MiB that Convex allows a document. */
export const MAX_RECORD_BYTES = 262_144;

/** Bytes of each text a person or a tool may fill: what was said, a tool's arguments and output. */
export const MAX_TEXT_BYTES = 65_536;

/** Bytes of every other string: keys, names, reasons, codes. */
export const MAX_NAME_BYTES = 1_024;

/** Models in one usage snapshot. */
export const MAX_USAGE_MODELS = 16;

/** 2020-01-01. An instant in seconds instead of milliseconds falls below it. */
export const MIN_INSTANT_MS = 1_577_836_800_000;

/** 2100-01-01. An instant in microseconds instead of milliseconds lies above it. */
export const MAX_INSTANT_MS = 4_102_444_800_000;

/** What only Convex has to know; times are milliseconds, sizes UTF-8 bytes. */
export const SCHOOL = {
  /** Slides in one set. */
  maxSlides: 32,
  /** A session is resumed within this time of what was last seen of it, and settled after it. */
  resumeGraceMs: 15 * 60_000,
  /** Without a record for this long, an active session is taken for dead: provisionally. */
  leaseMs: 10 * 60_000,
} as const;
