import { lack, mayWake } from "./sleep.ts";
import type { SnapshotTenant } from "./snapshot.ts";
import { noPlace, takePlace, type Draft } from "./place.ts";
import { aloneAs, mustBeAlone } from "./snapshot-facts.ts";
import { wantedRelease } from "./world.ts";
import { placeOptionsFor } from "./wishes.ts";

/** Gives a shard to each tenant that has none, or whose shard is gone; says so where there is no place. */
export function assignTenants(draft: Draft): void {
  const { world, actions } = draft;
  const homeless = world.unsettled.filter(
    (tenant) =>
      !tenant.deleting && !tenant.move && (tenant.shard === undefined || !world.shardByName.has(tenant.shard)),
  );
  for (const tenant of homeless.toSorted(inTurn)) {
    const gone = tenant.shard !== undefined;
    // As many as may are being woken: it is its turn when one of them runs.
    if (tenant.waking && !gone && !mayWake(draft)) continue;
    const release = wantedRelease(world, tenant);
    const place = takePlace(draft, release, {
      preferReady: false,
      mayGrow: true,
      wakes: tenant.waking !== undefined && !gone,
      ...placeOptionsFor(world, tenant),
    });
    if (!place) {
      const why = noPlace(draft, release, mustBeAlone(tenant));
      actions.push({ type: "SetPending", tenant: tenant.name, ...why });
      if (why.reason === "MaxShardsReached" && !mustBeAlone(tenant)) lack(draft, release);
      continue;
    }
    if (tenant.waking && !gone) draft.wakes++;
    actions.push({
      type: "Assign",
      tenant: tenant.name,
      shard: place.shard,
      reason: gone ? "ShardGone" : "Unassigned",
      message:
        place.alone && aloneAs(tenant)
          ? `it is ${aloneAs(tenant)}, and ${place.shard} is for it alone`
          : gone
            ? `its shard ${tenant.shard} is gone; ${place.shard} is the fullest with a free place`
            : `${place.shard} is the fullest shard of Synapse ${release} with a free place`,
    });
  }
}

/** Those that ran a moment ago, then those that have been waiting longest: nobody is passed by for ever newer ones. */
function inTurn(a: SnapshotTenant, b: SnapshotTenant): number {
  const lost = Number(b.shard !== undefined) - Number(a.shard !== undefined);
  return lost || (a.waitingSince ?? 0) - (b.waitingSince ?? 0) || (a.name < b.name ? -1 : 1);
}
