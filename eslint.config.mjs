import convexPlugin from "@convex-dev/eslint-plugin";
import { defineConfig, globalIgnores } from "eslint/config";
import jsdoc from "eslint-plugin-jsdoc";
import tseslint from "typescript-eslint";

/** A function of Convex, whichever builder registers it, exported at once or later. */
const BUILDER = "/^(?!custom)\\w*(query|mutation|action)$/i";
const REGISTERED =
  ":matches(Program, ExportNamedDeclaration) > VariableDeclaration > VariableDeclarator > " +
  `CallExpression:matches([callee.name=${BUILDER}], [callee.property.name=${BUILDER}])`;

/** The plugin's functions for other people's projects. */
const READY = "plugins/livekit-plugins-convex/livekit/plugins/convex/functions/*.ts";

/** `by_a_and_b` for an index on `a` and `b`. */
const indexNames = {
  meta: { type: "problem", messages: { name: "The index lists its fields: {{expected}}." } },
  create: (context) => ({
    'CallExpression[callee.property.name="index"][arguments.1.type="ArrayExpression"]'(node) {
      const [name, fields] = node.arguments;
      const expected = `by_${fields.elements.map((field) => field.value).join("_and_")}`;
      if (name.value === expected) return;
      context.report({ node: name, messageId: "name", data: { expected } });
    },
  }),
};

export default defineConfig([
  globalIgnores([
    "**/node_modules/",
    "**/dist/",
    ".venv/",
    ".tools/",
    "convex/_generated/",
    "plugins/convex-local/test/fixtures/",
    // A project without the file that is copied into it; tests/contract/test_ready_functions.py
    // checks it with that.
    "examples/",
  ]),
  {
    files: ["**/*.ts"],
    extends: [tseslint.configs.strictTypeChecked],
    languageOptions: {
      parserOptions: {
        projectService: {
          // Part of tests/tsconfig.json, which the service does not find from where they lie.
          allowDefaultProject: ["vitest.config.ts", "scripts/*.ts", READY],
          defaultProject: "tests/tsconfig.json",
        },
        tsconfigRootDir: import.meta.dirname,
      },
    },
    rules: {
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }],
      "@typescript-eslint/no-unused-vars": [
        "error",
        { ignoreRestSiblings: true, argsIgnorePattern: "^_" },
      ],
      // `(x) => doIt(x)` where the callback's result is not used reads better without braces.
      "@typescript-eslint/no-confusing-void-expression": ["error", { ignoreArrowShorthand: true }],
    },
  },
  {
    // convex-local's tests look into JSON off the wire: a wrong guess there fails the test.
    files: ["plugins/convex-local/test/**/*.ts"],
    rules: {
      "@typescript-eslint/no-non-null-assertion": "off",
      "@typescript-eslint/no-unsafe-assignment": "off",
      "@typescript-eslint/no-unsafe-call": "off",
      "@typescript-eslint/no-unsafe-member-access": "off",
      "@typescript-eslint/no-unsafe-return": "off",
      "@typescript-eslint/unbound-method": "off",
    },
  },
  {
    // A wrong guess fails the filling.
    files: ["benchmarks/**/*.ts"],
    rules: { "@typescript-eslint/no-non-null-assertion": "off" },
  },
  {
    files: ["convex/**/*.ts", READY],
    extends: [convexPlugin.configs.recommended],
    plugins: { jsdoc, school: { rules: { "index-names": indexNames } } },
    rules: {
      // What a query reads is bounded by its index and its limit. Where the schema keeps a set
      // small, the line that collects it says so: `eslint-disable-next-line … -- why`.
      "@convex-dev/no-filter-in-query": "error",
      "@convex-dev/no-collect-in-query": "error",
      "@convex-dev/no-top-of-hour-crons": "error",
      "school/index-names": "error",
      "no-restricted-syntax": [
        "error",
        {
          selector: 'CallExpression[callee.object.name="v"][callee.property.name="any"]',
          message: "Say what it is: v.any() lets everything through.",
        },
        {
          selector: `${REGISTERED}:not(:has(> ObjectExpression))`,
          message: "A registered function is described in place, with `args` and `returns`.",
        },
        {
          selector: `${REGISTERED} > ObjectExpression:not(:has(> Property[key.name="args"]))`,
          message: "A registered function has `args`.",
        },
        {
          selector: `${REGISTERED} > ObjectExpression:not(:has(> Property[key.name="returns"]))`,
          message: "A registered function has `returns`.",
        },
      ],
      "no-restricted-imports": [
        "error",
        {
          patterns: [
            {
              group: ["**/_generated/server"],
              importNames: ["query", "mutation", "action", "httpAction"],
              message: "Public functions are made by the builders of functions.ts.",
            },
          ],
        },
      ],
      "jsdoc/require-jsdoc": [
        "error",
        {
          enableFixer: false,
          require: { FunctionDeclaration: false },
          contexts: [
            'ExportNamedDeclaration[declaration.type=/Function|Variable|Class|Interface|Enum/]',
            // What a validator's comment says need not be said again of its type.
            'ExportNamedDeclaration[declaration.type="TSTypeAliasDeclaration"]' +
              ':not([declaration.typeAnnotation.typeName.name="Infer"])',
          ],
        },
      ],
    },
  },
  {
    // Where the builders are made.
    files: ["convex/functions.ts"],
    rules: { "no-restricted-imports": "off" },
  },
  {
    // auth.config.ts is evaluated alone, without the typed `env` of _generated/server; functions.ts
    // and the plugin's functions compare with the issuer it names. What else a deployment is told,
    // environment.ts reads.
    files: ["convex/auth.config.ts", "convex/functions.ts", "convex/model/environment.ts", READY],
    rules: { "@convex-dev/no-process-env": "off" },
  },
]);
