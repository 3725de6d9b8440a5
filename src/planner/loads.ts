import type { SnapshotLoad } from "./snapshot.ts";
import type { World } from "./world.ts";

/** Above this part of the memory that it may have, a shard gets no tenant for the load. */
export const MEMORY_FULL = 0.8;

const NOTHING: SnapshotLoad = { share: 0, lasting: 0 };

/** What is not known counts as nothing: a new shard and a new tenant take little. */
export function loadOfShard({ loads }: Pick<World, "loads">, shard: string): SnapshotLoad {
  return loads.shards.get(shard) ?? NOTHING;
}

export function loadOfTenant({ loads }: Pick<World, "loads">, tenant: string): SnapshotLoad {
  return loads.tenants.get(tenant) ?? NOTHING;
}

/** What is to be reckoned with: a burst, and what was there before a lull. */
export function peakOf({ share, lasting }: SnapshotLoad): number {
  return Math.max(share, lasting);
}

export function percent(share: number): string {
  return `${Math.round(share * 100)} %`;
}
