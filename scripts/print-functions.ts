/**
 * Prints, as JSON, what `convex/` consists of: every registered function with its kind and the
 * builder that made it, the tables with the tables that their ids point to, and the error codes.
 * Documents, tests and benchmarks are compared with it.
 *
 * Run with plain node from anywhere: `node scripts/print-functions.ts`.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { build } from "esbuild";
import { loadProgram } from "../plugins/convex-local/src/program.ts";

type Codes = Record<"PERMANENT_CODES" | "HOLD_CODES" | "CALL_CODES", string[]> & { ERASED: string };

const root = join(import.meta.dirname, "..");
const { analyzed, schema } = await loadProgram(root, {});

const functions = analyzed.modules.flatMap(({ path, file, functions }) => {
  const source = readFileSync(join(analyzed.functionsDir, file), "utf8");
  return functions.map(({ name, type, visibility }) => {
    const made = new RegExp(`^export const ${name} = (\\w+)\\(`, "m").exec(source);
    return { path: `${path}:${name}`, type, visibility, builder: made?.[1] ?? null };
  });
});

const tables = [...(schema?.tables.values() ?? [])].map(({ name, documentType }) => {
  const ids = JSON.stringify(documentType).matchAll(/"tableName":"(\w+)"/g);
  return { name, refersTo: [...new Set([...ids].map(([, table]) => table))] };
});

const bundle = await build({
  entryPoints: [join(root, "convex", "errors.ts")],
  bundle: true,
  format: "esm",
  write: false,
});
const text = bundle.outputFiles[0]?.text ?? "";
const url = `data:text/javascript;base64,${Buffer.from(text).toString("base64")}`;
const { PERMANENT_CODES, HOLD_CODES, CALL_CODES, ERASED } = (await import(url)) as Codes;

const codes = { permanent: PERMANENT_CODES, hold: HOLD_CODES, call: CALL_CODES, erased: [ERASED] };
console.log(JSON.stringify({ functions, tables, codes }));
