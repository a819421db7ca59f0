/** The real `convex codegen` against a convex-local. */
import { execFile } from "node:child_process";
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { FIXTURE, NODE_MODULES, TestServer } from "./support.ts";

const run = promisify(execFile);
let server: TestServer;
let directory: string;

beforeAll(async () => {
  server = await TestServer.start();
  directory = mkdtempSync(join(tmpdir(), "convex-local-codegen-"));
  cpSync(FIXTURE, directory, { recursive: true });
  symlinkSync(NODE_MODULES, join(directory, "node_modules"));
});
afterAll(async () => {
  rmSync(directory, { recursive: true });
  await server.stop();
});

async function convex(...args: string[]) {
  const cli = join(NODE_MODULES, "convex", "bin", "main.js");
  return await run(process.execPath, [cli, ...args], {
    cwd: directory,
    env: {
      ...process.env,
      CONVEX_SELF_HOSTED_URL: server.url,
      CONVEX_SELF_HOSTED_ADMIN_KEY: server.adminKey,
    },
  }).catch((error: unknown) => error as { stdout: string; stderr: string; code: number });
}

test("codegen writes the project's types", async () => {
  const { stderr } = await convex("codegen", "--typecheck", "disable");
  const generated = join(directory, "convex", "_generated");
  expect(readdirSync(generated).sort(), stderr).toEqual([
    "api.d.ts",
    "api.js",
    "dataModel.d.ts",
    "server.d.ts",
    "server.js",
  ]);
  const api = readFileSync(join(generated, "api.d.ts"), "utf8");
  for (const module of ["entries", "notes", "people", "values"]) expect(api).toContain(module);
}, 60_000);

test("a deploy is refused with the reason, since the functions come from the project", async () => {
  const result = await convex("deploy", "--typecheck", "disable", "--yes");
  expect(result).toMatchObject({ code: 1 });
  expect(result.stderr).toContain("convex-local runs the functions of its own project directory");
}, 60_000);
