import path from "node:path";
import { describe, expect, test } from "vitest";
import type { QueryOutcome, ReadSet } from "../../src/backend.ts";
import { MAX_DOCUMENTS_WRITTEN } from "../../src/limits.ts";
import { Store } from "../../src/store.ts";
import { Transaction } from "../../src/transaction.ts";
import { nobody, open, temporaryDirectory, valueOf, type Opened } from "./support.ts";

const BATCH = 4000;

async function fill(backend: Opened, group: string, count: number): Promise<void> {
  for (let from = 0; from < count; from += BATCH) {
    await backend.mutation("items:addMany", { group, from, count: Math.min(BATCH, count - from) });
  }
}

/** Without running a function: a hundred thousand rows in seconds. */
async function insertDirectly(dbPath: string, count: number): Promise<void> {
  const store = await Store.open(dbPath);
  for (let from = 0; from < count; from += MAX_DOCUMENTS_WRITTEN) {
    store.transaction(() => {
      const tx = new Transaction({ store, schema: null, readOnly: false, startedAt: Date.now() });
      for (let i = 0; i < Math.min(MAX_DOCUMENTS_WRITTEN, count - from); i += 1) {
        tx.insert("items", { group: "g", rank: i });
      }
    });
  }
  store.close();
}

const run = async (opened: Opened, name: string, args: object): Promise<QueryOutcome> =>
  await opened.backend.runQuery({ path: name, args: args as never, identity: nobody });

describe("the cost of a query", () => {
  test("is the same over 1,000 and over 100,000 rows", { timeout: 120_000 }, async () => {
    const dbPath = path.join(temporaryDirectory(), "db.sqlite3");
    const cost = async (): Promise<unknown> => {
      const opened = await open({ dbPath });
      const { outcome } = await run(opened, "items:take", { group: "g", n: 20, order: "desc" });
      await opened.backend.close();
      return outcome.usage;
    };
    await cost();
    await insertDirectly(dbPath, 1_000);
    const small = await cost();
    await insertDirectly(dbPath, 99_000);
    expect(await cost()).toEqual(small);
    expect(small).toMatchObject({ documentsRead: 20, ranges: 1, documentsWritten: 0 });
  });

  test("counts what was consumed, and what a filter dropped on the way", async () => {
    const opened = await open();
    await fill(opened, "g", 100);
    const { outcome } = await run(opened, "items:even", { group: "g", n: 3 });
    expect(valueOf(outcome)).toEqual([0, 2, 4]);
    expect(outcome.usage).toMatchObject({ documentsRead: 5, ranges: 1 });
    const first = await run(opened, "items:first", { group: "g" });
    expect(first.outcome.usage.documentsRead).toBe(1);
    const none = await run(opened, "items:first", { group: "absent" });
    expect(none.outcome.usage).toMatchObject({ documentsRead: 0, ranges: 1 });
  });

  test("counts bytes as Convex sizes documents", async () => {
    const opened = await open();
    const id = await opened.mutation("items:add", { group: "g", rank: 1 });
    const { outcome } = await run(opened, "items:get", { id });
    const { getConvexSize } = await import("convex/values");
    expect(outcome.usage.bytesRead).toBe(getConvexSize(valueOf(outcome) as never));
  });
});

describe("read sets", () => {
  async function touchedBy(opened: Opened, readSet: ReadSet, write: () => Promise<unknown>) {
    let touched = false;
    const stop = opened.backend.onCommit((commit) => {
      touched ||= commit.touches(readSet);
    });
    await write();
    stop();
    return touched;
  }

  test("end where the query stopped reading", async () => {
    const opened = await open();
    await fill(opened, "g", 50);
    const { readSet } = await run(opened, "items:take", { group: "g", n: 20 });
    const add = (group: string, rank: number) => () =>
      opened.mutation("items:add", { group, rank });
    expect(await touchedBy(opened, readSet, add("g", 20))).toBe(false);
    expect(await touchedBy(opened, readSet, add("g", 19.5))).toBe(false);
    expect(await touchedBy(opened, readSet, add("other", 1))).toBe(false);
    expect(await touchedBy(opened, readSet, add("g", 18.5))).toBe(true);
    expect(await touchedBy(opened, readSet, add("g", -1))).toBe(true);
  });

  test("end there backwards as well", async () => {
    const opened = await open();
    await fill(opened, "g", 50);
    const { readSet } = await run(opened, "items:take", { group: "g", n: 20, order: "desc" });
    const add = (rank: number) => () => opened.mutation("items:add", { group: "g", rank });
    expect(await touchedBy(opened, readSet, add(29.5))).toBe(false);
    expect(await touchedBy(opened, readSet, add(30.5))).toBe(true);
    expect(await touchedBy(opened, readSet, add(1000))).toBe(true);
  });

  test("reach to the end of the range when fewer were found", async () => {
    const opened = await open();
    await fill(opened, "g", 5);
    const { readSet } = await run(opened, "items:take", { group: "g", n: 20 });
    const add = (group: string) => () => opened.mutation("items:add", { group, rank: 1e9 });
    expect(await touchedBy(opened, readSet, add("h"))).toBe(false);
    expect(await touchedBy(opened, readSet, add("g"))).toBe(true);
  });

  test("hold exclusive and inclusive bounds apart", async () => {
    const opened = await open();
    const { readSet } = await run(opened, "items:between", { group: "g", from: 3, to: 6 });
    const add = (rank: number) => () => opened.mutation("items:add", { group: "g", rank });
    expect(await touchedBy(opened, readSet, add(3))).toBe(false);
    expect(await touchedBy(opened, readSet, add(6.1))).toBe(false);
    expect(await touchedBy(opened, readSet, add(6))).toBe(true);
    expect(await touchedBy(opened, readSet, add(3.1))).toBe(true);
  });

  test("of one document know its changes and no other's", async () => {
    const opened = await open();
    const id = await opened.mutation("items:add", { group: "g", rank: 1 });
    const other = await opened.mutation("items:add", { group: "g", rank: 1 });
    const { readSet } = await run(opened, "items:get", { id: id as string });
    const set = (changed: unknown) => () =>
      opened.mutation("items:set", { id: changed as string, note: "new" });
    expect(await touchedBy(opened, readSet, set(other))).toBe(false);
    expect(await touchedBy(opened, readSet, set(id))).toBe(true);
    const remove = () => opened.mutation("items:remove", { id });
    expect(await touchedBy(opened, readSet, remove)).toBe(true);
  });

  test("see a document that moves away or changes in place", async () => {
    const opened = await open();
    const id = await opened.mutation("items:add", { group: "g", rank: 1 });
    const { readSet } = await run(opened, "items:between", { group: "g", from: 0, to: 2 });
    const set = (fields: object) => () => opened.mutation("items:set", { id, ...fields });
    expect(await touchedBy(opened, readSet, set({ note: "in place" }))).toBe(true);
    expect(await touchedBy(opened, readSet, set({ rank: 9 }))).toBe(true);
    expect(await touchedBy(opened, readSet, set({ rank: 10 }))).toBe(false);
  });

  test("of a table nobody has written to yet", async () => {
    const opened = await open({ project: "nested" });
    const { readSet } = await run(opened, "nested:names", {});
    const write = () => opened.mutation("nested:outer", { fail: false });
    expect(await touchedBy(opened, readSet, write)).toBe(true);
  });

  test("a mutation that failed touches nothing", async () => {
    const opened = await open();
    const { readSet } = await run(opened, "items:everything", {});
    const write = () =>
      opened.mutation("items:addThenThrow", { how: "plain" }).catch(() => undefined);
    expect(await touchedBy(opened, readSet, write)).toBe(false);
  });
});

describe("pages", () => {
  interface Page {
    page: number[];
    isDone: boolean;
    continueCursor: string;
    splitCursor: string | null;
    pageStatus: string | null;
  }

  const page = async (
    opened: Opened,
    options: object,
    journal: string | null = null,
  ): Promise<{ page: Page; journal: string | null; reads: number }> => {
    const { outcome, journal: next } = await opened.backend.runQuery({
      path: "items:page",
      args: { group: "g", paginationOpts: { numItems: 3, cursor: null, ...options } },
      identity: nobody,
      journal,
    });
    return {
      page: valueOf(outcome) as unknown as Page,
      journal: next,
      reads: outcome.usage.documentsRead,
    };
  };

  test("follow one another to the end", async () => {
    const opened = await open();
    await fill(opened, "g", 7);
    const first = await page(opened, {});
    expect(first).toMatchObject({ page: { page: [0, 1, 2], isDone: false }, reads: 3 });
    const second = await page(opened, { cursor: first.page.continueCursor });
    expect(second.page).toMatchObject({ page: [3, 4, 5], isDone: false });
    const third = await page(opened, { cursor: second.page.continueCursor });
    expect(third.page).toMatchObject({ page: [6], isDone: true });
    const fourth = await page(opened, { cursor: third.page.continueCursor });
    expect(fourth.page).toMatchObject({ page: [], isDone: true });
  });

  test("keep their end when they are read again by their journal", async () => {
    const opened = await open();
    await fill(opened, "g", 7);
    const first = await page(opened, {});
    await opened.mutation("items:add", { group: "g", rank: 1.5 });
    await opened.mutation("items:add", { group: "g", rank: 2.5 });
    const again = await page(opened, {}, first.journal);
    expect(again.page.page).toEqual([0, 1, 1.5, 2]);
    expect(again.page.continueCursor).toBe(first.page.continueCursor);
    expect(again.journal).toBe(first.journal);
    const next = await page(opened, { cursor: again.page.continueCursor });
    expect(next.page.page).toEqual([2.5, 3, 4]);
  });

  test("split at a cursor, as clients split pages that have grown", async () => {
    const opened = await open();
    await fill(opened, "g", 9);
    const whole = await page(opened, { numItems: 6 });
    const { splitCursor, continueCursor } = whole.page;
    const left = await page(opened, { endCursor: splitCursor });
    const right = await page(opened, { cursor: splitCursor, endCursor: continueCursor });
    expect([...left.page.page, ...right.page.page]).toEqual([0, 1, 2, 3, 4, 5]);
  });

  test("stop early at maximumRowsRead, and say so", async () => {
    const opened = await open();
    await fill(opened, "g", 9);
    const { page: stopped } = await page(opened, { numItems: 6, maximumRowsRead: 2 });
    expect(stopped).toMatchObject({ page: [0, 1], isDone: false, pageStatus: "SplitRequired" });
  });

  test("refuse a cursor of another query, in the way React starts over on", async () => {
    const opened = await open();
    await fill(opened, "g", 9);
    await fill(opened, "h", 9);
    const { page: first } = await page(opened, {});
    const { outcome } = await run(opened, "items:page", {
      group: "h",
      paginationOpts: { numItems: 3, cursor: first.continueCursor },
    });
    expect(outcome).toMatchObject({
      status: "error",
      errorData: { isConvexSystemError: true, paginationError: "InvalidCursor" },
    });
  });
});

describe("index ranges", () => {
  test("must use the index's fields in order", async () => {
    const opened = await open();
    const { outcome } = await run(opened, "items:wrongOrder", {});
    expect(outcome).toMatchObject({
      errorMessage: expect.stringContaining("didn't use the index fields in order") as string,
    });
  });

  test("tell a missing field, null and zero apart", async () => {
    const opened = await open({ project: "values" });
    await opened.mutation("values:add", {});
    for (const value of [null, 0, "x", [1]]) await opened.mutation("values:add", { value });
    expect(await opened.query("values:range", { gt: null })).toEqual([0, "x", [1]]);
    expect(await opened.query("values:range", { gte: null, lt: "x" })).toEqual([null, 0]);
    expect(await opened.query("values:range", { lte: "x", gt: 0 })).toEqual(["x"]);
  });
});
