/** One version of the project: its compiled code, functions, schema, crons and identity providers. */
import vm from "node:vm";
import { bundleProject, MODULES_GLOBAL, type Bundle, type Code } from "./bundle.ts";
import { nextCronRun, type CronSchedule } from "./crons.ts";
import { CompileError } from "./errors.ts";
import { parseSchema, type Schema } from "./schema.ts";
import { uncaught } from "./stack.ts";
import type {
  Analyzed,
  AnalyzedCron,
  AnalyzedFunction,
  AnalyzedModule,
  AuthProvider,
  FunctionType,
  JSONValue,
} from "./types.ts";
import type { ValidatorJSON } from "./validators.ts";
import { ActionRuntime } from "./vm/action-runtime.ts";
import { createContext } from "./vm/context.ts";
import { describeThrown } from "./vm/describe.ts";
import { UdfRuntime } from "./vm/udf-runtime.ts";

/** A function of the project, found by its canonical path `module:name`. */
export interface ProjectFunction {
  path: string;
  module: string;
  name: string;
  type: FunctionType;
  visibility: "public" | "internal";
  environment: "isolate" | "node";
  args: ValidatorJSON;
  /** Null when the function declares none. */
  returns: ValidatorJSON | null;
}

export interface Program {
  functions: Map<string, ProjectFunction>;
  schema: Schema | null;
  crons: AnalyzedCron[];
  authProviders: AuthProvider[];
  analyzed: Analyzed;
  udfs: UdfRuntime;
  actions: ActionRuntime;
  /** For stack traces. */
  codes: Code[];
  /** What the project declares and convex-local does not have; told once at start. */
  warnings: string[];
}

/** `sessions.js:record` and `sessions:record` are one function; `sessions` is its default export. */
export function canonicalPath(path: string): string {
  const colon = path.lastIndexOf(":");
  const module = colon === -1 ? path : path.slice(0, colon);
  const name = colon === -1 ? "default" : path.slice(colon + 1);
  return `${module.replace(/\.js$/, "")}:${name}`;
}

/** @throws CompileError when the project cannot be bundled, evaluated or used. */
export async function loadProgram(
  projectDir: string,
  env: Readonly<Record<string, string>>,
): Promise<Program> {
  const bundle = await bundleProject(projectDir);
  const codes = [bundle.isolate, bundle.actions];
  if (bundle.authConfig !== null) codes.push(bundle.authConfig);
  const udfs = new UdfRuntime(bundle.isolate, env);
  const { actions, modules } = importing(codes, () => ({
    modules: udfs.modules,
    actions: new ActionRuntime(bundle.actions, bundle.functionsDir, env),
  }));
  const exportsOf = (module: { path: string; environment: string }): Record<string, unknown> =>
    (module.environment === "node" ? actions.modules : modules)[module.path] ?? {};

  return importing(codes, () => {
    const analyzedModules = bundle.modules.map((module) =>
      analyzeModule(module, exportsOf(module)),
    );
    const parsed = bundle.hasSchema ? schemaOf(modules["schema"] ?? {}) : null;
    const crons = cronsOf(modules["crons"] ?? {});
    const functions = functionsOf(analyzedModules);
    const auth =
      bundle.authConfig === null
        ? { providers: [], warnings: [] }
        : evaluateAuthConfig(bundle.authConfig, env);
    for (const cron of crons) {
      // Throws for a schedule that cannot be read.
      nextCronRun(cron.name, cron.schedule as CronSchedule, null, 0);
      if (!functions.has(cron.function)) {
        throw new CompileError(
          `The cron job '${cron.name}' names ${cron.function}, which is no function`,
        );
      }
    }
    return {
      functions,
      schema: parsed?.schema ?? null,
      crons,
      authProviders: auth.providers,
      analyzed: {
        functionsDir: bundle.functionsDir,
        modules: analyzedModules,
        schema: parsed?.schema.json ?? null,
        crons,
        hasAuthConfig: bundle.authConfig !== null,
      },
      udfs,
      actions,
      codes,
      warnings: [
        ...auth.warnings,
        ...warningsOf(bundle, analyzedModules, parsed?.unsupported ?? []),
      ],
    };
  });
}

/** Runs code of the project outside of a function; what it throws is a compile error. */
function importing<T>(codes: readonly Code[], body: () => T): T {
  try {
    return body();
  } catch (error) {
    if (error instanceof CompileError) throw error;
    throw new CompileError(uncaught(describeThrown(error), codes));
  }
}

type Registered = Partial<
  Record<"isQuery" | "isMutation" | "isAction" | "isHttp" | "isPublic" | "isInternal", boolean>
> & { exportArgs?: () => string; exportReturns?: () => string };

function analyzeModule(
  module: { path: string; file: string; environment: "isolate" | "node" },
  exported: Record<string, unknown>,
): AnalyzedModule {
  const functions: AnalyzedFunction[] = [];
  for (const name of Object.keys(exported).sort()) {
    const value = exported[name];
    if (typeof value !== "function") continue;
    const registered = value as Registered;
    const type = typeOf(registered);
    if (type === null) continue;
    if (module.environment === "node" && type !== "action") {
      throw new CompileError(
        `${module.file}: ${name} is a ${type}. Only actions can be defined in "use node" files.`,
      );
    }
    functions.push({
      name,
      type,
      visibility: registered.isPublic === true || type === "httpAction" ? "public" : "internal",
      args: parseJSON(registered.exportArgs?.()) ?? { type: "any" },
      returns: parseJSON(registered.exportReturns?.()) ?? { type: "any" },
    });
  }
  return { path: module.path, file: module.file, environment: module.environment, functions };
}

const parseJSON = (text: string | undefined): JSONValue =>
  text === undefined ? null : (JSON.parse(text) as JSONValue);

function typeOf(registered: Registered): AnalyzedFunction["type"] | null {
  if (registered.isQuery === true) return "query";
  if (registered.isMutation === true) return "mutation";
  if (registered.isAction === true) return "action";
  return registered.isHttp === true ? "httpAction" : null;
}

function functionsOf(modules: AnalyzedModule[]): Map<string, ProjectFunction> {
  const functions = new Map<string, ProjectFunction>();
  for (const module of modules) {
    for (const { name, type, visibility, args, returns } of module.functions) {
      if (type === "httpAction") continue;
      const path = `${module.path}:${name}`;
      functions.set(path, {
        path,
        module: module.path,
        name,
        type,
        visibility,
        environment: module.environment,
        args: args as ValidatorJSON,
        returns: returns as ValidatorJSON,
      });
    }
  }
  return functions;
}

function schemaOf(exported: Record<string, unknown>): ReturnType<typeof parseSchema> {
  const schema = exported["default"] as { export?: () => string } | undefined;
  if (typeof schema?.export !== "function") {
    throw new CompileError("schema.ts has no default export made by defineSchema(...)");
  }
  return parseSchema(schema.export());
}

function cronsOf(exported: Record<string, unknown>): AnalyzedCron[] {
  const crons = exported["default"] as { isCrons?: boolean; export?: () => string } | undefined;
  if (crons?.isCrons !== true || crons.export === undefined) return [];
  const parsed = JSON.parse(crons.export()) as Record<
    string,
    { name: string; args: JSONValue; schedule: JSONValue }
  >;
  return Object.entries(parsed).map(([name, cron]) => ({
    name,
    function: canonicalPath(cron.name),
    args: cron.args,
    schedule: cron.schedule,
  }));
}

interface ExportedAuth {
  providers?: {
    type?: string;
    domain?: string;
    applicationID?: string;
    issuer?: string;
    jwks?: string;
    algorithm?: string;
  }[];
}

/** Providers whose settings are missing are left out, with a warning: nobody can sign in by them. */
function evaluateAuthConfig(
  code: Code,
  env: Readonly<Record<string, string>>,
): { providers: AuthProvider[]; warnings: string[] } {
  const context = createContext({ name: code.filename, env, ownPromises: true });
  new vm.Script(code.text, { filename: code.filename }).runInContext(context);
  const { modules } = (context as Record<string, unknown>)[MODULES_GLOBAL] as {
    modules: Record<string, { default?: ExportedAuth }>;
  };
  const exported = modules["auth.config"]?.default?.providers;
  if (!Array.isArray(exported)) {
    throw new CompileError("auth.config.ts has no default export with `providers`");
  }
  const providers: AuthProvider[] = [];
  const warnings: string[] = [];
  for (const [index, given] of exported.entries()) {
    const { type, domain, applicationID, issuer, jwks, algorithm } = given;
    const missing = (names: string): void => {
      warnings.push(
        `auth.config.ts: providers[${index}] is left out, it needs ${names}; ` +
          "is an environment variable that it reads unset?",
      );
    };
    if (type === "customJwt") {
      if (algorithm !== "RS256" && algorithm !== "ES256") {
        throw new CompileError(`auth.config.ts: providers[${index}].algorithm is RS256 or ES256`);
      }
      if (typeof issuer !== "string" || typeof jwks !== "string") missing("`issuer` and `jwks`");
      else {
        const application = applicationID === undefined ? {} : { applicationID };
        providers.push({ type: "customJwt", issuer, jwks, algorithm, ...application });
      }
    } else if (typeof domain !== "string" || typeof applicationID !== "string") {
      missing("`domain` and `applicationID`");
    } else providers.push({ type: "oidc", domain, applicationID });
  }
  return { providers, warnings };
}

function warningsOf(
  bundle: Bundle,
  modules: AnalyzedModule[],
  unsupportedIndexes: string[],
): string[] {
  const warnings = unsupportedIndexes.map(
    (name) => `convex-local has no search or vector indexes: ${name} cannot be queried`,
  );
  if (modules.some(({ functions }) => functions.some(({ type }) => type === "httpAction"))) {
    warnings.push("convex-local does not serve HTTP actions");
  }
  if (bundle.modules.some(({ path }) => path.endsWith("convex.config"))) {
    warnings.push("convex-local has no components");
  }
  return warnings;
}
