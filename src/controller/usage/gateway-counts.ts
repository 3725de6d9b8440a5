import { randomUUID } from "node:crypto";
import type { AnsweredRequests } from "../../model/routes.ts";
import type { CountedRun } from "../../model/usage-month.ts";

/** Runs of gateways that are remembered. One that is forgotten and comes again is met as a new one. */
const MOST_GATEWAYS = 1_000;

interface Total {
  epoch: number;
  requests: number;
}

/**
 * Adds up what all gateways say of the requests of dedicated tenants, into one total of each epoch. The first word of a gateway has what
 * an earlier controller has counted: this one counts from there on, rather too little than too much. So it is with a tenant that is new in
 * a later word about all.
 */
export class GatewayCounts {
  readonly #run = randomUUID();
  /** What each gateway said last. */
  readonly #said = new Map<string, Map<string, Total>>();
  readonly #totals = new Map<string, Total>();

  /** @returns the totals that have changed, as those of a start */
  heard({ gateway, all, tenants }: AnsweredRequests): Record<string, CountedRun> {
    const before = this.#said.get(gateway);
    // Meant for a controller before this one, to which it said more.
    if (!before && !all) return {};
    const said = before ?? new Map<string, Total>();
    // Those that were heard last are last.
    this.#said.delete(gateway);
    this.#said.set(gateway, said);
    const [first] = this.#said.keys();
    if (this.#said.size > MOST_GATEWAYS && first !== undefined) this.#said.delete(first);
    const changed: Record<string, CountedRun> = {};
    for (const [tenant, { epoch, requests }] of Object.entries(tenants)) {
      const last = said.get(tenant);
      const total = this.#totals.get(tenant) ?? { epoch, requests: 0 };
      if (epoch < total.epoch || epoch < (last?.epoch ?? 0)) continue;
      said.set(tenant, { epoch, requests });
      const counted = last?.epoch === epoch ? last.requests : before && !all ? 0 : requests;
      const now = { epoch, requests: (total.epoch === epoch ? total.requests : 0) + Math.max(0, requests - counted) };
      this.#totals.set(tenant, now);
      if (now.requests > 0) changed[tenant] = { run: `gateways ${epoch} ${this.#run}`, cpuSeconds: 0, ...now };
    }
    return changed;
  }

  forget(tenant: string): void {
    this.#totals.delete(tenant);
    for (const said of this.#said.values()) said.delete(tenant);
  }
}
