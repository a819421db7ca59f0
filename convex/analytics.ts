/**
 * Numbers for the school, and telemetry.
 * @module
 */
export {};
