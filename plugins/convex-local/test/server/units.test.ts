/** Small rules: frames, formats, faults. */
import { describe, expect, test } from "vitest";
import { Faults } from "../../src/faults.ts";
import { encodeServerMessage, supportsChunks } from "../../src/sync-protocol.ts";
import type { ServerMessage } from "../../src/sync-protocol.ts";

const version = { querySet: 0, identity: 0, ts: "AAAAAAAAAAA=" };
const transition = (value: string): ServerMessage => ({
  type: "Transition",
  startVersion: version,
  endVersion: version,
  modifications: [{ type: "QueryUpdated", queryId: 0, value, logLines: [], journal: null }],
  clientClockSkew: 0,
  serverTs: 1,
});

describe("frames", () => {
  test.each([
    ["npm-1.48.0", true],
    ["npm-1.28.0", true],
    ["npm-1.27.9", false],
    ["npm-1.9.0", false],
    ["python-0.8.1", false],
    [null, false],
  ])("%s joins chunks: %s", (client, joins) => {
    expect(supportsChunks(client, null)).toBe(joins);
  });

  test("a version in the path is npm's; a header has the last word", () => {
    expect(supportsChunks(null, "1.48.0")).toBe(true);
    expect(supportsChunks(null, "0.2.1")).toBe(false);
    expect(supportsChunks("python-0.8.1", "1.48.0")).toBe(false);
  });

  test("a large Transition is cut between characters and joins to the same message", () => {
    const message = transition(`x${"🎓".repeat(2_800_000)}`);
    const frames = encodeServerMessage(message, true).map(
      (frame) => JSON.parse(frame) as { chunk: string; totalParts: number },
    );
    expect(frames).toHaveLength(3);
    expect(frames[0]!.totalParts).toBe(3);
    expect(JSON.parse(frames.map(({ chunk }) => chunk).join(""))).toEqual(message);
    expect(encodeServerMessage(message, false)).toHaveLength(1);
  });

  test("a small one, and any other message, is one frame", () => {
    expect(encodeServerMessage(transition("x"), true)).toHaveLength(1);
    const big = { type: "FatalError", error: "x".repeat(6_000_000) } as const;
    expect(encodeServerMessage(big, true)).toHaveLength(1);
  });
});

describe("faults", () => {
  test("probability is asked at each call", () => {
    const draws = [0.6, 0.4, 0.6];
    const faults = new Faults({ enabled: true, random: () => draws.shift()! });
    faults.add({ kind: "unavailable", probability: 0.5 });
    const hits = [1, 2, 3].map(() => faults.take("a:b", "query") !== null);
    expect(hits).toEqual([false, true, false]);
  });

  test("a path means the same function however it is written", () => {
    const faults = new Faults({ enabled: true });
    faults.add({ kind: "unavailable", path: "mod.js:fn" });
    expect(faults.take("mod:fn", "query")).not.toBeNull();
    expect(faults.take("mod:other", "query")).toBeNull();
    expect(Object.keys(faults.counts())).toEqual(["mod:fn", "mod:other"]);
  });

  test("occ hits mutations only", () => {
    const faults = new Faults({ enabled: true });
    faults.add({ kind: "occ", times: 1 });
    expect(faults.take("a:b", "query")).toBeNull();
    expect(faults.take("a:b", "mutation")).toMatchObject({ kind: "occ" });
    expect(faults.take("a:b", "mutation")).toBeNull();
  });

  test.each([
    [{ kind: "occ", tmies: 1 }, "tmies"],
    [{ kind: "occ", times: 0 }, "times"],
    [{ kind: "occ", probability: 2 }, "probability"],
    [{ kind: "delay", delayMs: "1" }, "delayMs"],
    [{ kind: "occ", path: 1 }, "path"],
    [[], "object"],
  ])("a wrong request names what is wrong: %j", (request, text) => {
    expect(() => new Faults({ enabled: true }).add(request)).toThrow(text);
  });

  test("nothing is counted or hit unless they are enabled", () => {
    const faults = new Faults({ enabled: false });
    expect(faults.take("a:b", "query")).toBeNull();
    expect(faults.counts()).toEqual({});
  });
});
