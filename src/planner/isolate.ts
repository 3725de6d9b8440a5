import { beginMove, isMovable } from "./move.ts";
import { noPlace, takeEmptyShard, takeOwnShard, type Draft } from "./place.ts";
import type { SnapshotTenant } from "./snapshot.ts";
import { aloneAs } from "./snapshot-facts.ts";
import { presentRelease, wantedRelease } from "./world.ts";

/**
 * Takes quarantined tenants off shards that they share: they are stopped there at once, and get a shard of their own from the next plan.
 * Not a move: a tenant that stops its shard's reactor is not left among others until a place is ready.
 */
export function isolateTenants(draft: Draft): void {
  const { world, actions } = draft;
  for (const tenant of world.unsettled) {
    if (!tenant.isolated || tenant.deleting || tenant.move || tenant.shard === undefined) continue;
    if (!world.shardByName.has(tenant.shard) || world.placesTaken(tenant.shard) <= 1) continue;
    draft.handled.add(tenant.name);
    const release = presentRelease(world, tenant);
    if (release !== undefined) draft.busy.add(release);
    actions.push({
      type: "Unassign",
      tenant: tenant.name,
      shard: tenant.shard,
      reason: "Quarantined",
      message: `it is quarantined, and has neighbours on ${tenant.shard}`,
    });
  }
}

/**
 * Moves dedicated tenants to shards of their own: it was asked for, so it waits for no window. They serve among others until there is a place.
 */
export function separateDedicated(draft: Draft): void {
  const { world, actions } = draft;
  for (const tenant of world.unsettled) {
    if (aloneAs(tenant) !== "dedicated" || !isMovable(tenant) || draft.handled.has(tenant.name)) continue;
    const shard = world.shardByName.get(tenant.shard ?? "");
    // Of others it is said elsewhere why they stay.
    if (!shard || shard.phase !== "Ready" || shard.drain === "Requested") continue;
    const { name: from, release } = shard;
    if (wantedRelease(world, tenant) !== release || !keepsNeighbours(draft, tenant, from)) continue;
    const place = takeEmptyShard(draft, release, "dedicated");
    if (place) {
      beginMove(draft, tenant, place, "Placement", `it is dedicated; ${place.shard} is for it alone`);
      continue;
    }
    const no = noPlace(draft, release, "dedicated");
    const message = `it stays among others on ${from}: ${no.message}`;
    actions.push({ type: "MarkWaiting", tenant: tenant.name, wants: "Placement", reason: no.reason, message });
  }
}

/** Whether somebody is still beside it when those are gone that are leaving. */
function keepsNeighbours({ world, handled }: Draft, tenant: SnapshotTenant, shard: string): boolean {
  const isLeaving = ({ name, move }: SnapshotTenant) =>
    handled.has(name) || (move?.from === shard && move.to !== shard);
  const leaving = world.tenantsOn(shard).filter((other) => other.name !== tenant.name && isLeaving(other));
  return world.placesTaken(shard) - leaving.length > 1;
}

/**
 * Moves heavy tenants to shards of their own. A move like any other, and only where there is room: a tenant that takes much is throttled where
 * it is, and does not have to go.
 */
export function separateHeavy(draft: Draft): void {
  const { world } = draft;
  for (const tenant of world.unsettled) {
    if (!tenant.heavy || aloneAs(tenant) || !isMovable(tenant) || draft.handled.has(tenant.name)) continue;
    const shard = world.shardByName.get(tenant.shard ?? "");
    if (!shard || shard.phase !== "Ready" || world.placesTaken(shard.name) <= 1) continue;
    if (world.windowClosed || world.now < (tenant.pinnedUntil ?? 0)) continue;
    const place = takeOwnShard(draft, shard.release, true);
    if (!place) continue;
    const isWished = tenant.placement?.isolate === true;
    const why = isWished ? "its placement says so" : "it took more than its CPU budget for long";
    beginMove(
      draft,
      tenant,
      place,
      isWished ? "Placement" : "CpuBudgetExceeded",
      `${why}; ${place.shard} is for it alone`,
    );
  }
}
