import type { Policy } from "../../src/model/policy.ts";
import { nextLoad, type Load } from "../../src/model/load.ts";
import { ClusterIndex } from "../../src/planner/cluster-index.ts";
import { planFromIndex } from "../../src/planner/plan.ts";
import type { Action } from "../../src/planner/actions.ts";
import type { SnapshotLoad } from "../../src/planner/snapshot.ts";
import { NOW, V2 } from "./builders.ts";

/** Seconds between two looks at the shards, which is also how long a move takes. */
export const STEP = 30;

/** What a tenant takes at a time: share of a core. @param second since the beginning */
export type LoadOf = (tenant: number, second: number) => number;

/** Of one and the same run, the same numbers each time. */
export function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** Tenants' shares by Zipf's law, in no order; all together take `total`, and none more than `most`. */
export function zipf(count: number, total: number, random: () => number, most = 0.25): number[] {
  const weights = Array.from({ length: count }, (_, rank) => 1 / (rank + 1));
  const sum = weights.reduce((a, b) => a + b, 0);
  const shares = weights.map((weight) => Math.min(most, (weight / sum) * total));
  for (let i = shares.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [shares[i], shares[j]] = [shares[j] ?? 0, shares[i] ?? 0];
  }
  return shares;
}

/**
 * What requests make of a share: each takes a quarter of a second on average, and they come when they come. So large tenants vary by a quarter
 * from look to look, and small ones take nothing mostly.
 */
export function byRequests(share: number, random: () => number): number {
  const mean = share * STEP;
  const normal = Math.sqrt(-2 * Math.log(random() + 1e-12)) * Math.cos(2 * Math.PI * random());
  return Math.max(0, mean + Math.sqrt(2 * 0.25 * mean) * normal) / STEP;
}

interface Tenant {
  name: string;
  shard: string;
  target?: string;
  balanced?: { at: number; from: string; to: string };
}

/** A cluster under a load that changes with the time, as the controller would see it: averages of what was taken, and moves that take time. */
export class LoadSimulator {
  readonly index = new ClusterIndex();
  readonly tenants: Tenant[] = [];
  readonly moves: { tenant: string; second: number; from: string; to: string; reason: string }[] = [];
  /** In order, without moves. */
  readonly others: { second: number; action: Action }[] = [];
  /** The highest and the mean share of the shards, at each step. */
  readonly spread: { second: number; max: number; mean: number }[] = [];
  second = 0;
  readonly #policy: Policy;
  readonly #loadOf: LoadOf;
  readonly #tenantLoads = new Map<string, SnapshotLoad>();
  readonly #shardLoads = new Map<string, SnapshotLoad>();
  readonly #averages = new Map<string, { share: Load; lasting: Load }>();
  readonly #used = new Map<string, number>();
  readonly #coming = new Set<string>();

  /** @param perShard tenants on each shard at first, in their order; absent: as they are placed */
  constructor(policy: Policy, count: number, loadOf: LoadOf, perShard?: number) {
    this.#policy = policy;
    this.#loadOf = loadOf;
    this.index.loads = { shards: this.#shardLoads, tenants: this.#tenantLoads };
    for (let n = 0; n < count; n++) {
      const shard = perShard === undefined ? "" : `${V2}-${Math.floor(n / perShard)}`;
      if (shard !== "" && n % (perShard ?? 1) === 0) this.#setShard(shard, "Ready");
      const tenant = { name: `t${String(n).padStart(4, "0")}`, shard };
      this.tenants.push(tenant);
      this.#show(tenant);
    }
    this.#carryOut(planFromIndex(this.index, this.#now, this.#policy));
  }

  get #now(): number {
    return NOW + this.second * 1000;
  }

  run(seconds: number): this {
    for (const end = this.second + seconds; this.second < end;) this.step();
    return this;
  }

  step(): void {
    this.second += STEP;
    for (const name of this.#coming) this.#setShard(name, "Ready");
    this.#coming.clear();
    for (const tenant of this.tenants) if (tenant.target !== undefined) this.#arrive(tenant, tenant.target);
    this.#measure();
    this.#carryOut(planFromIndex(this.index, this.#now, this.#policy));
  }

  shards(): string[] {
    return this.index.shards().map(({ name }) => name);
  }

  /** What the hottest shard takes now, and would take where the largest tenants are placed first, each on the coolest shard: of the mean. */
  evenness(): { ratio: number; possible: number } {
    const shards = this.shards();
    const lasting = (name: string) => this.#tenantLoads.get(name)?.lasting ?? 0;
    const now = shards.map((shard) => {
      const own = this.tenants.filter((tenant) => tenant.shard === shard);
      return own.reduce((sum, { name }) => sum + lasting(name), 0);
    });
    const mean = now.reduce((a, b) => a + b, 0) / shards.length;
    const best = shards.map(() => ({ load: 0, tenants: 0 }));
    for (const { name } of this.tenants.toSorted((a, b) => lasting(b.name) - lasting(a.name))) {
      const free = best.filter(({ tenants }) => tenants < this.#policy.maxTenantsPerShard);
      const coolest = free.toSorted((a, b) => a.load - b.load)[0];
      if (!coolest) throw new Error("there are more tenants than places");
      coolest.load += lasting(name);
      coolest.tenants++;
    }
    return { ratio: Math.max(...now) / mean, possible: Math.max(...best.map(({ load }) => load)) / mean };
  }

  #arrive(tenant: Tenant, shard: string): void {
    for (const name of [tenant.shard, shard]) this.#setShard(name, "Ready");
    tenant.shard = shard;
    delete tenant.target;
    this.#show(tenant);
  }

  #measure(): void {
    const taken = new Map<string, number>(this.shards().map((name) => [name, 0]));
    for (const [number, { name, shard }] of this.tenants.entries()) {
      const share = this.#loadOf(number, this.second);
      this.#tenantLoads.set(name, this.#average(name, share));
      taken.set(shard, (taken.get(shard) ?? 0) + share);
    }
    for (const [name, share] of taken) this.#shardLoads.set(name, this.#average(name, Math.min(1, share)));
    const now = [...taken.keys()].map((name) => this.#shardLoads.get(name)?.lasting ?? 0);
    const mean = now.reduce((a, b) => a + b, 0) / now.length;
    this.spread.push({ second: this.second, max: Math.max(...now), mean });
  }

  #average(name: string, share: number): SnapshotLoad {
    const cpuSeconds = (this.#used.get(name) ?? 0) + share * STEP;
    this.#used.set(name, cpuSeconds);
    const look = { at: this.#now, cpuSeconds, starvedSeconds: 0 };
    const before = this.#averages.get(name);
    const next = { share: nextLoad(before?.share, look, 60), lasting: nextLoad(before?.lasting, look, 600) };
    this.#averages.set(name, next);
    return { share: next.share.share ?? 0, lasting: next.lasting.share ?? 0 };
  }

  #carryOut(actions: Action[]): void {
    for (const action of actions) {
      if (action.type === "Move") this.#move(action);
      else if (action.type !== "Assign") this.others.push({ second: this.second, action });
      if (action.type === "CreateShard") {
        this.#setShard(action.name, "Starting");
        this.#coming.add(action.name);
      }
      if (action.type === "Assign") {
        const tenant = this.#named(action.tenant);
        tenant.shard = action.shard;
        this.#show(tenant);
      }
      if (action.type === "DrainShard") this.#setShard(action.shard, "Ready", "Consolidation");
      if (action.type === "CancelDrain") this.#setShard(action.shard, "Ready");
      if (action.type === "StopShard") {
        this.index.removeShard(action.shard);
        this.#shardLoads.delete(action.shard);
        this.#averages.delete(action.shard);
      }
    }
  }

  #move({ tenant: name, from, to, reason }: Extract<Action, { type: "Move" }>): void {
    const tenant = this.#named(name);
    this.moves.push({ tenant: name, second: this.second, from, to, reason });
    tenant.target = to;
    if (reason === "Balance") tenant.balanced = { at: this.#now, from, to };
    this.#show(tenant);
  }

  #named(name: string): Tenant {
    const tenant = this.tenants[Number(name.slice(1))];
    if (!tenant) throw new Error(`the plan names tenant ${name}, which there is not`);
    return tenant;
  }

  #show({ name, shard, target, balanced }: Tenant): void {
    this.index.setTenant({
      name,
      release: V2,
      deleting: false,
      ...(shard === "" ? {} : { shard }),
      ...(target === undefined ? {} : { move: { from: shard, to: target } }),
      ...(balanced ? { balanced } : {}),
    });
  }

  #setShard(name: string, phase: "Starting" | "Ready", drain?: "Consolidation"): void {
    const before = this.index.shardByName.get(name);
    const kept = drain ?? (before?.drain === "Consolidation" ? before.drain : undefined);
    this.index.setShard({ name, release: V2, phase, drain: kept, lastAssignmentChange: this.#now, grownAt: this.#now });
  }
}
