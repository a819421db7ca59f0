/** What a version of the records said once still means the same: see tests/golden/README.md. */
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { api } from "../../convex/_generated/api.js";
import { vRecord } from "../../convex/validators.ts";
import type { SessionRecord } from "../../convex/validators.ts";
import { addStudent, agentOf, contents, deployment } from "./helpers.ts";

const VERSION = 1;
const journals = import.meta.glob<string>("../golden/*.jsonl", {
  query: "?raw",
  import: "default",
  eager: true,
});

/** The plugin's own kinds; and the tutor's, of which some say something of a student alone. */
const JOURNALS = ["record", "tutor"] as const;
type Journal = (typeof JOURNALS)[number];

/** In the rows instead of the student's id, and in the token where no student is needed. */
const STUDENT = "golden-student";

beforeEach(() => {
  // The rows as the fold leaves them: nothing that is scheduled runs.
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

function journal(name: Journal, version: number): SessionRecord[] {
  const lines = journals[`../golden/${name}-v${version}.jsonl`]?.trim().split("\n") ?? [];
  return lines.map((line) => JSON.parse(line) as SessionRecord);
}

async function fold(name: Journal, version: number, size: number): Promise<string> {
  const t = deployment();
  const studentId = name === "tutor" ? await addStudent(t) : STUDENT;
  const agent = agentOf(t, studentId);
  const records = journal(name, version);
  for (let at = 0; at < records.length; at += size) {
    const batch = records.slice(at, at + size);
    const runId = `golden-run-v${version}`;
    const { seq } = await agent.mutation(api.sessions.record, { version, runId, records: batch });
    expect(seq).toBe(batch.at(-1)?.seq);
  }
  return JSON.stringify(await contents(t), null, 2).replaceAll(studentId, STUDENT) + "\n";
}

test.each(JOURNALS.flatMap((name) => [64, 5, 1].map((size) => [name, size] as const)))(
  "%s, version 1, folds into its rows, %d records at a time",
  async (name, size) => {
    const rows = `../golden/${name}-v${VERSION}.rows.json`;
    await expect(await fold(name, VERSION, size)).toMatchFileSnapshot(rows);
  },
);

test("the journals have every kind and every field of the validator", () => {
  const seen = new Map<string, Set<string>>();
  for (const record of JOURNALS.flatMap((name) => journal(name, VERSION))) {
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
