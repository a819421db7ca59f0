/** Lessons as teachers write them, and what students are offered. */
import { describe, expect, test } from "vitest";
import { api } from "../../convex/_generated/api.js";
import type { Id } from "../../convex/_generated/dataModel.js";
import type { NewLesson } from "../../convex/lessonValidators.ts";
import { SCHOOL } from "../../convex/limits.ts";
import {
  addStudent,
  addUser,
  agentOf,
  agentOfGuest,
  deployment,
  link,
  message,
  record,
  refusal,
  rows,
  seed,
  started,
  student,
} from "./helpers.ts";
import type { Client, Deployment } from "./helpers.ts";

const PAGE = { numItems: 10, cursor: null };

const EXERCISE = {
  exerciseId: "ticket",
  kind: "say" as const,
  prompt: "Ask for a ticket.",
  answers: ["A ticket, please."],
};

const LESSON = {
  slug: "at-the-station",
  title: "At the station",
  level: "A2",
  language: "en",
  kind: "guided",
  objectives: ["Buy a ticket"],
  targetWords: ["ticket", "platform"],
  exercises: [EXERCISE],
} satisfies NewLesson;

const SLIDES = [
  { title: "Tickets", text: "A single or a return?" },
  { title: "Platforms", text: "Which platform?", notes: "Numbers up to twelve." },
];

async function school() {
  const t = deployment();
  const { client: teacher } = await addUser(t, "teacher");
  return { t, teacher };
}

async function withSlides(teacher: Client): Promise<Id<"lessons">> {
  const { lessonId } = await teacher.mutation(api.lessons.create, LESSON);
  await teacher.mutation(api.presentations.create, { lessonId, title: "Station", slides: SLIDES });
  return lessonId;
}

async function gone(t: Deployment, lessonId: Id<"lessons">): Promise<Id<"lessons">> {
  await t.run(async (ctx) => ctx.db.delete("lessons", lessonId));
  return lessonId;
}

describe("a lesson", () => {
  test("is kept as it was written, and not yet published", async () => {
    const { teacher } = await school();

    const { lessonId } = await teacher.mutation(api.lessons.create, LESSON);

    expect(await teacher.query(api.lessons.get, { lessonId })).toEqual({
      lessonId,
      ...LESSON,
      published: false,
      hasSlides: false,
    });
  });

  test("changes where something is said, and null takes it away", async () => {
    const { teacher } = await school();
    const { lessonId } = await teacher.mutation(api.lessons.create, LESSON);

    await teacher.mutation(api.lessons.update, {
      lessonId,
      changes: { title: "On the train", slug: null },
    });

    const changed = await teacher.query(api.lessons.get, { lessonId });
    expect(changed).toMatchObject({ title: "On the train", targetWords: LESSON.targetWords });
    expect(changed).not.toHaveProperty("slug");
  });

  test("is checked as it results, so that two changes cannot get around a limit", async () => {
    const { t, teacher } = await school();
    const lessonId = await withSlides(teacher);
    const [before] = await rows(t, "lessons");

    const call = teacher.mutation(api.lessons.update, {
      lessonId,
      changes: { exercises: [{ ...EXERCISE, slide: 2 }] },
    });

    expect(await refusal(call)).toMatchObject({
      code: "not_found",
      field: "exercises[0].slide",
      limit: 2,
    });
    expect((await rows(t, "lessons"))[0]).toEqual(before);
  });

  test("goes with its slides; a session that was held with it stays", async () => {
    const { t, teacher } = await school();
    const lessonId = await withSlides(teacher);
    const studentId = await addStudent(t);
    const agent = agentOf(t, studentId);
    await record(agent, "run_a", [started(0, 0, "s1", { lessonId }), message(1, 1, "i", "hi")]);

    await teacher.mutation(api.lessons.remove, { lessonId });

    expect(await rows(t, "lessons")).toEqual([]);
    expect(await rows(t, "slideSets")).toEqual([]);
    expect(await agent.query(api.sessions.plan, { lessonId })).toMatchObject({ lesson: null });
    const session = await student(t, studentId).query(api.sessions.get, { sessionKey: "s1" });
    expect(session).toMatchObject({ messageCount: 1 });
  });

  test("reaches the tutor with its slides, notes and exercises", async () => {
    const { t, teacher } = await school();
    const lessonId = await withSlides(teacher);

    const { lesson } = await agentOf(t, await addStudent(t)).query(api.sessions.plan, { lessonId });

    expect(lesson).toMatchObject({ slides: SLIDES, exercises: LESSON.exercises });
  });

  test("with the slug of another is refused", async () => {
    const { teacher } = await school();
    await teacher.mutation(api.lessons.create, LESSON);
    const { lessonId } = await teacher.mutation(api.lessons.create, { ...LESSON, slug: "other" });

    const again = teacher.mutation(api.lessons.create, LESSON);
    expect(await refusal(again)).toMatchObject({ code: "already_exists", field: "slug" });
    const renamed = teacher.mutation(api.lessons.update, {
      lessonId,
      changes: { slug: LESSON.slug },
    });
    expect(await refusal(renamed)).toMatchObject({ code: "already_exists", field: "slug" });
    await teacher.mutation(api.lessons.update, { lessonId, changes: { slug: "other" } });
  });

  test("that is gone is not found", async () => {
    const { t, teacher } = await school();
    const lessonId = await gone(t, (await teacher.mutation(api.lessons.create, LESSON)).lessonId);
    for (const call of [
      teacher.query(api.lessons.get, { lessonId }),
      teacher.mutation(api.lessons.update, { lessonId, changes: {} }),
      teacher.mutation(api.lessons.remove, { lessonId }),
      teacher.mutation(api.lessons.publish, { lessonId }),
      teacher.mutation(api.lessons.unpublish, { lessonId }),
    ]) {
      expect(await refusal(call)).toMatchObject({ code: "not_found", field: "lessonId" });
    }
  });
});

describe("a guided lesson", () => {
  test("is not published without slides, and does not lose them then", async () => {
    const { teacher } = await school();
    const { lessonId } = await teacher.mutation(api.lessons.create, LESSON);

    const bare = teacher.mutation(api.lessons.publish, { lessonId });
    expect(await refusal(bare)).toMatchObject({ code: "invalid_value", field: "published" });

    await teacher.mutation(api.presentations.create, { lessonId, title: "x", slides: SLIDES });
    await teacher.mutation(api.lessons.publish, { lessonId });
    const emptied = teacher.mutation(api.presentations.setSlides, { lessonId, slides: [] });
    expect(await refusal(emptied)).toMatchObject({ code: "invalid_value", field: "published" });

    await teacher.mutation(api.lessons.unpublish, { lessonId });
    await teacher.mutation(api.presentations.setSlides, { lessonId, slides: [] });
    const free = { lessonId, changes: { kind: "conversation" as const } };
    await teacher.mutation(api.lessons.update, free);
    await teacher.mutation(api.lessons.publish, { lessonId });
  });
});

describe("bad input names the field and the limit", () => {
  const long = (bytes: number) => "x".repeat(bytes + 1);
  const REFUSED: [what: string, changes: Partial<NewLesson>, expected: Record<string, unknown>][] = [
    ["a title over the limit", { title: long(1024) }, { code: "field_too_long", field: "title" }],
    ["emoji counted as bytes", { title: "🦉".repeat(257) }, { field: "title", limit: 1024 }],
    ["an empty title", { title: " " }, { code: "invalid_value", field: "title" }],
    ["no language", { language: "english!" }, { code: "invalid_value", field: "language" }],
    ["a slug with capitals", { slug: "At-Home" }, { code: "invalid_value", field: "slug" }],
    ["a slug over the limit", { slug: long(64) }, { code: "field_too_long", limit: 64 }],
    [
      "too many words",
      { targetWords: Array.from({ length: 65 }, () => "a") },
      { code: "too_many_items", field: "targetWords", limit: 64 },
    ],
    [
      "a long word",
      { targetWords: ["a", long(1024)] },
      { code: "field_too_long", field: "targetWords[1]" },
    ],
    [
      "an empty objective",
      { objectives: [""] },
      { code: "invalid_value", field: "objectives[0]" },
    ],
    [
      "an exercise of another's name",
      { exercises: [EXERCISE, EXERCISE] },
      { code: "invalid_value", field: "exercises[1].exerciseId" },
    ],
    [
      "a gap to fill without an answer",
      { exercises: [{ ...EXERCISE, kind: "fill_in", answers: [] }] },
      { code: "invalid_value", field: "exercises[0].answers" },
    ],
    [
      "nine answers",
      { exercises: [{ ...EXERCISE, answers: Array.from({ length: 9 }, () => "a") }] },
      { code: "too_many_items", field: "exercises[0].answers", limit: 8 },
    ],
    [
      "a slide below the first",
      { exercises: [{ ...EXERCISE, slide: -1 }] },
      { code: "number_out_of_range", field: "exercises[0].slide", limit: 0 },
    ],
    [
      "half a slide",
      { exercises: [{ ...EXERCISE, slide: 0.5 }] },
      { code: "invalid_value", field: "exercises[0].slide" },
    ],
    [
      "a slide that is not there",
      { exercises: [{ ...EXERCISE, slide: 0 }] },
      { code: "not_found", field: "exercises[0].slide", limit: 0 },
    ],
    [
      "much of everything",
      { targetWords: Array.from({ length: 64 }, () => "x".repeat(1024)) },
      { code: "field_too_long", field: "lesson", limit: SCHOOL.maxLessonBytes },
    ],
  ];

  test.each(REFUSED)("%s", async (_what, changes, expected) => {
    const { t, teacher } = await school();
    const call = teacher.mutation(api.lessons.create, { ...LESSON, ...changes });
    expect(await refusal(call)).toMatchObject(expected);
    expect(await rows(t, "lessons")).toEqual([]);
  });

  test("a level that does not exist is refused by the backend itself", async () => {
    const { teacher } = await school();
    const wrong = { ...LESSON, level: "A7" as "A2" };
    await expect(teacher.mutation(api.lessons.create, wrong)).rejects.toThrow("Validator error");
  });

  test("right-to-left text and emoji are kept as they are", async () => {
    const { teacher } = await school();
    const title = "في السوق 🛒";
    const { lessonId } = await teacher.mutation(api.lessons.create, {
      ...LESSON,
      title,
      language: "ar",
    });
    expect(await teacher.query(api.lessons.get, { lessonId })).toMatchObject({ title });
  });

  test("a course or an avatar that is not there", async () => {
    const { t, teacher } = await school();
    const course = { slug: "c", title: "C", language: "en", level: "A2" as const, published: true };
    const { courseId } = await teacher.mutation(api.lessons.createCourse, course);
    await teacher.mutation(api.lessons.removeCourse, { courseId, withLessons: false });
    const avatarId = await t.run(async (ctx) => {
      const avatar = { slug: "a", name: "A", persona: "", voice: "v", language: "en" };
      const row = { ...avatar, teachingStyle: "formal" as const, published: false };
      const id = await ctx.db.insert("avatars", row);
      await ctx.db.delete("avatars", id);
      return id;
    });

    const inCourse = teacher.mutation(api.lessons.create, { ...LESSON, courseId });
    expect(await refusal(inCourse)).toMatchObject({ code: "not_found", field: "courseId" });
    const withAvatar = teacher.mutation(api.lessons.create, { ...LESSON, avatarId });
    expect(await refusal(withAvatar)).toMatchObject({ code: "not_found", field: "avatarId" });
  });
});

describe("lists", () => {
  test("all lessons a page at a time, or those of a course in its order", async () => {
    const { teacher } = await school();
    const course = { slug: "c", title: "C", language: "en", level: "A2" as const, published: true };
    const { courseId } = await teacher.mutation(api.lessons.createCourse, course);
    const ids: Id<"lessons">[] = [];
    for (const slug of ["a", "b", "c"]) {
      const given = { ...LESSON, slug, ...(slug === "b" ? {} : { courseId }) };
      ids.push((await teacher.mutation(api.lessons.create, given)).lessonId);
    }

    const first = await teacher.query(api.lessons.list, {
      paginationOpts: { numItems: 2, cursor: null },
    });
    expect(first.page.map(({ slug }) => slug)).toEqual(["a", "b"]);
    const rest = await teacher.query(api.lessons.list, {
      paginationOpts: { numItems: 2, cursor: first.continueCursor },
    });
    expect(rest.page.map(({ slug }) => slug)).toEqual(["c"]);
    const ofCourse = await teacher.query(api.lessons.list, { courseId, paginationOpts: PAGE });
    expect(ofCourse.page.map(({ lessonId }) => lessonId)).toEqual([ids[0], ids[2]]);
  });
});

describe("who", () => {
  test("a guardian and a student write no lessons", async () => {
    const { t } = await school();
    const { client: guardian } = await addUser(t, "guardian");
    const self = student(t, await addStudent(t));
    for (const client of [guardian, self]) {
      const call = client.mutation(api.lessons.create, LESSON);
      expect(await refusal(call)).toMatchObject({ code: "forbidden" });
    }
    expect(await rows(t, "lessons")).toEqual([]);
  });

  test("a guest takes no course", async () => {
    const { t } = await school();
    const guest = agentOfGuest(t, "g1");
    for (const call of [guest.query(api.lessons.next, {}), guest.query(api.lessons.published, {})]) {
      expect(await refusal(call)).toMatchObject({ code: "student_unknown" });
    }
  });

  test("the student, their agent, their teacher and their guardian ask what comes next", async () => {
    const { t } = await school();
    const studentId = await addStudent(t);
    for (const role of ["teacher", "guardian"] as const) {
      const { userId, client } = await addUser(t, role, `my-${role}`);
      await link(t, userId, studentId);
      expect(await client.query(api.lessons.next, { studentId })).toMatchObject({ lesson: null });
    }
    for (const client of [student(t, studentId), agentOf(t, studentId)]) {
      expect(await client.query(api.lessons.next, {})).toEqual({
        lesson: null,
        reason: "no_course",
      });
    }
  });
});

describe("seed:demo", () => {
  test("again keeps what the student has learned, and the course the lesson is in", async () => {
    const t = deployment();
    const { studentId, lessonId } = await seed(t);
    const { client: teacher } = await addUser(t, "teacher");
    const course = { slug: "c", title: "C", language: "en", level: "A2" as const, published: true };
    const { courseId } = await teacher.mutation(api.lessons.createCourse, course);
    await teacher.mutation(api.lessons.update, { lessonId, changes: { courseId } });
    const totals = { sessions: 3, durationMs: 900_000, messages: 40, streakDays: 2 };
    await t.run(async (ctx) => ctx.db.patch("students", studentId, { totals, name: "Renamed" }));

    await seed(t);

    expect((await rows(t, "students"))[0]).toMatchObject({ totals, name: "Carlos" });
    expect((await rows(t, "lessons"))[0]).toMatchObject({ courseId, published: true });
  });

  test("with a session before leaves its progress to settling, which would count it twice", async () => {
    const t = deployment();
    await seed(t, "demo");
    expect(await rows(t, "sessions")).toHaveLength(1);
    expect(await rows(t, "progress")).toEqual([]);
  });
});
