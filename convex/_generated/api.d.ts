/* eslint-disable */
/**
 * Generated `api` utility.
 *
 * THIS CODE IS AUTOMATICALLY GENERATED.
 *
 * To regenerate, run `npx convex dev`.
 * @module
 */

import type * as analytics from "../analytics.js";
import type * as avatars from "../avatars.js";
import type * as crons from "../crons.js";
import type * as errors from "../errors.js";
import type * as functions from "../functions.js";
import type * as learningValidators from "../learningValidators.js";
import type * as limits from "../limits.js";
import type * as messages from "../messages.js";
import type * as model_checks from "../model/checks.js";
import type * as model_dailyStats from "../model/dailyStats.js";
import type * as model_days from "../model/days.js";
import type * as model_events from "../model/events.js";
import type * as model_demo from "../model/demo.js";
import type * as model_fold from "../model/fold.js";
import type * as model_histogram from "../model/histogram.js";
import type * as model_lessons from "../model/lessons.js";
import type * as model_messages from "../model/messages.js";
import type * as model_runs from "../model/runs.js";
import type * as model_sessionState from "../model/sessionState.js";
import type * as model_sessions from "../model/sessions.js";
import type * as model_students from "../model/students.js";
import type * as model_text from "../model/text.js";
import type * as model_tutoring from "../model/tutoring.js";
import type * as model_usage from "../model/usage.js";
import type * as presentations from "../presentations.js";
import type * as progress from "../progress.js";
import type * as retention from "../retention.js";
import type * as schoolValidators from "../schoolValidators.js";
import type * as seed from "../seed.js";
import type * as sessions from "../sessions.js";
import type * as students from "../students.js";
import type * as users from "../users.js";
import type * as validators from "../validators.js";
import type * as vocabulary from "../vocabulary.js";

import type {
  ApiFromModules,
  FilterApi,
  FunctionReference,
} from "convex/server";

declare const fullApi: ApiFromModules<{
  analytics: typeof analytics;
  avatars: typeof avatars;
  crons: typeof crons;
  errors: typeof errors;
  functions: typeof functions;
  learningValidators: typeof learningValidators;
  limits: typeof limits;
  messages: typeof messages;
  "model/checks": typeof model_checks;
  "model/dailyStats": typeof model_dailyStats;
  "model/days": typeof model_days;
  "model/events": typeof model_events;
  "model/demo": typeof model_demo;
  "model/fold": typeof model_fold;
  "model/histogram": typeof model_histogram;
  "model/lessons": typeof model_lessons;
  "model/messages": typeof model_messages;
  "model/runs": typeof model_runs;
  "model/sessionState": typeof model_sessionState;
  "model/sessions": typeof model_sessions;
  "model/students": typeof model_students;
  "model/text": typeof model_text;
  "model/tutoring": typeof model_tutoring;
  "model/usage": typeof model_usage;
  presentations: typeof presentations;
  progress: typeof progress;
  retention: typeof retention;
  schoolValidators: typeof schoolValidators;
  seed: typeof seed;
  sessions: typeof sessions;
  students: typeof students;
  users: typeof users;
  validators: typeof validators;
  vocabulary: typeof vocabulary;
}>;

/**
 * A utility for referencing Convex functions in your app's public API.
 *
 * Usage:
 * ```js
 * const myFunctionReference = api.myModule.myFunction;
 * ```
 */
export declare const api: FilterApi<
  typeof fullApi,
  FunctionReference<any, "public">
>;

/**
 * A utility for referencing Convex functions in your app's internal API.
 *
 * Usage:
 * ```js
 * const myFunctionReference = internal.myModule.myFunction;
 * ```
 */
export declare const internal: FilterApi<
  typeof fullApi,
  FunctionReference<any, "internal">
>;

export declare const components: {};
