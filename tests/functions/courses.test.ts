/** Courses: the order of lessons, and which comes next. */
import { describe, expect, test } from "vitest";
import { api } from "../../convex/_generated/api.js";
import type { Id } from "../../convex/_generated/dataModel.js";
import {
  T0,
  addStudent,
  addUser,
  agentOf,
  deployment,
  refusal,
  rows,
  student,
} from "./helpers.ts";
import type { Client, Deployment } from "./helpers.ts";

const COURSE = {
  slug: "travel",
  title: "Travel",
  language: "en",
  level: "A2" as const,
  published: true,
};

const PAGE = { numItems: 10, cursor: null };

/** A course of conversations, published, and a student who takes it. */
async function course(lessons = ["a", "b", "c"]) {
  const t = deployment();
  const { client: teacher } = await addUser(t, "teacher");
  const { courseId } = await teacher.mutation(api.lessons.createCourse, COURSE);
  const ids: Id<"lessons">[] = [];
  for (const slug of lessons) ids.push(await addLesson(teacher, slug, courseId));
  const studentId = await addStudent(t);
  await t.run(async (ctx) => ctx.db.patch("students", studentId, { courseId }));
  return { t, teacher, courseId, ids, studentId, self: student(t, studentId) };
}

async function addLesson(
  teacher: Client,
  slug: string,
  courseId?: Id<"courses">,
): Promise<Id<"lessons">> {
  const { lessonId } = await teacher.mutation(api.lessons.create, {
    slug,
    title: slug,
    level: "A2",
    language: "en",
    kind: "conversation",
    objectives: [],
    targetWords: [],
    ...(courseId === undefined ? {} : { courseId }),
  });
  await teacher.mutation(api.lessons.publish, { lessonId });
  return lessonId;
}

async function complete(t: Deployment, studentId: Id<"students">, lessonId: Id<"lessons">) {
  await t.run(async (ctx) =>
    ctx.db.insert("progress", {
      studentId,
      lessonId,
      status: "completed",
      timesStudied: 1,
      lastStudiedAt: T0,
      completedAt: T0,
    }),
  );
}

async function slugs(self: Client): Promise<(string | undefined)[]> {
  return (await self.query(api.lessons.published, {})).map(({ slug }) => slug);
}

describe("the order of a course", () => {
  test("is that in which lessons came, until the teacher gives another", async () => {
    const { teacher, courseId, ids, self } = await course();
    expect(await slugs(self)).toEqual(["a", "b", "c"]);

    await teacher.mutation(api.lessons.order, { courseId, lessonIds: [...ids].reverse() });

    expect(await slugs(self)).toEqual(["c", "b", "a"]);
    await addLesson(teacher, "d", courseId);
    expect(await slugs(self)).toEqual(["c", "b", "a", "d"]);
  });

  test.each([
    ["one is missing", (ids: Id<"lessons">[]) => ids.slice(1), "lessonIds"],
    ["one is there twice", ([a, b]: Id<"lessons">[]) => [a, b, a], "lessonIds[2]"],
  ])("is refused where %s, and stays as it was", async (_what, change, field) => {
    const { teacher, courseId, ids, self } = await course();
    const lessonIds = change(ids) as Id<"lessons">[];

    const call = teacher.mutation(api.lessons.order, { courseId, lessonIds });

    expect(await refusal(call)).toMatchObject({ code: "invalid_value", field });
    expect(await slugs(self)).toEqual(["a", "b", "c"]);
  });

  test("takes no lesson of another course, and at most 200", async () => {
    const { teacher, courseId, ids } = await course();
    const stranger = await addLesson(teacher, "stranger");

    const mixed = teacher.mutation(api.lessons.order, {
      courseId,
      lessonIds: [...ids, stranger],
    });
    expect(await refusal(mixed)).toMatchObject({ code: "invalid_value", field: "lessonIds[3]" });
    const many = teacher.mutation(api.lessons.order, {
      courseId,
      lessonIds: Array.from({ length: 201 }, () => stranger),
    });
    expect(await refusal(many)).toMatchObject({ code: "too_many_items", limit: 200 });
  });

  test("has room for 200 lessons", async () => {
    const { t, teacher, courseId } = await course([]);
    await t.run(async (ctx) => {
      for (let position = 0; position < 200; position++) {
        await ctx.db.insert("lessons", {
          title: "x",
          level: "A1",
          language: "en",
          kind: "conversation",
          objectives: [],
          targetWords: [],
          courseId,
          position,
        });
      }
    });

    const call = addLesson(teacher, "one-more", courseId);

    const expected = { code: "too_many_items", field: "courseId", limit: 200 };
    expect(await refusal(call)).toMatchObject(expected);
  });

  test("a lesson that changes its course becomes the last of the other", async () => {
    const { teacher, courseId, ids, self } = await course();
    const stranger = await addLesson(teacher, "stranger");
    await teacher.mutation(api.lessons.update, { lessonId: stranger, changes: { courseId } });
    const [first] = ids as [Id<"lessons">];
    await teacher.mutation(api.lessons.update, { lessonId: first, changes: { courseId: null } });
    expect(await slugs(self)).toEqual(["b", "c", "stranger"]);

    // What names the same course again moves nothing.
    await teacher.mutation(api.lessons.update, { lessonId: ids[1] as never, changes: { courseId } });
    expect(await slugs(self)).toEqual(["b", "c", "stranger"]);
  });
});

describe("what comes next", () => {
  test("is the first lesson that is not completed, in the course's order", async () => {
    const { t, ids, studentId, self } = await course();
    const nextSlug = async () => (await self.query(api.lessons.next, {})).lesson?.slug;
    expect(await nextSlug()).toBe("a");

    const [a, b, c] = ids as [Id<"lessons">, Id<"lessons">, Id<"lessons">];
    await complete(t, studentId, b);
    expect(await nextSlug()).toBe("a");
    await complete(t, studentId, a);
    expect(await nextSlug()).toBe("c");
    await complete(t, studentId, c);
    expect(await self.query(api.lessons.next, {})).toEqual({
      lesson: null,
      reason: "all_completed",
    });
  });

  test("is a lesson that was begun and not completed", async () => {
    const { t, ids, studentId, self } = await course();
    await complete(t, studentId, ids[0] as Id<"lessons">);
    await t.run(async (ctx) => {
      for (const row of await ctx.db.query("progress").collect()) {
        await ctx.db.patch("progress", row._id, { status: "started" });
      }
    });
    expect(await self.query(api.lessons.next, {})).toMatchObject({ lesson: { slug: "a" } });
  });

  test("is not what another student has left", async () => {
    const { t, ids, self } = await course();
    await complete(t, await addStudent(t, "Other"), ids[0] as Id<"lessons">);
    expect(await self.query(api.lessons.next, {})).toMatchObject({ lesson: { slug: "a" } });
  });

  test("skips what is not published", async () => {
    const { teacher, ids, self } = await course();
    await teacher.mutation(api.lessons.unpublish, { lessonId: ids[0] as Id<"lessons"> });
    expect(await self.query(api.lessons.next, {})).toMatchObject({ lesson: { slug: "b" } });
    expect(await slugs(self)).toEqual(["b", "c"]);
  });

  test("is nothing, with the reason, where the course offers none", async () => {
    const { teacher, courseId, self } = await course([]);
    expect(await self.query(api.lessons.next, {})).toMatchObject({ reason: "no_lessons" });

    const hidden = { courseId, changes: { published: false } };
    await teacher.mutation(api.lessons.updateCourse, hidden);
    expect(await self.query(api.lessons.next, {})).toMatchObject({
      reason: "course_not_published",
    });
    expect(await slugs(self)).toEqual([]);

    await teacher.mutation(api.lessons.removeCourse, { courseId, withLessons: false });
    expect(await self.query(api.lessons.next, {})).toMatchObject({ reason: "no_course" });
    expect(await slugs(self)).toEqual([]);
  });
});

describe("a course", () => {
  test("is listed as it was written and changed", async () => {
    const { teacher, courseId } = await course([]);
    await teacher.mutation(api.lessons.updateCourse, { courseId, changes: { title: "Trips" } });
    const { page } = await teacher.query(api.lessons.listCourses, { paginationOpts: PAGE });
    expect(page).toEqual([{ courseId, ...COURSE, title: "Trips" }]);
  });

  test("goes alone, or with its lessons", async () => {
    const { t, teacher, courseId } = await course();
    await teacher.mutation(api.lessons.removeCourse, { courseId, withLessons: false });
    const left = await rows(t, "lessons");
    expect(left).toHaveLength(3);
    expect(left.every((lesson) => !("courseId" in lesson) && !("position" in lesson))).toBe(true);

    const other = await course();
    await other.teacher.mutation(api.lessons.removeCourse, {
      courseId: other.courseId,
      withLessons: true,
    });
    expect(await rows(other.t, "lessons")).toEqual([]);
  });

  test("with another's slug, or that is gone, is refused", async () => {
    const { teacher, courseId } = await course([]);
    const again = teacher.mutation(api.lessons.createCourse, COURSE);
    expect(await refusal(again)).toMatchObject({ code: "already_exists", field: "slug" });
    const wrong = teacher.mutation(api.lessons.updateCourse, { courseId, changes: { title: "" } });
    expect(await refusal(wrong)).toMatchObject({ code: "invalid_value", field: "title" });

    await teacher.mutation(api.lessons.removeCourse, { courseId, withLessons: true });
    for (const call of [
      teacher.mutation(api.lessons.updateCourse, { courseId, changes: {} }),
      teacher.mutation(api.lessons.removeCourse, { courseId, withLessons: true }),
      teacher.mutation(api.lessons.order, { courseId, lessonIds: [] }),
    ]) {
      expect(await refusal(call)).toMatchObject({ code: "not_found", field: "courseId" });
    }
  });
});

describe("the lesson after the one that is taught", () => {
  /** Its title, in the plan and in the context alike. */
  async function after(t: Deployment, studentId: string, lessonId?: string) {
    const asked = lessonId === undefined ? {} : { lessonId };
    const agent = agentOf(t, studentId);
    const { nextLesson } = await agent.query(api.sessions.plan, asked);
    const context = await agent.query(api.students.tutoringContext, asked);
    expect(context.nextLesson).toEqual(nextLesson);
    return nextLesson;
  }

  test("is the next published one in the course's order", async () => {
    const { t, teacher, courseId, studentId, ids } = await course();
    const [a, b, c] = ids as [Id<"lessons">, Id<"lessons">, Id<"lessons">];
    expect(await after(t, studentId, a)).toEqual({ lessonId: b, title: "b" });

    await teacher.mutation(api.lessons.unpublish, { lessonId: b });
    expect(await after(t, studentId, a)).toEqual({ lessonId: c, title: "c" });
    // The one that is taught need not be offered to anyone.
    expect(await after(t, studentId, b)).toEqual({ lessonId: c, title: "c" });

    await teacher.mutation(api.lessons.order, { courseId, lessonIds: [c, a, b] });
    expect(await after(t, studentId, c)).toEqual({ lessonId: a, title: "a" });
    expect(await after(t, studentId, a)).toBeNull();
  });

  test("of two at the same place is the younger after the older", async () => {
    const { t, studentId, ids } = await course();
    await t.run(async (ctx) => {
      for (const lessonId of ids) await ctx.db.patch("lessons", lessonId, { position: 7 });
    });
    const titles = [];
    for (const lessonId of ids) titles.push((await after(t, studentId, lessonId))?.title ?? null);
    expect(titles).toEqual(["b", "c", null]);
  });

  test("is none without a lesson, in no course, and in one that is not published", async () => {
    const { t, teacher, courseId, studentId, ids } = await course();
    expect(await after(t, studentId)).toBeNull();
    expect(await after(t, studentId, "not-an-id")).toBeNull();
    expect(await after(t, studentId, await addLesson(teacher, "alone"))).toBeNull();

    await teacher.mutation(api.lessons.updateCourse, { courseId, changes: { published: false } });
    expect(await after(t, studentId, ids[0])).toBeNull();
  });
});
