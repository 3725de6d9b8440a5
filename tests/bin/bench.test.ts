import { readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { expect, test } from "vitest";
import { type RunRecord, type RunSummary, summaryOf, withHeadlines, withSummary } from "../../bench/lib/report.ts";
import type { Figure } from "../../bench/lib/result.ts";

const README = "# x\n<!-- written by npm run bench -->\nold\n<!-- end -->\nrest\n";

function recordOf(figures: Figure[]): RunRecord {
  const result = { name: "memory", title: "Memory", figures, plots: [], raw: {} };
  return { quick: false, seconds: 1, surroundings: {} as RunRecord["surroundings"], result };
}

test("the table calls a missed target missed, and leaves out what has no target", () => {
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

test("a page without the marks is an error, not a summary that is lost", () => {
  expect(() => withSummary("# x\n", [])).toThrow("the README has no lines");
});

test("what the repository keeps of a run has its figures, and no samples", () => {
  const record = recordOf([{ what: "good", value: 3, unit: "MiB" }]);
  record.result.plots = [{ title: "plot", x: { label: "x", values: [1, 2] }, y: { label: "y" }, series: [] }];
  record.result.raw = { samples: [1, 2, 3] };
  expect(summaryOf(record)).toEqual({
    ...record,
    result: { name: "memory", title: "Memory", figures: record.result.figures, plots: [{ title: "plot" }] },
  });
});

test("the headlines of the README are those of the results, and every one of them is there", () => {
  const directory = resolve(import.meta.dirname, "../../bench/results");
  const records = readdirSync(directory)
    .filter((name) => name.endsWith(".json"))
    .map((name) => JSON.parse(readFileSync(join(directory, name), "utf8")) as RunSummary);
  const readme = readFileSync(resolve(directory, "../../README.md"), "utf8");
  expect(withHeadlines(readme, records)).toBe(readme);
  expect(() => withHeadlines(readme, [])).toThrow('the part memory has no figure "each tenant, empty"');
});
