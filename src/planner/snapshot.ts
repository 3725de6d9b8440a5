import type { ShardPhase } from "../model/shard.ts";

/** All that the planner knows of the world. The order of the arrays has no meaning. */
export interface Snapshot {
  /** Milliseconds since the epoch; the planner reads no clock. */
  now: number;
  tenants: SnapshotTenant[];
  shards: SnapshotShard[];
}

export interface SnapshotTenant {
  name: string;
  /** The Synapse release it shall run. */
  release: string;
  /** The shard that has, or shall have, it. */
  shard?: string;
  /** A move under way; `from` equals `to` when it only restarts. */
  move?: { from: string; to: string };
  deleting: boolean;
  /** It shares its shard with no other tenant: it is quarantined. */
  isolated?: boolean;
  /** It took more of its shard's time than its budget for long: better alone on a shard, but better among others than nowhere. */
  heavy?: boolean;
  /** A release it cannot be moved to: while it equals `release`, the tenant stays on the release it has. */
  refusedRelease?: string;
  /** Milliseconds since the epoch: no move before (backoff after a move that failed). Its place is kept all the same. */
  moveNotBefore?: number;
  /** Milliseconds since the epoch: consolidation leaves it on its shard until then. */
  pinnedUntil?: number;
}

export interface SnapshotShard {
  /** `<release>-<index>` */
  name: string;
  release: string;
  phase: ShardPhase;
  drain?: "Consolidation" | "Requested";
  /** Milliseconds since the epoch: when a tenant was last assigned to it or left it; else when it was created. */
  lastAssignmentChange: number;
}
