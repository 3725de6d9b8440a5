import type { Clock } from "../../model/clock.ts";
import type { ShardLoad } from "../../ports/shard-control.ts";

/** A tenant that was used within this time is in use. */
export const UNUSED_MS = 5_000;
/** A shard tells for how long nobody has used a tenant; by less than that two answers differ by chance. */
const SAME_MS = 2_000;

export interface IdleFacts {
  /** When somebody last used it; milliseconds of the clock. */
  since: number;
  /** It had something to do when it was asked, and is not asked again before. */
  notBefore?: number;
}

/** Which tenants nobody uses, as their shards tell. Nothing here outlives the controller, as all of it can be asked again. */
export class IdleTenants {
  readonly #clock: Pick<Clock, "now">;
  readonly #idle = new Map<string, IdleFacts>();
  /** Those whose shards are being asked whether they may sleep. */
  readonly #asked = new Set<string>();
  readonly #listeners = new Set<(tenant: string) => void>();

  constructor(clock: Pick<Clock, "now">) {
    this.#clock = clock;
  }

  /** @param listener called with each tenant of which something else is known than before */
  onChange(listener: (tenant: string) => void): void {
    this.#listeners.add(listener);
  }

  get(tenant: string): IdleFacts | undefined {
    return this.#idle.get(tenant);
  }

  isAsked(tenant: string): boolean {
    return this.#asked.has(tenant);
  }

  /** What a shard says of all its tenants. One of an earlier version says nothing of their use, so they stay awake. */
  learn({ tenants }: ShardLoad): void {
    const now = this.#clock.now();
    for (const [name, { inFlight = 1, lastUse = 0 }] of Object.entries(tenants)) {
      const since = now - lastUse * 1000;
      if (inFlight > 0 || now - since < UNUSED_MS) this.forget(name);
      else this.#note(name, since);
    }
  }

  forget(tenant: string): void {
    if (this.#idle.delete(tenant)) this.#tell(tenant);
  }

  /** It cannot sleep yet. */
  keepAwake(tenant: string, until: number): void {
    const facts = this.#idle.get(tenant) ?? { since: this.#clock.now() };
    this.#idle.set(tenant, { ...facts, notBefore: until });
    this.#tell(tenant);
  }

  setAsked(tenant: string, isAsked: boolean): void {
    if (isAsked === this.#asked.has(tenant)) return;
    if (isAsked) this.#asked.add(tenant);
    else this.#asked.delete(tenant);
    this.#tell(tenant);
  }

  #note(name: string, since: number): void {
    const before = this.#idle.get(name);
    if (before && Math.abs(before.since - since) < SAME_MS) return;
    this.#idle.set(name, { ...before, since });
    this.#tell(name);
  }

  #tell(tenant: string): void {
    for (const listener of this.#listeners) listener(tenant);
  }
}
