/** Conformance: `ConvexClient` of the npm package, unmodified, over WebSocket. */
import { randomUUID } from "node:crypto";
import { ConvexClient } from "convex/browser";
import { anyApi } from "convex/server";
import { ConvexError } from "convex/values";
import type { Value } from "convex/values";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { sampleValue, TestServer, until } from "./support.ts";

let server: TestServer;
let client: ConvexClient;
let list: string;

beforeAll(async () => {
  server = await TestServer.start();
});
afterAll(async () => server.stop());
beforeEach(() => {
  client = new ConvexClient(server.url, { logger: false });
  list = randomUUID();
});
afterEach(async () => {
  await client.close();
  await server.clearFaults();
});

const caught = (error: unknown) => error as ConvexError<Value>;

/** Every result of a subscription, in order. */
function watch(path: "list" | "longest" | "page", args: Record<string, unknown>) {
  const values: unknown[] = [];
  const errors: Error[] = [];
  const stop = client.onUpdate(
    anyApi.notes![path]!,
    args,
    (value: unknown) => values.push(value),
    (error) => errors.push(error),
  );
  return { values, errors, stop };
}

describe("JavaScript ConvexClient", () => {
  test("queries, mutations and actions", async () => {
    await client.mutation(anyApi.notes!.add!, { list, text: "a" });
    expect(await client.action(anyApi.notes!.addByAction!, { list, text: "b" })).toBe(2);
    expect(await client.query(anyApi.notes!.list!, { list })).toEqual(["a", "b"]);
  });

  test("a subscription sees every change once, of this client and of others", async () => {
    const other = new ConvexClient(server.url, { logger: false });
    const { values } = watch("list", { list });
    await until(() => values.length === 1, "the first result");
    await client.mutation(anyApi.notes!.add!, { list, text: "mine" });
    await until(() => values.length === 2, "the own change");
    await client.mutation(anyApi.notes!.add!, { list: randomUUID(), text: "elsewhere" });
    await other.mutation(anyApi.notes!.add!, { list, text: "theirs" });
    await until(() => values.length === 3, "the other's change");
    expect(values).toEqual([[], ["mine"], ["mine", "theirs"]]);
    await other.close();
  });

  test("a ConvexError keeps its data in mutations, actions' errors are errors, queries recover", async () => {
    const refused = await client.mutation(anyApi.notes!.addAndRefuse!, { list }).catch(caught);
    expect(refused).toBeInstanceOf(ConvexError);
    expect(refused.data).toEqual({ code: "refused", limit: 5n, where: { list } });
    const { values, errors } = watch("longest", { list });
    await until(() => errors.length === 1, "the query fails");
    expect((errors[0] as ConvexError<{ code: string }>).data).toEqual({ code: "empty", list });
    await client.mutation(anyApi.notes!.add!, { list, text: "abc" });
    await until(() => values.length === 1, "the query recovers");
    expect(values).toEqual([3]);
  });

  test.each(["echoQuery", "echoMutation", "echoAction"])(
    "%s gives every value back",
    async (name) => {
      const call = { echoQuery: "query", echoMutation: "mutation", echoAction: "action" }[
        name
      ] as "query";
      const value = sampleValue();
      expect(await client[call](anyApi.values![name]!, { value })).toEqual(value);
    },
  );

  test("a JWT is the caller's identity; a rejected one is asked for again", async () => {
    const tokens = ["nonsense", await server.issuer.token()];
    const changes: boolean[] = [];
    client.setAuth(
      () => Promise.resolve(tokens.shift() ?? null),
      (isAuthenticated) => changes.push(isAuthenticated),
    );
    await until(() => changes.includes(true), "the second token is believed");
    expect(await client.query(anyApi.people!.whoami!, {})).toMatchObject({ subject: "ada" });
    expect(await client.mutation(anyApi.people!.whoamiMutation!, {})).toBe("ada");
    expect(await client.action(anyApi.people!.whoamiAction!, {})).toBe("ada");
  });

  test("the admin key may call internal functions", async () => {
    const admin = client.client as unknown as { setAdminAuth(key: string): void };
    admin.setAdminAuth(server.adminKey);
    expect(await client.query(anyApi.people!.hidden!, {})).toBe("for admins");
  });

  test("a page grows with its list up to the end it began with", async () => {
    await client.mutation(anyApi.notes!.addMany!, { list, texts: ["a", "b", "c", "d"] });
    const first = watch("page", { list, paginationOpts: { numItems: 2, cursor: null, id: 1 } });
    type Page = { page: { text: string; _id: string }[]; continueCursor: string; isDone: boolean };
    await until(() => first.values.length === 1, "the first page");
    const { continueCursor: cursor } = first.values[0] as Page;
    const second = watch("page", { list, paginationOpts: { numItems: 2, cursor, id: 1 } });
    await until(() => second.values.length === 1, "the second page");
    expect((second.values[0] as Page).page.map(({ text }) => text)).toEqual(["c", "d"]);
    await client.mutation(anyApi.notes!.add!, { list, text: "e" });
    const { page, isDone } = await client.query(anyApi.notes!.page!, {
      list,
      paginationOpts: { numItems: 5, cursor, id: 2 },
    });
    expect(page.map(({ text }: { text: string }) => text)).toEqual(["c", "d", "e"]);
    expect(isDone).toBe(true);
    expect(first.values).toHaveLength(1);
  });

  test("a mutation whose reply is lost is sent again and applied once", async () => {
    const { values } = watch("list", { list });
    await until(() => values.length === 1, "the first result");
    await server.fault({ kind: "drop_reply", path: "notes:add", times: 1 });
    await client.mutation(anyApi.notes!.add!, { list, text: "once" });
    expect(await client.query(anyApi.notes!.list!, { list })).toEqual(["once"]);
    expect((await server.calls())["notes:add"]!["faults"]).toBeGreaterThanOrEqual(1);
    expect(values.at(-1)).toEqual(["once"]);
  });

  test("a deployment that refuses is asked again until it takes the mutation", async () => {
    await server.fault({ kind: "unavailable", path: "notes:add", times: 1 });
    await client.mutation(anyApi.notes!.add!, { list, text: "late" });
    expect(await client.query(anyApi.notes!.list!, { list })).toEqual(["late"]);
  }, 30_000);

  test("subscriptions and queued mutations go on after the server restarts", async () => {
    const { values } = watch("list", { list });
    await client.mutation(anyApi.notes!.add!, { list, text: "before" });
    await server.interrupt();
    const queued = client.mutation(anyApi.notes!.add!, { list, text: "during" });
    await server.resume();
    await queued;
    await until(() => (values.at(-1) as string[]).length === 2, "the subscription is live again");
    expect(values.at(-1)).toEqual(["before", "during"]);
  }, 60_000);

  test("results of 7 MB arrive", async () => {
    const big = await client.query(anyApi.values!.big!, { megabytes: 7 });
    expect((big as string).length).toBe(3_500_000);
  });
});
