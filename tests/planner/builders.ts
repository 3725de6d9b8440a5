import type { Action } from "../../src/planner/actions.ts";
import type { SnapshotShard, Snapshot, SnapshotTenant } from "../../src/planner/snapshot.ts";
import type { Policy } from "../../src/model/policy.ts";
import { plan } from "../../src/planner/plan.ts";

export const NOW = Date.UTC(2030, 0, 1);
export const V1 = "1.157.2";
export const V2 = "1.163.2";

export const SMALL: Policy = {
  maxShardsPerSynapseImageTag: 3,
  maxTenantsPerShard: 3,
  avgShardsLoadRedistributionThreshold: 2,
  consolidateAfterSeconds: 30,
  maxConcurrentMoves: 10,
  hibernation: { afterIdleSeconds: 900, minAwakeSeconds: 120, maxConcurrentWakes: 4 },
  balancing: { cpuTarget: 0.6, averageSeconds: 60, coolDownSeconds: 120, tenantRestSeconds: 3600, movesPerHour: 12 },
};

/** A shard that has been quiet for an hour. */
export function shard(name: string, over: Partial<SnapshotShard> = {}): SnapshotShard {
  const release = name.replace(/-\d+$/, "");
  return { name, release, phase: "Ready", lastAssignmentChange: NOW - 3_600_000, grownAt: NOW - 3_600_000, ...over };
}

export function tenant(name: string, over: Partial<SnapshotTenant> = {}): SnapshotTenant {
  return { name, release: V2, deleting: false, ...over };
}

/** `count` tenants on a shard, of its release unless told otherwise. */
export function tenantsOn(shardName: string, count: number, over: Partial<SnapshotTenant> = {}): SnapshotTenant[] {
  const release = shardName.replace(/-\d+$/, "");
  return Array.from({ length: count }, (_, i) => tenant(`${shardName}-t${i}`, { release, shard: shardName, ...over }));
}

export function snapshot(shards: SnapshotShard[], ...tenants: (SnapshotTenant | SnapshotTenant[])[]): Snapshot {
  return { now: NOW, shards, tenants: tenants.flat() };
}

/** The plan in short: one line per action, without the words for people. */
export function planned(given: Snapshot, policy: Partial<Policy> = {}): string[] {
  return plan(given, { ...SMALL, ...policy }).map(short);
}

export function short(action: Action): string {
  switch (action.type) {
    case "CreateShard":
      return `create ${action.name}`;
    case "Assign":
      return `assign ${action.tenant} ${action.shard}`;
    case "Unassign":
      return `unassign ${action.tenant} ${action.shard}`;
    case "Move":
      return `move ${action.tenant} ${action.from} ${action.to} ${action.reason}`;
    case "SetPending":
      return `pending ${action.tenant} ${action.reason}`;
    case "MarkWaiting":
      return `waiting ${action.tenant} ${action.wants} ${action.reason}`;
    case "DrainShard":
      return `drain ${action.shard}`;
    case "CancelDrain":
      return `undrain ${action.shard}`;
    case "Sleep":
      return `sleep ${action.tenant} ${action.shard} ${action.reason}`;
    case "Wake":
      return `wake ${action.tenant} ${action.shard} ${action.reason}`;
    case "KeepTenants":
      return `keep ${action.shard} ${action.reason}`;
    case "StopShard":
      return `stop ${action.shard} ${action.reason}`;
  }
}
