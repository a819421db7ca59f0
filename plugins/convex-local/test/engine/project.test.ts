import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import { describe, expect, test } from "vitest";
import { CompileError, StorageError } from "../../src/backend.ts";
import { nobody, open, project, temporaryDirectory, write } from "./support.ts";

const schema = (tables: string, options = ""): string => `
  import { defineSchema, defineTable } from "convex/server";
  import { v } from "convex/values";
  export default defineSchema({ ${tables} }${options});
`;

const functions = (body: string): string => `
  import { mutationGeneric as mutation, queryGeneric as query } from "convex/server";
  import { v } from "convex/values";
  ${body}
`;

const ADD = `export const add = mutation({
  args: { word: v.string(), level: v.optional(v.string()) },
  handler: async (ctx, args) => await ctx.db.insert("words", args),
});`;

const BY_LEVEL = `export const byLevel = query({
  args: { level: v.string() },
  handler: async (ctx, { level }) => {
    const rows = await ctx.db
      .query("words")
      .withIndex("by_level", (q) => q.eq("level", level))
      .collect();
    return rows.map((row) => row.word);
  },
});`;

const WORDS = "words: defineTable({ word: v.string(), level: v.optional(v.string()) })";

describe("a project that does not compile", () => {
  test("is refused with the compiler's message", async () => {
    const directory = project({ "words.ts": "export const a = ;" });
    const refused = open({ project: directory });
    await expect(refused).rejects.toThrow(CompileError);
    await expect(refused).rejects.toThrow(/words\.ts:1:17: ERROR|Unexpected ";"/);
  });

  test("says what it imports in vain, or throws", async () => {
    const missing = project({ "words.ts": 'import "./absent"; export const a = 1;' });
    await expect(open({ project: missing })).rejects.toThrow('Could not resolve "./absent"');
    const throwing = project({ "words.ts": '\nthrow new Error("at once");\nexport const a = 1;' });
    await expect(open({ project: throwing })).rejects.toThrow(
      /Uncaught Error: at once\n {4}at .*\(\.\.\/convex\/words\.ts:2:7\)/,
    );
    await expect(open({ project: temporaryDirectory() })).rejects.toThrow("There is no");
  });

  test("keeps the old functions when it is reloaded", async () => {
    const directory = project({ "words.ts": functions(ADD) });
    const opened = await open({ project: directory });
    write(directory, { "words.ts": "export const a = ;" });
    await expect(opened.backend.reload()).rejects.toThrow(CompileError);
    expect(await opened.mutation("words:add", { word: "a" })).toEqual(expect.any(String));
  });
});

describe("a reload", () => {
  test("swaps the functions and wakes every subscription", async () => {
    const directory = project({
      "words.ts": functions(`export const say = query({ args: {}, handler: async () => "one" });`),
    });
    const { backend, query } = await open({ project: directory });
    const { readSet, ts } = await backend.runQuery({
      path: "words:say",
      args: {},
      identity: nobody,
    });
    const seen: [boolean, boolean][] = [];
    backend.onCommit((commit) => seen.push([commit.touches(readSet), commit.ts > ts]));
    write(directory, {
      "words.ts": functions(`export const say = query({ args: {}, handler: async () => "two" });`),
    });
    await backend.reload();
    expect(await query("words:say")).toBe("two");
    expect(seen).toEqual([[true, true]]);
  });

  test("fills a new index from the rows that are there", async () => {
    const directory = project({ "schema.ts": schema(WORDS), "words.ts": functions(ADD) });
    const opened = await open({ project: directory });
    for (let i = 0; i < 1200; i += 1) {
      await opened.mutation("words:add", { word: `w${i}`, level: i % 400 === 0 ? "A1" : "B2" });
    }
    write(directory, {
      "schema.ts": schema(`${WORDS}.index("by_level", ["level"])`),
      "words.ts": functions(ADD + BY_LEVEL),
    });
    await opened.backend.reload();
    expect(await opened.query("words:byLevel", { level: "A1" })).toEqual(["w0", "w400", "w800"]);
    await opened.mutation("words:add", { word: "new", level: "A1" });
    expect(await opened.query("words:byLevel", { level: "A1" })).toContain("new");
    write(directory, { "schema.ts": schema(`${WORDS}.index("by_level", ["word"])`) });
    await opened.backend.reload();
    await expect(opened.query("words:byLevel", { level: "A1" })).rejects.toThrow(
      "doesn't index this field",
    );
  });

  test("refuses a schema that a row does not fit, and keeps the old one", async () => {
    const directory = project({ "schema.ts": schema(WORDS), "words.ts": functions(ADD) });
    const opened = await open({ project: directory });
    const id = (await opened.mutation("words:add", { word: "a" })) as string;
    const strict = "words: defineTable({ word: v.string(), level: v.string() })";
    write(directory, { "schema.ts": schema(strict) });
    const refused = opened.backend.reload();
    await expect(refused).rejects.toThrow(CompileError);
    await expect(refused).rejects.toThrow(
      `Document with ID "${id}" in table "words" does not match the schema: Object is missing ` +
        "the required field `level`",
    );
    expect(await opened.mutation("words:add", { word: "b" })).toEqual(expect.any(String));
    write(directory, { "schema.ts": schema(strict, ", { schemaValidation: false }") });
    await opened.backend.reload();
    expect(await opened.mutation("words:add", { word: "c" })).toEqual(expect.any(String));
  });
});

describe("what a project declares", () => {
  test("is there for code generation", async () => {
    const directory = project({
      "words.ts": functions(ADD),
      "deep/more.ts": functions(
        'export const say = query({ args: {}, returns: v.string(), handler: async () => "x" });',
      ),
      "words.test.ts": "throw new Error('not a module');",
      "_generated/api.js": "throw new Error('not a module');",
      "schema.ts": schema(WORDS),
    });
    const { backend } = await open({ project: directory });
    expect(backend.analyzed()).toMatchObject({
      modules: [
        {
          path: "deep/more",
          file: "deep/more.ts",
          environment: "isolate",
          functions: [
            { name: "say", type: "query", visibility: "public", returns: { type: "string" } },
          ],
        },
        { path: "words", functions: [{ name: "add", type: "mutation", args: { type: "object" } }] },
      ],
      schema: { schemaValidation: true, tables: [{ tableName: "words" }] },
      crons: [],
      hasAuthConfig: false,
    });
  });

  test("its identity providers come with the deployment's environment", async () => {
    const directory = project({
      "auth.config.ts": `export default { providers: [
        { type: "customJwt", applicationID: "convex", issuer: process.env.ISSUER,
          jwks: process.env.JWKS, algorithm: "ES256" },
        { domain: "https://id.example", applicationID: "web" },
      ] };`,
    });
    const { backend } = await open({
      project: directory,
      env: { ISSUER: "https://i.example", JWKS: "data:,{}" },
    });
    expect(backend.authConfig()).toEqual([
      {
        type: "customJwt",
        applicationID: "convex",
        issuer: "https://i.example",
        jwks: "data:,{}",
        algorithm: "ES256",
      },
      { type: "oidc", domain: "https://id.example", applicationID: "web" },
    ]);
    const without = await open({ project: directory });
    expect(without.backend.authConfig()).toEqual([
      { type: "oidc", domain: "https://id.example", applicationID: "web" },
    ]);
    expect(without.logs.join()).toContain("providers[0] is left out");
  });

  test('"use node" files hold actions, which may use Node', async () => {
    const directory = project({
      "machine.ts": `"use node";
        import { hostname } from "node:os";
        import { actionGeneric as action } from "convex/server";
        export const name = action({ args: {}, handler: async () => typeof hostname() });`,
      "plain.ts": functions("export const x = query({ args: {}, handler: async () => 1 });"),
    });
    const { action, query } = await open({ project: directory });
    expect(await action("machine:name")).toBe("string");
    expect(await query("plain:x")).toBe(1);
    write(directory, {
      "machine.ts": `"use node";\n${functions("export const q = query({ handler: async () => 1 });")}`,
    });
    await expect(open({ project: directory })).rejects.toThrow("Only actions can be defined");
  });
});

describe("the database file", () => {
  test("keeps documents and the clock", async () => {
    const dbPath = path.join(temporaryDirectory(), "db.sqlite3");
    const first = await open({ dbPath });
    const id = await first.mutation("items:add", { group: "a", rank: 1 });
    const ts = first.backend.currentTs();
    await first.backend.close();
    const second = await open({ dbPath });
    expect(second.backend.currentTs()).toBeGreaterThanOrEqual(ts);
    expect(await second.query("items:get", { id })).toMatchObject({ _id: id });
    expect(await second.query("items:take", { group: "a", n: 1 })).toEqual([1]);
  });

  test("belongs to one process at a time, and to this program", async () => {
    const dbPath = path.join(temporaryDirectory(), "db.sqlite3");
    const first = await open({ dbPath });
    await expect(open({ dbPath })).rejects.toThrow("another convex-local has it open");
    await first.backend.close();
    const foreign = path.join(temporaryDirectory(), "foreign.sqlite3");
    const db = new DatabaseSync(foreign);
    db.exec("CREATE TABLE mine (x)");
    db.close();
    const refused = open({ dbPath: foreign });
    await expect(refused).rejects.toThrow(StorageError);
    await expect(refused).rejects.toThrow("of another program");
  });
});
