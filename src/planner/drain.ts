import { beginMove, isMovable } from "./move.ts";
import { cancelDrain, freePlaces, noPlace, takePlace, type Draft, type Place } from "./place.ts";
import type { SnapshotShard, SnapshotTenant } from "./snapshot.ts";
import { isAlive, mustBeAlone } from "./snapshot-facts.ts";
import { isForOne, presentRelease, wantedRelease, type World } from "./world.ts";
import { placeOptionsFor } from "./wishes.ts";

/** Shards that do not answer. */
export function lostShards(world: World): SnapshotShard[] {
  return world.shards.filter((shard) => shard.phase === "Lost");
}

/** Shards that are to be emptied because somebody wants it, or that stop though they have tenants. */
export function shardsToEmpty(world: World): SnapshotShard[] {
  return world.shards.filter(
    (shard) => shard.phase !== "Lost" && (shard.drain === "Requested" || shard.phase === "Stopping"),
  );
}

/** Moves tenants away from shards that cannot keep them; those without a place stay and are marked. */
export function evacuate(draft: Draft, shards: SnapshotShard[], reason: "ShardLost" | "Drain"): void {
  const why = reason === "ShardLost" ? "does not answer" : "is being drained";
  for (const shard of shards) {
    for (const tenant of draft.world.tenantsOn(shard.name)) {
      if (!isMovable(tenant) || draft.handled.has(tenant.name)) continue;
      const place = takePlaceAway(draft, tenant);
      if (place) {
        beginMove(draft, tenant, place, reason, `its shard ${shard.name} ${why}`);
        continue;
      }
      const no = noPlace(draft, wantedRelease(draft.world, tenant), mustBeAlone(tenant));
      const message = `its shard ${shard.name} ${why}, but ${no.message}`;
      draft.actions.push({
        type: "MarkWaiting",
        tenant: tenant.name,
        wants: reason,
        reason: no.reason,
        message,
      });
    }
  }
}

/** A place for a tenant that must leave its shard: of the release it wants, or else of the one it has. */
export function takePlaceAway(draft: Draft, tenant: SnapshotTenant): Place | undefined {
  const options = { preferReady: true, mayGrow: true, ...placeOptionsFor(draft.world, tenant) };
  const wanted = wantedRelease(draft.world, tenant);
  const place = takePlace(draft, wanted, options);
  if (place) return place;
  const present = presentRelease(draft.world, tenant);
  return present === undefined || present === wanted ? undefined : takePlace(draft, present, options);
}

/**
 * Goes on with drains that consolidation has begun, without making shards for them. If places have been taken meanwhile so
 * that not all of a release's drained tenants fit, drains are called off until they do: the fullest shard's first.
 */
export function continueConsolidation(draft: Draft): void {
  const { world } = draft;
  for (const [release, shards] of world.shardsOfRelease) {
    const draining = shards
      .filter((shard) => shard.drain === "Consolidation" && isAlive(shard) && !draft.cancelled.has(shard.name))
      .filter((shard) => !keepsIsolated(draft, shard))
      .map((shard) => ({ shard, leaving: world.tenantsOn(shard.name).filter(isMovable) }))
      .map((item) => ({ ...item, leaving: withoutUpgrading(draft, item.leaving) }))
      .toSorted((a, b) => a.leaving.length - b.leaving.length);
    let needed = draining.reduce((sum, item) => sum + item.leaving.length, 0);
    while (needed > freePlaces(draft, release)) {
      const fullest = draining.pop();
      if (!fullest) break;
      needed -= fullest.leaving.length;
      cancelDrain(draft, fullest.shard.name, `its tenants no longer fit on the other shards of Synapse ${release}`);
    }
    for (const { shard, leaving } of draining) {
      for (const tenant of leaving) {
        const { share, pin, avoid } = placeOptionsFor(world, tenant);
        const place = takePlace(draft, release, { preferReady: true, mayGrow: false, share, pin, avoid });
        if (place) beginMove(draft, tenant, place, "Consolidation", `its shard ${shard.name} is being given up`);
      }
    }
  }
}

/** The shard of a tenant that is to be alone is not given up, also while others are there; a drain of it that has begun is called off. */
function keepsIsolated(draft: Draft, shard: SnapshotShard): boolean {
  const { world, handled } = draft;
  const waits = ({ name, dedicated }: SnapshotTenant) => dedicated && !handled.has(name);
  const isForAll = !isForOne(world, shard.name);
  if (isForAll && !world.tenantsOn(shard.name).some(waits)) return false;
  const why = isForAll ? "a dedicated tenant has no other place" : "it is for one tenant alone";
  cancelDrain(draft, shard.name, why);
  return true;
}

function withoutUpgrading(draft: Draft, tenants: SnapshotTenant[]): SnapshotTenant[] {
  return tenants.filter((tenant) => !draft.handled.has(tenant.name));
}
