import { noPlace, takePlace, type Draft } from "./place.ts";
import { wantedRelease } from "./world.ts";

/** Gives a shard to each tenant that has none, or whose shard is gone; says so where there is no place. */
export function assignTenants(draft: Draft): void {
  const { world, actions } = draft;
  for (const tenant of world.unsettled) {
    if (tenant.deleting || tenant.move) continue;
    const gone = tenant.shard !== undefined && !world.shardByName.has(tenant.shard);
    if (tenant.shard !== undefined && !gone) continue;
    const release = wantedRelease(world, tenant);
    const place = takePlace(draft, release, {
      preferReady: false,
      mayGrow: true,
      alone: tenant.isolated,
      ratherAlone: tenant.heavy,
    });
    if (!place) {
      actions.push({ type: "SetPending", tenant: tenant.name, ...noPlace(draft, release, tenant.isolated) });
      continue;
    }
    actions.push({
      type: "Assign",
      tenant: tenant.name,
      shard: place.shard,
      reason: gone ? "ShardGone" : "Unassigned",
      message: tenant.isolated
        ? `it is quarantined, and ${place.shard} is for it alone`
        : gone
          ? `its shard ${tenant.shard} is gone; ${place.shard} is the fullest with a free place`
          : `${place.shard} is the fullest shard of Synapse ${release} with a free place`,
    });
  }
}
