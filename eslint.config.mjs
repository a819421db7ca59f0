import convexPlugin from "@convex-dev/eslint-plugin";
import { defineConfig, globalIgnores } from "eslint/config";
import tseslint from "typescript-eslint";

export default defineConfig([
  globalIgnores([
    "**/node_modules/",
    "**/dist/",
    ".venv/",
    ".tools/",
    "convex/_generated/",
    "plugins/convex-local/test/fixtures/",
    "plugins/livekit-plugins-convex/",
  ]),
  {
    files: ["**/*.ts"],
    extends: [tseslint.configs.strictTypeChecked],
    languageOptions: {
      parserOptions: {
        projectService: {
          // Part of tests/tsconfig.json, which the service does not find from where they lie.
          allowDefaultProject: ["vitest.config.ts", "scripts/*.ts"],
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
    files: ["convex/**/*.ts"],
    extends: [convexPlugin.configs.recommended],
  },
  {
    // auth.config.ts is evaluated alone, without the typed `env` of _generated/server; functions.ts
    // compares with the issuer it names.
    files: ["convex/auth.config.ts", "convex/functions.ts"],
    rules: { "@convex-dev/no-process-env": "off" },
  },
]);
