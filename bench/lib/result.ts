/** One figure: what was measured, and its target. */
export interface Figure {
  what: string;
  value: number;
  unit: string;
  /** The bound, in the same unit, and its direction; undefined where a figure is only shown. */
  target?: { at: "most" | "least"; value: number };
  /** How it was obtained: number of samples, percentile, what it is a ratio of. */
  note?: string;
}

/** A plot: lines over a common x axis, or bars where x is words. */
export interface Plot {
  title: string;
  x: { label: string; values: (number | string)[] };
  y: { label: string };
  series: { name: string; values: number[] }[];
}

export interface BenchResult {
  name: string;
  title: string;
  figures: Figure[];
  plots: Plot[];
  /** Every sample, for other analyses. */
  raw: unknown;
}

export interface BenchOptions {
  /** A small version that shows that the part works; its figures are not for quoting. */
  quick: boolean;
  log(line: string): void;
}

/** Each part of the suite is a module that exports this. */
export interface Bench {
  name: string;
  title: string;
  run(options: BenchOptions): Promise<BenchResult>;
}

export function met(figure: Figure): boolean | undefined {
  if (!figure.target) return undefined;
  return figure.target.at === "most" ? figure.value <= figure.target.value : figure.value >= figure.target.value;
}

/** The q-quantile (0 to 1) of samples, by the nearest rank. */
export function quantile(samples: number[], q: number): number {
  const sorted = samples.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(q * sorted.length) - 1))] ?? Number.NaN;
}
