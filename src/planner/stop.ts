import type { Ledger } from "./place.ts";
import type { ShardView } from "./snapshot.ts";
import { isUsable, type World } from "./world.ts";

/** Stops shards that have been drained, and those that have been empty and unwanted for long enough. Returns their names. */
export function stopShards(ledger: Ledger): Set<string> {
  const { world, actions } = ledger;
  const stopped = new Set<string>();
  const wantedVersions = versionsInUse(world);
  for (const [version, shards] of world.shardsOfVersion) {
    let usable = shards.filter(isUsable).length;
    const quiet = isQuiet(world, shards);
    // The highest index goes first, so that names stay low.
    for (const shard of shards.toReversed()) {
      if (shard.phase === "Stopping" || !isEmpty(ledger, shard)) continue;
      if (shard.drain !== undefined) {
        if (ledger.cancelled.has(shard.name)) continue;
        stopped.add(shard.name);
        const message = "its tenants have been moved away";
        actions.push({ type: "StopShard", shard: shard.name, reason: "Drained", message });
        continue;
      }
      const othersUsable = isUsable(shard) ? usable - 1 : usable;
      const needed = wantedVersions.has(version) && othersUsable === 0;
      if (shard.phase === "Lost" || !quiet || needed) continue;
      if (isUsable(shard)) usable--;
      stopped.add(shard.name);
      const message = wantedVersions.has(version)
        ? `it is empty, and other shards of Synapse ${version} have the places`
        : `no tenant uses Synapse ${version}`;
      actions.push({ type: "StopShard", shard: shard.name, reason: "Unused", message });
    }
  }
  return stopped;
}

/** Placement on these shards has rested for long enough. */
export function isQuiet(world: World, shards: ShardView[]): boolean {
  const last = shards.reduce((latest, shard) => Math.max(latest, shard.lastAssignmentChange), -Infinity);
  return world.now - last >= world.policy.consolidateAfterSeconds * 1000;
}

function isEmpty(ledger: Ledger, shard: ShardView): boolean {
  return !ledger.world.placesTaken(shard.name) && !ledger.planned.get(shard.name);
}

/** Versions that some tenant has or wants. */
function versionsInUse(world: World): Set<string> {
  const held = world.shards.filter((shard) => world.placesTaken(shard.name)).map((shard) => shard.version);
  return new Set([...held, ...world.versionsWanted]);
}
