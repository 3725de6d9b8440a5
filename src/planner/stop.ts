import type { Draft } from "./place.ts";
import { atRest, leavesReserve } from "./rest.ts";
import type { SnapshotShard } from "./snapshot.ts";
import { isUsable } from "./snapshot-facts.ts";
import { isForOne, type World } from "./world.ts";

/** Stops shards that have been drained, and those that have been empty and unwanted for long enough. Returns their names. */
export function stopShards(draft: Draft): Set<string> {
  const { world, actions } = draft;
  const stopped = new Set<string>();
  const wantedReleases = versionsInUse(world);
  for (const [release, shards] of world.shardsOfRelease) {
    let usable = shards.filter(isUsable).length;
    const rest = atRest(world, shards);
    const others = shards.filter((shard) => isUsable(shard) && !isForOne(world, shard.name));
    // The highest index goes first, so that names stay low.
    for (const shard of shards.toReversed()) {
      if (shard.phase === "Stopping" || !isEmpty(draft, shard)) continue;
      if (shard.drain !== undefined) {
        if (draft.cancelled.has(shard.name)) continue;
        stopped.add(shard.name);
        const message = "its tenants have been moved away";
        actions.push({ type: "StopShard", shard: shard.name, reason: "Drained", message });
        continue;
      }
      const othersUsable = isUsable(shard) ? usable - 1 : usable;
      const needed = wantedReleases.has(release) && othersUsable === 0;
      if (shard.phase === "Lost" || rest === undefined || needed) continue;
      const staying = others.filter(({ name }) => name !== shard.name && !stopped.has(name));
      if (rest === "restless" && wantedReleases.has(release) && !leavesReserve(draft, staying, 0)) continue;
      if (isUsable(shard)) usable--;
      stopped.add(shard.name);
      const message = wantedReleases.has(release)
        ? `it is empty, and other shards of Synapse ${release} have the places`
        : `no tenant uses Synapse ${release}`;
      actions.push({ type: "StopShard", shard: shard.name, reason: "Unused", message });
    }
  }
  return stopped;
}

function isEmpty(draft: Draft, shard: SnapshotShard): boolean {
  return !draft.world.placesTaken(shard.name) && !draft.planned.get(shard.name);
}

/** Versions that some tenant has or wants. */
function versionsInUse(world: World): Set<string> {
  const held = world.shards.filter((shard) => world.placesTaken(shard.name)).map((shard) => shard.release);
  return new Set([...held, ...world.releasesWanted]);
}
