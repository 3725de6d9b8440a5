import { placesTakenWith, type Draft } from "./place.ts";
import type { SnapshotShard } from "./snapshot.ts";
import type { World } from "./world.ts";

/** Where tenants wake and fall asleep all the time, shards are given up only this many times `consolidateAfterSeconds` after one was needed… */
const AFTER_GROWTH = 10;
/** …and only if this part of the places stays free: the next wakes do not need them back. */
const RESERVE = 0.1;

/** `quiet`: nobody came or went. `restless`: tenants woke and fell asleep, and nothing else happened. */
export type Rest = "quiet" | "restless";

/** Whether placement on these shards has rested for long enough for some to be given up. */
export function atRest({ now, policy }: World, shards: SnapshotShard[]): Rest | undefined {
  const restMs = policy.consolidateAfterSeconds * 1000;
  const since = (time: (shard: SnapshotShard) => number | undefined) =>
    now - shards.reduce((latest, shard) => Math.max(latest, time(shard) ?? -Infinity), -Infinity);
  if (since((shard) => shard.lastAssignmentChange) < restMs) return undefined;
  if (since((shard) => shard.lastSleepOrWake) >= restMs) return "quiet";
  return since((shard) => shard.grownAt) >= AFTER_GROWTH * restMs ? "restless" : undefined;
}

/** Whether enough places stay free on the shards that stay, when they have taken those who leave the others. */
export function leavesReserve(draft: Draft, staying: readonly Pick<SnapshotShard, "name">[], leaving: number): boolean {
  const { maxTenantsPerShard } = draft.world.policy;
  const free = staying.reduce(
    (sum, { name }) => sum + Math.max(0, maxTenantsPerShard - placesTakenWith(draft, name)),
    0,
  );
  return free - leaving >= Math.ceil(RESERVE * maxTenantsPerShard * staying.length);
}
