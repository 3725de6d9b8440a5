/** How exactly a poll's time is kept: late by up to this, never early. */
const TICK_MS = 250;

/** How holding a poll ends. */
export const HELD_OUTCOMES = ["answered", "passed", "doubted", "failed", "left"] as const;
export type HeldOutcome = (typeof HELD_OUTCOMES)[number];

export interface HeldPoll {
  readonly tenant: string;
  /** `performance.now()` at which it is answered. */
  readonly due: number;
  /** Of the timer's: set where it is held. */
  slot: number;
  /** Its tenant's route has changed: look at it again. */
  resume(): void;
  /** Its time is over: it leaves, or is looked at again. */
  answer(): void;
}

/**
 * Polls that wait for nothing. One timer for all, which runs only while there are any; polls that are due in the same quarter of a second share a
 * slot. No copy of an answer is kept here.
 */
export class HeldPolls {
  readonly #limits: { maxHeldPolls: number };
  readonly #byTenant = new Map<string, Set<HeldPoll>>();
  readonly #slots = new Map<number, Set<HeldPoll>>();
  #size = 0;
  #timer: NodeJS.Timeout | undefined;
  /** The last slot that was answered. */
  #reached = 0;

  constructor(limits: { maxHeldPolls: number }) {
    this.#limits = limits;
  }

  get size(): number {
    return this.#size;
  }

  *sizes(): Generator<[tenant: string, size: number]> {
    for (const [tenant, polls] of this.#byTenant) yield [tenant, polls.size];
  }

  /** @returns false if there is no room */
  enter(poll: HeldPoll): boolean {
    if (this.#size >= this.#limits.maxHeldPolls) return false;
    this.#size += 1;
    if (!this.#timer) {
      this.#reached = Math.floor(performance.now() / TICK_MS);
      this.#timer = setInterval(() => this.#tick(), TICK_MS);
    }
    poll.slot = Math.max(Math.ceil(poll.due / TICK_MS), this.#reached + 1);
    addTo(this.#byTenant, poll.tenant, poll);
    addTo(this.#slots, poll.slot, poll);
    return true;
  }

  leave(poll: HeldPoll): void {
    if (!removeFrom(this.#byTenant, poll.tenant, poll)) return;
    removeFrom(this.#slots, poll.slot, poll);
    this.#size -= 1;
    if (this.#size > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  /** The tenant's route has changed. */
  resume(tenant: string): void {
    for (const poll of this.#byTenant.get(tenant) ?? []) poll.resume();
  }

  #tick(): void {
    const now = Math.floor(performance.now() / TICK_MS);
    while (this.#reached < now) {
      this.#reached += 1;
      for (const poll of this.#slots.get(this.#reached) ?? []) poll.answer();
    }
  }
}

function addTo<K, V>(sets: Map<K, Set<V>>, key: K, value: V): void {
  const set = sets.get(key);
  if (set) set.add(value);
  else sets.set(key, new Set([value]));
}

function removeFrom<K, V>(sets: Map<K, Set<V>>, key: K, value: V): boolean {
  const set = sets.get(key);
  if (!set?.delete(value)) return false;
  if (set.size === 0) sets.delete(key);
  return true;
}
