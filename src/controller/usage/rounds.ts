import type { Clock } from "../../model/clock.ts";
import type { Tenant } from "../../model/tenant.ts";
import type { CachedReader } from "../cached-reader.ts";

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

/**
 * A round through all tenants, a few at a time, by the order that the reader keeps: sorting all of them each time would be most of the work.
 * @returns the next few after `last` that are wanted; from the beginning again, where none are left
 */
export function nextTenants(
  reader: Pick<CachedReader, "sorted">,
  last: string,
  most: number,
  isWanted: (tenant: Tenant) => boolean = () => true,
): Tenant[] {
  const all = reader.sorted("Tenant");
  const from = (first: number): Tenant[] => {
    const found: Tenant[] = [];
    for (let place = first; place < all.length && found.length < most; place++)
      if (isWanted(all[place]!)) found.push(all[place]!);
    return found;
  };
  const next = from(placeAfter(all, last));
  return next.length > 0 ? next : from(0);
}

function placeAfter(all: readonly Tenant[], last: string): number {
  let [low, high] = [0, all.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (all[middle]!.metadata.name > last) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** @returns the next few of `sorted` after `last`; from the beginning again, where none are left */
function nextFew(sorted: string[], last: string, most: number): string[] {
  const after = sorted.filter((name) => name > last);
  return (after.length > 0 ? after : sorted).slice(0, most);
}
