import type { Clock } from "../../model/clock.ts";

/** One turn after another, with a pause before each. */
export class Turns {
  readonly #clock: Pick<Clock, "after">;
  readonly #pauseMs: number;
  readonly #turn: () => Promise<void>;
  #cancel: () => void = () => {};
  #running: Promise<void> | undefined;
  #isClosed = false;

  /** @param turn never rejects */
  constructor(clock: Pick<Clock, "after">, pauseMs: number, turn: () => Promise<void>) {
    this.#clock = clock;
    this.#pauseMs = pauseMs;
    this.#turn = turn;
  }

  start(): void {
    if (this.#isClosed) return;
    this.#cancel = this.#clock.after(this.#pauseMs, () => {
      this.#running = this.#turn().finally(() => this.start());
    });
  }

  /** Waits for the turn that runs. */
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
