import { globSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { expect, test } from "vitest";
import { PATIENCE_MS } from "../support/patience.ts";

const TESTS = resolve(import.meta.dirname, "..");

/** Leave the limit out: vitest.config.ts has one for all, generous enough for a busy machine. */
test("no test gives up earlier than all others do", () => {
  const early = globSync("**/*.ts", { cwd: TESTS }).flatMap((file) =>
    [...readFileSync(join(TESTS, file), "utf8").matchAll(/\btimeout: ([\d_]+)/g)]
      .filter(([, limit = ""]) => Number(limit.replaceAll("_", "")) < PATIENCE_MS)
      .map(([text]) => `${file}: ${text}`),
  );
  expect(early, "a limit below PATIENCE_MS fails on a busy machine; leave it out").toEqual([]);
});
