import { expect, test } from "vitest";
import { type RunRecord, withSummary } from "../bench/lib/report.ts";
import type { Figure } from "../bench/lib/result.ts";

const README = "# x\n<!-- written by npm run bench -->\nold\n<!-- end -->\nrest\n";

function recordOf(figures: Figure[]): RunRecord {
  const result = { name: "memory", title: "Memory", figures, plots: [], raw: {} };
  return { quick: false, seconds: 1, surroundings: {} as RunRecord["surroundings"], result };
}

test("prevents a README that calls a missed target met, or quotes what has none", () => {
  const text = withSummary(README, [
    recordOf([
      { what: "good", value: 3, unit: "MiB", target: { at: "most", value: 3.5 } },
      { what: "bad", value: 0.2, unit: "×", target: { at: "least", value: 0.4 } },
      { what: "only shown", value: 1, unit: "s" },
    ]),
  ]);
  expect(text).toMatch(/^\| memory \| good \| 3 MiB \| ≤ 3\.5 \| ✓ \|$/m);
  expect(text).toMatch(/^\| memory \| bad \| 0\.2 × \| ≥ 0\.4 \| missed \|$/m);
  expect(text).not.toContain("only shown");
  expect(text).not.toContain("old");
  expect(text.endsWith("<!-- end -->\nrest\n")).toBe(true);
});

test("prevents a summary that is lost without a word", () => {
  expect(() => withSummary("# x\n", [])).toThrow("the README has no lines");
});
