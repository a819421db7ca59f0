/**
 * Prints, as JSON, what `sessions:record` accepts: the exported validator of a record, the limits
 * and the permanent codes; of the project and, under `ready`, of the functions that the plugin brings
 * for other projects. The Python side is compared with both field by field.
 *
 * Run with plain node from anywhere: `node scripts/print-record-validator.ts`.
 */
import { join } from "node:path";
import { build } from "esbuild";

type Exports = {
  vRecord: { json: unknown };
  limits: Record<string, unknown>;
  PERMANENT_CODES: readonly string[];
  ready: {
    vRecord: { json: unknown };
    LIMITS: Record<string, number>;
    RECORD_VERSIONS: readonly number[];
    PERMANENT_CODES: readonly string[];
  };
};

const READY = "./plugins/livekit-plugins-convex/livekit/plugins/convex/functions/sessions";

// Files in convex/ import each other without extensions, which only a bundler resolves.
const bundle = await build({
  stdin: {
    contents: `
      export { vRecord } from "./convex/validators";
      export { PERMANENT_CODES } from "./convex/errors";
      export * as limits from "./convex/limits";
      export * as ready from "${READY}";
    `,
    resolveDir: join(import.meta.dirname, ".."),
  },
  bundle: true,
  format: "esm",
  write: false,
});
const code = bundle.outputFiles[0]?.text ?? "";
const url = `data:text/javascript;base64,${Buffer.from(code).toString("base64")}`;
const { vRecord, limits, PERMANENT_CODES, ready } = (await import(url)) as Exports;

console.log(
  JSON.stringify({
    record: vRecord.json,
    limits,
    permanentCodes: PERMANENT_CODES,
    ready: {
      record: ready.vRecord.json,
      limits: ready.LIMITS,
      recordVersions: ready.RECORD_VERSIONS,
      permanentCodes: ready.PERMANENT_CODES,
    },
  }),
);
