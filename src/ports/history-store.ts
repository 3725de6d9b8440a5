import type { Sample } from "../model/history.ts";

/** A sample of a level, which is known by its step. */
export interface LevelSample extends Sample {
  step: number;
}

/** Where samples of how the cluster was are kept. What it loses is missed in a plot, and nowhere else. */
export interface HistoryStore {
  /** Those of a level that begin from `from` on and before `to`, in the order of time. */
  read(step: number, from: number, to: number): Promise<Sample[]>;
  /** When the last one of a level begins. */
  last(step: number): Promise<number | undefined>;
  /** All of them or none; one of the same level and time takes the place of the former. What has been answered survives the process. */
  write(samples: readonly LevelSample[]): Promise<void>;
  /** Removes those of a level that begin before `from`, or from `to` on. */
  prune(step: number, from: number, to: number): Promise<void>;
  close(): Promise<void>;
}
