/**
 * A deployment under convex-test, and records to send to it.
 * @module
 */
import { ConvexError } from "convex/values";
import { convexTest } from "convex-test";
import { expect } from "vitest";
import { api, internal } from "../../convex/_generated/api.js";
import type { Doc, Id, TableNames } from "../../convex/_generated/dataModel.js";
import type { ErrorData } from "../../convex/errors.ts";
import schema from "../../convex/schema.ts";
import type { UserRole } from "../../convex/schoolValidators.ts";
import type { RecordOf, SessionRecord } from "../../convex/validators.ts";

const modules = import.meta.glob("../../convex/**/*.{ts,js}");

export const ISSUER = "https://emma.invalid/agent";

/** 2026-11-02 09:00 UTC: the tests' own time. */
export const T0 = Date.UTC(2026, 10, 2, 9);

export type Deployment = ReturnType<typeof deployment>;
export type Client = ReturnType<Deployment["withIdentity"]>;

export function deployment() {
  return convexTest({ schema, modules });
}

export async function seed(t: Deployment, sessionKeyPrefix?: string) {
  return await t.mutation(internal.seed.demo, sessionKeyPrefix ? { sessionKeyPrefix } : {});
}

/** A second student, who has nothing to do with the first. */
export async function addStudent(t: Deployment, name = "Aya"): Promise<Id<"students">> {
  return await t.run(async (ctx) =>
    ctx.db.insert("students", {
      name,
      level: "B1",
      nativeLanguage: "ja",
      targetLanguage: "en",
      timeZone: "Asia/Tokyo",
      goals: [],
      interests: [],
      preferences: { speechRate: 1, nativeLanguageHelp: false, correctionStyle: "every_error" },
    }),
  );
}

/** The agent with a token that names the student. */
export function agentOf(t: Deployment, studentId: string): Client {
  return t.withIdentity({
    issuer: ISSUER,
    subject: `student:${studentId}`,
    role: "agent",
    student_id: studentId,
  });
}

export function agentOfGuest(t: Deployment, sessionKey: string): Client {
  return t.withIdentity({ issuer: ISSUER, subject: `guest:${sessionKey}`, role: "agent" });
}

export function student(t: Deployment, studentId: string): Client {
  return t.withIdentity({
    issuer: ISSUER,
    subject: `student:${studentId}`,
    role: "student",
    student_id: studentId,
  });
}

/** A person with a token of no role: what they may do stands in `users`, if they are there. */
export function person(t: Deployment, subject: string): Client {
  return t.withIdentity({ issuer: ISSUER, subject });
}

/** A user of the school, and the client with their token. */
export async function addUser(
  t: Deployment,
  role: UserRole,
  name: string = role,
): Promise<{ userId: Id<"users">; client: Client }> {
  const userId = await t.run(async (ctx) =>
    ctx.db.insert("users", {
      tokenIdentifier: `${ISSUER}|${name}`,
      role,
      name,
      email: `${name}@school.invalid`,
    }),
  );
  return { userId, client: person(t, name) };
}

/** Lets the user see the student. */
export async function link(
  t: Deployment,
  userId: Id<"users">,
  studentId: Id<"students">,
): Promise<void> {
  await t.run(async (ctx) => {
    const user = await ctx.db.get("users", userId);
    const relation = user?.role === "guardian" ? "guardian" : "teacher";
    await ctx.db.insert("studentAccess", { userId, studentId, relation, since: T0 });
  });
}

export async function record(
  client: Client | Deployment,
  runId: string,
  records: SessionRecord[],
): Promise<number> {
  const { seq } = await client.mutation(api.sessions.record, { version: 1, runId, records });
  return seq;
}

/** The data of the ConvexError that `call` ends in. */
export async function refusal(call: Promise<unknown>): Promise<ErrorData> {
  const error: unknown = await call.then(
    () => null,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(ConvexError);
  const { data } = error as ConvexError<ErrorData | string>;
  return typeof data === "string" ? (JSON.parse(data) as ErrorData) : data;
}

export async function rows<Table extends TableNames>(
  t: Deployment,
  table: Table,
): Promise<Doc<Table>[]> {
  return await t.run(async (ctx) => {
    const found: unknown = await ctx.db.query(table).collect();
    return found as Doc<Table>[];
  });
}

/** All rows of all tables, as they are. */
export async function dump(t: Deployment): Promise<Record<string, Doc<TableNames>[]>> {
  const tables: Record<string, Doc<TableNames>[]> = {};
  for (const table of Object.keys(schema.tables) as TableNames[]) {
    tables[table] = await rows(t, table);
  }
  return tables;
}

/**
 * All rows as they compare between deployments: without times of storing, with ids that name the
 * row by what it is, sorted.
 */
export async function contents(t: Deployment): Promise<Record<string, unknown[]>> {
  const tables = await dump(t);
  const names = new Map<string, string>();
  for (const row of tables.sessions as Doc<"sessions">[]) names.set(row._id, row.sessionKey);
  for (const row of tables.vocabulary as Doc<"vocabulary">[]) {
    names.set(row._id, `${row.language}:${row.wordKey}`);
  }
  return Object.fromEntries(
    Object.entries(tables).map(([table, found]) => [
      table,
      found
        .map(({ _id, _creationTime, ...row }) => ({
          ...row,
          ...("sessionId" in row && row.sessionId !== undefined
            ? { sessionId: names.get(row.sessionId) }
            : {}),
          ...("introducedIn" in row && row.introducedIn !== undefined
            ? { introducedIn: names.get(row.introducedIn) }
            : {}),
          ...("vocabularyId" in row ? { vocabularyId: names.get(row.vocabularyId) } : {}),
        }))
        .sort((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1)),
    ]),
  );
}

// ---------------------------------------------------------------------------------------------
// Records

type Rest<Kind extends SessionRecord["kind"]> = Omit<RecordOf<Kind>, "kind" | "seq" | "createdAt">;

/** A record of the kind; `at` is milliseconds after `T0`. */
export function make<Kind extends SessionRecord["kind"]>(
  kind: Kind,
  seq: number,
  at: number,
  rest: Rest<Kind>,
): RecordOf<Kind> {
  return { kind, seq, createdAt: T0 + at, ...rest } as unknown as RecordOf<Kind>;
}

export function started(
  seq: number,
  at: number,
  sessionKey: string,
  rest: Partial<Rest<"sessionStarted">> = {},
): SessionRecord {
  return make("sessionStarted", seq, at, {
    sessionKey,
    room: "room",
    jobId: "job",
    agentName: "emma",
    ...rest,
  });
}

export function resumed(
  seq: number,
  at: number,
  sessionKey: string,
  rest: Partial<Rest<"sessionResumed">> = {},
): SessionRecord {
  return make("sessionResumed", seq, at, {
    sessionKey,
    room: "room",
    jobId: "job",
    agentName: "emma",
    ...rest,
  });
}

export function message(
  seq: number,
  at: number,
  itemId: string,
  text: string,
  rest: Partial<Rest<"message">> = {},
): SessionRecord {
  return make("message", seq, at, { itemId, role: "user", text, interrupted: false, ...rest });
}

export function transcript(
  seq: number,
  at: number,
  text: string,
  rest: Partial<Rest<"transcript">> = {},
): SessionRecord {
  return make("transcript", seq, at, { text, ...rest });
}

export function sessionEnded(seq: number, at: number, reason = "user_initiated"): SessionRecord {
  return make("sessionEnded", seq, at, { reason });
}

export function runEnded(seq: number, at: number, reason = "completed"): SessionRecord {
  return make("runEnded", seq, at, { reason });
}

export function correction(
  seq: number,
  at: number,
  correctionId: string,
  rest: Partial<Rest<"correction">> = {},
): SessionRecord {
  return make("correction", seq, at, {
    correctionId,
    said: "I goed",
    target: "I went",
    errorType: "tense",
    severity: "moderate",
    repaired: false,
    ...rest,
  });
}

export function introduced(
  seq: number,
  at: number,
  word: string,
  rest: Partial<Rest<"wordIntroduced">> = {},
): SessionRecord {
  return make("wordIntroduced", seq, at, { word, language: "en", ...rest });
}

export function reviewed(
  seq: number,
  at: number,
  word: string,
  rating: Rest<"wordReviewed">["rating"],
): SessionRecord {
  return make("wordReviewed", seq, at, { word, language: "en", rating });
}

export function summary(
  seq: number,
  at: number,
  text: string,
  source: Rest<"sessionSummary">["source"] = "records",
): SessionRecord {
  const texts = { forStudent: `${text}, for you`, forTeacher: `${text}, for the teacher` };
  return make("sessionSummary", seq, at, { ...texts, source });
}

export function usage(
  seq: number,
  at: number,
  models: Rest<"usage">["models"],
): SessionRecord {
  return make("usage", seq, at, { models });
}
