import type { TenantFacts } from "./oracle.ts";

/** After that, one of several that nobody uses is asleep, also on a busy machine. */
const ASLEEP_WITHIN_MS = 180_000;

/** Counts the sleeps that are seen, so that a run in which nobody sleeps is not taken for one that shows something. */
export class Rests {
  readonly #sleeps = new Set<string>();
  readonly #timed = new Set<string>();
  readonly #now: () => number;
  #restingMs = 0;
  #looked: number | undefined;

  constructor(now: () => number = Date.now) {
    this.#now = now;
  }

  /** @param resting names of tenants that nobody uses now; those that do not run yet cannot fall asleep */
  note(tenants: TenantFacts[], resting: ReadonlySet<string>): void {
    const now = this.#now();
    const could = tenants.filter(({ name, phase }) => phase === "Running" && resting.has(name)).length;
    if (this.#looked !== undefined) this.#restingMs += (now - this.#looked) * could;
    this.#looked = now;
    for (const { name, phase, epoch, wokenByTime } of tenants) {
      if (phase === "Asleep") this.#sleeps.add(`${name} ${epoch}`);
      if (wokenByTime !== undefined) this.#timed.add(`${name} ${wokenByTime}`);
    }
  }

  isOddlyAwake(): boolean {
    return this.#sleeps.size === 0 && this.#restingMs > ASLEEP_WITHIN_MS;
  }

  describe(): string {
    return `${this.#sleeps.size} sleeps, ${this.#timed.size} wakes by time`;
  }
}
