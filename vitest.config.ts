import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    projects: [
      {
        // The functions under convex-test, in a runtime like Convex's own.
        test: {
          name: "functions",
          include: ["tests/functions/**/*.test.ts"],
          environment: "edge-runtime",
          setupFiles: ["tests/functions/setup.ts"],
          // In-memory and fast; the margin is for a machine that is busy with something else.
          testTimeout: 30_000,
        },
      },
      {
        // convex-local: real processes, sockets and files.
        test: {
          name: "convex-local",
          include: ["plugins/convex-local/test/**/*.test.ts"],
          environment: "node",
          testTimeout: 30_000,
          hookTimeout: 30_000,
        },
      },
    ],
  },
});
