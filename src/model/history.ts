/**
 * How the cluster was: numbers by name, over time, in three levels of detail. Pure: what is kept, what of it answers a question, and how many
 * small steps become a large one.
 */
import type { TenantPhase } from "./tenant.ts";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** What is kept, the finest first; each level is made from the one before. */
export const LEVELS = [
  // An hour longer than a day, so that each hour can be made from all of its minutes.
  { step: MINUTE, kept: 25 * HOUR },
  { step: HOUR, kept: 35 * DAY },
  { step: DAY, kept: 396 * DAY },
] as const;
export const FINEST_MS = MINUTE;

/** Of more shards, only the sums are kept: this bounds a sample. */
export const MOST_SHARDS = 32;
/** What a sample with all that it may have takes of a file, whose pages it does not fill. */
export const LARGEST_SAMPLE_BYTES = 5_120;
/** Of everything together: 14 MiB, if there have been as many shards all the time. With five shards it is 1.6 MiB. */
export const MOST_BYTES = LEVELS.reduce((sum, { step, kept }) => sum + kept / step + 1, 0) * LARGEST_SAMPLE_BYTES;

/** Those between two times; `count` of the finest steps are in it. */
export interface Sample {
  /** When it begins, in milliseconds of Unix time. */
  at: number;
  count: number;
  values: Readonly<Record<string, number>>;
}

/** What a large step says of the small ones in it. */
export type Kind = "mean" | "sum" | "max";

const KINDS: Readonly<Record<string, Kind>> = {
  moves: "sum",
  movesFailed: "sum",
  wakes: "sum",
  sleeps: "sum",
  blackout: "max",
  busiest: "max",
};

export function kindOf(series: string): Kind {
  return KINDS[series] ?? "mean";
}

/** In which of the plots' groups a phase counts. */
export function groupOf(phase: TenantPhase): "running" | "asleep" | "suspended" | "failed" | "onTheWay" {
  if (phase === "Running") return "running";
  if (phase === "Asleep") return "asleep";
  if (phase === "Suspended") return "suspended";
  return phase === "Failed" ? "failed" : "onTheWay";
}

/** Samples of `step`, each made of those that begin in it; `samples` are in the order of time. */
export function merged(samples: readonly Sample[], step: number): Sample[] {
  const steps = Map.groupBy(samples, ({ at }) => Math.floor(at / step) * step);
  return [...steps].map(([at, within]) => {
    const names = new Set(within.flatMap(({ values }) => Object.keys(values)));
    const values = [...names].map((name): [string, number] => [name, together(name, within)]);
    return { at, count: within.reduce((sum, { count }) => sum + count, 0), values: Object.fromEntries(values) };
  });
}

/** Of those that have the series: a shard that was there for a minute was no idle one for the rest of the hour. */
function together(name: string, within: readonly Sample[]): number {
  const kind = kindOf(name);
  let [result, count] = [kind === "max" ? Number.NEGATIVE_INFINITY : 0, 0];
  for (const sample of within) {
    const value = sample.values[name];
    if (value === undefined) continue;
    if (kind === "max") result = Math.max(result, value);
    else result += kind === "sum" ? value : value * sample.count;
    count += sample.count;
  }
  return kind === "mean" ? result / count : result;
}

/** What can be asked for: for how long, and in which steps; few enough to be drawn. */
export const RANGES = {
  hour: { length: HOUR, step: MINUTE },
  day: { length: DAY, step: 5 * MINUTE },
  week: { length: 7 * DAY, step: HOUR },
  month: { length: 31 * DAY, step: 3 * HOUR },
  year: { length: 396 * DAY, step: DAY },
} as const;
export type Range = keyof typeof RANGES;

/** Series over the same times. */
export interface History {
  /** When the first step begins, in ISO 8601. */
  from: string;
  stepSeconds: number;
  /** Null where it is not known: the controller did not run, or there was no such shard. */
  series: { name: string; values: (number | null)[] }[];
  /** Who has it. */
  source: "controller" | "prometheus";
  /** Why it is not from where the configuration says, one sentence. */
  problem?: string;
}

/** The coarsest level that a range needs; finer ones complete it up to now. */
export function levelOf(range: Range): number {
  return LEVELS.findLastIndex(({ step }) => step <= RANGES[range].step);
}

/** From the beginning of its first step to the end of the one that runs. */
export function windowOf(range: Range, now: number): { from: number; to: number } {
  const { length, step } = RANGES[range];
  const to = Math.floor(now / step) * step + step;
  return { from: to - length, to };
}

/** @param samples in the order of time @param named the name in the answer of a series; undefined for those that are not asked for */
export function historyOf(
  samples: readonly Sample[],
  range: Range,
  now: number,
  named: (series: string) => string | undefined,
): History {
  const { step } = RANGES[range];
  const { from, to } = windowOf(range, now);
  // Only what is asked for: with many shards, the rest is most of the work.
  const asked = samples.flatMap((sample) => {
    if (sample.at < from || sample.at >= to) return [];
    const values: Record<string, number> = {};
    for (const series in sample.values) {
      const name = named(series);
      if (name !== undefined) values[name] = sample.values[series]!;
    }
    return [{ ...sample, values }];
  });
  const steps = new Map(merged(asked, step).map(({ at, values }) => [at, values]));
  const names = [...new Set([...steps.values()].flatMap((values) => Object.keys(values)))].toSorted();
  const series = names.map((name) => {
    const values: (number | null)[] = [];
    for (let at = from; at < to; at += step) values.push(rounded(steps.get(at)?.[name]));
    return { name, values };
  });
  return { from: new Date(from).toISOString(), stepSeconds: step / 1000, series, source: "controller" };
}

/** As exact as a plot can show, and short to write. */
export function rounded(value: number): number;
export function rounded(value: number | undefined): number | null;
export function rounded(value: number | undefined): number | null {
  return value === undefined ? null : Number(value.toPrecision(5));
}
