import { expect, test } from "vitest";
import * as limits from "../../src/limits.ts";
import { nobody, open, type Opened } from "./support.ts";

const MIB = 2 ** 20;

async function messageOf(opened: Opened, path: string, args: object): Promise<string | null> {
  const call = { path, args: args as never, identity: nobody };
  const { outcome } =
    opened.backend.functionType(path) === "query"
      ? await opened.backend.runQuery(call)
      : await opened.backend.runMutation(call);
  return outcome.status === "error" ? outcome.errorMessage : null;
}

test("the numbers are the backend's", () => {
  expect(limits).toMatchObject({
    MAX_DOCUMENT_BYTES: MIB,
    MAX_DOCUMENT_NESTING: 16,
    MAX_VALUE_NESTING: 64,
    MAX_ARRAY_LENGTH: 8192,
    MAX_OBJECT_FIELDS: 1024,
    MAX_DOCUMENTS_READ: 32_000,
    MAX_BYTES_READ: 16 * MIB,
    MAX_RANGES_READ: 4096,
    MAX_DOCUMENTS_WRITTEN: 16_000,
    MAX_BYTES_WRITTEN: 16 * MIB,
    MAX_SCHEDULED: 1000,
    MAX_ARGUMENT_BYTES: 16 * MIB,
    MAX_RESULT_BYTES: 16 * MIB,
    USER_TIMEOUT_MS: 1000,
  });
});

test.each([
  ["an array of 8,192 elements", { array: 8192 }, null],
  ["one more", { array: 8193 }, "Array length is too long (8193 > maximum length 8192)"],
  ["an object of 1,024 fields", { fields: 1024 }, null],
  ["one more", { fields: 1025 }, "Object has too many fields (1025 > maximum number 1024)"],
  ["a document nested 16 deep", { nesting: 15 }, null],
  [
    "one more",
    { nesting: 16 },
    "Document is too nested (nested 17 levels deep > maximum nesting 16)",
  ],
  ["a document of 1 MiB", { bytes: MIB }, null],
  ["one byte more", { bytes: MIB + 1 }, "> maximum size 1 MiB)"],
  ["a field name with a dollar", { name: "$x" }, "starts with"],
  ["a field name beyond ASCII", { name: "é" }, "non-control ASCII characters"],
  [
    "a field name of 1,025 characters",
    { name: "n".repeat(1025) },
    "maximum field name length 1024",
  ],
  ["half a surrogate pair", { surrogate: true }, "unpaired surrogate"],
  ["a field of the system", { top: "_x" }, "starts with an underscore"],
])("%s", async (_name, args, problem) => {
  const opened = await open({ project: "limits" });
  const message = await messageOf(opened, "limits:store", args);
  if (problem === null) expect(message).toBeNull();
  else expect(message).toContain(problem);
});

test("a value may be nested 64 deep, in arguments and results", async () => {
  const opened = await open({ project: "limits" });
  expect(await messageOf(opened, "limits:nest", { levels: 63 })).toBeNull();
  expect(await messageOf(opened, "limits:nest", { levels: 64 })).toContain("maximum nesting 64");
});

test("32,000 documents are read, and no more", async () => {
  const opened = await open({ project: "limits" });
  for (let i = 0; i < 4; i += 1) {
    expect(
      await messageOf(opened, "limits:insert", { count: 8000 + (i === 3 ? 1 : 0) }),
    ).toBeNull();
  }
  expect(await messageOf(opened, "limits:read", { count: 32_000 })).toBeNull();
  expect(await messageOf(opened, "limits:read", { count: 32_001 })).toContain(
    "Too many documents read in a single function execution (limit: 32000).",
  );
});

test("16 MiB are read, and no more", async () => {
  const opened = await open({ project: "limits" });
  for (let i = 0; i < 17; i += 1) {
    expect(await messageOf(opened, "limits:store", { bytes: MIB })).toBeNull();
  }
  expect(await messageOf(opened, "limits:read", { count: 16 })).toBeNull();
  expect(await messageOf(opened, "limits:read", { count: 17 })).toContain(
    "Too many bytes read in a single function execution (limit: 16777216 bytes).",
  );
});

test("4,096 ranges are read, and no more", async () => {
  const opened = await open({ project: "limits" });
  expect(await messageOf(opened, "limits:ranges", { count: 4096 })).toBeNull();
  expect(await messageOf(opened, "limits:ranges", { count: 4097 })).toContain(
    "Too many reads in a single function execution (limit: 4096).",
  );
});

test("16,000 documents are written, and no more", async () => {
  const opened = await open({ project: "limits" });
  expect(await messageOf(opened, "limits:insert", { count: 16_000 })).toBeNull();
  expect(await messageOf(opened, "limits:insert", { count: 16_001 })).toContain(
    "Too many writes in a single function execution (limit: 16000)",
  );
});

test("16 MiB are written, and no more", async () => {
  const opened = await open({ project: "limits" });
  expect(await messageOf(opened, "limits:storeMany", { bytes: MIB, count: 16 })).toBeNull();
  expect(await messageOf(opened, "limits:storeMany", { bytes: MIB, count: 17 })).toContain(
    "Too many bytes written in a single function execution",
  );
});

test("1,000 functions are scheduled, and no more", async () => {
  const opened = await open({ project: "limits" });
  expect(await messageOf(opened, "limits:schedule", { count: 1000 })).toBeNull();
  expect(await messageOf(opened, "limits:schedule", { count: 1001 })).toContain(
    "Too many functions scheduled by this mutation (limit: 1000)",
  );
});

test("a result of 16 MiB is returned, and no more", async () => {
  const opened = await open({ project: "limits" });
  expect(await messageOf(opened, "limits:result", { bytes: 16 * MIB - 2 })).toBeNull();
  expect(await messageOf(opened, "limits:result", { bytes: 16 * MIB - 1 })).toContain(
    "return value is too large",
  );
});

test("arguments of 16 MiB are taken, and no more", async () => {
  const opened = await open({ project: "limits" });
  const args = (bytes: number): object => ({ text: "x".repeat(bytes) });
  expect(await messageOf(opened, "limits:take", args(16 * MIB - 10))).toBeNull();
  expect(await messageOf(opened, "limits:take", args(16 * MIB))).toContain("are too large");
});

test.each(["sync", "await"])("a function that never ends is ended: %s", async (how) => {
  const opened = await open({ project: "globals" });
  expect(await messageOf(opened, "globals:endless", { how })).toBe(
    "Function execution timed out (maximum duration: 1s)",
  );
  expect(await opened.query("globals:host", { url: "http://still.alive" })).toBe("still.alive");
});

test("a function that waits for nothing is told so", async () => {
  const opened = await open({ project: "globals" });
  expect(await messageOf(opened, "globals:endless", { how: "nothing" })).toContain(
    "The function can never return",
  );
});
