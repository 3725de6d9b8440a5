import { resolve } from "node:path";
import { defineConfig } from "vitest/config";
import { BaseSequencer, type TestSpecification } from "vitest/node";
import { PATIENCE_MS } from "./tests/support/patience.ts";

/** Folders whose files take minutes. Begun last, one of them would keep a single core busy while the other has nothing to do. */
const SLOW = ["/tests/e2e/", "/tests/adversary/", "/tests/platforms/local/", "/tests/database/", "/tests/cli/"];

class SlowFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId }: TestSpecification) => {
      const found = SLOW.findIndex((folder) => moduleId.includes(folder));
      return found < 0 ? SLOW.length : found;
    };
    // oxlint-disable-next-line unicorn/no-array-sort -- the sequencer has a method of that name
    return (await super.sort(files)).toSorted((a, b) => rank(a) - rank(b));
  }
}

export default defineConfig({
  test: {
    include: ["tests/**/*.test.ts"],
    // Real servers and homeservers: more at once than cores only makes each wait for the others.
    maxWorkers: 2,
    sequence: { sequencer: SlowFirst },
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
