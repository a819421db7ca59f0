/**
 * The backend's limits, with their real numbers.
 *
 * Sources are files of get-convex/convex-backend at 94a42c3 (2026-08-22), below `crates/`.
 */

const MIB = 1 << 20;

/** Size of one document with its system fields (`common/src/document.rs` MAX_USER_SIZE). */
export const MAX_DOCUMENT_BYTES = MIB;

/** Nesting of a document, itself counted (`common/src/document.rs` MAX_DOCUMENT_NESTING). */
export const MAX_DOCUMENT_NESTING = 16;

/** Size of any value (`value/src/size.rs` MAX_SIZE). */
export const MAX_VALUE_BYTES = 32 * MIB;

/** Nesting of any value, arguments and results too (`value/src/size.rs` MAX_NESTING). */
export const MAX_VALUE_NESTING = 64;

/** Elements of an array (`value/src/array.rs` MAX_ARRAY_LEN). */
export const MAX_ARRAY_LENGTH = 8192;

/** Fields of an object (`value/src/object.rs` MAX_OBJECT_FIELDS). */
export const MAX_OBJECT_FIELDS = 1024;

/** Length of a field name (npm `convex/src/values/value.ts` MAX_IDENTIFIER_LEN). */
export const MAX_FIELD_NAME_LENGTH = 1024;

/** Length of a table's, field's or index's name in a schema (`sync_types/src/identifier.rs`). */
export const MAX_IDENTIFIER_LENGTH = 64;

/** Documents one transaction reads (`common/src/knobs.rs` TRANSACTION_MAX_READ_SIZE_ROWS). */
export const MAX_DOCUMENTS_READ = 32_000;

/** Bytes one transaction reads (`common/src/knobs.rs` TRANSACTION_MAX_READ_SIZE_BYTES). */
export const MAX_BYTES_READ = 16 * MIB;

/** Index ranges one transaction reads (`knobs.rs` TRANSACTION_MAX_READ_SET_INTERVALS). */
export const MAX_RANGES_READ = 4096;

/** Documents one transaction writes (`knobs.rs` TRANSACTION_MAX_NUM_USER_WRITES). */
export const MAX_DOCUMENTS_WRITTEN = 16_000;

/** Bytes one transaction writes (`knobs.rs` TRANSACTION_MAX_USER_WRITE_SIZE_BYTES). */
export const MAX_BYTES_WRITTEN = 16 * MIB;

/** Functions one mutation schedules (`knobs.rs` TRANSACTION_MAX_NUM_SCHEDULED). */
export const MAX_SCHEDULED = 1000;

/** Arguments of one scheduled function (`knobs.rs` MAX_SCHEDULED_JOB_ARGUMENT_SIZE_BYTES). */
export const MAX_SCHEDULED_ARGUMENT_BYTES = 4 * MIB;

/** All of them together (`knobs.rs` TRANSACTION_MAX_SCHEDULED_TOTAL_ARGUMENT_SIZE_BYTES). */
export const MAX_SCHEDULED_TOTAL_ARGUMENT_BYTES = 16 * MIB;

/** Arguments of a function (`knobs.rs` FUNCTION_MAX_ARGS_SIZE). */
export const MAX_ARGUMENT_BYTES = 16 * MIB;

/** Result of a function (`knobs.rs` FUNCTION_MAX_RESULT_SIZE). */
export const MAX_RESULT_BYTES = 16 * MIB;

/** User code of one query or mutation (`knobs.rs` DATABASE_UDF_USER_TIMEOUT). */
export const USER_TIMEOUT_MS = 1000;

/** Its syscalls (`knobs.rs` DATABASE_UDF_SYSTEM_TIMEOUT). */
export const SYSTEM_TIMEOUT_MS = 15_000;

/** One action of the default runtime (`knobs.rs` V8_ACTION_USER_TIMEOUT). */
export const ACTION_TIMEOUT_MS = 1_800_000;

/** One action of a `"use node"` file (`knobs.rs` NODE_ACTION_USER_TIMEOUT). */
export const NODE_ACTION_TIMEOUT_MS = 600_000;

/** `ctx.runQuery` and `ctx.runMutation` inside one another (`knobs.rs` MAX_REACTOR_CALL_DEPTH). */
export const MAX_CALL_DEPTH = 8;

/** How long a mutation's request is remembered (`knobs.rs` MAX_SESSION_CLEANUP_DURATION_HOURS). */
export const REQUEST_KEPT_MS = 336 * 3600 * 1000;

/** How long a finished scheduled function stays readable (`knobs.rs` SCHEDULED_JOB_RETENTION). */
export const FINISHED_JOB_KEPT_MS = 7 * 24 * 3600 * 1000;

/** Scheduled functions that run at one time (`knobs.rs` SCHEDULED_JOB_EXECUTION_PARALLELISM). */
export const SCHEDULED_PARALLELISM = 8;

/** A longer page is recommended for splitting (`udf/async_syscall.rs` SOFT_MAX_PAGE_LEN). */
export const SOFT_MAX_PAGE_LENGTH = 6144;

/** Lines a function logs before the rest is dropped (`isolate/src/environment/helpers/mod.rs`). */
export const MAX_LOG_LINES = 256;

/** Characters of one log line (`isolate/src/environment/helpers/mod.rs`). */
export const MAX_LOG_LINE_LENGTH = 32_768;

/** Three quarters of a limit: from here on a page is recommended for splitting. */
export const softLimit = (hard: number): number => Math.floor((hard * 3) / 4);
