import type { PlannedMoveReason } from "./actions.ts";
import type { Ledger, Place } from "./place.ts";
import type { TenantView } from "./snapshot.ts";
import { presentVersion } from "./world.ts";

/** Whether the planner may move it: it has a shard, is not on its way already, and is wanted. */
export function isMovable(tenant: TenantView): boolean {
  return tenant.shard !== undefined && !tenant.move && !tenant.deleting;
}

/**
 * Plans the move to a place already taken, if it can begin now. It cannot while the target does not answer, while as many
 * moves as allowed are under way, or in the backoff after a failed one; a later plan begins it then.
 */
export function beginMove(
  ledger: Ledger,
  tenant: TenantView,
  place: Place,
  reason: PlannedMoveReason,
  message: string,
): void {
  const { world, actions } = ledger;
  ledger.placed.add(tenant.name);
  const version = presentVersion(world, tenant);
  if (version !== undefined) ledger.busy.add(version);
  if (tenant.shard === undefined || !place.ready) return;
  if (ledger.moves >= world.policy.maxConcurrentMoves) return;
  if (tenant.moveNotBefore !== undefined && world.now < tenant.moveNotBefore) return;
  ledger.moves++;
  actions.push({ type: "Move", tenant: tenant.name, from: tenant.shard, to: place.shard, reason, message });
}
