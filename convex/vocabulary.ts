/**
 * Words: what is due, what is known, and reviews of them.
 * @module
 */
export {};
