/** The command line: readiness, reloads, mistakes, endings. */
import { cpSync, existsSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { networkInterfaces, tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { FIXTURE, NODE_MODULES, Process } from "./support.ts";

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

const ENV = ["--env", "TEST_JWT_ISSUER=https://i.invalid", "--env", "TEST_JWKS=data:,{\"keys\":[]}"];

function start(...args: string[]): Process {
  const started = new Process(["--project", directory, "--db", ":memory:", "--port", "0", ...ENV, ...args]);
  processes.push(started);
  return started;
}

async function call(url: string, path: string, args: object = {}): Promise<Record<string, unknown>> {
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
    expect(local.stderr).toMatch(new RegExp(`^convex-local: port ${port} is in use; .*--port 0.*\n$`));
    other.close();
  });

  test.each([
    ["an unknown option", ["--prot", "1"], "'--prot'"],
    ["a port that is none", ["--port", "http"], "--port http"],
    ["an --env without a value", ["--env", "SECRET"], "NAME=VALUE"],
  ])("%s", async (_what, args, text) => {
    const local = start(...args);
    expect(await local.exited()).toBe(2);
    expect(local.stderr).toContain(text);
    expect(local.stderr.trim().split("\n")).toHaveLength(1);
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
