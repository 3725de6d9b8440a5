import { beginMove, isMovable } from "./move.ts";
import { noPlace, takePlace, type Ledger } from "./place.ts";
import { presentVersion, wantedVersion } from "./world.ts";

/** Moves tenants whose shard runs another release than they want; those without a place stay and are marked. */
export function upgradeTenants(ledger: Ledger): void {
  const { world, actions } = ledger;
  for (const tenant of world.restless) {
    if (!isMovable(tenant) || ledger.placed.has(tenant.name)) continue;
    const shard = tenant.shard === undefined ? undefined : world.shardByName.get(tenant.shard);
    // Tenants of these are evacuated, which tries the wanted release first.
    if (!shard || shard.phase === "Lost" || shard.phase === "Stopping" || shard.drain === "Requested") continue;
    const present = presentVersion(world, tenant);
    const wanted = wantedVersion(world, tenant);
    if (present === wanted) continue;
    const place = takePlace(ledger, wanted, { preferReady: true, mayGrow: true });
    if (place) {
      beginMove(ledger, tenant, place, "Upgrade", `it runs Synapse ${present} and wants ${wanted}`);
      continue;
    }
    const no = noPlace(ledger, wanted);
    const message = `it stays on Synapse ${present}: ${no.message}`;
    actions.push({ type: "MarkWaiting", tenant: tenant.name, wants: "Upgrade", reason: no.reason, message });
  }
}
