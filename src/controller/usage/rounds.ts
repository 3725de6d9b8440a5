import type { Clock } from "../../model/clock.ts";

/** One round of work after another, with a pause before each. */
export class Rounds {
  readonly #clock: Pick<Clock, "after">;
  readonly #pauseMs: number;
  readonly #round: () => Promise<void>;
  #cancel: () => void = () => {};
  #running: Promise<void> | undefined;
  #isClosed = false;
  #last = "";

  /** @param round never rejects */
  constructor(clock: Pick<Clock, "after">, pauseMs: number, round: () => Promise<void>) {
    this.#clock = clock;
    this.#pauseMs = pauseMs;
    this.#round = round;
  }

  start(): void {
    if (this.#isClosed) return;
    this.#cancel = this.#clock.after(this.#pauseMs, () => {
      this.#running = this.#round().finally(() => this.start());
    });
  }

  /** Work for a few of `names`, one after the other; each round goes on after the last one. @returns false where it was closed meanwhile */
  async forFew(names: readonly string[], most: number, work: (name: string) => Promise<void>): Promise<boolean> {
    for (const name of nextFew(names.toSorted(), this.#last, most)) {
      if (this.#isClosed) return false;
      this.#last = name;
      await work(name);
    }
    return true;
  }

  /** Waits for the round that runs. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#cancel();
    await this.#running;
  }
}

/** @returns the next few of `sorted` after `last`; from the beginning again, where none are left */
export function nextFew(sorted: string[], last: string, most: number): string[] {
  const after = sorted.filter((name) => name > last);
  return (after.length > 0 ? after : sorted).slice(0, most);
}
