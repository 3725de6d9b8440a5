import type { MoveReason } from "../model/move.ts";
import type { SleepReason } from "../model/sleep.ts";

/** What the planner may plan for a move; the others (`Requested`, `ConfigChanged`) are begun by the controller itself. */
export type PlannedMoveReason = Extract<
  MoveReason,
  "ShardLost" | "Drain" | "Upgrade" | "Consolidation" | "CpuBudgetExceeded" | "Balance" | "Placement"
>;

/**
 * The planner's output is data: `reason` is one CamelCase word for machines, `message` the evidence in one sentence.
 * Actions are to be carried out in order: a shard is created before a tenant is assigned to it.
 */
export type Action =
  | { type: "CreateShard"; name: string; release: string; reason: NewShardReason; message: string }
  | { type: "Assign"; tenant: string; shard: string; reason: "Unassigned" | "ShardGone"; message: string }
  | { type: "Unassign"; tenant: string; shard: string; reason: "Quarantined"; message: string }
  | { type: "Move"; tenant: string; from: string; to: string; reason: PlannedMoveReason; message: string }
  | { type: "DrainShard"; shard: string; reason: "Consolidation"; message: string }
  | { type: "CancelDrain"; shard: string; reason: "PlacesNeeded"; message: string }
  | { type: "Sleep"; tenant: string; shard: string; reason: PlannedSleepReason; message: string }
  | { type: "Wake"; tenant: string; shard: string; reason: "Due"; message: string }
  | { type: "StopShard"; shard: string; reason: "Drained" | "Unused"; message: string }
  | SetPending
  | MarkWaiting
  | KeepTenants;

export type NewShardReason = "AllShardsFull" | "CpuTargetExceeded";

/** Why the planner puts tenants to sleep; somebody may also ask for it. */
export type PlannedSleepReason = Exclude<SleepReason, "Requested" | "Renamed">;

/**
 * Why there is no place: as many shards as allowed exist and are full, or the release's shards do not come up, and another
 * one would fare no better.
 */
export type NoPlaceReason = "MaxShardsReached" | "ShardFailed";

/** No shard has a place for a tenant that has none yet. */
export interface SetPending {
  type: "SetPending";
  tenant: string;
  reason: NoPlaceReason;
  message: string;
}

/** A tenant that has a shard ought to leave it (`wants`), and there is no place. It stays where it is. */
export interface MarkWaiting {
  type: "MarkWaiting";
  tenant: string;
  wants: PlannedMoveReason;
  reason: NoPlaceReason;
  message: string;
}

/** Why a shard that takes much keeps its tenants, and one that could be given up is kept. */
export type KeepReason =
  | "BudgetSpent"
  | "CoolDown"
  | "CpuNeeded"
  | "MoveUnderWay"
  | "NoBetterPlace"
  | "NobodyMovable"
  | "OutsideWindow"
  | "ShardComing";

/** A shard on which nothing changes though there is a cause. */
export interface KeepTenants {
  type: "KeepTenants";
  shard: string;
  reason: KeepReason;
  message: string;
}

/** False for the actions that only say why nothing happens: they return with every plan until there is a place. */
export function changesTheWorld(action: Action): boolean {
  return !["SetPending", "MarkWaiting", "KeepTenants"].includes(action.type);
}
