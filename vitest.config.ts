import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["tests/**/*.test.ts"],
    // Real servers and homeservers: more at once than cores only makes each wait for the others.
    maxWorkers: 2,
    testTimeout: 30_000,
    hookTimeout: 120_000,
    teardownTimeout: 60_000,
    // Clients' own chatter is of use only where something failed.
    silent: "passed-only",
  },
});
