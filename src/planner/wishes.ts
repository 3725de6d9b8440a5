import { loadOfTenant, peakOf } from "./loads.ts";
import { beginMove, isMovable } from "./move.ts";
import { takePlace, type Draft, type PlaceOptions } from "./place.ts";
import type { SnapshotTenant } from "./snapshot.ts";
import { aloneAs, placesHeld } from "./snapshot-facts.ts";
import { presentRelease, wantedRelease, type World } from "./world.ts";

/** How a place for the tenant is chosen: what it takes, and what is wished for it. */
export function placeOptionsFor(
  world: World,
  tenant: SnapshotTenant,
): Pick<PlaceOptions, "alone" | "ratherAlone" | "share" | "pin" | "avoid"> {
  const { placement, heavy: ratherAlone } = tenant;
  const alone = aloneAs(tenant);
  const share = peakOf(loadOfTenant(world, tenant.name));
  if (!placement) return { alone, ratherAlone, share };
  const avoid = shardsToAvoid(world, tenant);
  return { alone, ratherAlone, share, pin: placement.shard, avoid: avoid.size === 0 ? undefined : avoid };
}

/** Those of the tenants that it is kept apart from. */
export function shardsToAvoid(world: World, { name, placement }: SnapshotTenant): Set<string> {
  const others = (placement?.spreadFrom ?? []).filter((other) => other !== name).map((other) => world.tenant(other));
  return new Set(others.flatMap((other) => (other && !other.deleting ? [...placesHeld(other)] : [])));
}

/** Whether somebody wants it where it is, or apart from others: nothing moves it to tidy up. */
export function isWantedThere({ placement, shard }: SnapshotTenant): boolean {
  return placement?.shard !== undefined && placement.shard === shard;
}

/** Whether one of both is to be kept apart from the other. */
export function areApart(a: SnapshotTenant, b: SnapshotTenant): boolean {
  return a.placement?.spreadFrom?.includes(b.name) === true || b.placement?.spreadFrom?.includes(a.name) === true;
}

/** Moves tenants to the shards they are wanted on, and away from those they are kept apart from, where there is room already. */
export function grantWishes(draft: Draft): void {
  const { world } = draft;
  if (world.windowClosed) return;
  for (const tenant of world.unsettled) {
    const { placement, shard, pinnedUntil = 0 } = tenant;
    if (!placement || aloneAs(tenant) || tenant.heavy || tenant.waking || world.now < pinnedUntil) continue;
    if (shard === undefined || !isMovable(tenant) || draft.handled.has(tenant.name)) continue;
    const release = wantedRelease(world, tenant);
    if (world.shardByName.get(shard)?.phase !== "Ready" || presentRelease(world, tenant) !== release) continue;
    const { pin, avoid, share } = placeOptionsFor(world, tenant);
    const options = { preferReady: true, mayGrow: false, only: true, share };
    if (pin !== undefined && pin !== shard) {
      const place = takePlace(draft, release, { ...options, pin });
      if (place) beginMove(draft, tenant, place, "Placement", `its placement says ${pin}`);
    } else if (pin === undefined && avoid?.has(shard)) {
      const place = takePlace(draft, release, { ...options, avoid });
      if (place)
        beginMove(draft, tenant, place, "Placement", `its placement keeps it apart from others that are on ${shard}`);
    }
  }
}
