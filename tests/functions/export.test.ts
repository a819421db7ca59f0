/** A student gets everything that is held about them, and nobody else's. */
import { describe, expect, test } from "vitest";
import { api, internal } from "../../convex/_generated/api.js";
import type { Id } from "../../convex/_generated/dataModel.js";
import { SCHOOL } from "../../convex/limits.ts";
import type { ExportedRow } from "../../convex/model/exports.ts";
import {
  addStudent,
  addUser,
  agentOf,
  deployment,
  dump,
  link,
  refusal,
  rows,
  student,
} from "./helpers.ts";
import type { Client, Deployment } from "./helpers.ts";
import { TABLES_OF_STUDENTS, insertSample } from "./samples.ts";

/** A student with a row in every table, also from before the school took them in, and another. */
async function school() {
  const t = deployment();
  const studentId = await addStudent(t, "Carlos");
  const otherId = await addStudent(t);
  for (const table of TABLES_OF_STUDENTS) {
    if (table === "students" || table === "erasures") continue;
    await t.run(async (ctx) => {
      await insertSample(ctx, table, { studentId });
      await insertSample(ctx, table, { studentId: otherId });
    });
  }
  await t.run(async (ctx) => {
    await insertSample(ctx, "sessionRuns", { guest: `unknown:${studentId}` });
  });
  return { t, studentId, otherId };
}

async function everything(client: Client, studentId?: Id<"students">) {
  const found: ExportedRow[] = [];
  let pages = 0;
  let cursor: string | null = null;
  do {
    const page: { rows: ExportedRow[]; cursor: string | null; isDone: boolean } =
      await client.query(api.students.exportData, {
        cursor,
        ...(studentId === undefined ? {} : { studentId }),
      });
    found.push(...page.rows);
    pages += 1;
    cursor = page.cursor;
    expect(page.isDone).toBe(cursor === null);
  } while (cursor !== null);
  return { found, pages };
}

/** As the export should be: every row that names the student, by its id. */
async function held(t: Deployment, studentId: string): Promise<Map<string, unknown>> {
  const all = Object.values(await dump(t)).flat();
  const theirs = all.filter((row) => JSON.stringify(row).includes(studentId));
  return new Map(theirs.map((row) => [row._id, row]));
}

describe("an export", () => {
  test("has every row that names the student, whole, once, and no other", async () => {
    const { t, studentId } = await school();

    const { found } = await everything(student(t, studentId));

    const expected = await held(t, studentId);
    expect(new Map(found.map(({ row }) => [row._id, row]))).toEqual(expected);
    expect(found).toHaveLength(expected.size);
    expect(found[0]).toMatchObject({ table: "students", row: { name: "Carlos" } });
    const tables = new Set(found.map(({ table }) => table));
    const all = TABLES_OF_STUDENTS.filter((table) => table !== "erasures");
    expect([...tables].sort()).toEqual([...all].sort());
  });

  test("comes in pages of at most 100 rows, or some 4 MiB", async () => {
    const { t, studentId } = await school();
    const sessionId = (await rows(t, "sessions"))[0]?._id;
    const text = "x".repeat(65_536);
    await t.run(async (ctx) => {
      for (let n = 0; n < SCHOOL.maxRowsExported + 50; n += 1) {
        await insertSample(ctx, "messages", { studentId, sessionId, text });
        await insertSample(ctx, "progress", { studentId });
      }
    });

    const { found } = await everything(student(t, studentId));

    expect(found).toHaveLength((await held(t, studentId)).size);
    const [first] = [await student(t, studentId).query(api.students.exportData, { cursor: null })];
    expect(first.rows.length).toBeLessThanOrEqual(SCHOOL.maxRowsExported + 1);
  });

  test("of a student of whom there is nothing else is one row and one page", async () => {
    const t = deployment();
    const studentId = await addStudent(t);

    const { found, pages } = await everything(student(t, studentId));

    expect([found.length, pages]).toEqual([1, 1]);
  });

  test.each(["guardian", "administrator"] as const)("is also for a %s", async (role) => {
    const { t, studentId } = await school();
    const { client, userId } = await addUser(t, role, "Ada");
    if (role === "guardian") await link(t, userId, studentId);

    const { found } = await everything(client, studentId);

    expect(found).toHaveLength((await held(t, studentId)).size);
  });

  test("is neither for a teacher nor for the student's agent", async () => {
    const { t, studentId } = await school();
    const { client, userId } = await addUser(t, "teacher", "Ada");
    await link(t, userId, studentId);

    for (const [caller, about] of [[client, { studentId }], [agentOf(t, studentId), {}]] as const) {
      const refused = refusal(caller.query(api.students.exportData, { cursor: null, ...about }));
      expect(await refused).toMatchObject({ code: "forbidden" });
    }
  });

  test("is not gone on with by another student's cursor", async () => {
    const { t, studentId, otherId } = await school();
    const { cursor } = await student(t, studentId).query(api.students.exportData, { cursor: null });

    const page = await student(t, otherId)
      .query(api.students.exportData, { cursor })
      .catch(() => ({ rows: [] }));

    expect(JSON.stringify(page.rows)).not.toContain(studentId);
  });

  test.each(["", "x", "0", "999:", "-1:", "1.5:", ":"])(
    "refuses the cursor %j, which no page gave",
    async (cursor) => {
      const { t, studentId } = await school();

      const refused = refusal(student(t, studentId).query(api.students.exportData, { cursor }));

      expect(await refused).toMatchObject({ code: "invalid_value", field: "cursor" });
    },
  );

  test("on the command line names the student by any text", async () => {
    const { t, studentId, otherId } = await school();
    await t.run(async (ctx) => {
      await ctx.db.delete("students", otherId);
    });
    const ask = (id: string) =>
      t.query(internal.students.exportDataInternal, { studentId: id, cursor: null });

    expect((await ask(studentId)).rows[0]).toMatchObject({ table: "students" });
    for (const id of ["nobody", otherId]) {
      expect(await refusal(ask(id))).toMatchObject({ code: "student_unknown" });
    }
  });
});
