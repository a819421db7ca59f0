/** Who Emma is: how teachers write it. */
import { expect, test } from "vitest";
import { api } from "../../convex/_generated/api.js";
import type { AvatarContent } from "../../convex/lessonValidators.ts";
import { SCHOOL } from "../../convex/limits.ts";
import { addStudent, addUser, deployment, refusal, rows, student } from "./helpers.ts";

const PAGE = { numItems: 10, cursor: null };

const AVATAR: AvatarContent = {
  slug: "emma",
  name: "Emma",
  persona: "You are Emma.",
  voice: "coral",
  language: "en",
  teachingStyle: "patient",
  talkingHead: { provider: "tavus", face: "r1" },
};

async function school() {
  const t = deployment();
  const { client: teacher } = await addUser(t, "teacher");
  const { avatarId } = await teacher.mutation(api.avatars.create, AVATAR);
  return { t, teacher, avatarId };
}

test("an avatar is listed as it was written, changed and published", async () => {
  const { teacher, avatarId } = await school();
  const listed = async () =>
    (await teacher.query(api.avatars.list, { paginationOpts: PAGE })).page;
  expect(await listed()).toEqual([{ avatarId, ...AVATAR, published: false }]);

  const changes = { name: "Em", teachingStyle: "lively" } as const;
  await teacher.mutation(api.avatars.update, { avatarId, changes });
  await teacher.mutation(api.avatars.publish, { avatarId });
  expect(await listed()).toEqual([{ avatarId, ...AVATAR, ...changes, published: true }]);

  await teacher.mutation(api.avatars.unpublish, { avatarId });
  expect(await listed()).toMatchObject([{ published: false }]);
  await teacher.mutation(api.avatars.remove, { avatarId });
  expect(await listed()).toEqual([]);
});

test.each([
  [
    "a persona over 8 KiB",
    { persona: "é".repeat(4_097) },
    { code: "text_too_long", field: "persona", limit: SCHOOL.maxPersonaBytes },
  ],
  ["an empty name", { name: "" }, { code: "invalid_value", field: "name" }],
  ["no language", { language: "??" }, { code: "invalid_value", field: "language" }],
  ["a long voice", { voice: "v".repeat(1_025) }, { code: "field_too_long", field: "voice" }],
  [
    "a face without a name",
    { talkingHead: { provider: "tavus", face: "" } },
    { code: "invalid_value", field: "talkingHead.face" },
  ],
  ["a slug that is none", { slug: "my emma" }, { code: "invalid_value", field: "slug" }],
])("%s is refused, new or as a change", async (_what, changes, expected) => {
  const { t, teacher, avatarId } = await school();
  const made = teacher.mutation(api.avatars.create, { ...AVATAR, slug: "other", ...changes });
  expect(await refusal(made)).toMatchObject(expected);
  const changed = teacher.mutation(api.avatars.update, { avatarId, changes });
  expect(await refusal(changed)).toMatchObject(expected);
  expect(await rows(t, "avatars")).toMatchObject([AVATAR]);
});

test("a persona of just 8 KiB is kept", async () => {
  const { teacher, avatarId } = await school();
  const changes = { persona: "é".repeat(4_096) };
  await teacher.mutation(api.avatars.update, { avatarId, changes });
});

test("another's slug is refused, its own is not", async () => {
  const { teacher, avatarId } = await school();
  const again = teacher.mutation(api.avatars.create, AVATAR);
  expect(await refusal(again)).toMatchObject({ code: "already_exists", field: "slug" });
  await teacher.mutation(api.avatars.update, { avatarId, changes: { slug: "emma" } });
});

test("an avatar that is gone is not found", async () => {
  const { teacher, avatarId } = await school();
  await teacher.mutation(api.avatars.remove, { avatarId });
  for (const call of [
    teacher.mutation(api.avatars.update, { avatarId, changes: {} }),
    teacher.mutation(api.avatars.remove, { avatarId }),
    teacher.mutation(api.avatars.publish, { avatarId }),
    teacher.mutation(api.avatars.unpublish, { avatarId }),
  ]) {
    expect(await refusal(call)).toMatchObject({ code: "not_found", field: "avatarId" });
  }
});

test("a student writes none", async () => {
  const { t } = await school();
  const self = student(t, await addStudent(t));
  const call = self.mutation(api.avatars.create, { ...AVATAR, slug: "mine" });
  expect(await refusal(call)).toMatchObject({ code: "forbidden" });
});
