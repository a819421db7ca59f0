/** Conformance: `ConvexHttpClient` of the npm package, unmodified. */
import { randomUUID } from "node:crypto";
import { ConvexHttpClient } from "convex/browser";
import { anyApi } from "convex/server";
import { ConvexError } from "convex/values";
import type { Value } from "convex/values";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { sampleValue, TestServer } from "./support.ts";

let server: TestServer;
let client: ConvexHttpClient;
let list: string;

beforeAll(async () => {
  server = await TestServer.start();
});
afterAll(async () => server.stop());
beforeEach(() => {
  client = new ConvexHttpClient(server.url, { logger: false });
  list = randomUUID();
});

const caught = (error: unknown) => error as ConvexError<Value>;

describe("JavaScript ConvexHttpClient", () => {
  test("queries, mutations and actions", async () => {
    await client.mutation(anyApi.notes!.add!, { list, text: "a" });
    expect(await client.action(anyApi.notes!.addByAction!, { list, text: "b" })).toBe(2);
    expect(await client.query(anyApi.notes!.list!, { list })).toEqual(["a", "b"]);
    // Deprecated, and still what calls /api/query_ts and /api/query_at_ts.
    // eslint-disable-next-line @typescript-eslint/no-deprecated
    expect(await client.consistentQuery(anyApi.notes!.list!, { list })).toEqual(["a", "b"]);
  });

  test("a ConvexError keeps its data, another error is an Error", async () => {
    const refused = await client.mutation(anyApi.notes!.addAndRefuse!, { list }).catch(caught);
    expect(refused).toBeInstanceOf(ConvexError);
    expect(refused.data).toEqual({ code: "refused", limit: 5n, where: { list } });
    expect(await client.query(anyApi.notes!.list!, { list })).toEqual([]);
    const crashed = await client.query(anyApi.values!.crash!, {}).catch(caught);
    expect(crashed).toBeInstanceOf(Error);
    expect(crashed).not.toBeInstanceOf(ConvexError);
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

  test("a JWT is the caller's identity, a bad one an error", async () => {
    client.setAuth(await server.issuer.token({ role: "agent" }));
    expect(await client.query(anyApi.people!.whoami!, {})).toMatchObject({
      subject: "ada",
      role: "agent",
    });
    client.setAuth("nonsense");
    await expect(client.query(anyApi.people!.whoami!, {})).rejects.toThrow("InvalidAuthHeader");
    client.clearAuth();
    expect(await client.query(anyApi.people!.whoami!, {})).toBeNull();
  });

  test("the admin key may call internal functions and act as a user", async () => {
    await expect(client.query(anyApi.people!.hidden!, {})).rejects.toThrow();
    const admin = client as unknown as {
      setAdminAuth(key: string, identity?: Record<string, string>): void;
    };
    admin.setAdminAuth(server.adminKey);
    expect(await client.query(anyApi.people!.hidden!, {})).toBe("for admins");
    admin.setAdminAuth(server.adminKey, { issuer: "i", subject: "s", name: "Zoë" });
    expect(await client.query(anyApi.people!.whoami!, {})).toMatchObject({ subject: "s" });
  });

  test("pages follow each other by their cursors", async () => {
    const texts = Array.from({ length: 7 }, (_, index) => `n${index}`);
    await client.mutation(anyApi.notes!.addMany!, { list, texts });
    const seen: string[] = [];
    let cursor: string | null = null;
    for (let done = false; !done;) {
      const paginationOpts = { numItems: 3, cursor };
      const page: { page: { text: string }[]; isDone: boolean; continueCursor: string } =
        await client.query(anyApi.notes!.page!, { list, paginationOpts });
      seen.push(...page.page.map(({ text }) => text));
      ({ isDone: done, continueCursor: cursor } = page);
    }
    expect(seen).toEqual(texts);
  });

  test("after a restart the next call works and the data is there", async () => {
    await client.mutation(anyApi.notes!.add!, { list, text: "kept" });
    await server.interrupt();
    await server.resume();
    expect(await client.query(anyApi.notes!.list!, { list })).toEqual(["kept"]);
  });
});
