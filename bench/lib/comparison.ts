import type { Figure } from "./result.ts";
import { median } from "./statistics.ts";

/** What a part measured in one round, on both sides, one right after the other. */
export interface Pair {
  part: string;
  base: Figure[];
  head: Figure[];
}

export type Verdict = "higher" | "lower" | "";

export interface Row {
  part: string;
  what: string;
  unit: string;
  /** Medians over the rounds. */
  base: number;
  head: number;
  /** Of head to base within each round; undefined where a base is 0. */
  ratio: { median: number; least: number; most: number } | undefined;
  verdict: Verdict;
}

/** A smaller change of the median is no finding, however often it shows. */
const NOTICED = Math.log(1.05);
/** All of five agree by chance once in sixteen times, where nothing differs. */
const FEWEST_ROUNDS = 5;

/**
 * Pair by pair: what the machine did meanwhile, both sides of a round had to bear. A figure is called higher or lower where every round
 * says so, and the median of the ratios is beyond 5 %. Figures that only one side has are left out.
 */
export function compare(pairs: Pair[]): Row[] {
  const rows = new Map<string, { part: string; figure: Figure; base: number[]; head: number[] }>();
  for (const { part, base, head } of pairs) {
    for (const figure of head) {
      const other = base.find(({ what, unit }) => what === figure.what && unit === figure.unit);
      if (!other) continue;
      const key = JSON.stringify([part, figure.what]);
      const row = rows.get(key) ?? { part, figure, base: [], head: [] };
      row.base.push(other.value);
      row.head.push(figure.value);
      rows.set(key, row);
    }
  }
  return [...rows.values()].map(({ part, figure: { what, unit }, base, head }) => {
    const ratio = ratioOf(base, head);
    return { part, what, unit, base: median(base), head: median(head), ratio, verdict: verdictOf(ratio, base.length) };
  });
}

function ratioOf(base: number[], head: number[]): Row["ratio"] {
  if (base.includes(0)) return undefined;
  const ratios = head.map((value, round) => value / base[round]!);
  return { median: median(ratios), least: Math.min(...ratios), most: Math.max(...ratios) };
}

function verdictOf(ratio: Row["ratio"], rounds: number): Verdict {
  if (!ratio || rounds < FEWEST_ROUNDS || Math.abs(Math.log(ratio.median)) < NOTICED) return "";
  if (ratio.least > 1) return "higher";
  return ratio.most < 1 ? "lower" : "";
}
