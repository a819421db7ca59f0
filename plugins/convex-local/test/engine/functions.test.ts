import { describe, expect, test } from "vitest";
import { admin, CallFailed, nobody, open, valueOf } from "./support.ts";

const noChange = { documentsWritten: 0, bytesWritten: 0 };

async function failureOf(call: Promise<unknown>): Promise<CallFailed["outcome"]> {
  return await call.then(
    () => expect.fail("the call succeeded"),
    (error: unknown) => (error as CallFailed).outcome,
  );
}

describe("mutations", () => {
  test("write, patch, replace and delete documents", async () => {
    const { mutation, query } = await open();
    const id = await mutation("items:add", { group: "a", rank: 1, note: "x" });
    expect(await query("items:get", { id })).toMatchObject({ _id: id, group: "a", note: "x" });
    await mutation("items:set", { id, rank: 5 });
    expect(await query("items:get", { id })).toMatchObject({ rank: 5, note: "x" });
    await mutation("items:clearNote", { id });
    expect(await query("items:get", { id })).not.toHaveProperty("note");
    await mutation("items:replace", { id, value: { group: "b", rank: 2 } });
    expect(await query("items:take", { group: "a", n: 10 })).toEqual([]);
    expect(await query("items:take", { group: "b", n: 10 })).toEqual([2]);
    await mutation("items:remove", { id });
    expect(await query("items:get", { id })).toBeNull();
    expect(await query("items:everything")).toEqual([]);
    const outcome = await failureOf(mutation("items:remove", { id }));
    expect(outcome.errorMessage).toContain(`Delete on nonexistent document ID ${id as string}`);
  });

  test("leave nothing behind when they throw", async () => {
    const { mutation, query } = await open();
    const outcome = await failureOf(mutation("items:addThenThrow", { how: "plain" }));
    expect(outcome.errorMessage).toMatch(
      /^Uncaught Error: no luck\n {4}at handler \(\.\.\/convex\/items\.ts:\d+:\d+\)$/,
    );
    expect(outcome.errorData).toBeUndefined();
    expect(await query("items:everything")).toEqual([]);
  });

  test("hand over the data of a ConvexError", async () => {
    const { mutation } = await open();
    const outcome = await failureOf(mutation("items:addThenThrow", { how: "convex" }));
    expect(outcome.errorData).toEqual({ code: "no", at: 7 });
    expect(outcome.errorMessage).toContain('Uncaught ConvexError: {"code":"no","at":7}');
  });

  test("see their own writes while they walk over a range", async () => {
    const { mutation } = await open();
    await mutation("items:addMany", { group: "w", from: 1, count: 5 });
    expect(await mutation("items:renumber", { group: "w" })).toEqual([1, 3, 4, 5]);
  });

  test("run others inside, whose failure undoes only their own writes", async () => {
    const { mutation, query } = await open({ project: "nested" });
    expect(await mutation("nested:outer", { fail: false })).toEqual({ inner: "ok", seen: 2 });
    expect(await query("nested:names")).toEqual(["before", "inner", "after"]);
    expect(await mutation("nested:outer", { fail: true })).toEqual({
      inner: { code: "inner" },
      seen: 4,
    });
    const names = (await query("nested:names")) as string[];
    expect(names.slice(3)).toEqual(["before", "after"]);
  });

  test("wait for each other when one starts several at once", async () => {
    const { mutation } = await open({ project: "nested" });
    expect(await mutation("nested:parallel", {})).toEqual([1, 2, 3, 4]);
  });

  test("cannot call themselves without end", async () => {
    const { mutation } = await open({ project: "nested" });
    const outcome = await failureOf(mutation("nested:recurse", {}));
    expect(outcome.errorMessage).toContain("call depth limit exceeded");
  });

  test("give the first outcome again to a repeated request", async () => {
    const { backend, query } = await open();
    const call = {
      path: "items:add",
      args: { group: "once", rank: 1 },
      identity: nobody,
      request: { sessionId: "5f2c", requestId: 3 },
    };
    const first = await backend.runMutation(call);
    const second = await backend.runMutation(call);
    expect(valueOf(second.outcome)).toBe(valueOf(first.outcome));
    expect(second.ts).toBe(first.ts);
    expect(await query("items:take", { group: "once", n: 9 })).toEqual([1]);
    const other = { ...call, request: { sessionId: "5f2c", requestId: 4 } };
    expect(valueOf((await backend.runMutation(other)).outcome)).not.toBe(valueOf(first.outcome));
  });

  test("that failed are run again when the request is repeated", async () => {
    const { backend } = await open();
    const request = { sessionId: "5f2c", requestId: 1 };
    const call = { identity: nobody, request };
    const failed = await backend.runMutation({
      ...call,
      path: "items:addThenThrow",
      args: { how: "plain" },
    });
    expect(failed).toMatchObject({ ts: null, outcome: { status: "error" } });
    const again = await backend.runMutation({
      ...call,
      path: "items:add",
      args: { group: "a", rank: 1 },
    });
    expect(again.outcome.status).toBe("success");
  });

  test("are undone when the caller refuses the commit", async () => {
    const { backend, query } = await open();
    const call = { path: "items:add", args: { group: "a", rank: 1 }, identity: nobody };
    const refused = backend.runMutation({
      ...call,
      beforeCommit: () => {
        throw new Error("refused");
      },
    });
    await expect(refused).rejects.toThrow("refused");
    expect(await query("items:everything")).toEqual([]);
  });
});

describe("what functions see", () => {
  test("time stands still and chance is drawn anew", async () => {
    const { mutation, query } = await open({ project: "globals", env: { GREETING: "hello" } });
    const before = Date.now();
    const seen = (await query("globals:time")) as Record<string, number[]>;
    expect(new Set(seen["now"])).toHaveLength(1);
    expect(seen["now"]?.[0]).toBeGreaterThanOrEqual(before);
    expect(seen["random"]?.[0]).not.toBe(seen["random"]?.[1]);
    const again = (await query("globals:time")) as Record<string, number[]>;
    expect(again["random"]).not.toEqual(seen["random"]);
    expect(await mutation("globals:offset")).toBe(0);
  });

  test("no timers, no fetch, the deployment's environment and no other", async () => {
    const { query } = await open({ project: "globals", env: { GREETING: "hello" } });
    expect(await query("globals:environment")).toEqual(["GREETING=hello"]);
    for (const name of ["fetch", "setTimeout"]) {
      const outcome = await failureOf(query("globals:forbidden", { name }));
      expect(outcome.errorMessage).toContain(`Can't use ${name}() in queries and mutations`);
    }
  });

  test("bytes, text and URLs of the runtime", async () => {
    const { query } = await open({ project: "globals" });
    expect(await query("globals:bytes", { text: "héllo" })).toEqual({
      $bytes: Buffer.from("héllo").toString("base64"),
    });
    expect(await query("globals:host", { url: "https://a.example:8080/x" })).toBe("a.example:8080");
  });

  test("console lines are handed to the caller", async () => {
    const { backend } = await open({ project: "globals" });
    const { outcome } = await backend.runQuery({
      path: "globals:logs",
      args: {},
      identity: nobody,
    });
    expect(outcome.logLines).toEqual(["[LOG] 'one' { two: 2 }", "[WARN] [ 3 ]"]);
  });

  test("who calls", async () => {
    const { backend } = await open({ project: "globals" });
    const attributes = { subject: "s", issuer: "i", tokenIdentifier: "i|s", role: "agent" };
    const call = { path: "globals:whoami", args: {} };
    const known = await backend.runQuery({ ...call, identity: { kind: "user", attributes } });
    expect(valueOf(known.outcome)).toEqual(attributes);
    const unknown = await backend.runQuery({ ...call, identity: nobody });
    expect(valueOf(unknown.outcome)).toBeNull();
  });

  test("syscalls that are not there are named", async () => {
    const { query } = await open({ project: "globals" });
    const outcome = await failureOf(query("globals:storage"));
    expect(outcome.errorMessage).toContain(
      "convex-local does not have the syscall 1.0/storageGetUrl (file storage)",
    );
  });

  test("a promise that a function leaves rejected is a log line, not the end of the process", async () => {
    const { query, logs } = await open({ project: "globals" });
    expect(await query("globals:floating")).toBe("done");
    await expect.poll(() => logs.join()).toContain("Error: nobody listens");
  });
});

describe("who may call what", () => {
  test("internal functions look missing from outside", async () => {
    const { backend, mutation } = await open();
    const missing = "Did you forget to run `npx convex dev`?";
    const hidden = await failureOf(mutation("items:secret"));
    expect(hidden.errorMessage).toBe(
      `Could not find public function for 'items:secret'. ${missing}`,
    );
    const absent = await failureOf(mutation("items:absent"));
    expect(absent.errorMessage).toBe(
      `Could not find public function for 'items:absent'. ${missing}`,
    );
    const call = { path: "items:secret", args: {}, identity: admin };
    expect(valueOf((await backend.runMutation(call)).outcome)).toBe("hidden");
  });

  test("a function runs as what it is", async () => {
    const { query, backend } = await open();
    const outcome = await failureOf(query("items:add", { group: "a", rank: 1 }));
    expect(outcome.errorMessage).toContain("as Query, but it is defined as Mutation");
    expect(backend.functionType("items.js:add")).toBe("mutation");
    expect(backend.functionType("items:absent")).toBeNull();
  });
});

describe("validation", () => {
  test("of arguments", async () => {
    const { mutation } = await open();
    const wrong = await failureOf(mutation("items:add", { group: 1, rank: 1 }));
    expect(wrong.errorMessage).toBe(
      "ArgumentValidationError: Value does not match validator.\nPath: .group\nValue: 1.0\n" +
        "Validator: v.string()",
    );
    const missing = await failureOf(mutation("items:add", { group: "a" }));
    expect(missing.errorMessage).toContain("Object is missing the required field `rank`.");
    const extra = await failureOf(mutation("items:add", { group: "a", rank: 1, x: 1 }));
    expect(extra.errorMessage).toContain("Object contains extra field `x`");
    const id = await failureOf(mutation("items:set", { id: "nonsense" }));
    expect(id.errorMessage).toContain('Validator: v.id("items")');
    expect(wrong.usage).toMatchObject(noChange);
  });

  test("of results, where null is not the same as no validator", async () => {
    const { query } = await open();
    const outcome = await failureOf(query("items:wrongReturn"));
    expect(outcome.errorMessage).toContain(
      "ReturnsValidationError: Value does not match validator",
    );
    expect(await query("items:nullable", { value: null })).toBeNull();
    expect(await query("items:nullable", { value: 3 })).toBe(3);
  });

  test("of documents against the schema", async () => {
    const { mutation, query } = await open();
    const item = (await mutation("items:add", { group: "a", rank: 1 })) as string;
    const wrong = await failureOf(
      mutation("items:replace", { id: item, value: { group: "a", rank: "high" } }),
    );
    expect(wrong.errorMessage).toContain(
      'Failed to insert or update a document in table "items" because it does not match the ' +
        "schema: Value does not match validator.\nPath: .rank",
    );
    const owner = (await mutation("items:own", { item, name: "n" })) as string;
    const foreign = await failureOf(mutation("items:own", { item: owner, name: "n" }));
    expect(foreign.errorMessage).toContain(`Found ID "${owner}" from table \`owners\``);
    expect(await query("items:normalize", { table: "owners", id: owner })).toBe(owner);
    expect(await query("items:normalize", { table: "items", id: owner })).toBeNull();
    expect(await query("items:normalize", { table: "items", id: "what" })).toBeNull();
  });

  test("of the system fields of a document written back", async () => {
    const { mutation, query } = await open();
    const id = await mutation("items:add", { group: "a", rank: 1 });
    const document = (await query("items:get", { id })) as Record<string, never>;
    await mutation("items:replace", { id, value: { ...document, rank: 2 } });
    const outcome = await failureOf(
      mutation("items:replace", { id, value: { ...document, _creationTime: 5 } }),
    );
    expect(outcome.errorMessage).toContain("Provided creation time 5 doesn't match");
  });
});
