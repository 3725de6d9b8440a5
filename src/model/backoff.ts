/** Milliseconds before the n-th retry in a row, n from 1. */
export type Backoff = (attempt: number) => number;

/** Doubles from `first` to `most` milliseconds, spread by up to a fifth so that retries do not fall into step. */
export function exponential(first: number, most: number, random: () => number = Math.random): Backoff {
  return (attempt) => Math.min(most, first * 2 ** Math.min(attempt - 1, 30)) * (0.8 + 0.2 * random());
}
