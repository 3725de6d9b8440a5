import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  FINEST_MS,
  historyOf,
  kindOf,
  LARGEST_SAMPLE_BYTES,
  LEVELS,
  levelOf,
  merged,
  MOST_BYTES,
  MOST_SHARDS,
  RANGES,
  windowOf,
  type Range,
  type Sample,
} from "../../src/model/history.ts";
import { valuesOf } from "../../src/controller/history/sample.ts";
import { DEFAULT_POLICY } from "../../src/model/policy.ts";
import type { Shard } from "../../src/model/shard.ts";

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const NAMES = ["running", "load", "moves", "blackout"] as const;

/** Minutes of two days, some of them missing, each with all series. */
const minutes = fc.uniqueArray(fc.nat(2 * 1440 - 1), { minLength: 1, maxLength: 120 }).chain((at) =>
  fc
    .array(fc.tuple(...NAMES.map(() => fc.float({ min: 0, max: 1000, noNaN: true }))), {
      minLength: at.length,
      maxLength: at.length,
    })
    .map((rows) =>
      at
        .toSorted((a, b) => a - b)
        .map((minute, index): Sample => {
          const values = Object.fromEntries(NAMES.map((name, column) => [name, rows[index]![column]!]));
          return { at: minute * FINEST_MS, count: 1, values };
        }),
    ),
);

const near = (a: number, b: number) => Math.abs(a - b) <= 1e-6 * Math.max(1, Math.abs(a), Math.abs(b));
const valuesIn = (samples: Sample[], name: string) => samples.map(({ values }) => values[name]!);

/** As a large step says of small ones. */
function isRight(name: string, value: number, own: number[]): boolean {
  const sum = own.reduce((before, one) => before + one, 0);
  const [least, most] = [Math.min(...own), Math.max(...own)];
  return {
    sum: near(value, sum),
    max: value === most,
    mean: near(value, sum / own.length) && value >= least - 1e-6 && value <= most + 1e-6,
  }[kindOf(name)];
}

describe("many small steps as a large one", () => {
  test("keeps sums, peaks and the number of steps, and stays within what there was", () => {
    fc.assert(
      fc.property(minutes, (samples) => {
        const hours = merged(samples, HOUR);
        expect(hours.reduce((sum, { count }) => sum + count, 0)).toBe(samples.length);
        for (const { at, count, values } of hours) {
          const within = samples.filter((sample) => sample.at >= at && sample.at < at + HOUR);
          expect(at % HOUR).toBe(0);
          expect(count).toBe(within.length);
          for (const name of NAMES)
            expect([name, isRight(name, values[name]!, valuesIn(within, name))]).toEqual([name, true]);
        }
      }),
    );
  });

  test("gives the same whether a day is made of minutes or of hours", () => {
    fc.assert(
      fc.property(minutes, (samples) => {
        const [straight, overHours] = [merged(samples, DAY), merged(merged(samples, HOUR), DAY)];
        expect(overHours.map(({ at, count }) => [at, count])).toEqual(straight.map(({ at, count }) => [at, count]));
        for (const [index, { values }] of straight.entries())
          for (const name of NAMES) expect(near(values[name]!, overHours[index]!.values[name]!)).toBe(true);
      }),
    );
  });

  test("changes nothing that has the step already", () => {
    fc.assert(
      fc.property(minutes, (samples) => {
        expect(merged(samples, FINEST_MS)).toEqual(samples);
      }),
    );
  });

  test("takes a shard that was there for a part of the time as it was then", () => {
    const samples: Sample[] = [
      { at: 0, count: 1, values: { load: 2 } },
      { at: FINEST_MS, count: 1, values: { load: 2, "shard/a/load": 0.5 } },
    ];
    expect(merged(samples, HOUR)).toEqual([{ at: 0, count: 2, values: { load: 2, "shard/a/load": 0.5 } }]);
  });
});

describe("an answer", () => {
  test("has one value for each step of its range, and null where nothing is known", () => {
    const ranges = Object.keys(RANGES) as Range[];
    fc.assert(
      fc.property(minutes, fc.constantFrom(...ranges), fc.integer({ min: 0, max: 3 * DAY }), (samples, range, late) => {
        const now = samples.at(-1)!.at + late;
        const { from, to } = windowOf(range, now);
        const { step } = RANGES[range];
        const seen = samples.filter(({ at }) => at >= from && at < to);
        const { series, ...rest } = historyOf(samples, range, now, (name) => (name === "load" ? name : undefined));
        expect(rest).toEqual({ from: new Date(from).toISOString(), stepSeconds: step / 1000, source: "controller" });
        expect(to > now && to - now <= step).toBe(true);
        expect(series.map(({ name }) => name)).toEqual(seen.length === 0 ? [] : ["load"]);
        const steps = Array.from({ length: RANGES[range].length / step }, (_, index) => from + index * step);
        const isKnown = steps.map((begin) => seen.some(({ at }) => at >= begin && at < begin + step));
        for (const { values } of series) expect(values.map((value) => value !== null)).toEqual(isKnown);
      }),
    );
  });

  test("is of at most 400 steps, of a level that is kept for as long", () => {
    for (const [range, { length, step }] of Object.entries(RANGES)) {
      const level = LEVELS[levelOf(range as Range)]!;
      expect(length / step).toBeLessThanOrEqual(400);
      expect(length).toBeLessThanOrEqual(level.kept);
      expect(step % level.step).toBe(0);
    }
  });
});

describe("a sample", () => {
  test("fits into what is said of it, with as many shards as have series of their own and more", () => {
    const shard = (index: number): Shard => ({
      kind: "Shard",
      metadata: { name: `1.163.2-${index}`, resourceVersion: "1", generation: 1, creationTimestamp: "" },
      spec: { release: "1.163.2" },
      status: { phase: "Ready", reason: "", message: "", failures: 0 },
    });
    const values = valuesOf({
      tenants: [],
      shards: Array.from({ length: 4_000 }, (_, index) => shard(index)),
      policy: DEFAULT_POLICY,
      loadOf: () => 1 / 3,
      memoryOf: () => 1_234_567_890,
      since: "",
    });
    expect(Object.keys(values).filter((name) => name.endsWith("/load")).length).toBe(MOST_SHARDS);
    expect(values["shards"]).toBe(4_000);
    expect(JSON.stringify(values).length).toBeLessThan(LARGEST_SAMPLE_BYTES - 1_024);
    expect(MOST_BYTES).toBeLessThan(14 * 1024 * 1024);
  });
});
