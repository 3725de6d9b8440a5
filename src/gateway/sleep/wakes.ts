import { MOST_WAKES, type WakeCause, type WakeRequest } from "../../model/routes.ts";

/** How often a wake is asked for that is still wanted: a controller that ended in between may not have heard. */
const AGAIN_MS = 5_000;
/** After a controller that could not be reached. */
const RETRY_MS = 1_000;

export interface WakesOptions {
  /** @throws Error when the controller did not take it */
  send(tenants: WakeRequest["tenants"]): Promise<void>;
  /** Whether anybody waits for a tenant that sleeps. */
  isWanted(tenant: string): boolean;
  onAsked(why: WakeCause): void;
  onProblem(error: unknown, tenants: number): void;
  againMs?: number;
}

/** Asks the controller to wake tenants: at once, once for all who wait, and again while they wait. */
export class Wakes {
  readonly #options: WakesOptions;
  readonly #wanted = new Map<string, WakeCause>();
  /** Not asked for yet. */
  #fresh: string[] = [];
  #flushing = false;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: WakesOptions) {
    this.#options = options;
  }

  want(tenant: string, why: WakeCause): void {
    if (this.#wanted.has(tenant)) return;
    this.#wanted.set(tenant, why);
    this.#fresh.push(tenant);
    this.#options.onAsked(why);
    this.#flushSoon();
    this.#watch(this.#options.againMs ?? AGAIN_MS);
  }

  /** It no longer sleeps, or is gone. */
  settled(tenant: string): void {
    this.#wanted.delete(tenant);
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#wanted.clear();
  }

  /** All that come in one turn of the loop are one request. */
  #flushSoon(): void {
    if (this.#flushing) return;
    this.#flushing = true;
    setImmediate(() => {
      this.#flushing = false;
      const fresh = this.#fresh;
      this.#fresh = [];
      void this.#ask(fresh);
    });
  }

  #watch(ms: number): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      for (const tenant of this.#wanted.keys()) if (!this.#options.isWanted(tenant)) this.#wanted.delete(tenant);
      void this.#ask([...this.#wanted.keys()]);
      if (this.#wanted.size > 0) this.#watch(this.#options.againMs ?? AGAIN_MS);
    }, ms);
  }

  async #ask(names: readonly string[]): Promise<void> {
    const tenants = names.flatMap((tenant) => {
      const why = this.#wanted.get(tenant);
      return why === undefined ? [] : [{ tenant, why }];
    });
    for (let from = 0; from < tenants.length; from += MOST_WAKES) {
      const some = tenants.slice(from, from + MOST_WAKES);
      try {
        await this.#options.send(some);
      } catch (error) {
        this.#options.onProblem(error, some.length);
        clearTimeout(this.#timer);
        this.#timer = undefined;
        if (this.#wanted.size > 0) this.#watch(RETRY_MS);
        return;
      }
    }
  }
}
