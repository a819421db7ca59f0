/**
 * Rows that go when their time has come.
 * @module
 */
export {};
