/** The HTTP API as a client without a library sees it. */
import { request } from "node:http";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { TestServer } from "./support.ts";

let server: TestServer;
beforeAll(async () => {
  server = await TestServer.start();
});
afterAll(async () => server.stop());
afterEach(async () => server.clearFaults());

const encodedFive = { $integer: "BQAAAAAAAAA=" };

async function json(response: Response): Promise<Record<string, unknown>> {
  return (await response.json()) as Record<string, unknown>;
}

describe("functions", () => {
  test("arguments may be an object or an array of one", async () => {
    for (const args of [{ value: "x" }, [{ value: "x" }]]) {
      const response = await server.post("/api/query", { path: "values:echoQuery", args });
      expect(response.status).toBe(200);
      expect(await json(response)).toEqual({ status: "success", value: "x" });
    }
  });

  test("mutations and actions run at their own endpoints, any function at /api/function", async () => {
    for (const [endpoint, path] of [
      ["mutation", "values:echoMutation"],
      ["action", "values:echoAction"],
      ["function", "values:echoMutation"],
      ["function", "values:echoQuery"],
      ["function", "values:echoAction"],
    ]) {
      const response = await server.post(`/api/${endpoint}`, { path, args: { value: 1 } });
      expect(await json(response)).toEqual({ status: "success", value: 1 });
    }
  });

  test("a query can be called by GET", async () => {
    const query = new URLSearchParams({ path: "values:echoQuery", args: '{"value":[1,2]}' });
    const response = await fetch(`${server.url}/api/query?${query}`);
    expect(await json(response)).toEqual({ status: "success", value: [1, 2] });
  });

  test("a function can be named by its URL", async () => {
    const response = await server.post("/api/run/values/echoMutation", {
      args: { value: encodedFive },
    });
    expect(await json(response)).toEqual({ status: "success", value: "5" });
    expect((await server.post("/api/run/values", { args: {} })).status).toBe(400);
  });

  test("a batch of queries answers in order", async () => {
    const response = await server.post("/api/query_batch", {
      queries: [
        { path: "values:echoQuery", args: { value: 1 } },
        { path: "values:crash", args: {} },
      ],
    });
    const { results } = (await json(response)) as { results: { status: string }[] };
    expect(results.map(({ status }) => status)).toEqual(["success", "error"]);
  });

  test("query_ts gives a timestamp that query_at_ts takes", async () => {
    const { ts } = await json(await server.post("/api/query_ts", {}));
    expect(Buffer.from(ts as string, "base64").length).toBe(8);
    const response = await server.post("/api/query_at_ts", {
      path: "values:echoQuery",
      args: { value: 1 },
      ts,
    });
    expect(await json(response)).toEqual({ status: "success", value: 1 });
  });

  test("log lines come with the answer", async () => {
    const { logLines } = await json(
      await server.post("/api/query", { path: "values:speak", args: {} }),
    );
    expect(JSON.stringify(logLines)).toContain("said in a query");
  });
});

describe("formats", () => {
  const value = { whole: encodedFive, bytes: { $bytes: "AQI=" }, odd: { $float: "AAAAAAAA+H8=" } };
  const clean = { whole: "5", bytes: "AQI=", odd: "NaN" };

  test.each([
    ["convex_encoded_json", value],
    ["json", clean],
  ])("%s", async (format, expected) => {
    const body = { path: "values:echoQuery", args: { value }, format };
    expect(await json(await server.post("/api/query", body))).toMatchObject({ value: expected });
  });

  test.each(["json", "convex_encoded_json", "export_json"])(
    "%s writes a whole float64 with its point, as other languages need it",
    async (format) => {
      const value = [2, -3, 0.5, 1e21, { n: 0 }];
      const body = { path: "values:echoQuery", args: { value }, format };
      const text = await (await server.post("/api/query", body)).text();
      expect(text).toContain('"value":[2.0,-3.0,0.5,1e+21,{"n":0.0}]');
    },
  );

  test("export_json keeps an int64 as a number of any size", async () => {
    const big = { $integer: "/////////38=" };
    const body = { path: "values:echoQuery", args: { value: big }, format: "export_json" };
    const text = await (await server.post("/api/query", body)).text();
    expect(text).toContain('"value":9223372036854775807');
  });

  test.each([
    ["npm-1.48.0", clean],
    ["python-0.8.1", clean],
    ["npm-1.0.0", value],
    ["curl-8.0.0", clean],
  ])("without a format, %s gets its own", async (client, expected) => {
    const body = { path: "values:echoQuery", args: { value } };
    const response = await server.post("/api/query", body, { "Convex-Client": client });
    expect(await json(response)).toMatchObject({ value: expected });
  });

  test("an unknown format is refused", async () => {
    const body = { path: "values:echoQuery", args: { value: 1 }, format: "xml" };
    const response = await server.post("/api/query", body);
    expect(response.status).toBe(400);
    expect(await json(response)).toMatchObject({ code: "BadFormat" });
  });
});

describe("errors", () => {
  test("a ConvexError is status 200 with its data, and its writes are undone", async () => {
    const args = { list: "refused" };
    const response = await server.post("/api/mutation", {
      path: "notes:addAndRefuse",
      args,
      format: "convex_encoded_json",
    });
    expect(response.status).toBe(200);
    const body = await json(response);
    expect(body["status"]).toBe("error");
    expect(body["errorMessage"]).toContain("Uncaught ConvexError");
    expect(body["errorData"]).toEqual({ code: "refused", limit: encodedFive, where: args });
    const after = await json(await server.post("/api/query", { path: "notes:list", args }));
    expect(after["value"]).toEqual([]);
  });

  test("another error has no data", async () => {
    const body = await json(await server.post("/api/query", { path: "values:crash", args: {} }));
    expect(body["status"]).toBe("error");
    expect(body["errorMessage"]).toMatch(/^\[Request ID: \w+\] Server Error/);
    expect(body).not.toHaveProperty("errorData");
  });

  test.each([
    ["a function that is not there", "notes:nothing", {}],
    ["an internal function", "people:hidden", {}],
    ["arguments that do not fit", "notes:list", { list: 1 }],
  ])("%s is an error of the call", async (_what, path, args) => {
    const response = await server.post("/api/query", { path, args });
    expect(response.status).toBe(200);
    expect(await json(response)).toMatchObject({ status: "error" });
  });

  test.each([
    ["no JSON", "{", "application/json"],
    ["no object", "[]", "application/json"],
    ["no content type", "{}", "text/plain"],
    ["no path", '{"args":{}}', "application/json"],
    ["no args", '{"path":"notes:list"}', "application/json"],
  ])("a body with %s is 400", async (_what, body, type) => {
    const response = await fetch(`${server.url}/api/query`, {
      method: "POST",
      headers: { "Content-Type": type },
      body,
    });
    expect(response.status).toBe(400);
    expect(await json(response)).toMatchObject({ code: "BadJsonBody" });
  });

  test("a body above 16 MiB is 400, one just below runs", async () => {
    const call = (length: number) =>
      server.post("/api/query", { path: "values:crash", args: { value: "x".repeat(length) } });
    expect((await call(16 * 1024 * 1024 + 3000)).status).toBe(400);
    expect((await call(16 * 1024 * 1024 - 3000)).status).toBe(200);
  });

  test("what does not exist is 404", async () => {
    expect((await fetch(`${server.url}/api/nothing`)).status).toBe(404);
  });
});

describe("authentication", () => {
  const whoami = async (authorization: string) => {
    const response = await server.post(
      "/api/query",
      { path: "people:whoami", args: {} },
      { Authorization: authorization },
    );
    return { status: response.status, body: await json(response) };
  };

  test("a token's claims are the caller's identity", async () => {
    const token = await server.issuer.token({ role: "agent", org: { id: 7 } });
    const { body } = await whoami(`Bearer ${token}`);
    expect(body["value"]).toEqual({
      tokenIdentifier: "https://conformance.invalid|ada",
      issuer: "https://conformance.invalid",
      subject: "ada",
      role: "agent",
      "org.id": 7,
    });
  });

  test("no token is nobody", async () => {
    const response = await server.post("/api/query", { path: "people:whoami", args: {} });
    expect((await json(response))["value"]).toBeNull();
  });

  test("an expired token has five seconds of grace", async () => {
    const now = Math.floor(Date.now() / 1000);
    expect((await whoami(`Bearer ${await server.issuer.token({ exp: now - 2 })}`)).status).toBe(
      200,
    );
    expect((await whoami(`Bearer ${await server.issuer.token({ exp: now - 9 })}`)).status).toBe(
      401,
    );
  });

  test.each([
    ["another issuer", { iss: "https://elsewhere.invalid" }, "NoAuthProvider"],
    ["another audience", { aud: "other" }, "NoAuthProvider"],
    ["no expiry", { exp: undefined }, "InvalidAuthHeader"],
    ["no subject", { sub: undefined }, "InvalidAuthHeader"],
    ["a start in the future", { nbf: Math.floor(Date.now() / 1000) + 60 }, "InvalidAuthHeader"],
  ])("a token with %s is 401", async (_what, claims, code) => {
    const { status, body } = await whoami(`Bearer ${await server.issuer.token(claims)}`);
    expect(status).toBe(401);
    expect(body["code"]).toBe(code);
  });

  test("a token without kid, with a foreign kid, signed by another key or no token at all is 401", async () => {
    const { TestIssuer } = await import("./support.ts");
    const stranger = await TestIssuer.create();
    const kid = (server.issuer.jwks.keys[0] as { kid: string }).kid;
    for (const token of [
      await server.issuer.token({}, null),
      await server.issuer.token({}, "unknown"),
      await stranger.token({}, kid),
      "nonsense",
    ]) {
      const { status, body } = await whoami(`Bearer ${token}`);
      expect(status).toBe(401);
      expect(body["code"]).toBe("InvalidAuthHeader");
    }
  });

  test("the admin key may call internal functions and act as a user", async () => {
    const call = async (key: string, path: string) => {
      const response = await server.post(
        "/api/query",
        { path, args: {} },
        { Authorization: `Convex ${key}` },
      );
      return { status: response.status, body: await json(response) };
    };
    expect((await call(server.adminKey, "people:hidden")).body["value"]).toBe("for admins");
    const identity = Buffer.from('{"issuer":"i","subject":"s","role":"x"}').toString("base64");
    expect((await call(`${server.adminKey}:${identity}`, "people:whoami")).body["value"]).toEqual({
      tokenIdentifier: "i|s",
      issuer: "i",
      subject: "s",
      role: "x",
    });
    expect((await call("convex-local|wrong", "people:hidden")).status).toBe(401);
  });

  test("another scheme is 400", async () => {
    expect((await whoami("Basic dTpw")).status).toBe(400);
  });
});

describe("browsers", () => {
  test("a page of any origin may call", async () => {
    const preflight = await fetch(`${server.url}/api/query`, {
      method: "OPTIONS",
      headers: {
        Origin: "http://localhost:3000",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,convex-client,content-type",
      },
    });
    expect(preflight.status).toBe(200);
    expect(preflight.headers.get("access-control-allow-origin")).toBe("http://localhost:3000");
    expect(preflight.headers.get("access-control-allow-credentials")).toBe("true");
    expect(preflight.headers.get("access-control-allow-headers")).toContain("convex-client");
    const call = await server.post(
      "/api/query",
      { path: "notes:list", args: { list: "none" } },
      { Origin: "http://localhost:3000" },
    );
    expect(call.headers.get("access-control-allow-origin")).toBe("http://localhost:3000");
  });
});

describe("usage", () => {
  test("the header tells what a call read and wrote", async () => {
    const add = await server.post("/api/mutation", {
      path: "notes:add",
      args: { list: "usage", text: "x" },
    });
    const written = JSON.parse(add.headers.get("convex-local-usage")!) as Record<string, number>;
    expect(written["documentsWritten"]).toBe(1);
    expect(written["bytesWritten"]).toBeGreaterThan(0);
    const list = await server.post("/api/query", { path: "notes:list", args: { list: "usage" } });
    const read = JSON.parse(list.headers.get("convex-local-usage")!) as Record<string, number>;
    expect(read).toMatchObject({ documentsRead: 1, documentsWritten: 0, ranges: 1 });
  });

  test("a query over 100,000 rows reads as many documents as over 1,000", async () => {
    const fill = async (list: string, rows: number) => {
      const size = Math.min(rows, 10_000);
      for (let from = 0; from < rows; from += size) {
        const args = { list, from, count: size };
        const reply = await json(
          await server.post("/api/mutation", { path: "entries:fill", args }),
        );
        expect(reply["status"]).toBe("success");
      }
    };
    await fill("small", 1_000);
    await fill("large", 100_000);
    const newest = async (list: string) => {
      const response = await server.post("/api/query", { path: "entries:newest", args: { list } });
      const { value } = await json(response);
      const usage: unknown = JSON.parse(response.headers.get("convex-local-usage")!);
      return { first: (value as number[])[0], usage };
    };
    const small = await newest("small");
    const large = await newest("large");
    expect(small.first).toBe(999);
    expect(large.first).toBe(99_999);
    expect(large.usage).toMatchObject({ documentsRead: 20, ranges: 1 });
    expect((large.usage as { documentsRead: number }).documentsRead).toBe(
      (small.usage as { documentsRead: number }).documentsRead,
    );
  }, 120_000);
});

describe("faults", () => {
  const add = (list: string) =>
    server.post("/api/mutation", { path: "notes:add", args: { list, text: "x" } });
  const count = async (list: string) => {
    const reply = await json(
      await server.post("/api/query", { path: "notes:list", args: { list } }),
    );
    return (reply["value"] as string[]).length;
  };

  test("drop_reply commits and closes the connection without an answer", async () => {
    await server.fault({ kind: "drop_reply", path: "notes:add", times: 1 });
    await expect(add("dropped")).rejects.toThrow();
    expect(await count("dropped")).toBe(1);
    expect((await add("dropped")).status).toBe(200);
  });

  test("unavailable refuses before running", async () => {
    await server.fault({ kind: "unavailable", path: "notes:add", times: 2 });
    for (let call = 0; call < 2; call += 1) {
      const response = await add("unavailable");
      expect(response.status).toBe(503);
      expect(await json(response)).toMatchObject({ code: "TooManyConcurrentRequests" });
    }
    expect(await count("unavailable")).toBe(0);
    expect((await add("unavailable")).status).toBe(200);
  });

  test("occ rolls back", async () => {
    await server.fault({ kind: "occ", path: "notes:add", times: 1 });
    const response = await add("occ");
    expect(response.status).toBe(503);
    expect(await json(response)).toMatchObject({ code: "OptimisticConcurrencyControlFailure" });
    expect(await count("occ")).toBe(0);
  });

  test("hang commits nothing and never answers", async () => {
    await server.fault({ kind: "hang", path: "notes:add", times: 1 });
    const { hostname, port } = new URL(server.url);
    const call = request({
      hostname,
      port,
      path: "/api/mutation",
      method: "POST",
      headers: { "Content-Type": "application/json" },
    });
    let answered = false;
    call.on("response", () => (answered = true)).on("error", () => {});
    call.end(JSON.stringify({ path: "notes:add", args: { list: "hung", text: "x" } }));
    await expect
      .poll(async () => (await server.calls())["notes:add"]?.["faults"] ?? 0)
      .toBeGreaterThan(0);
    expect(await count("hung")).toBe(0);
    expect(answered).toBe(false);
    call.destroy();
  });

  test("delay answers late", async () => {
    await server.fault({ kind: "delay", path: "notes:add", times: 1, delayMs: 300 });
    const order: string[] = [];
    await Promise.all([
      add("delayed").then(() => order.push("delayed")),
      count("delayed").then(() => order.push("other")),
    ]);
    expect(order).toEqual(["other", "delayed"]);
    expect(await count("delayed")).toBe(1);
  });

  test("a fault without times stays until it is cleared", async () => {
    await server.fault({ kind: "unavailable", path: "notes:add" });
    for (let call = 0; call < 3; call += 1) expect((await add("x")).status).toBe(503);
    await server.clearFaults();
    expect((await add("x")).status).toBe(200);
  });

  test("calls are counted with what they used", async () => {
    const before = (await server.calls())["notes:add"]!;
    await add("counted");
    const after = (await server.calls())["notes:add"]!;
    expect(after["calls"]! - before["calls"]!).toBe(1);
    expect(after["documentsWritten"]! - before["documentsWritten"]!).toBe(1);
  });

  test("they need the admin key and a known kind", async () => {
    expect((await server.post("/_local/faults", { kind: "occ" })).status).toBe(403);
    const wrong = await server.post(
      "/_local/faults",
      { kind: "explode" },
      { Authorization: `Convex ${server.adminKey}` },
    );
    expect(wrong.status).toBe(400);
    expect((await json(wrong))["message"]).toContain("drop_reply");
  });
});
