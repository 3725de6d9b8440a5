import type { Sample } from "../../model/history.ts";
import type { HistoryStore, LevelSample } from "../../ports/history-store.ts";

/** For a platform that keeps its history elsewhere: as long as this process leads. */
export class MemoryHistory implements HistoryStore {
  readonly #levels = new Map<number, Map<number, Sample>>();

  async read(step: number, from: number, to: number): Promise<Sample[]> {
    const found = [...this.#level(step).values()].filter(({ at }) => at >= from && at < to);
    return found.toSorted((a, b) => a.at - b.at);
  }

  async last(step: number): Promise<number | undefined> {
    const times = [...this.#level(step).keys()];
    return times.length === 0 ? undefined : times.reduce((a, b) => Math.max(a, b));
  }

  async write(samples: readonly LevelSample[]): Promise<void> {
    for (const { step, at, count, values } of samples) this.#level(step).set(at, { at, count, values });
  }

  async prune(step: number, from: number, to: number): Promise<void> {
    const level = this.#level(step);
    for (const at of level.keys()) if (at < from || at >= to) level.delete(at);
  }

  async close(): Promise<void> {}

  #level(step: number): Map<number, Sample> {
    const level = this.#levels.get(step) ?? new Map<number, Sample>();
    this.#levels.set(step, level);
    return level;
  }
}
