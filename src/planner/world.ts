import type { Policy } from "../model/policy.ts";
import type { ClusterIndex } from "./cluster-index.ts";
import type { SnapshotShard, SnapshotTenant } from "./snapshot.ts";

/** The world in the planner's own order, and so independent of the order it was given in. */
export interface World {
  now: number;
  policy: Policy;
  /** Tenants that are not simply where they shall be: without a shard, leaving, moving, or of the wrong release. By name. */
  unsettled: SnapshotTenant[];
  /** By release, then index. */
  shards: SnapshotShard[];
  shardByName: ReadonlyMap<string, SnapshotShard>;
  shardsOfRelease: Map<string, SnapshotShard[]>;
  /** Places taken on a shard: see `placesHeld`. */
  placesTaken(shard: string): number;
  /** Tenants assigned to a shard, by name. */
  tenantsOn(shard: string): SnapshotTenant[];
  /** Versions that some tenant wants. */
  releasesWanted: string[];
  movesUnderWay: number;
  /** Shards that are gone and that tenants still name: one of that name would have those tenants at once. */
  goneShards: Set<string>;
}

/** The world as an index has it now; good until the index changes. */
export function worldOf(index: ClusterIndex, now: number, policy: Policy): World {
  const shards = index.shards();
  return {
    now,
    policy,
    unsettled: index.unsettled(),
    shards,
    shardByName: index.shardByName,
    shardsOfRelease: Map.groupBy(shards, (shard) => shard.release),
    placesTaken: (shard) => index.placesTaken(shard),
    tenantsOn: (shard) => index.tenantsOn(shard),
    releasesWanted: index.releasesWanted(),
    movesUnderWay: index.movesUnderWay,
    goneShards: index.goneShards(),
  };
}

/** A moving tenant holds a place on both shards: it may arrive, and it may be rolled back. */
export function placesHeld({ shard, move }: SnapshotTenant): Iterable<string> {
  if (!move) return shard === undefined ? [] : [shard];
  const names = new Set([move.from, move.to]);
  return shard === undefined ? names : names.add(shard);
}

/** The release of the shard that has the tenant; of a shard that is gone, its name tells. */
export function presentRelease(world: Pick<World, "shardByName">, tenant: SnapshotTenant): string | undefined {
  return tenant.shard === undefined ? undefined : releaseOf(tenant.shard, world.shardByName.get(tenant.shard));
}

export function releaseOf(name: string, shard: SnapshotShard | undefined): string {
  return shard?.release ?? name.replace(/-\d+$/, "");
}

/** The release the tenant shall run next: the one it wants, unless that has been refused. */
export function wantedRelease(world: Pick<World, "shardByName">, tenant: SnapshotTenant): string {
  return wantedInstead(tenant, presentRelease(world, tenant));
}

/** @param present the release it has */
export function wantedInstead(tenant: SnapshotTenant, present: string | undefined): string {
  return tenant.refusedRelease === tenant.release && present !== undefined ? present : tenant.release;
}

/** It can take tenants, now or when it has come up. */
export function isUsable(shard: SnapshotShard): boolean {
  return shard.drain === undefined && isAlive(shard);
}

/** `Draining` without a drain: the drain was called off, and the phase has not followed yet. */
export function isAlive(shard: SnapshotShard): boolean {
  return shard.phase !== "Failed" && shard.phase !== "Lost" && shard.phase !== "Stopping";
}

/** The number after the last "-", by which shards of one release are ordered and named. */
export function shardIndex(name: string): number {
  const digits = /-(\d+)$/.exec(name)?.[1];
  return digits === undefined ? -1 : Number(digits);
}

export function byReleaseAndIndex(a: SnapshotShard, b: SnapshotShard): number {
  if (a.release !== b.release) return compareReleases(a.release, b.release);
  return shardIndex(a.name) - shardIndex(b.name) || (a.name < b.name ? -1 : 1);
}

function compareReleases(a: string, b: string): number {
  const [left, right] = [a.split("."), b.split(".")];
  for (let i = 0; i < Math.max(left.length, right.length); i++) {
    const difference = Number(left[i] ?? -1) - Number(right[i] ?? -1);
    if (difference) return difference;
  }
  return a < b ? -1 : 1;
}
