/**
 * The people of the school: invitations, who may see whom, consent.
 * @module
 */
export {};
