/**
 * What a student has behind them: lessons, corrections, exercises.
 * @module
 */
export {};
