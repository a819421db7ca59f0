/** Who may call what, and whose lesson it becomes. */
import { describe, expect, test } from "vitest";
import { api } from "../../convex/_generated/api.js";
import {
  ISSUER,
  addStudent,
  addUser,
  agentOf,
  agentOfGuest,
  deployment,
  dump,
  link,
  message,
  record,
  refusal,
  resumed,
  rows,
  seed,
  sessionEnded,
  started,
  student,
} from "./helpers.ts";
import type { Client, Deployment } from "./helpers.ts";

const PAGE = { numItems: 10, cursor: null };
const PREFERENCES = { speechRate: 1, nativeLanguageHelp: true, correctionStyle: "gentle" } as const;

/**
 * One function of each builder, called for the session `s1` of the demo's student.
 *
 * All functions, with real tokens: tests/contract/test_roles.py.
 */
const CALLS: Record<string, (client: Client) => Promise<unknown>> = {
  agentMutation: (client) => record(client, "run_x", [started(0, 0, "sx")]),
  agentQuery: (client) => client.query(api.sessions.plan, {}),
  studentQuery: (client) => client.query(api.sessions.get, { sessionKey: "s1" }),
  studentMutation: (client) =>
    client.mutation(api.students.setPreferences, { preferences: PREFERENCES }),
  teacherMutation: (client) =>
    client.mutation(api.students.create, {
      name: "Bo",
      level: "A1",
      nativeLanguage: "sv",
      targetLanguage: "en",
      timeZone: "Europe/Stockholm",
      goals: [],
      interests: [],
    }),
  adminQuery: (client) => client.query(api.users.list, { paginationOpts: PAGE }),
  userQuery: (client) => client.query(api.users.me, {}),
  signedInMutation: (client) => client.mutation(api.users.accept, { code: "none" }),
};

type Answers = Record<keyof typeof CALLS, string>;

/** What a caller gets of whom the token tells nothing that counts. */
const STRANGER: Answers = {
  agentMutation: "forbidden",
  agentQuery: "forbidden",
  studentQuery: "forbidden",
  studentMutation: "forbidden",
  teacherMutation: "forbidden",
  adminQuery: "forbidden",
  userQuery: "forbidden",
  signedInMutation: "invitation_invalid",
};
/** An administrator, who says nowhere which student is meant. */
const ADMINISTRATOR: Answers = {
  ...STRANGER,
  studentQuery: "student_unknown",
  teacherMutation: "ok",
  adminQuery: "ok",
  userQuery: "ok",
  signedInMutation: "already_exists",
};
const AGENT_OF_NOBODY: Answers = {
  ...STRANGER,
  agentMutation: "ok",
  agentQuery: "student_unknown",
  studentQuery: "student_unknown",
  signedInMutation: "forbidden",
};
const STUDENT_WHO_IS_NOT_THERE: Answers = {
  ...STRANGER,
  agentMutation: "student_unknown",
  agentQuery: "student_unknown",
  studentQuery: "student_unknown",
  studentMutation: "student_unknown",
  signedInMutation: "forbidden",
};

type Claims = Parameters<Deployment["withIdentity"]>[0];

/** Claims that the backend believes, `id` being the demo's student. */
const CLAIMS: [who: string, claims: (id: string) => Claims, Answers][] = [
  ["no role", (id) => ({ subject: `student:${id}`, student_id: id }), STRANGER],
  ["a role that does not exist", (id) => ({ subject: id, role: "admin", student_id: id }), STRANGER],
  [
    "a role of an issuer that is not ours",
    (id) => ({ issuer: "https://login.invalid", subject: id, role: "agent", student_id: id }),
    STRANGER,
  ],
  ["the subject of an administrator", () => ({ subject: "administrator" }), ADMINISTRATOR],
  [
    "that subject, from an issuer that is not ours",
    () => ({ issuer: "https://login.invalid", subject: "administrator" }),
    STRANGER,
  ],
  [
    "that subject, as an agent",
    () => ({ subject: "administrator", role: "agent", student_id: "nobody" }),
    AGENT_OF_NOBODY,
  ],
  [
    "a student who does not exist",
    () => ({ subject: "student:nobody", role: "student", student_id: "nobody" }),
    STUDENT_WHO_IS_NOT_THERE,
  ],
];

describe("a token that claims", () => {
  test.each(CLAIMS)("%s", async (_who, claims, expected) => {
    const answers: Answers = {};
    for (const [name, call] of Object.entries(CALLS)) {
      const t = deployment();
      const { studentId } = await seed(t);
      await addUser(t, "administrator");
      await record(agentOf(t, studentId), "run_a", [started(0, 0, "s1")]);
      const caller = t.withIdentity({ issuer: ISSUER, ...claims(studentId) });
      answers[name] = await call(caller).then(
        () => "ok",
        async (error: unknown) => (await refusal(Promise.reject(error as Error))).code,
      );
    }
    expect(answers).toEqual(expected);
  });
});

describe("a function about a student", () => {
  test("takes the student's own id from their token's bearer, and no other", async () => {
    const t = deployment();
    const { studentId } = await seed(t);
    const otherId = await addStudent(t);
    await record(agentOf(t, studentId), "run_a", [started(0, 0, "s1")]);

    for (const client of [agentOf(t, studentId), student(t, studentId)]) {
      const own = { sessionKey: "s1", studentId };
      expect(await client.query(api.sessions.get, own)).toMatchObject({ sessionKey: "s1" });
      const call = client.query(api.sessions.get, { sessionKey: "s1", studentId: otherId });
      expect(await refusal(call)).toMatchObject({ code: "forbidden", field: "studentId" });
    }
  });

  test("shows a user no session of another student than the one they name", async () => {
    const t = deployment();
    const { studentId } = await seed(t);
    const otherId = await addStudent(t);
    const { client, userId } = await addUser(t, "teacher");
    await link(t, userId, studentId);
    await link(t, userId, otherId);
    await record(agentOf(t, studentId), "run_a", [started(0, 0, "s1")]);

    const call = client.query(api.sessions.get, { sessionKey: "s1", studentId: otherId });

    expect(await refusal(call)).toMatchObject({ code: "forbidden" });
  });

  test("tells an administrator alone that there is no such student", async () => {
    const t = deployment();
    const studentId = await addStudent(t);
    await t.run(async (ctx) => {
      await ctx.db.delete("students", studentId);
    });

    const codes: string[] = [];
    for (const role of ["administrator", "teacher"] as const) {
      const { client } = await addUser(t, role);
      const call = client.query(api.sessions.get, { sessionKey: "s1", studentId });
      codes.push((await refusal(call)).code);
    }
    expect(codes).toEqual(["student_unknown", "forbidden"]);
  });
});

describe("a guest", () => {
  test("has a session of their own, which only their token sees", async () => {
    const t = deployment();
    await record(agentOfGuest(t, "g1"), "run_a", [started(0, 0, "g1"), message(1, 1, "i", "hi")]);

    const [session] = await rows(t, "sessions");
    expect(session).toMatchObject({ guest: "guest:g1", subject: "guest:g1" });
    expect(session).not.toHaveProperty("studentId");
    const mine = await agentOfGuest(t, "g1").query(api.sessions.get, { sessionKey: "g1" });
    expect(mine).toMatchObject({ messageCount: 1 });
    const other = agentOfGuest(t, "g2").query(api.sessions.get, { sessionKey: "g1" });
    expect(await refusal(other)).toMatchObject({ code: "forbidden" });
  });

  test("of whom the token names a student who does not exist loses nothing", async () => {
    const t = deployment();
    const { lessonId } = await seed(t);
    // An id of another table is no student either.
    const agent = agentOf(t, lessonId);

    await record(agent, "run_a", [started(0, 0, "s1"), message(1, 1, "i", "hi")]);

    expect((await rows(t, "sessions"))[0]).toMatchObject({ guest: `unknown:${lessonId}` });
    expect(await rows(t, "messages")).toHaveLength(1);
  });

  test("stays a guest when the student is imported later, whose next run is a session apart", async () => {
    const t = deployment();
    const { studentId } = await seed(t);
    const { _id, _creationTime, ...kept } = (await rows(t, "students"))[0] ?? { name: "" };
    await t.run(async (ctx) => {
      await ctx.db.delete(studentId);
    });
    const lesson = (itemId: string) => [started(0, 0, "s1"), message(1, 1, itemId, "hi")];
    await record(agentOf(t, studentId), "run_a", lesson("a"));
    // Imported, a row keeps its id; here it gets a new one, named by the same subject.
    const imported = await t.run(async (ctx) => ctx.db.insert("students", kept as never));
    const agent = t.withIdentity({
      issuer: ISSUER,
      subject: `student:${studentId}`,
      role: "agent",
      student_id: imported,
    });

    await record(agent, "run_b", lesson("b"));

    const guest = `unknown:${studentId}`;
    for (const table of ["sessionRuns", "sessions", "sessionLive", "messages"] as const) {
      const found = await rows(t, table);
      expect(found.map((row) => row.guest)).toEqual([guest, undefined]);
      expect(found.map((row) => row.studentId)).toEqual([undefined, imported]);
    }
  });
});

describe("a session key that is somebody else's", () => {
  /** The lesson `s1` of the demo's student, and all that is stored of it. */
  async function taken() {
    const t = deployment();
    const owner = agentOf(t, (await seed(t)).studentId);
    await record(owner, "run_a", [started(0, 0, "s1"), message(1, 1, "a", "mine")]);
    return { t, owner, before: await dump(t) };
  }

  const OTHERS: [who: string, as: (t: Deployment) => Client | Promise<Client>][] = [
    ["another student", async (t) => agentOf(t, await addStudent(t))],
    ["a guest of that key", (t) => agentOfGuest(t, "s1")],
    ["a guest who names it", (t) => agentOfGuest(t, "run_b")],
  ];

  test.each(OTHERS)("%s: their run becomes a session of its own", async (_who, as) => {
    const { t, owner, before } = await taken();
    const other = await as(t);

    const records = [started(0, 10, "s1"), message(1, 11, "b", "theirs"), sessionEnded(2, 12)];
    expect(await record(other, "run_b", records)).toBe(2);

    const page = { paginationOpts: PAGE };
    const theirs = await other.query(api.messages.list, { sessionKey: "run_b", ...page });
    expect(theirs.page.map((row) => row.text)).toEqual(["theirs"]);
    const session = await other.query(api.sessions.get, { sessionKey: "run_b" });
    expect(session).toMatchObject({ status: "ended", messageCount: 1, runs: 1 });
    // Nothing of it is in the other's lesson, and neither reads the other's.
    const mine = await owner.query(api.messages.list, { sessionKey: "s1", ...page });
    expect(mine.page.map((row) => row.text)).toEqual(["mine"]);
    const after = await dump(t);
    for (const table of ["sessions", "sessionLive", "sessionRuns", "messages"]) {
      expect(after[table]).toHaveLength(2);
      expect(after[table]?.[0]).toEqual(before[table]?.[0]);
    }
    for (const [reader, sessionKey] of [[other, "s1"], [owner, "run_b"]] as const) {
      const call = reader.query(api.sessions.get, { sessionKey });
      expect(await refusal(call)).toMatchObject({ code: "forbidden" });
    }
  });

  test("a resume of theirs does not complete or reopen it either", async () => {
    const { t, owner } = await taken();
    await record(owner, "run_a", [sessionEnded(2, 2)]);
    const [before] = await rows(t, "sessions");
    const other = agentOf(t, await addStudent(t));

    await record(other, "run_b", [resumed(0, 10, "s1"), message(1, 11, "b", "theirs")]);

    expect((await rows(t, "sessions"))[0]).toEqual(before);
    expect(await other.query(api.sessions.get, { sessionKey: "run_b" })).toMatchObject({
      status: "active",
    });
  });

  test("even the run's id: forbidden, and nothing of it is kept", async () => {
    const t = deployment();
    await record(agentOf(t, (await seed(t)).studentId), "run_a", [started(0, 0, "run_b")]);
    const other = agentOf(t, await addStudent(t));
    const before = await dump(t);

    const call = record(other, "run_b", [started(0, 10, "run_b")]);

    expect(await refusal(call)).toMatchObject({ code: "forbidden" });
    expect(await dump(t)).toEqual(before);
  });
});
