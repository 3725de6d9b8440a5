import type { ShardPhase } from "../model/shard.ts";

/** All that the planner knows of the world. The order of the arrays has no meaning. */
export interface Snapshot {
  /** Milliseconds since the epoch; the planner reads no clock. */
  now: number;
  tenants: SnapshotTenant[];
  shards: SnapshotShard[];
  /** No tenant falls asleep: there is a gateway that would not wake it, or none at all. */
  nobodyWakes?: boolean;
  /** Outside of the maintenance windows: nothing is moved only to tidy up. */
  windowClosed?: boolean;
  /** Absent: nothing is known of any load. */
  loads?: SnapshotLoads;
}

/** What is known of who takes how much. */
export interface SnapshotLoads {
  /** By shard. */
  shards: ReadonlyMap<string, SnapshotShardLoad>;
  /** By tenant; of one without a shard, as it last was. */
  tenants: ReadonlyMap<string, SnapshotLoad>;
}

/** Share of a core, images included. */
export interface SnapshotLoad {
  /** Averaged over a minute. */
  share: number;
  /** Averaged over ten minutes. */
  lasting: number;
}

export interface SnapshotShardLoad extends SnapshotLoad {
  /** Part of the memory that it may have. */
  memoryRatio?: number;
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
  /** The same, as its operator wants it: on a shard for it alone, and among others only where none can be had. */
  dedicated?: boolean;
  /** It took more of its shard's time than its budget for long: better alone on a shard, but better among others than nowhere. */
  heavy?: boolean;
  /** Where its operator wants it. With `isolate` it is `heavy` too. */
  placement?: { shard?: string; isolate?: boolean; spreadFrom?: readonly string[] };
  /** A release it cannot be moved to: while it equals `release`, the tenant stays on the release it has. */
  refusedRelease?: string;
  /** Milliseconds since the epoch: no move before (backoff after a move that failed). Its place is kept all the same. */
  moveNotBefore?: number;
  /** Milliseconds since the epoch: it is moved only where it cannot stay, or by an upgrade. */
  pinnedUntil?: number;
  /** When it was last moved for the load, and between which shards; milliseconds since the epoch. */
  balanced?: { at: number; from: string; to: string };
  /** It sleeps: it has no shard, and wants none before `wakeAt` (milliseconds since the epoch; absent: before somebody asks for it). */
  asleep?: { wakeAt?: number };
  /** It is wanted awake, and does not run yet; `due`: nobody waits for it. */
  waking?: { due: boolean };
  /** Milliseconds since the epoch: since when it has been waiting for a place, where it has none. */
  waitingSince?: number;
  /** Its shard is about to be rid of it. */
  fallingAsleep?: boolean;
  /** It runs, and nobody uses it; absent also where it is not to sleep. */
  idle?: SnapshotIdle;
}

/** Milliseconds since the epoch, all of them. */
export interface SnapshotIdle {
  /** When somebody last used it. */
  since: number;
  /** When it was woken; absent where it never slept. */
  awakeSince?: number;
  /** It was woken for what was due, and nobody has used it since. */
  wokenByTime?: boolean;
  /** Its own time after which it falls asleep, in seconds; 0: not for being idle alone. */
  afterSeconds?: number;
  /** It had something to do when it was last asked, and is not asked again before. */
  notBefore?: number;
}

export interface SnapshotShard {
  /** `<release>-<index>` */
  name: string;
  release: string;
  phase: ShardPhase;
  drain?: "Consolidation" | "Requested";
  /** Milliseconds since the epoch: when a tenant was last assigned to it or left it, sleeps and wakes aside; else when it was created. */
  lastAssignmentChange: number;
  /** Milliseconds since the epoch: when a tenant last woke on it or fell asleep there. */
  lastSleepOrWake?: number;
  /** Milliseconds since the epoch: when it was made, or a drain of it was called off, as its places were needed. */
  grownAt: number;
}
