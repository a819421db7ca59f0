/** How people of the school get in, whom they see then, and how they leave. */
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { api, internal } from "../../convex/_generated/api.js";
import type { Id } from "../../convex/_generated/dataModel.js";
import { SCHOOL } from "../../convex/limits.ts";
import {
  T0,
  addStudent,
  addUser,
  agentOf,
  deployment,
  link,
  person,
  refusal,
  rows,
  student,
} from "./helpers.ts";
import type { Client } from "./helpers.ts";

const PAGE = { paginationOpts: { numItems: 10, cursor: null } };
const TODAY = "2026-11-02";
const ADA = { name: "Ada", email: "ada@school.invalid", role: "teacher" } as const;

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["Date"], now: T0 });
});
afterEach(() => {
  vi.useRealTimers();
});

/** A school with an administrator. */
async function school() {
  const t = deployment();
  const { client: admin, userId: adminId } = await addUser(t, "administrator");
  return { t, admin, adminId };
}

async function invited(admin: Client, role: "teacher" | "guardian" = "teacher") {
  return await admin.mutation(api.users.invite, { ...ADA, role });
}

async function accept(client: Client, code: string) {
  return await client.mutation(api.users.accept, { code });
}

describe("an invitation", () => {
  test("makes whoever has its code the user, once", async () => {
    const { t, admin } = await school();
    const { userId, invitationCode } = await invited(admin);

    const ada = person(t, "ada");
    const accepted = await accept(ada, invitationCode);

    expect(accepted).toEqual({ ...ADA, userId, accepted: true });
    expect(await ada.query(api.users.me, {})).toEqual(accepted);
    const again = accept(person(t, "eve"), invitationCode);
    expect(await refusal(again)).toMatchObject({ code: "invitation_invalid" });
  });

  test("is stored as a hash alone", async () => {
    const { t, admin } = await school();

    const { invitationCode } = await invited(admin);

    expect(JSON.stringify(await rows(t, "users"))).not.toContain(invitationCode);
  });

  test("is worth nothing after 14 days", async () => {
    const { t, admin } = await school();
    const { invitationCode } = await invited(admin);
    vi.setSystemTime(T0 + SCHOOL.invitationMs);

    const late = accept(person(t, "ada"), invitationCode);

    expect(await refusal(late)).toMatchObject({ code: "invitation_invalid" });
  });

  test("that is renewed makes the code before it worthless and keeps the user", async () => {
    const { t, admin } = await school();
    const first = await invited(admin);
    const second = await invited(admin);

    expect(second.userId).toBe(first.userId);
    const old = accept(person(t, "ada"), first.invitationCode);
    expect(await refusal(old)).toMatchObject({ code: "invitation_invalid" });
    await accept(person(t, "ada"), second.invitationCode);
  });

  test("is refused alike for a code that never was one", async () => {
    const { t, admin } = await school();
    await invited(admin);
    // A user without an invitation is not found by an empty code either.
    for (const code of ["", "x", "0".repeat(2_000)]) {
      const error = await refusal(accept(person(t, "eve"), code));
      expect(error).toMatchObject({ code: "invitation_invalid", field: "code" });
    }
  });

  test("is not for one who is a user already", async () => {
    const { admin } = await school();
    const { invitationCode } = await invited(admin);

    const call = accept(admin, invitationCode);

    expect(await refusal(call)).toMatchObject({ code: "already_exists" });
  });

  test("is not for agents and students, whose subject could be anybody's", async () => {
    const { t, admin } = await school();
    const studentId = await addStudent(t);
    const { invitationCode } = await invited(admin);

    for (const client of [agentOf(t, studentId), student(t, studentId)]) {
      const call = accept(client, invitationCode);
      expect(await refusal(call)).toMatchObject({ code: "forbidden" });
    }
  });

  test("leaves a claim of another provider's token out of account", async () => {
    const { t, admin } = await school();
    const { invitationCode } = await invited(admin);
    const claims = { issuer: "https://login.invalid", subject: "ada", role: "agent" };

    await accept(t.withIdentity(claims), invitationCode);

    expect(await t.withIdentity(claims).query(api.users.me, {})).toMatchObject(ADA);
    // The same subject of another issuer is another person.
    const other = person(t, "ada").query(api.users.me, {});
    expect(await refusal(other)).toMatchObject({ code: "forbidden" });
  });

  test("of an e-mail that a user has, or in another role, is refused", async () => {
    const { t, admin } = await school();
    const { invitationCode } = await invited(admin);

    const asGuardian = invited(admin, "guardian");
    expect(await refusal(asGuardian)).toMatchObject({ code: "already_exists", field: "email" });
    await accept(person(t, "ada"), invitationCode);
    // Upper case and spaces make no other address.
    const shouted = admin.mutation(api.users.invite, { ...ADA, email: " ADA@School.invalid " });
    expect(await refusal(shouted)).toMatchObject({ code: "already_exists", field: "email" });
  });

  test.each([
    ["name", { name: " " }, "invalid_value"],
    ["name", { name: "é".repeat(513) }, "field_too_long"],
    ["email", { email: "ada" }, "invalid_value"],
    ["email", { email: "a da@school.invalid" }, "invalid_value"],
    ["email", { email: `${"a".repeat(1_020)}@b.cd` }, "field_too_long"],
  ])("with a bad %s is refused: %#", async (field, said, code) => {
    const { t, admin } = await school();

    const error = await refusal(admin.mutation(api.users.invite, { ...ADA, ...said }));

    expect(error).toMatchObject({ code, field });
    if (code === "field_too_long") expect(error.limit).toBe(1_024);
    expect(await rows(t, "users")).toHaveLength(1);
  });

  test("of the first administrator comes from the command line", async () => {
    const t = deployment();
    const call = { name: "Root", email: "root@school.invalid" };
    const { invitationCode } = await t.mutation(internal.users.addAdministrator, call);

    await accept(person(t, "root"), invitationCode);

    const { page } = await person(t, "root").query(api.users.list, PAGE);
    expect(page).toMatchObject([{ ...call, role: "administrator", accepted: true }]);
  });
});

describe("a user who is removed", () => {
  async function removed() {
    const { t, admin, adminId } = await school();
    const teacher = await addUser(t, "teacher", "ada");
    const studentId = await addStudent(t);
    await link(t, teacher.userId, studentId);
    const look = () => teacher.client.query(api.students.profile, { studentId, today: TODAY });
    await look();
    await admin.mutation(api.users.remove, { userId: teacher.userId });
    return { t, admin, adminId, teacher, studentId, look };
  }

  test("is refused at once, whatever they call", async () => {
    const { teacher, look } = await removed();

    expect(await refusal(look())).toMatchObject({ code: "forbidden" });
    const me = teacher.client.query(api.users.me, {});
    expect(await refusal(me)).toMatchObject({ code: "forbidden" });
  });

  test("is on the list with the time, and on no student's", async () => {
    const { t, admin, studentId } = await removed();

    const { page } = await admin.query(api.users.list, PAGE);
    expect(page[1]).toMatchObject({ name: "ada", accepted: false, removedAt: T0 });
    expect(await admin.query(api.users.accessTo, { studentId })).toEqual([]);
    expect(await rows(t, "studentAccess")).toEqual([]);
  });

  test("may be invited again, and sees nobody then", async () => {
    const { admin, teacher, look } = await removed();

    const { userId, invitationCode } = await invited(admin);
    await accept(teacher.client, invitationCode);

    expect(userId).not.toBe(teacher.userId);
    expect(await teacher.client.query(api.users.me, {})).toMatchObject({ userId });
    expect(await refusal(look())).toMatchObject({ code: "forbidden" });
  });

  test("cannot come in by an invitation from before", async () => {
    const { t, admin } = await school();
    const { userId, invitationCode } = await invited(admin);
    await admin.mutation(api.users.remove, { userId });

    const call = accept(person(t, "ada"), invitationCode);

    expect(await refusal(call)).toMatchObject({ code: "invitation_invalid" });
  });

  test("is gone for those who would remove, link or invite them once more", async () => {
    const { admin, teacher, studentId } = await removed();
    const { userId } = teacher;

    const twice = admin.mutation(api.users.remove, { userId });
    expect(await refusal(twice)).toMatchObject({ code: "not_found", field: "userId" });
    const linked = admin.mutation(api.users.link, { userId, studentId });
    expect(await refusal(linked)).toMatchObject({ code: "not_found", field: "userId" });
  });

  test("is never the administrator who calls", async () => {
    const { admin, adminId } = await removed();

    const call = admin.mutation(api.users.remove, { userId: adminId });

    expect(await refusal(call)).toMatchObject({ code: "invalid_value", field: "userId" });
  });

  test("of more students than one transaction takes loses them all", async () => {
    vi.useFakeTimers({ now: T0 });
    const { t, admin } = await school();
    const { userId } = await addUser(t, "teacher", "ada");
    for (let i = 0; i < 205; i++) await link(t, userId, await addStudent(t, `s${i}`));

    await admin.mutation(api.users.remove, { userId });
    expect(await rows(t, "studentAccess")).toHaveLength(5);
    await t.finishAllScheduledFunctions(vi.runAllTimers);

    expect(await rows(t, "studentAccess")).toEqual([]);
  });
});

describe("a link", () => {
  async function pair(role: "teacher" | "guardian") {
    const { t, admin, adminId } = await school();
    const user = await addUser(t, role, "ada");
    const studentId = await addStudent(t);
    const ids = { userId: user.userId, studentId };
    const look = () => user.client.query(api.students.profile, { studentId, today: TODAY });
    return { t, admin, adminId, ...user, studentId, ids, look };
  }

  test.each(["teacher", "guardian"] as const)("lets a %s see a student, until it ends", async (role) => {
    const { t, admin, ids, look, studentId } = await pair(role);
    expect(await refusal(look())).toMatchObject({ code: "forbidden" });

    await admin.mutation(api.users.link, ids);
    await admin.mutation(api.users.link, ids);

    expect(await look()).toMatchObject({ studentId });
    expect(await rows(t, "studentAccess")).toMatchObject([{ ...ids, relation: role, since: T0 }]);
    await admin.mutation(api.users.unlink, ids);
    await admin.mutation(api.users.unlink, ids);
    expect(await refusal(look())).toMatchObject({ code: "forbidden" });
  });

  test("may be made before the invitation is accepted", async () => {
    const { t, admin } = await school();
    const studentId = await addStudent(t);
    const { userId, invitationCode } = await invited(admin);
    await admin.mutation(api.users.link, { userId, studentId });

    await accept(person(t, "ada"), invitationCode);

    const call = { studentId, today: TODAY };
    expect(await person(t, "ada").query(api.students.profile, call)).toMatchObject({ studentId });
  });

  test("is not for administrators, who see everybody", async () => {
    const { admin, adminId, studentId } = await pair("teacher");

    const call = admin.mutation(api.users.link, { userId: adminId, studentId });

    expect(await refusal(call)).toMatchObject({ code: "invalid_value", field: "userId" });
  });

  test("needs a student who is there", async () => {
    const { t, admin, ids } = await pair("teacher");
    await t.run(async (ctx) => {
      await ctx.db.delete("students", ids.studentId);
    });

    const call = admin.mutation(api.users.link, ids);

    expect(await refusal(call)).toMatchObject({ code: "not_found", field: "studentId" });
  });

  test("takes no student's id of another table", async () => {
    const { admin, adminId, ids } = await pair("teacher");

    const call = admin.mutation(api.users.link, { ...ids, studentId: adminId as never });

    await expect(call).rejects.toThrow(/Validator/);
  });

  test("is had by 32 users of one student", async () => {
    const { t, admin, ids, studentId } = await pair("teacher");
    for (let i = 0; i < SCHOOL.maxUsersPerStudent; i++) {
      await link(t, (await addUser(t, "teacher", `t${i}`)).userId, studentId);
    }

    const call = admin.mutation(api.users.link, ids);

    expect(await refusal(call)).toMatchObject({ code: "too_many_items", limit: 32 });
    expect(await admin.query(api.users.accessTo, { studentId })).toHaveLength(32);
  });
});

describe("consent", () => {
  async function family() {
    const { t, admin } = await school();
    const studentId = await addStudent(t);
    const guardian = await addUser(t, "guardian", "ada");
    await link(t, guardian.userId, studentId);
    return { t, admin, studentId, ...guardian };
  }

  async function consentTo(admin: Client, studentId: Id<"students">) {
    const [access] = await admin.query(api.users.accessTo, { studentId });
    return access?.consent;
  }

  test("is the guardian's: to which text, since when, and until when", async () => {
    const { admin, client, studentId } = await family();
    const given = { textVersion: "2026-09", givenAt: T0 };

    await client.mutation(api.users.recordConsent, { studentId, textVersion: "2026-09" });
    vi.setSystemTime(T0 + 1_000);
    await client.mutation(api.users.recordConsent, { studentId, textVersion: "2026-09" });
    expect(await consentTo(admin, studentId)).toEqual(given);

    await client.mutation(api.users.withdrawConsent, { studentId });
    vi.setSystemTime(T0 + 2_000);
    await client.mutation(api.users.withdrawConsent, { studentId });
    const withdrawn = { ...given, withdrawnAt: T0 + 1_000 };
    expect(await consentTo(admin, studentId)).toEqual(withdrawn);
    const mine = await client.query(api.students.mine, PAGE);
    expect(mine.page).toMatchObject([{ studentId, consent: withdrawn }]);

    await client.mutation(api.users.recordConsent, { studentId, textVersion: "2026-10" });
    const anew = { textVersion: "2026-10", givenAt: T0 + 2_000 };
    expect(await consentTo(admin, studentId)).toEqual(anew);
  });

  test("that was never given cannot be withdrawn", async () => {
    const { client, studentId } = await family();

    const call = client.mutation(api.users.withdrawConsent, { studentId });

    expect(await refusal(call)).toMatchObject({ code: "not_found" });
  });

  test("is no teacher's, no administrator's and no other guardian's to give", async () => {
    const { t, admin, studentId } = await family();
    const teacher = await addUser(t, "teacher", "bo");
    await link(t, teacher.userId, studentId);
    const { client: other } = await addUser(t, "guardian", "cy");

    for (const client of [teacher.client, admin, other]) {
      const gives = client.mutation(api.users.recordConsent, { studentId, textVersion: "1" });
      expect(await refusal(gives)).toMatchObject({ code: "forbidden" });
      const takes = client.mutation(api.users.withdrawConsent, { studentId });
      expect(await refusal(takes)).toMatchObject({ code: "forbidden" });
    }
    expect(await consentTo(admin, studentId)).toBeUndefined();
  });

  test("names its text", async () => {
    const { client, studentId } = await family();

    const call = client.mutation(api.users.recordConsent, { studentId, textVersion: "" });

    expect(await refusal(call)).toMatchObject({ code: "invalid_value", field: "textVersion" });
  });
});

test("the list of users goes by pages", async () => {
  const { t, admin } = await school();
  await addUser(t, "teacher");
  await addUser(t, "guardian");
  const pageFrom = async (cursor: string | null) =>
    await admin.query(api.users.list, { paginationOpts: { numItems: 2, cursor } });

  const first = await pageFrom(null);
  const second = await pageFrom(first.continueCursor);

  const names = [...first.page, ...second.page].map(({ name }) => name);
  expect(names).toEqual(["administrator", "teacher", "guardian"]);
  expect([first.isDone, second.isDone]).toEqual([false, true]);
});
