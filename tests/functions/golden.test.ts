/** What a version of the records said once still means the same: see tests/golden/README.md. */
import { expect, test } from "vitest";
import { api } from "../../convex/_generated/api.js";
import { vRecord } from "../../convex/validators.ts";
import type { SessionRecord } from "../../convex/validators.ts";
import { agentOf, contents, deployment } from "./helpers.ts";

const VERSION = 1;
const journals = import.meta.glob<string>("../golden/*.jsonl", {
  query: "?raw",
  import: "default",
  eager: true,
});

/** A student's rows would name ids; the token names one who does not exist, which are fixed. */
const STUDENT = "golden-student";

function journal(version: number): SessionRecord[] {
  const lines = journals[`../golden/record-v${version}.jsonl`]?.trim().split("\n") ?? [];
  return lines.map((line) => JSON.parse(line) as SessionRecord);
}

async function fold(version: number, size: number): Promise<string> {
  const t = deployment();
  const agent = agentOf(t, STUDENT);
  const records = journal(version);
  for (let at = 0; at < records.length; at += size) {
    const batch = records.slice(at, at + size);
    const runId = `golden-run-v${version}`;
    const { seq } = await agent.mutation(api.sessions.record, { version, runId, records: batch });
    expect(seq).toBe(batch.at(-1)?.seq);
  }
  return JSON.stringify(await contents(t), null, 2) + "\n";
}

test.each([64, 5, 1])("version 1 folds into its rows, %d records at a time", async (size) => {
  await expect(await fold(VERSION, size)).toMatchFileSnapshot("../golden/record-v1.rows.json");
});

test("the journal has every kind and every field of the validator", () => {
  const seen = new Map<string, Set<string>>();
  for (const record of journal(VERSION)) {
    const fields = seen.get(record.kind) ?? new Set<string>();
    for (const path of pathsOf(record)) fields.add(path);
    seen.set(record.kind, fields);
  }
  for (const kind of vRecord.members) {
    const name = kind.fields.kind.value;
    expect([...(seen.get(name) ?? [])].sort(), name).toEqual(fieldPaths(kind).sort());
  }
});

/** `metrics.llmTtftMs`, `models.type`: every leaf, an array standing for its items. */
function pathsOf(value: unknown, prefix = ""): string[] {
  if (Array.isArray(value)) return value.flatMap((item) => pathsOf(item, prefix));
  if (typeof value !== "object" || value === null) return [prefix.slice(1)];
  return Object.entries(value).flatMap(([name, field]) => pathsOf(field, `${prefix}.${name}`));
}

type Shape = { kind: string; fields?: Record<string, Shape>; element?: Shape };

function fieldPaths(shape: Shape, prefix = ""): string[] {
  if (shape.kind === "object" && shape.fields !== undefined) {
    return Object.entries(shape.fields).flatMap(([name, field]) =>
      fieldPaths(field, `${prefix}.${name}`),
    );
  }
  if (shape.kind === "array" && shape.element !== undefined) return fieldPaths(shape.element, prefix);
  return [prefix.slice(1)];
}
