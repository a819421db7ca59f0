/**
 * What `npx convex codegen` asks of a deployment.
 *
 * The command bundles the project itself, has the deployment analyse the push, and writes
 * `_generated` from the answer. Functions are never taken from a push: convex-local runs what lies
 * in the project directory, so the rest of a push is refused.
 */
import { badRequest } from "./api-error.ts";
import type { Call, Reply, Route } from "./http.ts";
import type { Analyzed, AnalyzedFunction, AuthProvider } from "./types.ts";

/** The version of `convex` whose answers these are. */
const SERVER_VERSION = "1.48.0";

export const codegenRoutes: Record<string, Route> = {
  "POST /api/get_config_hashes": getConfigHashes,
  "POST /api/deploy2/start_push": startPush,
  "POST /api/deploy2/evaluate_push": refusePush,
  "POST /api/deploy2/evaluate_schema": refusePush,
  "POST /api/deploy2/wait_for_schema": refusePush,
  "POST /api/deploy2/finish_push": refusePush,
};

/** No hashes: so the command sends every module, and nothing depends on what was sent before. */
async function getConfigHashes(call: Call): Promise<Reply> {
  await call.requireAdmin();
  return {
    body: {
      config: { functions: `${call.app.backend.analyzed().functionsDir}/`, authInfo: [] },
      moduleHashes: [],
      nodeDependencies: [],
      udfServerVersion: SERVER_VERSION,
      nodeVersion: null,
    },
  };
}

async function refusePush(call: Call): Promise<Reply> {
  await call.requireAdmin();
  throw badRequest(
    "PushUnsupported",
    "convex-local runs the functions of its own project directory and reloads them when they " +
      "change; there is nothing to deploy. `npx convex codegen` works against it.",
  );
}

async function startPush(call: Call): Promise<Reply> {
  await call.requireAdmin();
  const { componentDefinitions } = await call.body();
  if (Array.isArray(componentDefinitions) && componentDefinitions.length > 0) {
    throw badRequest(
      "ComponentsUnsupported",
      "convex-local has no components: code for a project that uses some can only be generated " +
        "against a real deployment.",
    );
  }
  const { backend } = call.app;
  return { body: pushAnswer(backend.analyzed(), backend.authConfig()) };
}

/** A `StartPushResponse` for the root component, `""`. */
function pushAnswer(analyzed: Analyzed, providers: AuthProvider[]): object {
  return {
    environmentVariables: {},
    externalDepsId: null,
    componentDefinitionPackages: {},
    appAuth: providers.map((provider) =>
      provider.type === "oidc"
        ? { domain: provider.domain, applicationID: provider.applicationID }
        : { ...provider, applicationID: provider.applicationID ?? null },
    ),
    analysis: {
      "": {
        definition: {
          path: "",
          definitionType: { type: "app" },
          childComponents: [],
          httpMounts: {},
          exports: { type: "branch", branch: [] },
        },
        schema: analyzed.schema,
        functions: Object.fromEntries(
          analyzed.modules.map((module) => [
            `${module.path}.js`,
            {
              functions: module.functions.flatMap(analyzedFunction),
              httpRoutes: null,
              cronSpecs: null,
              sourceMapped: null,
            },
          ]),
        ),
        udfConfig: {
          serverVersion: SERVER_VERSION,
          importPhaseRngSeed: { $bytes: "" },
          importPhaseUnixTimestamp: { $integer: "AAAAAAAAAAA=" },
        },
      },
    },
    app: {
      definitionPath: "",
      componentPath: "",
      args: {},
      childComponents: {},
      httpRoutes: { httpModuleRoutes: null, mounts: [] },
      exports: {},
    },
    schemaChange: { allocatedComponentIds: {}, schemaIds: {}, indexDiffs: {} },
  };
}

const UDF_TYPES = { query: "Query", mutation: "Mutation", action: "Action" };

function analyzedFunction({ name, type, visibility, args, returns }: AnalyzedFunction): object[] {
  if (type === "httpAction") return [];
  return [
    {
      name,
      pos: null,
      udfType: UDF_TYPES[type],
      visibility: { kind: visibility },
      args: JSON.stringify(args),
      returns: JSON.stringify(returns),
    },
  ];
}
