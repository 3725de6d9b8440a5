import type { Policy } from "../model/policy.ts";
import type { Snapshot, ShardView, TenantView } from "./snapshot.ts";
import { byVersionAndIndex, placesHeld, presentVersion, wantedVersion, worldOf, type World } from "./world.ts";

/** A tenant as it was counted, so that exactly that can be taken back. */
interface Counted {
  view: TenantView;
  wanted: string;
  restless: boolean;
}

/**
 * What plans look up in a snapshot, kept current change by change: a plan then costs by the number of shards and of tenants
 * that something is to be done about, not by the number of all tenants. The same tenants and shards give the same index,
 * whichever way it came there.
 */
export class ClusterIndex {
  readonly #tenants = new Map<string, Counted>();
  readonly #shards = new Map<string, ShardView>();
  /** Tenants assigned to each shard, also to shards that are gone. */
  readonly #on = new Map<string, Map<string, TenantView>>();
  readonly #occupied = new Map<string, number>();
  readonly #restless = new Map<string, TenantView>();
  readonly #wanted = new Map<string, number>();
  #moves = 0;
  #sortedShards: ShardView[] | undefined;

  static of(snapshot: Snapshot): ClusterIndex {
    const index = new ClusterIndex();
    for (const shard of snapshot.shards) index.setShard(shard);
    for (const tenant of snapshot.tenants) index.setTenant(tenant);
    return index;
  }

  /** Adds or replaces. The view is kept and must not be changed afterwards. */
  setTenant(view: TenantView): void {
    this.removeTenant(view.name);
    const wanted = wantedVersion(this, view);
    const restless = this.#isRestless(view, wanted);
    this.#tenants.set(view.name, { view, wanted, restless });
    if (!view.deleting) count(this.#wanted, wanted, 1);
    if (restless) this.#restless.set(view.name, view);
    if (view.move) this.#moves++;
    for (const name of placesHeld(view)) count(this.#occupied, name, 1);
    if (view.shard === undefined) return;
    const own = this.#on.get(view.shard);
    if (own) own.set(view.name, view);
    else this.#on.set(view.shard, new Map([[view.name, view]]));
  }

  removeTenant(name: string): void {
    const counted = this.#tenants.get(name);
    if (!counted) return;
    const { view, wanted, restless } = counted;
    this.#tenants.delete(name);
    if (!view.deleting) count(this.#wanted, wanted, -1);
    if (restless) this.#restless.delete(name);
    if (view.move) this.#moves--;
    for (const shard of placesHeld(view)) count(this.#occupied, shard, -1);
    if (view.shard === undefined) return;
    const own = this.#on.get(view.shard);
    own?.delete(name);
    if (own?.size === 0) this.#on.delete(view.shard);
  }

  setShard(view: ShardView): void {
    const before = this.#shards.get(view.name);
    this.#shards.set(view.name, view);
    this.#sortedShards = undefined;
    if (before?.version !== view.version) this.#countAgain(view.name);
  }

  removeShard(name: string): void {
    if (!this.#shards.delete(name)) return;
    this.#sortedShards = undefined;
    this.#countAgain(name);
  }

  tenant(name: string): TenantView | undefined {
    return this.#tenants.get(name)?.view;
  }

  get shardByName(): ReadonlyMap<string, ShardView> {
    return this.#shards;
  }

  get movesUnderWay(): number {
    return this.#moves;
  }

  /** Places taken on each shard; see `placesHeld`. */
  get occupied(): ReadonlyMap<string, number> {
    return this.#occupied;
  }

  /** By version, then index. */
  shards(): ShardView[] {
    this.#sortedShards ??= [...this.#shards.values()].toSorted(byVersionAndIndex);
    return this.#sortedShards;
  }

  /** Tenants that are not simply where they shall be, by name. */
  restless(): TenantView[] {
    return [...this.#restless.values()].toSorted(byName);
  }

  tenantsOn(shard: string): TenantView[] {
    return [...(this.#on.get(shard)?.values() ?? [])].toSorted(byName);
  }

  /** Versions that some tenant wants and that it has not been refused. */
  versionsWanted(): string[] {
    return [...this.#wanted.keys()];
  }

  /** Shards that are gone and that tenants still name: one of that name would have those tenants at once. */
  goneShards(): Set<string> {
    return new Set([...this.#occupied.keys()].filter((name) => !this.#shards.has(name)));
  }

  #isRestless(view: TenantView, wanted: string): boolean {
    if (view.move || view.deleting || view.shard === undefined) return true;
    return !this.#shards.has(view.shard) || presentVersion(this, view) !== wanted;
  }

  /** Whether a tenant is at rest, and what it wants, depends on its shard. */
  #countAgain(shard: string): void {
    // A copy: counting again takes each out of the map and puts it back at its end.
    for (const view of Array.from(this.#on.get(shard)?.values() ?? [])) this.setTenant(view);
  }
}

export function readWorld(snapshot: Snapshot, policy: Policy): World {
  return worldOf(ClusterIndex.of(snapshot), snapshot.now, policy);
}

function byName(a: TenantView, b: TenantView): number {
  return a.name < b.name ? -1 : a.name > b.name ? 1 : 0;
}

function count(counts: Map<string, number>, key: string, by: number): void {
  const next = (counts.get(key) ?? 0) + by;
  if (next === 0) counts.delete(key);
  else counts.set(key, next);
}
