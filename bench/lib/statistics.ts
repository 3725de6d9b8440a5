import { quantile } from "./result.ts";

export function sum(values: number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

export function mean(values: number[]): number {
  return sum(values) / values.length;
}

export function median(values: number[]): number {
  return quantile(values, 0.5);
}

/**
 * Slope of the line through points: the median of the slopes between any two (Theil and Sen). A sample of a
 * passing state does not distort it, as it would distort least squares.
 * @returns also the quartiles of those slopes
 */
export function slopeOf(x: number[], y: number[]): { slope: number; low: number; high: number } {
  const slopes: number[] = [];
  for (let a = 0; a < x.length; a++)
    for (let b = a + 1; b < x.length; b++) slopes.push((y[b]! - y[a]!) / (x[b]! - x[a]!));
  return { slope: median(slopes), low: quantile(slopes, 0.25), high: quantile(slopes, 0.75) };
}
