import { groupOf, MOST_SHARDS, rounded } from "../../model/history.ts";
import type { Policy } from "../../model/policy.ts";
import type { Shard } from "../../model/shard.ts";
import type { Tenant } from "../../model/tenant.ts";

export interface Look {
  tenants: Iterable<Tenant>;
  shards: Iterable<Shard>;
  policy: Pick<Policy, "maxTenantsPerShard">;
  /** Share of a core, and resident memory in bytes, as far as it is known. */
  loadOf(shard: string): number | undefined;
  memoryOf(shard: string): number | undefined;
  /** What happened from then on is counted; ISO 8601. */
  since: string;
}

/**
 * How the cluster is now, in numbers. What happened is read off each tenant's last move, sleep and wake: a tenant counts once, whatever it did
 * since the last look.
 */
export function valuesOf({ tenants, shards, policy, loadOf, memoryOf, since }: Look): Record<string, number> {
  const groups = { running: 0, asleep: 0, suspended: 0, failed: 0, onTheWay: 0 };
  let [moves, movesFailed, blackout, wakes, sleeps, placed] = [0, 0, 0, 0, 0, 0];
  for (const { status } of tenants) {
    groups[groupOf(status.phase)] += 1;
    if (status.shard !== undefined) placed += 1;
    const { lastMove, awake, sleep } = status;
    if (lastMove && lastMove.finishedAt >= since) {
      moves += 1;
      if (lastMove.outcome !== "Succeeded") movesFailed += 1;
      blackout = Math.max(blackout, lastMove.blackoutSeconds);
    }
    if (awake && awake.since >= since) wakes += 1;
    if (sleep?.since !== undefined && sleep.since >= since) sleeps += 1;
  }
  const own: Record<string, number> = {};
  let [count, load, busiest, memory] = [0, 0, 0, 0];
  for (const { metadata, status } of shards) {
    count += 1;
    const [itsLoad, itsMemory] = [loadOf(metadata.name) ?? status.load, memoryOf(metadata.name)];
    load += itsLoad ?? 0;
    busiest = Math.max(busiest, itsLoad ?? 0);
    memory += itsMemory ?? 0;
    if (count > MOST_SHARDS) continue;
    if (itsLoad !== undefined) own[seriesOfShard(metadata.name, "load")] = itsLoad;
    if (itsMemory !== undefined) own[seriesOfShard(metadata.name, "memory")] = itsMemory;
  }
  const all: Record<string, number> = {
    ...groups,
    shards: count,
    placesTaken: placed,
    places: count * policy.maxTenantsPerShard,
    load,
    busiest,
    ...(memory > 0 ? { memory } : {}),
    moves,
    movesFailed,
    // Without a move there is none, which is not one of no time.
    ...(moves > 0 ? { blackout } : {}),
    wakes,
    sleeps,
    ...own,
  };
  return Object.fromEntries(Object.entries(all).map(([name, value]) => [name, rounded(value)]));
}

const OF_SHARD = "shard/";

export function seriesOfShard(shard: string, what: "load" | "memory"): string {
  return `${OF_SHARD}${shard}/${what}`;
}

/** The name of a series as it is answered: of one shard, or of the cluster. */
export function namedFor(shard: string | undefined): (series: string) => string | undefined {
  if (shard === undefined) return (series) => (series.startsWith(OF_SHARD) ? undefined : series);
  const beginning = `${OF_SHARD}${shard}/`;
  return (series) => (series.startsWith(beginning) ? series.slice(beginning.length) : undefined);
}
