/**
 * Turns `convex/` into scripts: one with every module of the default runtime, one more when there
 * are `"use node"` files, one for `auth.config.ts`.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { SourceMap, type SourceMapPayload } from "node:module";
import path from "node:path";
import * as esbuild from "esbuild";
import { CompileError } from "./errors.ts";

/** Global that a script leaves its modules in: path to namespace object. */
export const MODULES_GLOBAL = "__convexLocalModules";

const EXTENSIONS = [".ts", ".tsx", ".js", ".jsx", ".mts", ".mjs", ".cts", ".cjs"];
const USE_NODE = /^(?:\s|\/\/[^\n]*\n|\/\*[\s\S]*?\*\/)*["']use node["']/;

export interface SourceModule {
  /** Path below `convex/` without extension. */
  path: string;
  /** File below `convex/`. */
  file: string;
  environment: "isolate" | "node";
}

/** A script and what maps its positions back to the project's files. */
export interface Code {
  /** Name in stack traces. */
  filename: string;
  text: string;
  map: SourceMap;
}

export interface Bundle {
  functionsDir: string;
  modules: SourceModule[];
  hasSchema: boolean;
  /** Modules of the default runtime, and the schema. */
  isolate: Code;
  /** All modules, for actions; the same code when no file says `"use node"`. */
  actions: Code;
  authConfig: Code | null;
}

/** Where a project keeps its functions: `functions` of `convex.json`, else `convex/`. */
export function functionsDirOf(projectDir: string): string {
  const config = path.join(projectDir, "convex.json");
  let name = "convex";
  if (existsSync(config)) {
    const { functions } = JSON.parse(readFileSync(config, "utf8")) as { functions?: string };
    name = functions ?? name;
  }
  return path.resolve(projectDir, name);
}

/** @throws CompileError with the compiler's own message. */
export async function bundleProject(projectDir: string): Promise<Bundle> {
  const functionsDir = functionsDirOf(projectDir);
  if (!existsSync(functionsDir)) {
    throw new CompileError(`There is no ${functionsDir}: name the project with --project`);
  }
  const modules = listModules(functionsDir);
  const schemaFile = ["schema.ts", "schema.js"].find((name) =>
    existsSync(path.join(functionsDir, name)),
  );
  const schema = schemaFile === undefined ? [] : [{ path: "schema", file: schemaFile }];
  const isolated = modules.filter((module) => module.environment === "isolate");
  const isolate = await compile(functionsDir, "functions", [...isolated, ...schema]);
  const actions =
    isolated.length === modules.length
      ? isolate
      : await compile(functionsDir, "actions", modules, "node");
  const authFile = ["auth.config.ts", "auth.config.js"].find((name) =>
    existsSync(path.join(functionsDir, name)),
  );
  const authConfig =
    authFile === undefined
      ? null
      : await compile(functionsDir, "auth.config", [{ path: "auth.config", file: authFile }]);
  return {
    functionsDir,
    modules,
    hasSchema: schemaFile !== undefined,
    isolate,
    actions,
    authConfig,
  };
}

/** The files that the Convex CLI would push (npm `convex/src/bundler/index.ts` entryPoints). */
function listModules(functionsDir: string): SourceModule[] {
  const modules: SourceModule[] = [];
  const visit = (below: string): void => {
    const entries = readdirSync(path.join(functionsDir, below), { withFileTypes: true });
    for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
      const file = below === "" ? entry.name : `${below}/${entry.name}`;
      if (entry.isDirectory()) {
        const skipped = file === "_generated" || entry.name === "node_modules";
        if (!skipped) visit(file);
      } else if (isModule(entry.name, below)) {
        const text = readFileSync(path.join(functionsDir, file), "utf8");
        if (/\.tsx?$/.test(file) && !/^\s{0,100}(import|export)/m.test(text)) continue;
        modules.push({
          path: file.slice(0, file.lastIndexOf(".")),
          file,
          environment: USE_NODE.test(text) ? "node" : "isolate",
        });
      }
    }
  };
  visit("");
  return modules;
}

function isModule(name: string, below: string): boolean {
  return (
    EXTENSIONS.includes(path.extname(name)) &&
    !/^[.#]/.test(name) &&
    !name.includes(" ") &&
    // `auth.config.ts`, `*.test.ts`, `*.d.ts`
    name.split(".").length === 2 &&
    !(below === "" && (name === "schema.ts" || name === "schema.js"))
  );
}

async function compile(
  functionsDir: string,
  name: string,
  modules: { path: string; file: string }[],
  platform: "browser" | "node" = "browser",
): Promise<Code> {
  const imports = modules.map(
    ({ file }, i) => `import * as m${i} from ${JSON.stringify(`./${file}`)};`,
  );
  const entries = modules.map((module, i) => `${JSON.stringify(module.path)}: m${i}`);
  let built;
  try {
    built = await esbuild.build({
      stdin: {
        contents: `${imports.join("\n")}\nexport const modules = { ${entries.join(", ")} };`,
        resolveDir: functionsDir,
        sourcefile: "convex-local-entry.js",
      },
      absWorkingDir: functionsDir,
      bundle: true,
      write: false,
      outfile: "bundle.js",
      format: "iife",
      globalName: MODULES_GLOBAL,
      platform,
      target: "esnext",
      conditions: ["convex", "module"],
      define: { "process.env.NODE_ENV": '"production"' },
      sourcemap: "external",
      sourcesContent: false,
      logLevel: "silent",
      // As the Convex CLI: names of functions are used for errors and tables.
      keepNames: true,
      jsx: "automatic",
    });
  } catch (error) {
    throw new CompileError(await messageOf(error));
  }
  const [map, script] = [".map", ".js"].map((ending) =>
    built.outputFiles.find((file) => file.path.endsWith(ending)),
  );
  if (map === undefined || script === undefined) throw new CompileError("esbuild wrote no output");
  return {
    filename: `convex-local:${name}`,
    text: script.text,
    map: new SourceMap(JSON.parse(map.text) as SourceMapPayload),
  };
}

async function messageOf(error: unknown): Promise<string> {
  const errors = (error as Partial<esbuild.BuildFailure>).errors;
  if (errors === undefined) return error instanceof Error ? error.message : String(error);
  const lines = await esbuild.formatMessages(errors, { kind: "error", color: false });
  return lines.join("").trimEnd();
}
