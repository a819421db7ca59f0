// @vitest-environment jsdom
/// <reference lib="dom" />
/** Conformance: `convex/react` of the npm package, unmodified, in a page (jsdom). */
import { act, cleanup, render, screen, waitFor } from "@testing-library/react";
import {
  ConvexProvider,
  ConvexReactClient,
  useConvexAuth,
  useMutation,
  usePaginatedQuery,
  useQuery,
} from "convex/react";
import { ConvexProviderWithAuth, useAction } from "convex/react";
import { anyApi } from "convex/server";
import { ConvexError } from "convex/values";
import type { Value } from "convex/values";
import { createElement } from "react";
import type { ReactNode } from "react";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { WebSocket } from "ws";
import { sampleValue, TestServer } from "./support.ts";

const WAIT = { timeout: 20_000 };

let server: TestServer;
let client: ConvexReactClient;
let list: string;

beforeAll(async () => {
  server = await TestServer.start();
});
afterAll(async () => server.stop());
beforeEach(() => {
  // jsdom's own WebSocket and the Event of Node beneath it do not know each other.
  const webSocketConstructor = WebSocket as unknown as typeof globalThis.WebSocket;
  client = new ConvexReactClient(server.url, { logger: false, webSocketConstructor });
  list = crypto.randomUUID();
});
afterEach(async () => {
  cleanup();
  await client.close();
  await server.clearFaults();
});

function page(...children: ReactNode[]) {
  return render(createElement(ConvexProvider, { client, children }));
}

function Notes() {
  const notes = useQuery(anyApi.notes!.list!, { list }) as string[] | undefined;
  return createElement("output", { "data-testid": "notes" }, notes?.join(",") ?? "loading");
}

let run: Record<string, (args: Record<string, Value>) => Promise<unknown>> = {};

function Buttons() {
  run = {
    add: useMutation(anyApi.notes!.add!),
    refuse: useMutation(anyApi.notes!.addAndRefuse!),
    echo: useMutation(anyApi.values!.echoMutation!),
    act: useAction(anyApi.notes!.addByAction!),
    hopeful: useMutation(anyApi.notes!.add!).withOptimisticUpdate((store, { list, text }) => {
      const notes = (store.getQuery(anyApi.notes!.list!, { list }) ?? []) as string[];
      store.setQuery(anyApi.notes!.list!, { list }, [...notes, `${text}?`]);
    }),
  };
  return null;
}

const notes = () => screen.getByTestId("notes").textContent;
const shown = (text: string) => waitFor(() => expect(notes()).toBe(text), WAIT);

describe("convex/react", () => {
  test("useQuery shows a result and its changes, useMutation and useAction make them", async () => {
    page(createElement(Notes, { key: 1 }), createElement(Buttons, { key: 2 }));
    expect(notes()).toBe("loading");
    await shown("");
    await act(async () => run["add"]!({ list, text: "a" }));
    await shown("a");
    await act(async () => run["act"]!({ list, text: "b" }));
    await shown("a,b");
    await server.post("/api/mutation", { path: "notes:add", args: { list, text: "c" } });
    await shown("a,b,c");
  });

  test("an optimistic update gives way to the real result without a flicker", async () => {
    page(createElement(Notes, { key: 1 }), createElement(Buttons, { key: 2 }));
    await shown("");
    // What every component is offered to show; React itself skips states inside `act`.
    const seen: unknown[] = [];
    const watched = client.watchQuery(anyApi.notes!.list!, { list });
    const stop = watched.onUpdate(() => seen.push(watched.localQueryResult()));
    await act(async () => run["hopeful"]!({ list, text: "a" }));
    await shown("a");
    stop();
    expect(seen).toEqual([["a?"], ["a"]]);
  });

  test("a mutation's ConvexError keeps its data, values come back as they went", async () => {
    page(createElement(Buttons, { key: 1 }));
    const refused = await run["refuse"]!({ list }).catch((error: unknown) => error);
    expect((refused as ConvexError<Value>).data).toEqual({
      code: "refused",
      limit: 5n,
      where: { list },
    });
    // jsdom has its own ArrayBuffer, which the client does not take for one.
    const { bytes: _bytes, ...value } = sampleValue();
    expect(await run["echo"]!({ value })).toEqual(value);
  });

  test("a query's ConvexError keeps its data", async () => {
    const result = await client.query(anyApi.notes!.longest!, { list }).catch((e: unknown) => e);
    expect((result as ConvexError<Value>).data).toEqual({ code: "empty", list });
  });

  test("usePaginatedQuery loads more and stays live", async () => {
    let loadMore: (count: number) => void = () => {};
    function Paged() {
      const paged = usePaginatedQuery(anyApi.notes!.page!, { list }, { initialNumItems: 2 });
      loadMore = paged.loadMore;
      const texts = (paged.results as { text: string }[]).map(({ text }) => text).join(",");
      return createElement("output", { "data-testid": "notes" }, `${paged.status}:${texts}`);
    }
    const texts = ["a", "b", "c", "d", "e"];
    await server.post("/api/mutation", { path: "notes:addMany", args: { list, texts } });
    page(createElement(Paged, { key: 1 }));
    await shown("CanLoadMore:a,b");
    act(() => loadMore(2));
    await shown("CanLoadMore:a,b,c,d");
    act(() => loadMore(2));
    await shown("Exhausted:a,b,c,d,e");
    await server.post("/api/mutation", { path: "notes:add", args: { list, text: "f" } });
    await shown("Exhausted:a,b,c,d,e,f");
  });

  test("ConvexProviderWithAuth signs in with a JWT", async () => {
    const token = await server.issuer.token();
    const auth = {
      isLoading: false,
      isAuthenticated: true,
      fetchAccessToken: () => Promise.resolve(token),
    };
    function Who() {
      const { isAuthenticated } = useConvexAuth();
      const who = useQuery(anyApi.people!.whoami!, isAuthenticated ? {} : "skip") as
        { subject: string } | undefined;
      return createElement("output", { "data-testid": "notes" }, who?.subject ?? "nobody");
    }
    render(
      createElement(ConvexProviderWithAuth, {
        client,
        useAuth: () => auth,
        children: createElement(Who),
      }),
    );
    await shown("ada");
  });

  test("the admin key may call internal functions", async () => {
    const admin = client as unknown as { setAdminAuth(key: string): void };
    admin.setAdminAuth(server.adminKey);
    function Hidden() {
      const text = useQuery(anyApi.people!.hidden!, {}) as string | undefined;
      return createElement("output", { "data-testid": "notes" }, text ?? "loading");
    }
    page(createElement(Hidden, { key: 1 }));
    await shown("for admins");
  });

  test("a mutation whose reply is lost is applied once", async () => {
    page(createElement(Notes, { key: 1 }), createElement(Buttons, { key: 2 }));
    await shown("");
    await server.fault({ kind: "drop_reply", path: "notes:add", times: 1 });
    await act(async () => run["add"]!({ list, text: "once" }));
    await shown("once");
  });

  test("the page goes on after the server restarts", async () => {
    page(createElement(Notes, { key: 1 }), createElement(Buttons, { key: 2 }));
    await act(async () => run["add"]!({ list, text: "before" }));
    await shown("before");
    await server.interrupt();
    const queued = run["add"]!({ list, text: "during" });
    await server.resume();
    await act(async () => queued);
    await shown("before,during");
  }, 60_000);
});
