/** Fewer are not worth moving. */
const MOST_TAKEN = 1_000;

/**
 * Distinct keys, first in, first out. A Set alone keeps places of those that were deleted, over which each look for its first one goes: with
 * 100,000 waiting, taking them one by one would be quadratic.
 */
export class DistinctQueue {
  readonly #waiting = new Set<string>();
  /** In order; with those that were taken or removed. */
  #order: string[] = [];
  #first = 0;

  get size(): number {
    return this.#waiting.size;
  }

  add(key: string): void {
    if (this.#waiting.has(key)) return;
    this.#waiting.add(key);
    this.#order.push(key);
  }

  delete(key: string): void {
    this.#waiting.delete(key);
  }

  /** Undefined where it is empty. */
  take(): string | undefined {
    while (this.#first < this.#order.length) {
      const key = this.#order[this.#first++]!;
      if (this.#first > MOST_TAKEN && this.#first > this.#order.length / 2) {
        this.#order = this.#order.slice(this.#first);
        this.#first = 0;
      }
      if (this.#waiting.delete(key)) return key;
    }
    return undefined;
  }
}
