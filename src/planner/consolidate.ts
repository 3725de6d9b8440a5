import { SHRINK_BELOW } from "./balance.ts";
import { loadOfShard, peakOf, percent } from "./loads.ts";
import { placesTakenWith, type Draft } from "./place.ts";
import { atRest, leavesReserve, type Rest } from "./rest.ts";
import type { SnapshotShard } from "./snapshot.ts";
import { shardIndex } from "./snapshot-facts.ts";
import { isForOne, type World } from "./world.ts";

/**
 * Drains the least loaded shards of releases whose average load is below the threshold. Begun only where nothing else
 * happens, and only if all their tenants fit on the shards that stay; since a shard is made only when all are full, no plan
 * afterwards makes one for the same tenants. Where tenants wake and fall asleep all the time, places stay free for those that wake next.
 */
export function consolidate(draft: Draft, stopped: Set<string>): void {
  for (const [release, all] of draft.world.shardsOfRelease) {
    const shards = all.filter((shard) => !isForOne(draft.world, shard.name));
    const rest = draft.busy.has(release) ? undefined : atRest(draft.world, shards);
    if (rest === undefined || (rest === "quiet" && draft.restless.has(release))) continue;
    if (!shards.every((shard) => shard.phase === "Ready" && shard.drain === undefined)) continue;
    if (shards.some((shard) => stopped.has(shard.name))) continue;
    drainLeastLoaded(draft, release, shards, rest);
  }
}

function drainLeastLoaded(draft: Draft, release: string, shards: SnapshotShard[], rest: Rest): void {
  const { policy } = draft.world;
  const staying = shards
    .map((shard) => ({ name: shard.name, load: placesTakenWith(draft, shard.name) }))
    .toSorted((a, b) => b.load - a.load || shardIndex(a.name) - shardIndex(b.name));
  const tenants = staying.reduce((sum, shard) => sum + shard.load, 0);
  // A shard above the maximum (which was lowered) has no place, but does not take one from others either.
  let free = staying.reduce((sum, shard) => sum + Math.max(0, policy.maxTenantsPerShard - shard.load), 0);
  let leaving = 0;
  while (staying.length > 1) {
    const average = tenants / staying.length;
    const least = staying.findLast(({ name }) => !hasPinned(draft.world, name));
    if (!least || average >= policy.avgShardsLoadRedistributionThreshold) return;
    const freeAfter = free - Math.max(0, policy.maxTenantsPerShard - least.load);
    if (leaving + least.load > freeAfter) return;
    const others = staying.filter((shard) => shard !== least);
    if (rest === "restless" && (draft.planned.has(least.name) || !leavesReserve(draft, others, leaving + least.load)))
      return;
    if (keepsForLoad(draft, least.name, shards, staying.length - 1)) return;
    free = freeAfter;
    leaving += least.load;
    staying.splice(staying.indexOf(least), 1);
    draft.busy.add(release);
    draft.actions.push({
      type: "DrainShard",
      shard: least.name,
      reason: "Consolidation",
      message:
        `shards of Synapse ${release} have ${average.toFixed(1)} tenants on average, below ` +
        `${policy.avgShardsLoadRedistributionThreshold}; its ${least.load} fit on ${staying.length} others`,
    });
  }
}

/** Whether a shard that could be given up is not, as the others would take too much afterwards, or it is not the time for it. */
function keepsForLoad(draft: Draft, shard: string, all: SnapshotShard[], others: number): boolean {
  const { world } = draft;
  const { cpuTarget } = world.policy.balancing;
  const total = all.reduce((sum, { name }) => sum + peakOf(loadOfShard(world, name)), 0);
  const short = cpuTarget > 0 && total > SHRINK_BELOW * cpuTarget * others;
  if (!short && !world.windowClosed) return false;
  const reason = short ? "CpuNeeded" : "OutsideWindow";
  const message = short
    ? `it could be given up for the number of its tenants, but shards of its release take ${percent(total)} of a core together, too much for ${others} of them`
    : "it could be given up, but no maintenance window is open";
  draft.actions.push({ type: "KeepTenants", shard, reason, message });
  return true;
}

/** Whether a tenant is wanted there or apart from others, waits for a shard of its own, or somebody, or the balance of load, moved it there a while ago at most. */
function hasPinned({ now, tenantsOn, policy }: World, shard: string): boolean {
  const rest = policy.balancing.tenantRestSeconds * 1000;
  return tenantsOn(shard).some(
    ({ pinnedUntil, balanced, placement, dedicated }) =>
      dedicated === true ||
      placement?.shard === shard ||
      (placement?.spreadFrom?.length ?? 0) > 0 ||
      (pinnedUntil !== undefined && now < pinnedUntil) ||
      (balanced?.to === shard && now - balanced.at < rest),
  );
}
