import type { Policy } from "../model/policy.ts";
import { ClusterIndex } from "./cluster-index.ts";
import type { Snapshot, SnapshotLoads, SnapshotShard, SnapshotTenant } from "./snapshot.ts";
import { placesHeld, releaseOf, wantedInstead } from "./snapshot-facts.ts";

/** The world in the planner's own order, and so independent of the order it was given in. */
export interface World {
  now: number;
  policy: Policy;
  /** Tenants that are not simply where they shall be: without a shard, leaving, moving, of the wrong release; isolated, dedicated and heavy ones, and those with a wish that may be open. By name. */
  unsettled: SnapshotTenant[];
  /** By release, then index. */
  shards: SnapshotShard[];
  shardByName: ReadonlyMap<string, SnapshotShard>;
  shardsOfRelease: Map<string, SnapshotShard[]>;
  /** Places taken on a shard: see `placesHeld`. */
  placesTaken(shard: string): number;
  tenant(name: string): SnapshotTenant | undefined;
  /** Tenants assigned to a shard, by name. */
  tenantsOn(shard: string): SnapshotTenant[];
  /** Versions that some tenant wants. */
  releasesWanted: string[];
  movesUnderWay: number;
  /** Tenants that have a shard to wake on, and do not run yet; and those of them that nobody waits for. */
  wakesUnderWay: number;
  dueUnderWay: number;
  /** Tenants that are leaving their shard to sleep. */
  fallingAsleep: number;
  fallingAsleepOf(release: string): number;
  /** Up to this number of sleeping tenants for which something is due, the longest due first. */
  dueAsleep(limit: number): SnapshotTenant[];
  /** Tenants that run and that nobody uses, in no order. */
  idle(): Iterable<SnapshotTenant>;
  nobodyWakes: boolean;
  windowClosed: boolean;
  loads: SnapshotLoads;
  /** Tenants that were moved for the load at some time, in no order. */
  balanced(): Iterable<SnapshotTenant>;
  tenantCount: number;
  /** Shards that are gone and that tenants still name: one of that name would have those tenants at once. */
  goneShards: Set<string>;
  /** Shards that have, or shall have, an isolated tenant, or a dedicated one and no other: nobody else gets a place there. */
  isolatedShards: Set<string>;
  /** Shards that have, or shall have, a heavy tenant and no other: only who finds no other place gets one there. */
  heavyShards: Set<string>;
}

/** The world as an index has it now; good until the index changes. */
export function worldOf(index: ClusterIndex, now: number, policy: Policy): World {
  const shards = index.shards();
  const unsettled = index.unsettled();
  const isolated = unsettled.filter((tenant) => tenant.isolated).flatMap((tenant) => [...placesHeld(tenant)]);
  const aloneOn = (tenant: SnapshotTenant) => [...placesHeld(tenant)].filter((name) => index.placesTaken(name) === 1);
  const dedicated = unsettled.filter((tenant) => tenant.dedicated).flatMap(aloneOn);
  const heavy = unsettled.filter((tenant) => tenant.heavy && !tenant.deleting).flatMap(aloneOn);
  return {
    now,
    policy,
    unsettled,
    shards,
    shardByName: index.shardByName,
    shardsOfRelease: Map.groupBy(shards, (shard) => shard.release),
    placesTaken: (shard) => index.placesTaken(shard),
    tenant: (name) => index.tenant(name),
    tenantsOn: (shard) => index.tenantsOn(shard),
    releasesWanted: index.releasesWanted(),
    movesUnderWay: index.movesUnderWay,
    wakesUnderWay: index.wakesUnderWay,
    dueUnderWay: index.dueUnderWay,
    fallingAsleep: index.fallingAsleep,
    fallingAsleepOf: (release) => index.fallingAsleepOf(release),
    dueAsleep: (limit) => index.dueAsleep(now, limit),
    idle: () => index.idle(),
    nobodyWakes: index.nobodyWakes,
    windowClosed: index.windowClosed,
    loads: index.loads,
    balanced: () => index.balanced(),
    tenantCount: index.tenantCount,
    goneShards: index.goneShards(),
    isolatedShards: new Set([...isolated, ...dedicated]),
    heavyShards: new Set(heavy),
  };
}

/** Whether a shard is for one tenant, and so not to be filled or given up. */
export function isForOne(world: Pick<World, "isolatedShards" | "heavyShards">, shard: string): boolean {
  return world.isolatedShards.has(shard) || world.heavyShards.has(shard);
}

/** The world of a whole snapshot. */
export function readWorld(snapshot: Snapshot, policy: Policy): World {
  return worldOf(ClusterIndex.of(snapshot), snapshot.now, policy);
}

/** The release of the shard that has the tenant; of a shard that is gone, its name tells. */
export function presentRelease(world: Pick<World, "shardByName">, tenant: SnapshotTenant): string | undefined {
  return tenant.shard === undefined ? undefined : releaseOf(tenant.shard, world.shardByName.get(tenant.shard));
}

/** The release the tenant shall run next: the one it wants, unless that has been refused. */
export function wantedRelease(world: Pick<World, "shardByName">, tenant: SnapshotTenant): string {
  return wantedInstead(tenant, presentRelease(world, tenant));
}
