/** Who may call what, and whose lesson it becomes. */
import { describe, expect, test } from "vitest";
import { api } from "../../convex/_generated/api.js";
import {
  ISSUER,
  addStudent,
  agentOf,
  agentOfGuest,
  deployment,
  dump,
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

/** Every public function, called for the session `s1` of the demo's student. */
const CALLS: Record<string, (client: Client | Deployment) => Promise<unknown>> = {
  "sessions:record": (client) => record(client, "run_x", [started(0, 0, "sx")]),
  "sessions:recordVersions": (client) => client.query(api.sessions.recordVersions, {}),
  "sessions:plan": (client) => client.query(api.sessions.plan, {}),
  "sessions:get": (client) => client.query(api.sessions.get, { sessionKey: "s1" }),
  "messages:list": (client) =>
    client.query(api.messages.list, { sessionKey: "s1", paginationOpts: PAGE }),
  "students:tutoringContext": (client) => client.query(api.students.tutoringContext, {}),
};

type Answer = "ok" | "unauthenticated" | "forbidden" | "student_unknown";

/** What each caller gets, in the order of `CALLS`. */
const CALLERS: [who: string, as: (t: Deployment, id: string) => Client | Deployment, Answer[]][] = [
  ["nobody", (t) => t, all("unauthenticated")],
  [
    "an agent of another issuer",
    (t, id) =>
      t.withIdentity({ issuer: "https://evil.invalid", subject: id, role: "agent", student_id: id }),
    all("unauthenticated"),
  ],
  [
    "a token without a role",
    (t, id) => t.withIdentity({ issuer: ISSUER, subject: `student:${id}`, student_id: id }),
    all("forbidden"),
  ],
  [
    "a role that does not exist",
    (t, id) => t.withIdentity({ issuer: ISSUER, subject: id, role: "admin", student_id: id }),
    all("forbidden"),
  ],
  ["the agent of the student", (t, id) => agentOf(t, id), all("ok")],
  [
    "the student",
    (t, id) => student(t, id),
    ["forbidden", "forbidden", "forbidden", "ok", "ok", "forbidden"],
  ],
  [
    "another student",
    (t) => student(t, "OTHER"),
    ["forbidden", "forbidden", "forbidden", "forbidden", "forbidden", "forbidden"],
  ],
  [
    "the agent of another student",
    (t) => agentOf(t, "OTHER"),
    ["ok", "ok", "ok", "forbidden", "forbidden", "ok"],
  ],
  [
    "the agent of a guest",
    (t) => agentOfGuest(t, "g1"),
    ["ok", "ok", "ok", "forbidden", "forbidden", "student_unknown"],
  ],
  [
    "the agent of a student who does not exist",
    (t) => agentOf(t, "nobody"),
    ["ok", "ok", "student_unknown", "student_unknown", "student_unknown", "student_unknown"],
  ],
  [
    "a student who does not exist",
    (t) => student(t, "nobody"),
    [
      "forbidden",
      "forbidden",
      "forbidden",
      "student_unknown",
      "student_unknown",
      "forbidden",
    ],
  ],
];

function all(answer: Answer): Answer[] {
  return Object.keys(CALLS).map(() => answer);
}

describe("who may call what", () => {
  test.each(CALLERS)("%s", async (who, as, expected) => {
    const answers: string[] = [];
    for (const call of Object.values(CALLS)) {
      const t = deployment();
      const { studentId } = await seed(t);
      const otherId = await addStudent(t);
      await record(agentOf(t, studentId), "run_a", [started(0, 0, "s1"), message(1, 1, "i", "hi")]);
      const caller = who.includes("another student")
        ? (who.startsWith("the agent") ? agentOf : student)(t, otherId)
        : as(t, studentId);
      answers.push(
        await call(caller).then(
          () => "ok",
          async (error: unknown) => (await refusal(Promise.reject(error as Error))).code,
        ),
      );
    }
    expect(answers).toEqual(expected);
  });

  test("every public function of convex/ is in this table", async () => {
    const found: string[] = [];
    const modules = import.meta.glob<Record<string, unknown>>("../../convex/*.ts");
    for (const [path, load] of Object.entries(modules)) {
      for (const [name, exported] of Object.entries(await load())) {
        if ((exported as { isPublic?: boolean } | null)?.isPublic === true) {
          found.push(`${path.replace(/^.*\/(\w+)\.ts$/, "$1")}:${name}`);
        }
      }
    }
    expect(found.sort()).toEqual(Object.keys(CALLS).sort());
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
