/** What remains of a session in words: the student's text and the teacher's. */
import { expect, test } from "vitest";
import { api } from "../../convex/_generated/api.js";
import { SCHOOL } from "../../convex/limits.ts";
import {
  T0,
  addStudent,
  addUser,
  agentOf,
  agentOfGuest,
  deployment,
  link,
  make,
  message,
  record,
  refusal,
  rows,
  runEnded,
  seed,
  sessionEnded,
  started,
  student,
  summary,
} from "./helpers.ts";

async function school() {
  const t = deployment();
  const { studentId, lessonId } = await seed(t);
  return { t, studentId, lessonId, agent: agentOf(t, studentId) };
}

const sessionKey = "s1";

test("is stored with the session, and the last one counts", async () => {
  const { agent, t, studentId } = await school();
  await record(agent, "a", [started(0, 0, sessionKey), summary(1, 10, "bread")]);
  await record(agent, "a", [summary(2, 20, "bread and eggs", "model")]);
  expect(await rows(t, "sessionSummaries")).toMatchObject([
    {
      studentId,
      forStudent: "bread and eggs, for you",
      forTeacher: "bread and eggs, for the teacher",
      source: "model",
      createdAt: T0 + 20,
    },
  ]);
});

test("of an earlier run does not replace that of a later one", async () => {
  const { agent, t } = await school();
  await record(agent, "b", [started(0, 1_000, sessionKey), summary(1, 1_010, "later")]);
  await record(agent, "a", [started(0, 0, sessionKey), summary(1, 2_000, "earlier")]);
  expect(await rows(t, "sessionSummaries")).toMatchObject([{ forStudent: "later, for you" }]);
});

test("takes no end back", async () => {
  const { agent } = await school();
  await record(agent, "a", [
    started(0, 0, sessionKey),
    runEnded(1, 100, "recovered"),
    summary(2, 200, "bread"),
  ]);
  expect(await agent.query(api.sessions.get, { sessionKey })).toMatchObject({
    status: "ended",
    endReason: "recovered",
  });
});

test("the teacher's text is for teachers, administrators and the agent alone", async () => {
  const { t, studentId, agent } = await school();
  await record(agent, "a", [started(0, 0, sessionKey), summary(1, 10, "bread", "model")]);
  const forThem = {
    forStudent: "bread, for you",
    source: "model",
    createdAt: T0 + 10,
  };
  const everything = { ...forThem, forTeacher: "bread, for the teacher" };

  expect(await agent.query(api.sessions.summary, { sessionKey })).toEqual(everything);
  expect(await student(t, studentId).query(api.sessions.summary, { sessionKey })).toEqual(forThem);
  for (const [role, wanted] of [
    ["teacher", everything],
    ["administrator", everything],
    ["guardian", forThem],
  ] as const) {
    const { userId, client } = await addUser(t, role);
    if (role !== "administrator") await link(t, userId, studentId);
    expect(await client.query(api.sessions.summary, { sessionKey, studentId }), role).toEqual(wanted);
  }
});

test("of a session that is not there, or of which nothing is written, is null", async () => {
  const { agent } = await school();
  expect(await agent.query(api.sessions.summary, { sessionKey })).toBeNull();
  await record(agent, "a", [started(0, 0, sessionKey)]);
  expect(await agent.query(api.sessions.summary, { sessionKey })).toBeNull();
});

test("nobody reads another's", async () => {
  const { t, agent } = await school();
  await record(agent, "a", [started(0, 0, sessionKey), summary(1, 10, "bread")]);
  for (const other of [agentOf(t, await addStudent(t)), agentOfGuest(t, sessionKey)]) {
    expect(await refusal(other.query(api.sessions.summary, { sessionKey }))).toMatchObject({
      code: "forbidden",
    });
  }
});

test("a text over 2 KiB is refused for good, with its field", async () => {
  const { agent, t } = await school();
  const fits = "é".repeat(SCHOOL.maxSummaryBytes / 2);
  await record(agent, "a", [started(0, 0, sessionKey)]);
  for (const field of ["forStudent", "forTeacher"] as const) {
    const texts = { forStudent: fits, forTeacher: fits, [field]: `${fits}.` };
    const long = make("sessionSummary", 1, 10, { ...texts, source: "model" });
    expect(await refusal(record(agent, "a", [long]))).toMatchObject({
      code: "text_too_long",
      seq: 1,
      field,
      limit: SCHOOL.maxSummaryBytes,
    });
  }
  await record(agent, "a", [
    make("sessionSummary", 1, 10, { forStudent: fits, forTeacher: fits, source: "model" }),
  ]);
  expect(await rows(t, "sessionSummaries")).toMatchObject([{ forTeacher: fits }]);
});

test("is what the tutor knows of the lesson before, and of the one that goes on", async () => {
  const { agent, lessonId } = await school();
  const context = async () => await agent.query(api.students.tutoringContext, {});
  await record(agent, "a", [
    started(0, 0, sessionKey, { lessonId }),
    message(1, 1_000, "i1", "Hello"),
    sessionEnded(2, 60_000),
  ]);
  expect((await context()).lastSession).toMatchObject({ sessionKey });
  expect((await context()).lastSession).not.toHaveProperty("summary");
  const before = await agent.query(api.sessions.resumable, { sessionKey });
  expect(before).not.toHaveProperty("summary");

  await record(agent, "a", [summary(3, 61_000, "bread")]);

  expect((await context()).lastSession).toMatchObject({ summary: "bread, for the teacher" });
  expect(await agent.query(api.sessions.resumable, { sessionKey })).toMatchObject({
    summary: "bread, for the teacher",
  });
});
