import type { Policy } from "./policy.ts";
import type { Shard } from "./shard.ts";
import type { Tenant } from "./tenant.ts";

export interface TagOccupancy {
  /** The image tag. */
  version: string;
  shards: number;
  /** Tenants on these shards. */
  tenants: number;
  /** Tenants that all shards that may be made could hold. */
  capacity: number;
  /** Every shard is full and no more may be made. */
  saturated: boolean;
}

export interface Occupancy {
  /** Names of the tenants assigned to each shard that has any, sorted; also of shards that are gone. */
  tenantsOf: ReadonlyMap<string, string[]>;
  /** Image tags that have shards, sorted. */
  tags: TagOccupancy[];
}

/** How full shards and image tags are; one look at each tenant and each shard. */
export function occupancyOf(
  shards: Iterable<Shard>,
  tenants: Iterable<Tenant>,
  policy: Pick<Policy, "maxShardsPerSynapseImageTag" | "maxTenantsPerShard">,
): Occupancy {
  const tenantsOf = new Map<string, string[]>();
  for (const { metadata, status } of tenants) {
    if (status.shard === undefined) continue;
    const names = tenantsOf.get(status.shard);
    if (names) names.push(metadata.name);
    else tenantsOf.set(status.shard, [metadata.name]);
  }
  for (const names of tenantsOf.values()) names.sort();
  const { maxShardsPerSynapseImageTag, maxTenantsPerShard } = policy;
  const byTag = Map.groupBy(shards, ({ spec }) => spec.release);
  const tags = [...byTag].map(([version, own]) => {
    const loads = own.map(({ metadata }) => tenantsOf.get(metadata.name)?.length ?? 0);
    return {
      version,
      shards: own.length,
      tenants: loads.reduce((sum, load) => sum + load, 0),
      capacity: maxShardsPerSynapseImageTag * maxTenantsPerShard,
      saturated: own.length >= maxShardsPerSynapseImageTag && loads.every((load) => load >= maxTenantsPerShard),
    };
  });
  return { tenantsOf, tags: tags.toSorted((a, b) => (a.version < b.version ? -1 : 1)) };
}
