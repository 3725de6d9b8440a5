import type { Ledger } from "./place.ts";
import type { ShardView } from "./snapshot.ts";
import { shardIndex } from "./world.ts";
import { isQuiet } from "./stop.ts";

/**
 * Drains the least loaded shards of versions whose average load is below the threshold. Begun only where nothing else
 * happens, and only if all their tenants fit on the shards that stay; since a shard is made only when all are full, no plan
 * afterwards makes one for the same tenants.
 */
export function consolidate(ledger: Ledger, stopped: Set<string>): void {
  for (const [version, shards] of ledger.world.shardsOfVersion) {
    if (ledger.busy.has(version) || !isQuiet(ledger.world, shards)) continue;
    if (!shards.every((shard) => shard.phase === "Ready" && shard.drain === undefined)) continue;
    if (shards.some((shard) => stopped.has(shard.name))) continue;
    drainLeastLoaded(ledger, version, shards);
  }
}

function drainLeastLoaded(ledger: Ledger, version: string, shards: ShardView[]): void {
  const { policy, placesTaken } = ledger.world;
  const staying = shards
    .map((shard) => ({ name: shard.name, load: placesTaken(shard.name) }))
    .toSorted((a, b) => b.load - a.load || shardIndex(a.name) - shardIndex(b.name));
  const tenants = staying.reduce((sum, shard) => sum + shard.load, 0);
  // A shard above the maximum (which was lowered) has no place, but does not take one from others either.
  let free = staying.reduce((sum, shard) => sum + Math.max(0, policy.maxTenantsPerShard - shard.load), 0);
  let leaving = 0;
  while (staying.length > 1) {
    const average = tenants / staying.length;
    const least = staying.at(-1);
    if (!least || average >= policy.avgShardsLoadRedistributionThreshold) return;
    const freeAfter = free - Math.max(0, policy.maxTenantsPerShard - least.load);
    if (leaving + least.load > freeAfter) return;
    free = freeAfter;
    leaving += least.load;
    staying.pop();
    ledger.busy.add(version);
    ledger.actions.push({
      type: "DrainShard",
      shard: least.name,
      reason: "Consolidation",
      message:
        `shards of Synapse ${version} have ${average.toFixed(1)} tenants on average, below ` +
        `${policy.avgShardsLoadRedistributionThreshold}; its ${least.load} fit on ${staying.length} others`,
    });
  }
}
