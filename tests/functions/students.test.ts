/** Who a student is, who may change that, and the list of those whom a user may see. */
import { describe, expect, test } from "vitest";
import { api } from "../../convex/_generated/api.js";
import type { NewStudent, StudentChanges, Totals } from "../../convex/schoolValidators.ts";
import {
  addStudent,
  addUser,
  agentOf,
  agentOfGuest,
  deployment,
  link,
  refusal,
  rows,
  seed,
  student,
} from "./helpers.ts";

const TODAY = "2026-11-02";
const PAGE = { paginationOpts: { numItems: 10, cursor: null } };
const NO_TOTALS = { sessions: 0, durationMs: 0, messages: 0, streakDays: 0 };
const AYA: NewStudent = {
  reference: "s-17",
  name: "Aya",
  level: "B1",
  nativeLanguage: "ja",
  targetLanguage: "en-GB",
  timeZone: "Asia/Tokyo",
  goals: ["travel"],
  interests: [],
};

/** A school with one teacher and an administrator. */
async function school() {
  const t = deployment();
  const { client: teacher, userId: teacherId } = await addUser(t, "teacher");
  const { client: admin } = await addUser(t, "administrator");
  return { t, teacher, teacherId, admin };
}

describe("a new student", () => {
  test("is seen by the teacher who takes them in, and taught in the plain way", async () => {
    const { teacher, teacherId, admin } = await school();

    const studentId = await teacher.mutation(api.students.create, AYA);

    const profile = await teacher.query(api.students.profile, { studentId, today: TODAY });
    expect(profile).toEqual({
      studentId,
      ...AYA,
      preferences: { speechRate: 1, nativeLanguageHelp: true, correctionStyle: "gentle" },
      totals: NO_TOTALS,
    });
    const access = await admin.query(api.users.accessTo, { studentId });
    expect(access).toMatchObject([{ userId: teacherId, relation: "teacher" }]);
  });

  test("of an administrator is nobody's yet", async () => {
    const { teacher, admin } = await school();

    const studentId = await admin.mutation(api.students.create, AYA);

    expect(await admin.query(api.users.accessTo, { studentId })).toEqual([]);
    const call = teacher.query(api.students.profile, { studentId, today: TODAY });
    expect(await refusal(call)).toMatchObject({ code: "forbidden" });
  });

  const RATE = { speechRate: 1, nativeLanguageHelp: true, correctionStyle: "gentle" } as const;
  const BAD: [field: string, code: string, said: Partial<NewStudent>, limit?: number][] = [
    ["name", "invalid_value", { name: "" }],
    ["name", "field_too_long", { name: "😀".repeat(257) }, 1_024],
    ["reference", "invalid_value", { reference: " " }],
    ["reference", "already_exists", { reference: "taken" }],
    ["nativeLanguage", "invalid_value", { nativeLanguage: "english please" }],
    ["targetLanguage", "invalid_value", { targetLanguage: "" }],
    ["timeZone", "invalid_value", { timeZone: "Mars/Olympus" }],
    ["timeZone", "invalid_value", { timeZone: "+02:00" }],
    ["goals", "too_many_items", { goals: Array<string>(9).fill("g") }, 8],
    ["goals[1]", "invalid_value", { goals: ["g", ""] }],
    ["interests", "too_many_items", { interests: Array<string>(9).fill("i") }, 8],
    ["interests[0]", "field_too_long", { interests: ["i".repeat(1_025)] }, 1_024],
    ["preferences.speechRate", "number_out_of_range", { preferences: { ...RATE, speechRate: 0.4 } }, 0.5],
    ["preferences.speechRate", "number_out_of_range", { preferences: { ...RATE, speechRate: 2.1 } }, 2],
    ["preferences.speechRate", "number_out_of_range", { preferences: { ...RATE, speechRate: NaN } }, 0.5],
  ];

  test.each(BAD)("with a bad %s is refused: %s (%#)", async (field, code, said, limit) => {
    const { t, teacher } = await school();
    await teacher.mutation(api.students.create, { ...AYA, reference: "taken" });

    const error = await refusal(teacher.mutation(api.students.create, { ...AYA, ...said }));

    expect(error).toMatchObject({ code, field, ...(limit === undefined ? {} : { limit }) });
    expect(await rows(t, "students")).toHaveLength(1);
    // An update is held to the same.
    const [first] = await rows(t, "students");
    const other = await teacher.mutation(api.students.create, { ...AYA, reference: "other" });
    const update = { studentId: other, changes: said };
    const again = await refusal(teacher.mutation(api.students.update, update));
    expect(again).toMatchObject({ code, field });
    expect((await rows(t, "students"))[0]).toEqual(first);
  });

  test("has a course and an avatar that are there", async () => {
    const { t, teacher } = await school();
    const ids = await t.run(async (ctx) => {
      const level = "A2" as const;
      const course = { slug: "c", title: "c", language: "en", level, published: true };
      const avatar = { slug: "a", name: "a", persona: "", voice: "v", language: "en" };
      const teachingStyle = "lively" as const;
      return {
        courseId: await ctx.db.insert("courses", course),
        avatarId: await ctx.db.insert("avatars", { ...avatar, teachingStyle, published: true }),
      };
    });
    const studentId = await teacher.mutation(api.students.create, { ...AYA, ...ids });
    expect(await teacher.query(api.students.profile, { studentId, today: TODAY })).toMatchObject(ids);

    const nothing = { courseId: null, avatarId: null, reference: null };
    await teacher.mutation(api.students.update, { studentId, changes: nothing });
    const profile = await teacher.query(api.students.profile, { studentId, today: TODAY });
    for (const name of Object.keys(nothing)) expect(profile).not.toHaveProperty(name);

    await t.run(async (ctx) => {
      await ctx.db.delete("courses", ids.courseId);
      await ctx.db.delete("avatars", ids.avatarId);
    });
    for (const field of ["courseId", "avatarId"] as const) {
      const changes = { [field]: ids[field] };
      const call = teacher.mutation(api.students.update, { studentId, changes });
      expect(await refusal(call)).toMatchObject({ code: "not_found", field });
    }
  });
});

describe("a change", () => {
  test("touches what is given alone, and keeps the student's own reference", async () => {
    const { teacher } = await school();
    const studentId = await teacher.mutation(api.students.create, AYA);
    const changes: StudentChanges = { level: "B2", reference: "s-17", goals: [] };

    await teacher.mutation(api.students.update, { studentId, changes });

    const profile = await teacher.query(api.students.profile, { studentId, today: TODAY });
    expect(profile).toMatchObject({ ...AYA, level: "B2", goals: [] });
  });

  test("is for those teachers who may see the student", async () => {
    const { t, teacher, admin } = await school();
    const studentId = await addStudent(t);
    const update = { studentId, changes: { level: "A1" as const } };

    const call = teacher.mutation(api.students.update, update);

    expect(await refusal(call)).toMatchObject({ code: "forbidden" });
    await admin.mutation(api.students.update, update);
    expect((await rows(t, "students"))[0]).toMatchObject({ level: "A1" });
  });

  test("of preferences is the student's own", async () => {
    const { t } = await school();
    const studentId = await addStudent(t);
    const other = await addStudent(t, "Bo");
    const preferences = { speechRate: 0.5, nativeLanguageHelp: true, correctionStyle: "gentle" } as const;

    await student(t, studentId).mutation(api.students.setPreferences, { preferences });

    const found = await rows(t, "students");
    expect(found.find(({ _id }) => _id === studentId)).toMatchObject({ preferences });
    expect(found.find(({ _id }) => _id === other)).not.toMatchObject({ preferences });
    const bad = { preferences: { ...preferences, speechRate: 0.49 } };
    const call = student(t, studentId).mutation(api.students.setPreferences, bad);
    expect(await refusal(call)).toMatchObject({
      code: "number_out_of_range",
      field: "preferences.speechRate",
      limit: 0.5,
    });
  });
});

describe("a profile", () => {
  test("is the same for the student, their agent and who may see them", async () => {
    const { t, teacher, teacherId, admin } = await school();
    const studentId = await addStudent(t);
    await link(t, teacherId, studentId);
    const own = { today: TODAY };

    const profile = await student(t, studentId).query(api.students.profile, own);

    expect(profile).toMatchObject({ studentId, name: "Aya" });
    expect(await agentOf(t, studentId).query(api.students.profile, own)).toEqual(profile);
    for (const client of [teacher, admin]) {
      expect(await client.query(api.students.profile, { ...own, studentId })).toEqual(profile);
      const nobody = await refusal(client.query(api.students.profile, own));
      expect(nobody).toMatchObject({ code: "student_unknown", field: "studentId" });
    }
    const guest = agentOfGuest(t, "g1").query(api.students.profile, own);
    expect(await refusal(guest)).toMatchObject({ code: "student_unknown" });
  });

  test.each([
    ["2026-11-02", 4],
    ["2026-11-03", 4],
    ["2026-11-04", 0],
    // The reader's clock is behind.
    ["2026-11-01", 4],
  ])("on %s tells of a streak that ended on 2026-11-02: %d", async (today, streakDays) => {
    const { t } = await school();
    const totals: Totals = { ...NO_TOTALS, sessions: 9, streakDays: 4, lastDay: "2026-11-02" };
    const studentId = await addStudent(t);
    await t.run(async (ctx) => {
      await ctx.db.patch("students", studentId, { totals });
    });

    const profile = await student(t, studentId).query(api.students.profile, { today });

    expect(profile.totals).toEqual({ ...totals, streakDays });
  });

  test.each(["", "today", "2026-13-01", "2026-02-30", "2026-11-2", "1793610000000"])(
    "of a day that is none is refused: %j",
    async (today) => {
      const { t } = await school();
      const call = student(t, await addStudent(t)).query(api.students.profile, { today });
      expect(await refusal(call)).toMatchObject({ code: "invalid_value", field: "today" });
    },
  );
});

describe("the students of a user", () => {
  test("are those they are linked to; all for an administrator", async () => {
    const { t, teacher, teacherId, admin } = await school();
    const { studentId: carlos } = await seed(t);
    const aya = await addStudent(t);
    await addStudent(t, "Bo");
    const guardian = await addUser(t, "guardian");
    await link(t, teacherId, aya);
    await link(t, teacherId, carlos);
    await link(t, guardian.userId, aya);

    const names = async (client: typeof teacher) =>
      (await client.query(api.students.mine, PAGE)).page.map(({ name }) => name).sort();

    expect(await names(teacher)).toEqual(["Aya", "Carlos"]);
    expect(await names(guardian.client)).toEqual(["Aya"]);
    expect(await names(admin)).toEqual(["Aya", "Bo", "Carlos"]);
  });

  test("come with level and totals, a page at a time", async () => {
    const { t, teacher, teacherId } = await school();
    const students = [await addStudent(t, "1"), await addStudent(t, "2"), await addStudent(t, "3")];
    for (const studentId of students) await link(t, teacherId, studentId);
    const pageFrom = async (cursor: string | null) =>
      await teacher.query(api.students.mine, { paginationOpts: { numItems: 2, cursor } });

    const first = await pageFrom(null);
    const second = await pageFrom(first.continueCursor);

    expect(first.page).toHaveLength(2);
    const all = [...first.page, ...second.page];
    expect(new Set(all.map(({ studentId }) => studentId))).toEqual(new Set(students));
    for (const one of all) expect(one).toMatchObject({ level: "B1", totals: NO_TOTALS });
  });
});
