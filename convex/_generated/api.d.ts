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
import type * as analyticsValidators from "../analyticsValidators.js";
import type * as avatars from "../avatars.js";
import type * as crons from "../crons.js";
import type * as errors from "../errors.js";
import type * as functions from "../functions.js";
import type * as learningValidators from "../learningValidators.js";
import type * as lessonValidators from "../lessonValidators.js";
import type * as lessons from "../lessons.js";
import type * as limits from "../limits.js";
import type * as messages from "../messages.js";
import type * as model_analytics from "../model/analytics.js";
import type * as model_avatars from "../model/avatars.js";
import type * as model_bounded from "../model/bounded.js";
import type * as model_cards from "../model/cards.js";
import type * as model_checks from "../model/checks.js";
import type * as model_corrections from "../model/corrections.js";
import type * as model_courses from "../model/courses.js";
import type * as model_dailyStats from "../model/dailyStats.js";
import type * as model_days from "../model/days.js";
import type * as model_demo from "../model/demo.js";
import type * as model_environment from "../model/environment.js";
import type * as model_erasures from "../model/erasures.js";
import type * as model_errorKinds from "../model/errorKinds.js";
import type * as model_events from "../model/events.js";
import type * as model_exports from "../model/exports.js";
import type * as model_fields from "../model/fields.js";
import type * as model_fold from "../model/fold.js";
import type * as model_histogram from "../model/histogram.js";
import type * as model_leases from "../model/leases.js";
import type * as model_lessonChecks from "../model/lessonChecks.js";
import type * as model_lessonImport from "../model/lessonImport.js";
import type * as model_lessons from "../model/lessons.js";
import type * as model_messages from "../model/messages.js";
import type * as model_pages from "../model/pages.js";
import type * as model_places from "../model/places.js";
import type * as model_privacy from "../model/privacy.js";
import type * as model_reading from "../model/reading.js";
import type * as model_replace from "../model/replace.js";
import type * as model_resumable from "../model/resumable.js";
import type * as model_retention from "../model/retention.js";
import type * as model_rollUp from "../model/rollUp.js";
import type * as model_runs from "../model/runs.js";
import type * as model_sessionState from "../model/sessionState.js";
import type * as model_sessions from "../model/sessions.js";
import type * as model_settle from "../model/settle.js";
import type * as model_shortLesson from "../model/shortLesson.js";
import type * as model_studentAccess from "../model/studentAccess.js";
import type * as model_studentProfiles from "../model/studentProfiles.js";
import type * as model_students from "../model/students.js";
import type * as model_studied from "../model/studied.js";
import type * as model_summaries from "../model/summaries.js";
import type * as model_telemetry from "../model/telemetry.js";
import type * as model_text from "../model/text.js";
import type * as model_tutoring from "../model/tutoring.js";
import type * as model_usage from "../model/usage.js";
import type * as model_users from "../model/users.js";
import type * as model_vocabulary from "../model/vocabulary.js";
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
  analyticsValidators: typeof analyticsValidators;
  avatars: typeof avatars;
  crons: typeof crons;
  errors: typeof errors;
  functions: typeof functions;
  learningValidators: typeof learningValidators;
  lessonValidators: typeof lessonValidators;
  lessons: typeof lessons;
  limits: typeof limits;
  messages: typeof messages;
  "model/analytics": typeof model_analytics;
  "model/avatars": typeof model_avatars;
  "model/bounded": typeof model_bounded;
  "model/cards": typeof model_cards;
  "model/checks": typeof model_checks;
  "model/corrections": typeof model_corrections;
  "model/courses": typeof model_courses;
  "model/dailyStats": typeof model_dailyStats;
  "model/days": typeof model_days;
  "model/demo": typeof model_demo;
  "model/environment": typeof model_environment;
  "model/erasures": typeof model_erasures;
  "model/errorKinds": typeof model_errorKinds;
  "model/events": typeof model_events;
  "model/exports": typeof model_exports;
  "model/fields": typeof model_fields;
  "model/fold": typeof model_fold;
  "model/histogram": typeof model_histogram;
  "model/leases": typeof model_leases;
  "model/lessonChecks": typeof model_lessonChecks;
  "model/lessonImport": typeof model_lessonImport;
  "model/lessons": typeof model_lessons;
  "model/messages": typeof model_messages;
  "model/pages": typeof model_pages;
  "model/places": typeof model_places;
  "model/privacy": typeof model_privacy;
  "model/reading": typeof model_reading;
  "model/replace": typeof model_replace;
  "model/resumable": typeof model_resumable;
  "model/retention": typeof model_retention;
  "model/rollUp": typeof model_rollUp;
  "model/runs": typeof model_runs;
  "model/sessionState": typeof model_sessionState;
  "model/sessions": typeof model_sessions;
  "model/settle": typeof model_settle;
  "model/shortLesson": typeof model_shortLesson;
  "model/studentAccess": typeof model_studentAccess;
  "model/studentProfiles": typeof model_studentProfiles;
  "model/students": typeof model_students;
  "model/studied": typeof model_studied;
  "model/summaries": typeof model_summaries;
  "model/telemetry": typeof model_telemetry;
  "model/text": typeof model_text;
  "model/tutoring": typeof model_tutoring;
  "model/usage": typeof model_usage;
  "model/users": typeof model_users;
  "model/vocabulary": typeof model_vocabulary;
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
