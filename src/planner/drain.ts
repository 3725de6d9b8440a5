import { beginMove, isMovable } from "./move.ts";
import { cancelDrain, freePlaces, noPlace, takePlace, type Ledger, type Place } from "./place.ts";
import type { ShardView, TenantView } from "./snapshot.ts";
import { isAlive, presentVersion, wantedVersion, type World } from "./world.ts";

/** Shards that do not answer. */
export function lostShards(world: World): ShardView[] {
  return world.shards.filter((shard) => shard.phase === "Lost");
}

/** Shards that are to be emptied because somebody wants it, or that stop though they have tenants. */
export function shardsToEmpty(world: World): ShardView[] {
  return world.shards.filter(
    (shard) => shard.phase !== "Lost" && (shard.drain === "Requested" || shard.phase === "Stopping"),
  );
}

/** Moves tenants away from shards that cannot keep them; those without a place stay and are marked. */
export function evacuate(ledger: Ledger, shards: ShardView[], reason: "ShardLost" | "Drain"): void {
  const why = reason === "ShardLost" ? "does not answer" : "is being drained";
  for (const shard of shards) {
    for (const tenant of ledger.world.tenantsOn(shard.name)) {
      if (!isMovable(tenant)) continue;
      const place = takePlaceAway(ledger, tenant);
      if (place) {
        beginMove(ledger, tenant, place, reason, `its shard ${shard.name} ${why}`);
        continue;
      }
      const no = noPlace(ledger, wantedVersion(ledger.world, tenant));
      const message = `its shard ${shard.name} ${why}, but ${no.message}`;
      ledger.actions.push({
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
export function takePlaceAway(ledger: Ledger, tenant: TenantView): Place | undefined {
  const options = { preferReady: true, mayGrow: true };
  const wanted = wantedVersion(ledger.world, tenant);
  const place = takePlace(ledger, wanted, options);
  if (place) return place;
  const present = presentVersion(ledger.world, tenant);
  return present === undefined || present === wanted ? undefined : takePlace(ledger, present, options);
}

/**
 * Goes on with drains that consolidation has begun, without making shards for them. If places have been taken meanwhile so
 * that not all of a version's drained tenants fit, drains are called off until they do: the fullest shard's first.
 */
export function continueConsolidation(ledger: Ledger): void {
  const { world } = ledger;
  for (const [version, shards] of world.shardsOfVersion) {
    const draining = shards
      .filter((shard) => shard.drain === "Consolidation" && isAlive(shard) && !ledger.cancelled.has(shard.name))
      .map((shard) => ({ shard, leaving: world.tenantsOn(shard.name).filter(isMovable) }))
      .map((item) => ({ ...item, leaving: withoutUpgrading(ledger, item.leaving) }))
      .toSorted((a, b) => a.leaving.length - b.leaving.length);
    let needed = draining.reduce((sum, item) => sum + item.leaving.length, 0);
    while (needed > freePlaces(ledger, version)) {
      const fullest = draining.pop();
      if (!fullest) break;
      needed -= fullest.leaving.length;
      cancelDrain(ledger, fullest.shard.name, `its tenants no longer fit on the other shards of Synapse ${version}`);
    }
    for (const { shard, leaving } of draining) {
      for (const tenant of leaving) {
        const place = takePlace(ledger, version, { preferReady: true, mayGrow: false });
        if (place) beginMove(ledger, tenant, place, "Consolidation", `its shard ${shard.name} is being given up`);
      }
    }
  }
}

function withoutUpgrading(ledger: Ledger, tenants: TenantView[]): TenantView[] {
  return tenants.filter((tenant) => !ledger.placed.has(tenant.name));
}
