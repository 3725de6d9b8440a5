import type { Policy } from "../model/policy.ts";
import type { ShardView, Snapshot, TenantView } from "./snapshot.ts";

/** The snapshot in the planner's own order, indexed, and so independent of the order it was given in. */
export interface World {
  now: number;
  policy: Policy;
  /** By name. */
  tenants: TenantView[];
  /** By version, then index. */
  shards: ShardView[];
  shardByName: Map<string, ShardView>;
  shardsOfVersion: Map<string, ShardView[]>;
  /** Places taken on each shard: see `placesHeld`. */
  occupied: Map<string, number>;
  /** Tenants assigned to each shard, by name. */
  tenantsOn: Map<string, TenantView[]>;
  movesUnderWay: number;
  /** Shards that are gone and that tenants still name: one of that name would have those tenants at once. */
  goneShards: Set<string>;
}

export function readWorld(snapshot: Snapshot, policy: Policy): World {
  const tenants = snapshot.tenants.toSorted((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
  const shards = snapshot.shards.toSorted(byVersionAndIndex);
  const shardByName = new Map(shards.map((shard) => [shard.name, shard]));
  const occupied = new Map(shards.map((shard) => [shard.name, 0]));
  const tenantsOn = new Map<string, TenantView[]>(shards.map((shard) => [shard.name, []]));
  const goneShards = new Set<string>();
  let movesUnderWay = 0;
  for (const tenant of tenants) {
    if (tenant.move) movesUnderWay++;
    if (tenant.shard !== undefined) tenantsOn.get(tenant.shard)?.push(tenant);
    for (const name of placesHeld(tenant)) {
      const count = occupied.get(name);
      if (count === undefined) goneShards.add(name);
      else occupied.set(name, count + 1);
    }
  }
  return {
    now: snapshot.now,
    policy,
    tenants,
    shards,
    shardByName,
    shardsOfVersion: Map.groupBy(shards, (shard) => shard.version),
    occupied,
    tenantsOn,
    movesUnderWay,
    goneShards,
  };
}

/** A moving tenant holds a place on both shards: it may arrive, and it may be rolled back. */
export function placesHeld(tenant: TenantView): Set<string> {
  const names = new Set<string>();
  if (tenant.shard !== undefined) names.add(tenant.shard);
  if (tenant.move) names.add(tenant.move.from).add(tenant.move.to);
  return names;
}

/** The release of the shard that has the tenant; of a shard that is gone, its name tells. */
export function presentVersion(world: World, tenant: TenantView): string | undefined {
  if (tenant.shard === undefined) return undefined;
  return world.shardByName.get(tenant.shard)?.version ?? tenant.shard.replace(/-\d+$/, "");
}

/** The release the tenant shall run next: the one it wants, unless that has been refused. */
export function wantedVersion(world: World, tenant: TenantView): string {
  const present = presentVersion(world, tenant);
  return tenant.refusedVersion === tenant.version && present !== undefined ? present : tenant.version;
}

/** It can take tenants, now or when it has come up. */
export function isUsable(shard: ShardView): boolean {
  return shard.drain === undefined && isAlive(shard);
}

/** `Draining` without a drain: the drain was called off, and the phase has not followed yet. */
export function isAlive(shard: ShardView): boolean {
  return shard.phase !== "Failed" && shard.phase !== "Lost" && shard.phase !== "Stopping";
}

/** The number after the last "-", by which shards of one version are ordered and named. */
export function shardIndex(name: string): number {
  const digits = /-(\d+)$/.exec(name)?.[1];
  return digits === undefined ? -1 : Number(digits);
}

function byVersionAndIndex(a: ShardView, b: ShardView): number {
  if (a.version !== b.version) return compareVersions(a.version, b.version);
  return shardIndex(a.name) - shardIndex(b.name) || (a.name < b.name ? -1 : 1);
}

function compareVersions(a: string, b: string): number {
  const [left, right] = [a.split("."), b.split(".")];
  for (let i = 0; i < Math.max(left.length, right.length); i++) {
    const difference = Number(left[i] ?? -1) - Number(right[i] ?? -1);
    if (difference) return difference;
  }
  return a < b ? -1 : 1;
}
