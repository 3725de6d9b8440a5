import { beginMove, isMovable } from "./move.ts";
import { noPlace, takePlace, type Draft } from "./place.ts";
import { mustBeAlone } from "./snapshot-facts.ts";
import { presentRelease, wantedRelease } from "./world.ts";
import { placeOptionsFor } from "./wishes.ts";

/** Moves tenants whose shard runs another release than they want; those without a place stay and are marked. */
export function upgradeTenants(draft: Draft): void {
  const { world, actions } = draft;
  for (const tenant of world.unsettled) {
    if (!isMovable(tenant) || draft.handled.has(tenant.name)) continue;
    const shard = tenant.shard === undefined ? undefined : world.shardByName.get(tenant.shard);
    // Tenants of these are evacuated, which tries the wanted release first.
    if (!shard || shard.phase === "Lost" || shard.phase === "Stopping" || shard.drain === "Requested") continue;
    const present = presentRelease(world, tenant);
    const wanted = wantedRelease(world, tenant);
    if (present === wanted) continue;
    const place = takePlace(draft, wanted, {
      preferReady: true,
      mayGrow: true,
      ...placeOptionsFor(world, tenant),
    });
    if (place) {
      beginMove(draft, tenant, place, "Upgrade", `it runs Synapse ${present} and wants ${wanted}`);
      continue;
    }
    const no = noPlace(draft, wanted, mustBeAlone(tenant));
    const message = `it stays on Synapse ${present}: ${no.message}`;
    actions.push({ type: "MarkWaiting", tenant: tenant.name, wants: "Upgrade", reason: no.reason, message });
  }
}
