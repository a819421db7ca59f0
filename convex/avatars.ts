/**
 * Who Emma is in a lesson.
 * @module
 */
export {};
