/** Slides: how a teacher edits them, and which one a student sees. */
import { describe, expect, test } from "vitest";
import { api } from "../../convex/_generated/api.js";
import type { Id } from "../../convex/_generated/dataModel.js";
import { SCHOOL } from "../../convex/limits.ts";
import {
  addStudent,
  addUser,
  agentOf,
  agentOfGuest,
  deployment,
  make,
  record,
  refusal,
  rows,
  started,
  student,
} from "./helpers.ts";
import type { Client } from "./helpers.ts";

const SLIDES = ["one", "two", "three"].map((title) => ({ title, text: `Text of ${title}` }));

async function lesson(slides: { title: string; text: string; notes?: string }[] = SLIDES) {
  const t = deployment();
  const { client: teacher } = await addUser(t, "teacher");
  const { lessonId } = await teacher.mutation(api.lessons.create, {
    title: "A lesson",
    level: "B1",
    language: "en",
    kind: "guided",
    objectives: [],
    targetWords: [],
  });
  await teacher.mutation(api.presentations.create, { lessonId, title: "The slides", slides });
  return { t, teacher, lessonId };
}

async function titles(teacher: Client, lessonId: Id<"lessons">): Promise<string[]> {
  const set = await teacher.query(api.presentations.get, { lessonId });
  return set?.slides.map(({ title }) => title) ?? [];
}

describe("a slide set", () => {
  test("is one for a lesson", async () => {
    const { t, teacher, lessonId } = await lesson();
    expect(await teacher.query(api.presentations.get, { lessonId })).toEqual({
      title: "The slides",
      slides: SLIDES,
    });
    const again = teacher.mutation(api.presentations.create, { lessonId, title: "x", slides: [] });
    expect(await refusal(again)).toMatchObject({ code: "already_exists", field: "lessonId" });
    expect(await rows(t, "slideSets")).toHaveLength(1);
  });

  test("changes by title, by slide, or as a whole", async () => {
    const { teacher, lessonId } = await lesson();
    const content = { title: "zwei", text: "…", notes: "Slowly." };

    await teacher.mutation(api.presentations.update, { lessonId, title: "New" });
    await teacher.mutation(api.presentations.update, { lessonId, slide: { index: 1, content } });

    expect(await teacher.query(api.presentations.get, { lessonId })).toEqual({
      title: "New",
      slides: [SLIDES[0], content, SLIDES[2]],
    });
    await teacher.mutation(api.presentations.setSlides, { lessonId, slides: [content] });
    expect(await titles(teacher, lessonId)).toEqual(["zwei"]);
  });

  test.each([
    [0, 2, ["two", "three", "one"], 2],
    [2, 0, ["three", "one", "two"], 1],
    [1, 1, ["one", "two", "three"], 0],
  ])("moves slide %i to %i, and exercises with it", async (from, to, expected, slideOfOne) => {
    const { teacher, lessonId } = await lesson();
    const exercises = [
      { exerciseId: "a", kind: "say" as const, prompt: "Say it.", answers: [], slide: 0 },
      { exerciseId: "b", kind: "say" as const, prompt: "Say it.", answers: [] },
    ];
    await teacher.mutation(api.lessons.update, { lessonId, changes: { exercises } });

    await teacher.mutation(api.presentations.moveSlide, { lessonId, from, to });

    expect(await titles(teacher, lessonId)).toEqual(expected);
    const moved = (await teacher.query(api.lessons.get, { lessonId })).exercises;
    expect(moved.map(({ slide }) => slide)).toEqual([slideOfOne, undefined]);
  });

  test("names the slide that is not there", async () => {
    const { teacher, lessonId } = await lesson();
    const content = { title: "x", text: "x" };
    const calls: [Promise<unknown>, string][] = [
      [
        teacher.mutation(api.presentations.update, { lessonId, slide: { index: 3, content } }),
        "slide.index",
      ],
      [teacher.mutation(api.presentations.moveSlide, { lessonId, from: -1, to: 0 }), "from"],
      [teacher.mutation(api.presentations.moveSlide, { lessonId, from: 0, to: 1.5 }), "to"],
    ];
    for (const [call, field] of calls) {
      const refused = await refusal(call);
      expect(refused).toMatchObject({ code: "not_found", field, limit: 3 });
      expect(refused.message).toMatch(/is (3|-1|1\.5); there is no such slide/);
    }
    expect(await titles(teacher, lessonId)).toEqual(["one", "two", "three"]);
  });

  test("keeps a slide that an exercise needs", async () => {
    const { teacher, lessonId } = await lesson();
    const exercise = { exerciseId: "a", kind: "say" as const, prompt: "Say it.", answers: [] };
    const changes = { exercises: [{ ...exercise, slide: 2 }] };
    await teacher.mutation(api.lessons.update, { lessonId, changes });

    const call = teacher.mutation(api.presentations.setSlides, {
      lessonId,
      slides: SLIDES.slice(0, 2),
    });

    const expected = { code: "not_found", field: "exercises[0].slide", limit: 2 };
    expect(await refusal(call)).toMatchObject(expected);
  });

  test.each([
    [
      "33 slides",
      Array.from({ length: 33 }, () => ({ title: "x", text: "x" })),
      { code: "too_many_items", field: "slides", limit: 32 },
    ],
    [
      "a text over the limit",
      [{ title: "x", text: "x".repeat(SCHOOL.maxSlideBytes + 1) }],
      { code: "text_too_long", field: "slides[0].text", limit: SCHOOL.maxSlideBytes },
    ],
    [
      "notes over the limit",
      [{ title: "x", text: "x", notes: "é".repeat(SCHOOL.maxSlideBytes / 2 + 1) }],
      { code: "text_too_long", field: "slides[0].notes", limit: SCHOOL.maxSlideBytes },
    ],
    [
      "a slide without a title",
      [{ title: "", text: "x" }],
      { code: "invalid_value", field: "slides[0].title" },
    ],
  ])("refuses %s", async (_what, slides, expected) => {
    const { teacher, lessonId } = await lesson();
    const call = teacher.mutation(api.presentations.setSlides, { lessonId, slides });
    expect(await refusal(call)).toMatchObject(expected);
    expect(await titles(teacher, lessonId)).toEqual(["one", "two", "three"]);
  });

  test("that is full at every limit is kept", async () => {
    const text = "x".repeat(SCHOOL.maxSlideBytes);
    const full = Array.from({ length: SCHOOL.maxSlides }, () => ({ title: "x", text, notes: text }));
    const { teacher, lessonId } = await lesson(full);
    expect(await titles(teacher, lessonId)).toHaveLength(SCHOOL.maxSlides);
  });

  test("of a lesson that is gone, or that has none yet, is not found", async () => {
    const { t, teacher, lessonId } = await lesson();
    await t.run(async (ctx) => ctx.db.patch("lessons", lessonId, { slideSetId: undefined }));
    expect(await teacher.query(api.presentations.get, { lessonId })).toBeNull();
    const empty = teacher.mutation(api.presentations.setSlides, { lessonId, slides: [] });
    expect(await refusal(empty)).toMatchObject({ code: "not_found", field: "lessonId" });

    await teacher.mutation(api.lessons.remove, { lessonId });
    const gone = teacher.query(api.presentations.get, { lessonId });
    expect(await refusal(gone)).toMatchObject({ code: "not_found", field: "lessonId" });
  });
});

describe("the slide that is on", () => {
  /** A session whose tutor has shown these slides. */
  async function session(...shown: number[]) {
    const given = await lesson([{ title: "one", text: "Text", notes: "For the tutor" }, ...SLIDES]);
    const studentId = await addStudent(given.t);
    await record(agentOf(given.t, studentId), "run_a", [
      started(0, 0, "s1", { lessonId: given.lessonId }),
      ...shown.map((slide, i) => make("slideShown", i + 1, i + 1, { slide })),
    ]);
    return { ...given, self: student(given.t, studentId) };
  }

  test("is the last that was shown, without the tutor's notes", async () => {
    const { self } = await session(2, 0);
    expect(await self.query(api.presentations.current, { sessionKey: "s1" })).toEqual({
      index: 0,
      count: 4,
      slide: { title: "one", text: "Text" },
    });
  });

  test("is none before the first, and the index alone where it is beyond the set", async () => {
    const before = await session();
    const current = { sessionKey: "s1" };
    expect(await before.self.query(api.presentations.current, current)).toEqual({
      index: null,
      count: 4,
      slide: null,
    });
    const { self, teacher, lessonId } = await session(3);
    await teacher.mutation(api.presentations.setSlides, { lessonId, slides: SLIDES });
    expect(await self.query(api.presentations.current, current)).toEqual({
      index: 3,
      count: 3,
      slide: null,
    });
    await teacher.mutation(api.lessons.remove, { lessonId });
    expect(await self.query(api.presentations.current, current)).toEqual({
      index: 3,
      count: 0,
      slide: null,
    });
  });

  test("is null for a session that is not there, and nobody else's business", async () => {
    const { t, self } = await session(0);
    expect(await self.query(api.presentations.current, { sessionKey: "other" })).toBeNull();
    const guest = agentOfGuest(t, "g1").query(api.presentations.current, { sessionKey: "s1" });
    expect(await refusal(guest)).toMatchObject({ code: "forbidden" });
  });
});
