/** Lessons from files: all or nothing, everything that is wrong at once, and again without harm. */
import { describe, expect, test } from "vitest";
import { internal } from "../../convex/_generated/api.js";
import { SCHOOL } from "../../convex/limits.ts";
import { deployment, dump, refusal, rows } from "./helpers.ts";
import type { Deployment } from "./helpers.ts";

const shipped = import.meta.glob<string>("../../lessons/*.json", {
  query: "?raw",
  import: "default",
  eager: true,
});

const LESSON = {
  slug: "at-the-station",
  title: "At the station",
  level: "A2",
  language: "en",
  kind: "guided",
  objectives: ["Buy a ticket"],
  targetWords: ["ticket"],
  slides: [
    { title: "Tickets", text: "A single or a return?", notes: "Slowly." },
    { title: "Platforms", text: "Which platform?" },
  ],
  exercises: [
    { exerciseId: "buy", kind: "say", prompt: "Ask.", answers: ["A ticket, please."], slide: 0 },
  ],
};
const COURSE = { slug: "travel", title: "Travel", language: "en", level: "A2" };
const AVATAR = {
  slug: "emma",
  name: "Emma",
  persona: "You are Emma.",
  voice: "coral",
  language: "en",
  teachingStyle: "patient",
};

async function load(t: Deployment, ...documents: unknown[]) {
  const files = documents.map((document, i) => ({
    name: `${"abc"[i] ?? ""}.json`,
    text: typeof document === "string" ? document : JSON.stringify(document),
  }));
  return await t.mutation(internal.lessons.importAll, { files });
}

/** What is said of the documents, which are refused; nothing is kept of them. */
async function problems(...documents: unknown[]): Promise<string[]> {
  const t = deployment();
  const before = await dump(t);
  const refused = await refusal(load(t, ...documents));
  expect(refused.code).toBe("invalid_value");
  expect(await dump(t)).toEqual(before);
  return refused.problems ?? [];
}

/** The lesson with changes, as the only one of its file. */
function lesson(changes: Record<string, unknown>) {
  return { lessons: [{ ...LESSON, ...changes }] };
}

describe("a file", () => {
  test("becomes a course, an avatar and lessons with slides, in the given order", async () => {
    const t = deployment();
    const inCourse = { course: "travel", avatar: "emma", published: true };

    const imported = await load(t, {
      courses: [COURSE],
      avatars: [AVATAR],
      lessons: [
        { ...LESSON, ...inCourse, position: 20 },
        { ...LESSON, ...inCourse, slug: "first", position: 10 },
      ],
    });

    const [course] = await rows(t, "courses");
    const [avatar] = await rows(t, "avatars");
    expect(course).toMatchObject({ ...COURSE, published: false });
    expect(avatar).toMatchObject({ ...AVATAR, published: false });
    const lessons = await rows(t, "lessons");
    const { slides, ...content } = LESSON;
    expect(lessons[0]).toMatchObject({
      ...content,
      courseId: course?._id,
      avatarId: avatar?._id,
      position: 20,
      published: true,
    });
    expect(await rows(t, "slideSets")).toMatchObject([
      { title: LESSON.title, slides },
      { title: LESSON.title, slides },
    ]);
    expect(imported.lessons).toEqual([
      { slug: "at-the-station", lessonId: lessons[0]?._id },
      { slug: "first", lessonId: lessons[1]?._id },
    ]);
  });

  test("again changes nothing", async () => {
    const t = deployment();
    const document = {
      courses: [COURSE],
      avatars: [AVATAR],
      lessons: [{ ...LESSON, course: "travel", avatar: "emma" }],
    };
    const first = await load(t, document);
    const before = await dump(t);

    expect(await load(t, document)).toEqual(first);

    expect(await dump(t)).toEqual(before);
  });

  test("changes what it says, and leaves what it does not", async () => {
    const t = deployment();
    await load(t, { courses: [COURSE], ...lesson({ course: "travel", published: true }) });
    const { slides, exercises, ...rest } = LESSON;

    await load(t, { lessons: [{ ...rest, title: "On the train" }] });

    const [row] = await rows(t, "lessons");
    expect(row).toMatchObject({ title: "On the train", published: true, position: 0, exercises });
    expect(row?.courseId).toBeDefined();
    expect((await rows(t, "slideSets"))[0]?.slides).toEqual(slides);

    await load(t, lesson({ published: false, exercises: [], slides: [] }));
    expect(await rows(t, "slideSets")).toEqual([]);
    expect((await rows(t, "lessons"))[0]).not.toHaveProperty("slideSetId");
  });

  test("may refer to another of the import, and to what is on the deployment", async () => {
    const t = deployment();
    await load(t, lesson({ course: "travel", avatar: "emma" }), {
      courses: [COURSE],
      avatars: [AVATAR],
    });
    await load(t, lesson({ slug: "second", course: "travel" }));
    expect((await rows(t, "lessons")).map(({ position }) => position)).toEqual([0, 1]);
  });
});

describe("what is wrong is told by file and path", () => {
  const text = { title: "x", text: "x" };
  const WRONG: [what: string, document: unknown, expected: string[]][] = [
    ["no JSON", "{", ["a.json: is not JSON: "]],
    ["no object", [], ["a.json: is a list; it must be an object"]],
    ["null", null, ["a.json: is null; it must be an object"]],
    [
      "a slide without a title",
      lesson({ slides: [text, text, text, { text: "x" }] }),
      ["a.json: lessons[0].slides[3].title: is missing"],
    ],
    [
      "a level that does not exist",
      { lessons: [LESSON, { ...LESSON, slug: "b", level: "A7" }] },
      ['a.json: lessons[1].level: "A7" is none of A1, A2, B1, B2, C1, C2'],
    ],
    [
      "a slip of the pen",
      lesson({ titel: "x" }),
      ["a.json: lessons[0].titel: is no field here; known are "],
    ],
    [
      "a name that every object has",
      '{"__proto__": 1, "constructor": 2}',
      ["a.json: __proto__: is no field here", "a.json: constructor: is no field here"],
    ],
    [
      "a number for a text",
      lesson({ objectives: ["a", 7] }),
      ["a.json: lessons[0].objectives[1]: is 7; it must be a text"],
    ],
    [
      "a text for a list",
      lesson({ targetWords: "ticket" }),
      ['a.json: lessons[0].targetWords: is "ticket"; it must be a list'],
    ],
    [
      "half a character",
      '{"courses": [{"slug": "a", "title": "\\ud83d", "language": "en", "level": "A2"}]}',
      ["a.json: courses[0].title: holds half of a surrogate pair"],
    ],
    [
      "an exercise of an unknown kind",
      lesson({ exercises: [{ ...LESSON.exercises[0], kind: "sing" }] }),
      ['a.json: lessons[0].exercises[0].kind: "sing" is none of say, fill_in, choose, answer'],
    ],
    [
      "an exercise on a slide that is not there",
      lesson({ exercises: [{ ...LESSON.exercises[0], slide: 2 }] }),
      ["a.json: lessons[0].exercises[0].slide: is 2; there is no such slide, of 2 counted from 0"],
    ],
    [
      "a place before the first",
      lesson({ position: -1 }),
      ["a.json: lessons[0].position: is -1; it must be from 0 to 1000000"],
    ],
    [
      "a number that is too large for one",
      '{"lessons": [{"position": 1e999}]}',
      ["is missing", "is missing", "is missing", "is missing", "is missing", "is missing"].concat(
        "is missing",
        "a.json: lessons[0].position: is Infinity",
      ),
    ],
    [
      "a lesson published without slides",
      lesson({ slides: [], exercises: [], published: true }),
      ["a.json: lessons[0].published: cannot be: a guided lesson needs slides"],
    ],
    [
      "the same slug twice",
      { lessons: [LESSON, LESSON] },
      ["a.json: lessons[1].slug: at-the-station is there twice"],
    ],
    [
      "a course and an avatar that nobody knows",
      lesson({ course: "sea", avatar: "ann" }),
      [
        "a.json: lessons[0].course: there is no course sea, here or on the deployment",
        "a.json: lessons[0].avatar: there is no avatar ann, here or on the deployment",
      ],
    ],
    [
      "a persona over the limit",
      { avatars: [{ ...AVATAR, persona: "x".repeat(8_193) }] },
      ["a.json: avatars[0].persona: is 8193 bytes; the limit is 8192"],
    ],
    [
      "a language that is none",
      { courses: [{ ...COURSE, language: "english!" }] },
      ["a.json: courses[0].language: is no BCP 47 language tag"],
    ],
  ];

  test.each(WRONG)("%s", async (_what, document, expected) => {
    const found = await problems(document);
    expect(found).toHaveLength(expected.length);
    for (const [i, line] of found.entries()) expect(line).toContain(expected[i]);
  });

  test("all of it at once: shape, limits and references, over all files", async () => {
    const found = await problems(
      lesson({ level: "A7", title: "", slides: [{ text: 1 }] }),
      { ...lesson({ course: "sea" }), avatars: [{}] },
    );
    expect(found).toEqual([
      'a.json: lessons[0].level: "A7" is none of A1, A2, B1, B2, C1, C2',
      "a.json: lessons[0].slides[0].text: is 1; it must be a text",
      "a.json: lessons[0].slides[0].title: is missing",
      ...["slug", "name", "persona", "voice", "language", "teachingStyle"].map(
        (name) => `b.json: avatars[0].${name}: is missing`,
      ),
      "a.json: lessons[0].title: is empty",
      "b.json: lessons[0].slug: at-the-station is there twice",
      "b.json: lessons[0].course: there is no course sea, here or on the deployment",
    ]);
  });

  test("at most 20 of them, and how many more there are", async () => {
    const found = await problems({ lessons: Array.from({ length: 30 }, () => ({ x: 1 })) });
    expect(found).toHaveLength(SCHOOL.maxImportProblems);
    expect(found.at(-1)).toBe("… and 221 problems more");
  });

  test("more files or bytes than an import takes are not read", async () => {
    const t = deployment();
    const many = load(t, ...Array.from({ length: 17 }, () => ({})));
    expect(await refusal(many)).toMatchObject({ code: "too_many_items", field: "files", limit: 16 });
    const long = load(t, " ".repeat(SCHOOL.maxImportBytes + 1));
    expect(await refusal(long)).toMatchObject({ code: "field_too_long", field: "files" });
  });

  test("a course that has no room for one more", async () => {
    const t = deployment();
    const inCourse = (slug: string) => ({ ...LESSON, slug, course: "travel" });
    const lessons = Array.from({ length: 201 }, (_, i) => inCourse(`lesson-${i}`));
    const refused = await refusal(load(t, { courses: [COURSE], lessons }));
    expect(refused).toMatchObject({ code: "too_many_items", limit: 200 });
    expect(await rows(t, "lessons")).toEqual([]);
  });
});

describe("the lessons that ship with the project", () => {
  const documents = Object.values(shipped);

  test("are imported as they are: one course, A2 before B1, all published", async () => {
    const t = deployment();
    await load(t, ...documents);

    const [course] = await rows(t, "courses");
    expect(course).toMatchObject({ title: "Everyday English", published: true });
    const lessons = await rows(t, "lessons");
    expect(
      lessons
        .sort((a, b) => (a.position ?? 0) - (b.position ?? 0))
        .map(({ level, courseId, published }) => ({ level, courseId, published })),
    ).toEqual([
      { level: "A2", courseId: course?._id, published: true },
      { level: "B1", courseId: course?._id, published: true },
    ]);
    expect(await rows(t, "avatars")).toMatchObject([{ name: "Emma", published: true }]);
  });

  test("have slides with notes, words that stand on them, and exercises of every kind", async () => {
    const t = deployment();
    await load(t, ...documents);
    for (const lesson of await rows(t, "lessons")) {
      const set = await t.run(async (ctx) =>
        lesson.slideSetId === undefined ? null : ctx.db.get("slideSets", lesson.slideSetId),
      );
      const slides = set?.slides ?? [];
      expect(slides.length).toBeGreaterThanOrEqual(8);
      expect(slides.length).toBeLessThanOrEqual(12);
      const shown = slides.map(({ title, text }) => `${title} ${text}`).join(" ").toLowerCase();
      expect(lesson.targetWords.filter((word) => !shown.includes(word))).toEqual([]);
      const exercises = lesson.exercises ?? [];
      expect(new Set(exercises.map(({ kind }) => kind)).size).toBe(4);
      // The tutor is told on which slide to do each.
      for (const { exerciseId, slide } of exercises) {
        expect(slides[slide ?? -1]?.notes).toContain(exerciseId);
      }
      expect(minutesOf(slides)).toBe(15);
    }
  });
});

/** The notes of each slide begin with its time. */
function minutesOf(slides: { notes?: string }[]): number {
  const minutes: Record<string, number> = { One: 1, Two: 2 };
  return slides.reduce((sum, { notes }) => sum + (minutes[notes?.split(" ")[0] ?? ""] ?? NaN), 0);
}
