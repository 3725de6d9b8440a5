import type { ClockParts } from "../../src/model/clock.ts";

/** Time that stands still until a test lets it pass, or sets the machine's clock. */
export class FakeTime implements ClockParts {
  #wall: number;
  #monotonic = 0;
  readonly #timers = new Set<{ at: number; run: () => void }>();

  constructor(wall = Date.parse("2026-11-27T12:00:00Z")) {
    this.#wall = wall;
  }

  wall(): number {
    return this.#wall;
  }

  monotonic(): number {
    return this.#monotonic;
  }

  after(milliseconds: number, run: () => void): () => void {
    const timer = { at: this.#monotonic + milliseconds, run };
    this.#timers.add(timer);
    return () => void this.#timers.delete(timer);
  }

  pass(milliseconds: number): void {
    this.#wall += milliseconds;
    this.#monotonic += milliseconds;
    for (const timer of this.#timers) {
      if (timer.at > this.#monotonic) continue;
      this.#timers.delete(timer);
      timer.run();
    }
  }

  /** As `date --set` does. */
  set(byMilliseconds: number): void {
    this.#wall += byMilliseconds;
  }
}
