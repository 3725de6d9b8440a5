import { resolve } from "node:path";
import { defineConfig } from "vitest/config";
import { PATIENCE_MS } from "./tests/support/patience.ts";

export default defineConfig({
  test: {
    include: ["tests/**/*.test.ts"],
    // Real servers and homeservers: more at once than cores only makes each wait for the others.
    maxWorkers: 2,
    // Limits only say when to give up: a busy machine takes ten times what a quiet one does.
    testTimeout: 2 * PATIENCE_MS,
    hookTimeout: 5 * PATIENCE_MS,
    teardownTimeout: PATIENCE_MS,
    expect: { poll: { timeout: PATIENCE_MS } },
    // Tests start many Node processes; compiled once, each starts in half the time. `npm test` sets the same.
    env: { NODE_COMPILE_CACHE: resolve(import.meta.dirname, "node_modules/.cache/node-compile") },
    // Clients' own chatter is of use only where something failed.
    silent: "passed-only",
  },
});
