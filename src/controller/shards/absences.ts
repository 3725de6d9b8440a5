import type { Clock } from "../../model/clock.ts";
import type { Tenant } from "../../model/tenant.ts";
import type { ShardState } from "../../ports/shard-control.ts";
import type { CachedReader } from "../cached-reader.ts";

/** Beyond that number, and later twice what was left the last time, those that are gone are forgotten. */
const MOST_KNOWN_AT_FIRST = 1_000;

export interface Absence {
  tenant: string;
  /** For how long it served nobody, at most. */
  seconds: number;
}

interface Service {
  /** The start that serves: of which process, with which epoch. */
  start: string;
  /** When it was last seen to serve. */
  at: number;
}

/**
 * Notices tenants that are back and were away unplanned, from what shards say of those that run, and from gateways, without which nobody
 * reaches them: other servers, which found them away, are to hear of it. What a former controller knew is as old as what it wrote down, so that absences may look longer after its end.
 */
export class Absences {
  readonly #clock: Pick<Clock, "now" | "past">;
  readonly #reader: Pick<CachedReader, "get" | "values">;
  readonly #longestMs: number;
  readonly #served = new Map<string, Service>();
  /** Tenants that ran and that nobody reached, and since when. */
  readonly #unreached = new Map<string, number>();
  /** All tenants are looked through only beyond it: at each shard's answer that would be most of what the controller does. */
  #mostKnown = MOST_KNOWN_AT_FIRST;

  /** @param longestSeconds a shorter absence is none: a move or a restart takes some seconds */
  constructor(
    clock: Pick<Clock, "now" | "past">,
    reader: Pick<CachedReader, "get" | "values">,
    longestSeconds: number,
  ) {
    this.#clock = clock;
    this.#reader = reader;
    this.#longestMs = longestSeconds * 1000;
  }

  /** Takes over what the controller before this one knew. To be called before any shard is asked. */
  open(): void {
    for (const { metadata, status } of this.#reader.values("Tenant")) {
      const shard = status.shard === undefined ? undefined : this.#reader.get("Shard", status.shard)?.status;
      if (status.phase !== "Running" || shard?.lastSeen === undefined) continue;
      const times = [shard.lastSeen, status.assignedAt, status.awake?.since].filter((time) => time !== undefined);
      const at = Math.max(...times.map((time) => this.#clock.past(time)));
      this.#served.set(metadata.name, { start: startOf(shard.instance, status.epoch), at });
    }
  }

  /** Gateways are back; from then on until now, none was there. */
  gatewaysBack(since: number): void {
    if (this.#clock.now() - since <= this.#longestMs) return;
    for (const name of this.#served.keys()) this.#unreached.set(name, since);
  }

  /** @param state what a shard says now @returns tenants that are back with it, each once */
  note(state: ShardState): Absence[] {
    const now = this.#clock.now();
    const found: Absence[] = [];
    for (const { name, phase, epoch } of state.tenants) {
      if (phase !== "running") continue;
      const start = startOf(state.instance, epoch);
      const before = this.#served.get(name);
      const unreached = this.#unreached.get(name);
      this.#unreached.delete(name);
      const servedAt = before && (before.start === start ? now : before.at);
      const since = Math.min(servedAt ?? now, unreached ?? now);
      this.#served.set(name, { start, at: now });
      if (now - since <= this.#longestMs || this.#isPlanned(name, since)) continue;
      found.push({ tenant: name, seconds: Math.round((now - since) / 1000) });
    }
    this.#tidy();
    return found;
  }

  /** It slept since, or is another than had the name then. */
  #isPlanned(name: string, since: number): boolean {
    const tenant = this.#reader.get("Tenant", name);
    if (!tenant) return true;
    return this.#clock.past(tenant.metadata.creationTimestamp) > since || this.#slept(tenant, since);
  }

  #slept({ status: { awake, sleep, wake } }: Tenant, since: number): boolean {
    if (sleep || wake) return true;
    return awake !== undefined && this.#clock.past(awake.since) > since;
  }

  #tidy(): void {
    if (this.#served.size < this.#mostKnown) return;
    for (const known of [this.#served, this.#unreached])
      for (const name of known.keys()) if (!this.#reader.get("Tenant", name)) known.delete(name);
    this.#mostKnown = Math.max(MOST_KNOWN_AT_FIRST, 2 * this.#served.size);
  }
}

function startOf(instance: string | undefined, epoch: number): string {
  return `${instance} ${epoch}`;
}
