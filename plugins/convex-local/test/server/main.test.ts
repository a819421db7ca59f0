/** The command line: readiness, reloads, mistakes, endings. */
import { execFile } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { networkInterfaces, tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { ConvexClient } from "convex/browser";
import { anyApi } from "convex/server";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { parseOptions, UsageError } from "../../src/options.ts";
import { FIXTURE, NODE_MODULES, Process, until } from "./support.ts";

let directory: string;
let processes: Process[];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "convex-local-main-"));
  cpSync(FIXTURE, directory, { recursive: true });
  symlinkSync(NODE_MODULES, join(directory, "node_modules"));
  processes = [];
});
afterEach(async () => {
  for (const started of processes) await started.end("SIGKILL");
  rmSync(directory, { recursive: true });
});

const ENV = ["--env", "TEST_JWT_ISSUER=https://i.invalid", "--env", 'TEST_JWKS=data:,{"keys":[]}'];

function start(...args: string[]): Process {
  const started = new Process([
    "--project",
    directory,
    "--db",
    ":memory:",
    "--port",
    "0",
    ...ENV,
    ...args,
  ]);
  processes.push(started);
  return started;
}

async function call(
  url: string,
  path: string,
  args: object = {},
): Promise<Record<string, unknown>> {
  const response = await fetch(`${url}/api/function`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ path, args }),
  });
  return (await response.json()) as Record<string, unknown>;
}

const module = (value: string) => `
  import { queryGeneric } from "convex/server";
  export const get = queryGeneric({ args: {}, handler: async () => ${value} });
`;

describe("reload", () => {
  test("changed functions are served, and a file that does not compile leaves the old ones", async () => {
    const file = join(directory, "convex", "changing.ts");
    writeFileSync(file, module('"old"'));
    const local = start("--watch");
    const url = (await local.next("ready")).url!;
    expect((await call(url, "changing:get"))["value"]).toBe("old");

    writeFileSync(file, module('"new"'));
    await local.next("reloaded");
    expect((await call(url, "changing:get"))["value"]).toBe("new");

    writeFileSync(file, module('"broken'));
    const { message } = await local.next("compile_error");
    expect(message).toContain("changing.ts");
    expect((await call(url, "changing:get"))["value"]).toBe("new");

    writeFileSync(file, module('"mended"'));
    await local.next("reloaded");
    expect((await call(url, "changing:get"))["value"]).toBe("mended");
  });
});

test("a reload reaches the subscriptions", async () => {
  const file = join(directory, "convex", "changing.ts");
  writeFileSync(file, module('"old"'));
  const local = start("--watch");
  const client = new ConvexClient((await local.next("ready")).url!, { logger: false });
  const seen: unknown[] = [];
  client.onUpdate(anyApi.changing!.get!, {}, (value: unknown) => seen.push(value));
  await until(() => seen.length === 1, "the first result");
  writeFileSync(file, module('"new"'));
  await until(() => seen.length === 2, "the result of the new function");
  expect(seen).toEqual(["old", "new"]);
  await client.close();
});

test("the README's lines do what they say", async () => {
  const readme = readFileSync(join(import.meta.dirname, "../../README.md"), "utf8");
  const snippet = /```js\n([\s\S]*?)```/.exec(readme)![1]!;
  const local = start();
  const { url } = await local.next("ready");
  const file = join(directory, "snippet.mjs");
  writeFileSync(file, snippet.replace("http://127.0.0.1:3210", url!));
  const { stdout } = await promisify(execFile)(process.execPath, [file]);
  expect(stdout).toBe("[ 'hello' ]\n");
});

describe("mistakes give one line with the remedy", () => {
  test("functions that do not compile", async () => {
    writeFileSync(join(directory, "convex", "broken.ts"), "export const = 1;");
    const local = start();
    expect(await local.exited()).toBe(1);
    expect(local.stderr).toContain("broken.ts");
  });

  test("a port in use", async () => {
    const other = createServer().listen({ host: "127.0.0.1", port: 0 });
    await new Promise((resolve) => other.once("listening", resolve));
    const { port } = other.address() as AddressInfo;
    const local = start("--port", String(port));
    expect(await local.exited()).toBe(1);
    expect(local.stderr).toMatch(
      new RegExp(`^convex-local: port ${port} is in use; .*--port 0.*\n$`),
    );
    other.close();
  });

  test("an unknown option", async () => {
    const local = start("--prot", "1");
    expect(await local.exited()).toBe(2);
    expect(local.stderr).toMatch(/^convex-local: .*'--prot'.*--help\.\n$/);
  });

  test.each([
    ["a port that is none", ["--port", "http"], "--port http"],
    ["a port too high", ["--port", "65536"], "--port 65536"],
    ["an --env without a value", ["--env", "NAME"], "NAME=VALUE"],
    ["an --env with a bad name", ["--env", "A B=the secret"], "--env A B is not"],
    ["an empty --db", ["--db", ""], ":memory:"],
    ["an --admin-key that no header can carry", ["--admin-key", "a:b"], "--admin-key"],
  ])("%s", (_what, args, text) => {
    expect(() => parseOptions(args)).toThrow(text);
    expect(() => parseOptions(args)).toThrow(UsageError);
    expect(() => parseOptions(args)).not.toThrow("the secret");
  });

  test("an --env-file that is not there", async () => {
    // Node itself looks for that option, wherever it stands, and says so first.
    const local = start("--env-file", "/nonexistent/.env");
    expect(await local.exited()).toBeGreaterThan(0);
    expect(local.stderr).toContain("/nonexistent/.env");
    expect(local.stderr.trim().split("\n")).toHaveLength(1);
  });

  test("a project that is not there", async () => {
    const local = start("--project", join(directory, "elsewhere"));
    expect(await local.exited()).toBe(1);
    expect(local.stderr).toContain("elsewhere");
    expect(local.stderr.trim().split("\n")).toHaveLength(1);
  });
});

describe("the process", () => {
  test.each(["SIGINT", "SIGTERM"] as const)("%s ends it with 0", async (signal) => {
    const local = start();
    const { url } = await local.next("ready");
    await call(url!, "values:speak");
    expect(await local.end(signal)).toBe(0);
  });

  test("the end of its input ends it, since the parent is gone", async () => {
    const local = start();
    await local.next("ready");
    local.child.stdin!.end();
    expect(await local.exited()).toBe(0);
  });

  test("it listens on loopback only", async () => {
    const local = start();
    const { url } = await local.next("ready");
    const { port } = new URL(url!);
    const outside = Object.values(networkInterfaces())
      .flat()
      .find((address) => address !== undefined && !address.internal && address.family === "IPv4");
    expect(new URL(url!).hostname).toBe("127.0.0.1");
    if (outside !== undefined) {
      await expect(fetch(`http://${outside.address}:${port}/version`)).rejects.toThrow();
    }
  });

  test("without --db the data lies beside the project, out of version control", async () => {
    const local = new Process(["--project", directory, "--port", "0", ...ENV]);
    processes.push(local);
    await local.next("ready");
    await local.end("SIGTERM");
    expect(existsSync(join(directory, ".convex-local", "db.sqlite3"))).toBe(true);
    expect(existsSync(join(directory, ".convex-local", ".gitignore"))).toBe(true);
  });

  test("--env-file gives functions their environment, --env wins", async () => {
    const file = join(mkdtempSync(join(tmpdir(), "convex-local-env-")), ".env");
    writeFileSync(file, "GREETING=from file\nOTHER='quoted value'\n");
    writeFileSync(
      join(directory, "convex", "environment.ts"),
      module("[process.env.GREETING, process.env.OTHER, process.env.CONVEX_CLOUD_URL]"),
    );
    const local = start("--env-file", file, "--env", "GREETING=given");
    const { url } = await local.next("ready");
    const { value } = await call(url!, "environment:get");
    expect(value).toEqual(["given", "quoted value", url]);
  });
});
