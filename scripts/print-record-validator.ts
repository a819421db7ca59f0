/**
 * Prints, as JSON, what `sessions:record` accepts: the exported validator of a record, the limits
 * and the permanent codes. The Python side is compared with it field by field.
 *
 * Run with plain node from anywhere: `node scripts/print-record-validator.ts`.
 */
import { join } from "node:path";
import { build } from "esbuild";

type Exports = {
  vRecord: { json: unknown };
  limits: Record<string, unknown>;
  PERMANENT_CODES: readonly string[];
};

// Files in convex/ import each other without extensions, which only a bundler resolves.
const bundle = await build({
  stdin: {
    contents: `
      export { vRecord } from "./convex/validators";
      export { PERMANENT_CODES } from "./convex/errors";
      export * as limits from "./convex/limits";
    `,
    resolveDir: join(import.meta.dirname, ".."),
  },
  bundle: true,
  format: "esm",
  write: false,
});
const code = bundle.outputFiles[0]?.text ?? "";
const url = `data:text/javascript;base64,${Buffer.from(code).toString("base64")}`;
const { vRecord, limits, PERMANENT_CODES } = (await import(url)) as Exports;

console.log(JSON.stringify({ record: vRecord.json, limits, permanentCodes: PERMANENT_CODES }));
