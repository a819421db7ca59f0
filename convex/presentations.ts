/**
 * Slide sets.
 * @module
 */
export {};
