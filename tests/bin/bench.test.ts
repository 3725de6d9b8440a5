import { readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { array, assert, double, property } from "fast-check";
import { describe, expect, test } from "vitest";
import { compare, type Pair } from "../../bench/lib/comparison.ts";
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

describe("a comparison of two commits", () => {
  const pairs = (base: number[], head: number[], unit = "ms"): Pair[] =>
    base.map((value, round) => ({
      part: "start",
      base: [{ what: "p50", value, unit }],
      head: [{ what: "p50", value: head[round]!, unit }],
    }));

  test("sees a change that is smaller than the noise between rounds", () => {
    const [row] = compare(pairs([100, 300, 200, 500, 150], [110, 330, 220, 550, 165]));
    expect(row).toMatchObject({ part: "start", what: "p50", base: 200, head: 220, verdict: "higher" });
    expect(row!.ratio!.median).toBeCloseTo(1.1);
    expect(compare(pairs([100, 300, 200, 500, 150], [90, 270, 180, 450, 135]))[0]!.verdict).toBe("lower");
  });

  test.each([
    ["rounds that do not agree", [100, 100, 100, 100, 100], [120, 130, 120, 120, 99]],
    ["a change below 5 %", [100, 100, 100, 100, 100], [104, 103, 104, 104, 104]],
    ["fewer than five rounds", [100, 100, 100, 100], [150, 150, 150, 150]],
    ["a base of 0", [0, 1, 1, 1, 1], [5, 5, 5, 5, 5]],
  ])("finds nothing in %s", (_, base, head) => {
    expect(compare(pairs(base, head))[0]!.verdict).toBe("");
  });

  test("leaves out what only one side measures, or measures in another unit", () => {
    const [pair] = pairs([1], [1]);
    expect(compare([{ ...pair!, base: [] }])).toEqual([]);
    expect(compare([{ ...pair!, base: [{ what: "p50", value: 1, unit: "s" }] }])).toEqual([]);
  });

  test("the verdict does not depend on which of two sides is called the base", () => {
    const values = array(double({ min: 0.1, max: 1000, noNaN: true }), { minLength: 5, maxLength: 5 });
    assert(
      property(values, values, (base, head) => {
        const [one] = compare(pairs(base, head));
        const [other] = compare(pairs(head, base));
        const opposite = { higher: "lower", lower: "higher", "": "" };
        expect(opposite[other!.verdict]).toBe(one!.verdict);
      }),
    );
  });
});
