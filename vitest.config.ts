import { resolve } from "node:path";
import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["tests/**/*.test.ts"],
    // Real servers and homeservers: more at once than cores only makes each wait for the others.
    maxWorkers: 2,
    testTimeout: 30_000,
    hookTimeout: 120_000,
    teardownTimeout: 60_000,
    // Tests start many Node processes; compiled once, each starts in half the time. `npm test` sets the same.
    env: {
      NODE_COMPILE_CACHE:
        process.env["NODE_COMPILE_CACHE"] ?? resolve(import.meta.dirname, "node_modules/.cache/node-compile"),
    },
    // Clients' own chatter is of use only where something failed.
    silent: "passed-only",
  },
});
