import type { SnapshotShard, SnapshotTenant } from "./snapshot.ts";

/** A moving tenant holds a place on both shards: it may arrive, and it may be rolled back. */
export function placesHeld({ shard, move }: SnapshotTenant): Iterable<string> {
  if (!move) return shard === undefined ? [] : [shard];
  const names = new Set([move.from, move.to]);
  return shard === undefined ? names : names.add(shard);
}

export function releaseOf(name: string, shard: SnapshotShard | undefined): string {
  return shard?.release ?? name.replace(/-\d+$/, "");
}

/** It is not on the shard it is wanted on, or may have come to be beside tenants that it is kept apart from. */
export function hasOpenWish({ placement, shard }: SnapshotTenant): boolean {
  if (!placement) return false;
  const isElsewhere = placement.shard !== undefined && placement.shard !== shard;
  return isElsewhere || (placement.spreadFrom?.length ?? 0) > 0;
}

/** @param present the release it has */
export function wantedInstead(tenant: SnapshotTenant, present: string | undefined): string {
  return tenant.refusedRelease === tenant.release && present !== undefined ? present : tenant.release;
}

/** Why a tenant is to share its shard with nobody, in a word; undefined where it may have neighbours. */
export type AloneAs = "quarantined" | "dedicated";
export function aloneAs({ isolated, dedicated }: SnapshotTenant): AloneAs | undefined {
  if (isolated) return "quarantined";
  return dedicated ? "dedicated" : undefined;
}

/** Rather nowhere than beside others. */
export function mustBeAlone({ isolated }: SnapshotTenant): AloneAs | undefined {
  return isolated ? "quarantined" : undefined;
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
