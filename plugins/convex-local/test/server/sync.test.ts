/** The sync protocol, message by message, as official clients depend on it. */
import { randomUUID } from "node:crypto";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { WebSocket } from "ws";
import { TestServer, until } from "./support.ts";

let server: TestServer;
let sockets: Socket[] = [];
let list: string;

beforeAll(async () => {
  server = await TestServer.start();
});
afterAll(async () => server.stop());
beforeEach(() => {
  list = randomUUID();
});
afterEach(async () => {
  for (const socket of sockets) socket.end();
  sockets = [];
  await server.clearFaults();
});

type Message = Record<string, unknown> & { type: string };
interface Version {
  querySet: number;
  identity: number;
  ts: string;
}

const ZERO: Version = { querySet: 0, identity: 0, ts: "AAAAAAAAAAA=" };

function tsOf(text: unknown): bigint {
  return Buffer.from(text as string, "base64").readBigUInt64LE();
}

class Socket {
  readonly #socket: WebSocket;
  readonly received: Message[] = [];
  closed: { code: number; reason: string } | null = null;
  /** The end version of the last Transition; checked to be the start of the next. */
  version: Version = ZERO;
  readonly sessionId: string;

  private constructor(socket: WebSocket, sessionId: string) {
    this.#socket = socket;
    this.sessionId = sessionId;
    socket.on("message", (data) => {
      const message = JSON.parse((data as Buffer).toString()) as Message;
      if (message.type === "Transition") {
        expect(message["startVersion"]).toEqual(this.version);
        const end = message["endVersion"] as Version;
        expect(tsOf(end.ts)).toBeGreaterThanOrEqual(tsOf(this.version.ts));
        this.version = end;
      }
      if (message.type !== "Ping") this.received.push(message);
    });
    socket.on("close", (code, reason) => (this.closed = { code, reason: reason.toString() }));
    socket.on("error", () => {});
  }

  static async open(
    options: { path?: string; sessionId?: string; connect?: object } = {},
  ): Promise<Socket> {
    const url = `${server.url.replace("http", "ws")}${options.path ?? "/api/1.48.0/sync"}`;
    const socket = new WebSocket(url);
    const opened = new Socket(socket, options.sessionId ?? randomUUID());
    sockets.push(opened);
    await new Promise((resolve) => socket.once("open", resolve));
    opened.send({
      type: "Connect",
      sessionId: opened.sessionId,
      connectionCount: 0,
      lastCloseReason: null,
      clientTs: Date.now(),
      ...options.connect,
    });
    return opened;
  }

  send(...messages: object[]): void {
    for (const message of messages) this.#socket.send(JSON.stringify(message));
  }

  raw(text: string): void {
    this.#socket.send(text);
  }

  end(): void {
    this.#socket.terminate();
  }

  /** Takes the next message of that type out of what was received. */
  async next(type: string, matches: (message: Message) => boolean = () => true): Promise<Message> {
    return await until(
      () => {
        const index = this.received.findIndex((one) => one.type === type && matches(one));
        return index < 0 ? null : this.received.splice(index, 1)[0]!;
      },
      `${type} among ${JSON.stringify(this.received).slice(0, 500)}`,
    );
  }

  /** The next Transition that says something of that query. */
  async update(queryId: number): Promise<Record<string, unknown>> {
    const of = (message: Message) =>
      (message["modifications"] as { queryId: number }[]).find((one) => one.queryId === queryId);
    return of(await this.next("Transition", (message) => of(message) !== undefined)) as Record<
      string,
      unknown
    >;
  }

  async ended(): Promise<{ code: number; reason: string }> {
    return await until(() => this.closed, "the socket closes");
  }
}

const add = (queryId: number, udfPath: string, args: object, extra: object = {}) => ({
  type: "Add",
  queryId,
  udfPath,
  args: [args],
  ...extra,
});
const modify = (baseVersion: number, ...modifications: object[]) => ({
  type: "ModifyQuerySet",
  baseVersion,
  newVersion: baseVersion + 1,
  modifications,
});
const mutation = (requestId: number, udfPath: string, args: object) => ({
  type: "Mutation",
  requestId,
  udfPath,
  args: [args],
});
const note = (requestId: number, text = "x") => mutation(requestId, "notes:add", { list, text });

describe("queries", () => {
  test("a query is answered by a Transition, and again when its rows change", async () => {
    const socket = await Socket.open();
    socket.send(modify(0, add(0, "notes:list", { list })));
    expect(await socket.update(0)).toMatchObject({ type: "QueryUpdated", value: [], logLines: [] });
    expect(socket.version).toMatchObject({ querySet: 1, identity: 0 });
    await server.post("/api/mutation", { path: "notes:add", args: { list, text: "a" } });
    expect(await socket.update(0)).toMatchObject({ value: ["a"] });
  });

  test("a Transition tells the server's time in nanoseconds and the clocks' difference", async () => {
    const socket = await Socket.open({ connect: { clientTs: Date.now() + 60_000 } });
    socket.send(modify(0, add(0, "notes:list", { list })));
    const { serverTs, clientClockSkew } = await socket.next("Transition");
    expect(Math.abs((serverTs as number) / 1e6 - Date.now())).toBeLessThan(30_000);
    expect(clientClockSkew as number).toBeGreaterThan(30_000);
  });

  test("only touched queries run again, and equal results are not sent", async () => {
    const other = randomUUID();
    const socket = await Socket.open();
    socket.send(
      modify(
        0,
        add(0, "notes:list", { list }),
        add(1, "notes:list", { list: other }),
        add(2, "notes:longest", { list: other }),
      ),
    );
    await socket.update(0);
    const before = await server.calls();
    socket.send(mutation(0, "notes:add", { list: other, text: "long" }));
    await socket.update(1);
    socket.send(mutation(1, "notes:add", { list: other, text: "s" }));
    const { modifications } = await socket.next("Transition", (message) =>
      JSON.stringify(message["modifications"]).includes('"s"'),
    );
    // The longest note is still as long: query 2 ran, and nothing is said of it.
    expect((modifications as { queryId: number }[]).map(({ queryId }) => queryId)).toEqual([1]);
    const after = await server.calls();
    const runs = (path: string) => after[path]!["calls"]! - before[path]!["calls"]!;
    expect(runs("notes:list")).toBe(2);
    expect(runs("notes:longest")).toBe(2);
  });

  test("a query that fails is a QueryFailed with its data, and recovers", async () => {
    const socket = await Socket.open();
    socket.send(modify(0, add(0, "notes:longest", { list })));
    expect(await socket.update(0)).toMatchObject({
      type: "QueryFailed",
      errorData: { code: "empty", list },
    });
    socket.send(note(0, "abc"));
    expect(await socket.update(0)).toMatchObject({ type: "QueryUpdated", value: 3 });
  });

  test("a removed query is confirmed and not run any more", async () => {
    const socket = await Socket.open();
    socket.send(modify(0, add(0, "notes:list", { list })));
    await socket.update(0);
    socket.send(modify(1, { type: "Remove", queryId: 0 }));
    expect(await socket.update(0)).toEqual({ type: "QueryRemoved", queryId: 0 });
    const before = (await server.calls())["notes:list"]!["calls"];
    socket.send(note(0));
    await socket.next("Transition");
    expect((await server.calls())["notes:list"]!["calls"]).toBe(before);
  });

  test("a page keeps its end by its journal, also when the query is added anew", async () => {
    const texts = Array.from({ length: 6 }, (_, index) => `n${index}`);
    await server.post("/api/mutation", { path: "notes:addMany", args: { list, texts } });
    const args = { list, paginationOpts: { numItems: 3, cursor: null, id: 1 } };
    type Page = { page: { text: string }[]; continueCursor: string };
    const textsOf = ({ page }: Page) => page.map(({ text }) => text);
    const first = await Socket.open();
    first.send(modify(0, add(0, "notes:page", args)));
    const { journal, value } = await first.update(0);
    expect(textsOf(value as Page)).toEqual(["n0", "n1", "n2"]);
    expect(journal).toEqual(expect.any(String));
    await server.post("/api/mutation", { path: "notes:removeFirst", args: { list } });
    // The next page begins behind n2, so this one may not reach further now.
    expect(textsOf((await first.update(0))["value"] as Page)).toEqual(["n1", "n2"]);
    const again = await Socket.open();
    again.send(modify(0, add(0, "notes:page", args, { journal }), add(1, "notes:page", args)));
    const { modifications } = await again.next("Transition");
    const [kept, fresh] = (modifications as { value: Page }[]).map((one) => one.value);
    expect(textsOf(kept!)).toEqual(["n1", "n2"]);
    expect(kept!.continueCursor).toBe((value as Page).continueCursor);
    expect(textsOf(fresh!)).toEqual(["n1", "n2", "n3"]);
  });
});

describe("mutations and actions", () => {
  test("after each response comes a Transition at or past its timestamp, failures included", async () => {
    const socket = await Socket.open();
    socket.send(note(0));
    const answered = await socket.next("MutationResponse");
    expect(answered).toMatchObject({ requestId: 0, success: true, logLines: [] });
    await socket.next("Transition");
    expect(tsOf(socket.version.ts)).toBeGreaterThanOrEqual(tsOf(answered["ts"]));

    socket.send(mutation(1, "notes:addAndRefuse", { list }));
    expect(await socket.next("MutationResponse")).toMatchObject({
      requestId: 1,
      success: false,
      ts: null,
      errorData: { code: "refused", limit: { $integer: "BQAAAAAAAAA=" } },
    });
    await socket.next("Transition");

    socket.send({
      type: "Action",
      requestId: 2,
      udfPath: "values:echoAction",
      args: [{ value: 1 }],
    });
    expect(await socket.next("ActionResponse")).toMatchObject({ requestId: 2, result: 1 });
    await socket.next("Transition");
  });

  test("no Transition shows a mutation before its response, however late that is", async () => {
    await server.fault({ kind: "delay", path: "notes:add", times: 1, delayMs: 300 });
    const socket = await Socket.open();
    socket.send(modify(0, add(0, "notes:list", { list })));
    await socket.update(0);
    socket.send(note(0, "late"), { type: "Authenticate", baseVersion: 0, tokenType: "None" });
    await until(() => JSON.stringify(socket.received).includes('"late"'), "the note shows");
    const answered = socket.received.findIndex(({ type }) => type === "MutationResponse");
    const shown = socket.received.findIndex((one) => JSON.stringify(one).includes('"late"'));
    expect(answered).toBeGreaterThanOrEqual(0);
    expect(answered).toBeLessThan(shown);
  });

  test("mutations of one socket run one after another, in order", async () => {
    const socket = await Socket.open();
    socket.send(...Array.from({ length: 30 }, (_, index) => note(index, `n${index}`)));
    await socket.next("MutationResponse", (one) => one["requestId"] === 29);
    socket.send(modify(0, add(0, "notes:list", { list })));
    const { value } = await socket.update(0);
    expect(value).toEqual(Array.from({ length: 30 }, (_, index) => `n${index}`));
  });

  test("actions run at the same time and hold up nothing", async () => {
    const socket = await Socket.open();
    const wait = (requestId: number, ms: number) => ({
      type: "Action",
      requestId,
      udfPath: "values:wait",
      args: [{ ms }],
    });
    socket.send(wait(0, 600), wait(1, 10), note(2));
    await until(
      () => socket.received.filter((one) => "requestId" in one).length === 3,
      "all answer",
    );
    const order = socket.received.flatMap((one) => ("requestId" in one ? [one["requestId"]] : []));
    expect(order.at(-1)).toBe(0);
  });

  test("the same request of the same session is applied once, also over a new socket", async () => {
    const first = await Socket.open();
    first.send(note(7, "once"));
    const { result } = await first.next("MutationResponse");
    const second = await Socket.open({ sessionId: first.sessionId });
    second.send(note(7, "once"));
    expect((await second.next("MutationResponse"))["result"]).toBe(result);
    const third = await Socket.open();
    third.send(note(7, "once"));
    await third.next("MutationResponse");
    third.send(modify(0, add(0, "notes:list", { list })));
    expect(await third.update(0)).toMatchObject({ value: ["once", "once"] });
  });
});

describe("identity", () => {
  const authenticate = (baseVersion: number, value: string) => ({
    type: "Authenticate",
    baseVersion,
    tokenType: "User",
    value,
  });

  test("a query right behind Authenticate runs as that user; a change runs all queries again", async () => {
    const socket = await Socket.open();
    socket.send(
      authenticate(0, await server.issuer.token()),
      modify(0, add(0, "people:whoami", {})),
    );
    const first = await socket.update(0);
    expect(first["value"]).toMatchObject({ subject: "ada" });
    expect(socket.version).toMatchObject({ querySet: 1, identity: 1 });
    socket.send(authenticate(1, await server.issuer.token({ sub: "eve" })));
    expect((await socket.update(0))["value"]).toMatchObject({ subject: "eve" });
    socket.send({ type: "Authenticate", baseVersion: 2, tokenType: "None" });
    expect((await socket.update(0))["value"]).toBeNull();
  });

  test("a mutation keeps the identity of the moment it arrived", async () => {
    // Holds up what stands behind it, until long after the user is gone.
    await server.fault({ kind: "delay", path: "notes:add", times: 1, delayMs: 300 });
    const socket = await Socket.open();
    socket.send(
      authenticate(0, await server.issuer.token()),
      note(0),
      mutation(1, "people:whoamiMutation", {}),
      { type: "Authenticate", baseVersion: 1, tokenType: "None" },
      mutation(2, "people:whoamiMutation", {}),
    );
    const result = async (requestId: number) =>
      (await socket.next("MutationResponse", (one) => one["requestId"] === requestId))["result"];
    expect(await result(1)).toBe("ada");
    expect(await result(2)).toBeNull();
  });

  test("a bad token is an AuthError of the attempt, and nothing behind it runs", async () => {
    const socket = await Socket.open();
    socket.send(authenticate(0, "nonsense"), note(0));
    expect(await socket.next("AuthError")).toMatchObject({
      baseVersion: 0,
      authUpdateAttempted: true,
    });
    await socket.ended();
    expect(socket.received.map(({ type }) => type)).not.toContain("MutationResponse");
    const after = await Socket.open();
    after.send(modify(0, add(0, "notes:list", { list })));
    expect(await after.update(0)).toMatchObject({ value: [] });
  });

  test("a token that expires ends the socket with an AuthError at the next use", async () => {
    const socket = await Socket.open();
    const exp = Math.floor(Date.now() / 1000) + 2;
    socket.send(
      authenticate(0, await server.issuer.token({ exp })),
      modify(0, add(0, "people:whoami", {})),
    );
    expect((await socket.update(0))["value"]).toMatchObject({ subject: "ada" });
    await until(() => Date.now() > exp * 1000, "the token expires");
    socket.send(note(0));
    expect(await socket.next("AuthError")).toMatchObject({ authUpdateAttempted: false });
    await socket.ended();
  });

  test("the admin key opens internal functions and acts as a user", async () => {
    const socket = await Socket.open();
    const admin = { type: "Authenticate", tokenType: "Admin", value: server.adminKey };
    socket.send(
      { ...admin, baseVersion: 0 },
      modify(0, add(0, "people:hidden", {}), add(1, "people:whoami", {})),
    );
    expect(await socket.update(0)).toMatchObject({ value: "for admins" });
    socket.send({ ...admin, baseVersion: 1, impersonating: { issuer: "i", subject: "s" } });
    expect((await socket.update(1))["value"]).toMatchObject({ tokenIdentifier: "i|s" });
    const wrong = await Socket.open();
    wrong.send({ ...admin, baseVersion: 0, value: "convex-local|wrong" });
    expect(await wrong.next("AuthError")).toMatchObject({ authUpdateAttempted: true });
  });
});

describe("the connection", () => {
  test.each([
    ["no JSON", "{"],
    ["an unknown type", '{"type":"Shout"}'],
    ["a missing field", '{"type":"Mutation","requestId":0}'],
    ["a wrong base version", JSON.stringify(modify(5, add(0, "notes:list", { list: "x" })))],
  ])("%s is a FatalError", async (_what, text) => {
    const socket = await Socket.open();
    socket.raw(text);
    expect((await socket.next("FatalError"))["error"]).toEqual(expect.any(String));
    await socket.ended();
  });

  test("a client that has seen a later time than the database is sent away", async () => {
    const future = Buffer.alloc(8);
    future.writeBigUInt64LE(BigInt(Date.now() + 3_600_000) * 1_000_000n);
    const connect = { maxObservedTimestamp: future.toString("base64") };
    const socket = await Socket.open({ connect });
    expect(await socket.ended()).toEqual({ code: 1011, reason: "InternalServerError" });
  });

  test("a client that has seen an earlier time is served", async () => {
    const first = await Socket.open();
    first.send(note(0));
    const { ts } = await first.next("MutationResponse");
    const second = await Socket.open({ connect: { maxObservedTimestamp: ts } });
    second.send(modify(0, add(0, "notes:list", { list })));
    expect(await second.update(0)).toMatchObject({ value: ["x"] });
  });

  test("7 MB reach an npm client in chunks, others in one piece", async () => {
    const query = modify(0, add(0, "values:big", { megabytes: 7 }));
    const npm = await Socket.open();
    npm.send(query);
    await until(() => npm.received.length === 2, "two chunks");
    const chunks = npm.received as (Message & { chunk: string; partNumber: number })[];
    expect(chunks.map(({ type, partNumber }) => [type, partNumber])).toEqual([
      ["TransitionChunk", 0],
      ["TransitionChunk", 1],
    ]);
    const whole = JSON.parse(chunks.map(({ chunk }) => chunk).join("")) as Message;
    const [{ value }] = whole["modifications"] as [{ value: string }];
    expect(value).toBe("é".repeat(3_500_000));

    const other = await Socket.open({ path: "/api/sync" });
    other.send(query);
    expect(((await other.update(0))["value"] as string).length).toBe(3_500_000);
  });
});

describe("faults", () => {
  test("drop_reply ends the socket after the commit", async () => {
    await server.fault({ kind: "drop_reply", path: "notes:add", times: 1 });
    const socket = await Socket.open();
    socket.send(note(3));
    await socket.ended();
    expect(socket.received).toEqual([]);
    const again = await Socket.open({ sessionId: socket.sessionId });
    again.send(note(3));
    await again.next("MutationResponse");
    again.send(modify(0, add(0, "notes:list", { list })));
    expect(await again.update(0)).toMatchObject({ value: ["x"] });
  });

  test("unavailable and occ close the socket with their names, and commit nothing", async () => {
    for (const [kind, reason] of [
      ["unavailable", "TooManyConcurrentRequests"],
      ["occ", "OptimisticConcurrencyControlFailure"],
    ]) {
      await server.fault({ kind, path: "notes:add", times: 1 });
      const socket = await Socket.open();
      socket.send(note(0));
      expect(await socket.ended()).toEqual({ code: 1013, reason });
    }
    const after = await Socket.open();
    after.send(modify(0, add(0, "notes:list", { list })));
    expect(await after.update(0)).toMatchObject({ value: [] });
  });

  test("a mutation that hangs leaves queries alive", async () => {
    await server.fault({ kind: "hang", path: "notes:add", times: 1 });
    const socket = await Socket.open();
    socket.send(note(0), modify(0, add(0, "notes:list", { list })));
    expect(await socket.update(0)).toMatchObject({ value: [] });
  });
});
