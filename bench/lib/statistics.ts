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

export interface Line {
  slope: number;
  intercept: number;
  /** Standard error of the slope: it lies within twice that of the true one, 19 times in 20. */
  slopeError: number;
}

/** The straight line through points by least squares. Needs at least three of them. */
export function fitLine(x: number[], y: number[]): Line {
  const [meanX, meanY] = [mean(x), mean(y)];
  const spread = sum(x.map((value) => (value - meanX) ** 2));
  const slope = sum(x.map((value, index) => (value - meanX) * (y[index]! - meanY))) / spread;
  const intercept = meanY - slope * meanX;
  const residue = sum(x.map((value, index) => (y[index]! - intercept - slope * value) ** 2));
  return { slope, intercept, slopeError: Math.sqrt(residue / (x.length - 2) / spread) };
}
