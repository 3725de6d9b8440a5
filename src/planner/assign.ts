import { noPlace, takePlace, type Ledger } from "./place.ts";
import { wantedVersion } from "./world.ts";

/** Gives a shard to each tenant that has none, or whose shard is gone; says so where there is no place. */
export function assignTenants(ledger: Ledger): void {
  const { world, actions } = ledger;
  for (const tenant of world.restless) {
    if (tenant.deleting || tenant.move) continue;
    const gone = tenant.shard !== undefined && !world.shardByName.has(tenant.shard);
    if (tenant.shard !== undefined && !gone) continue;
    const version = wantedVersion(world, tenant);
    const place = takePlace(ledger, version, { preferReady: false, mayGrow: true });
    if (!place) {
      actions.push({ type: "SetPending", tenant: tenant.name, ...noPlace(ledger, version) });
      continue;
    }
    actions.push({
      type: "Assign",
      tenant: tenant.name,
      shard: place.shard,
      reason: gone ? "ShardGone" : "Unassigned",
      message: gone
        ? `its shard ${tenant.shard} is gone; ${place.shard} is the fullest with a free place`
        : `${place.shard} is the fullest shard of Synapse ${version} with a free place`,
    });
  }
}
