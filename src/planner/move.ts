import type { PlannedMoveReason } from "./actions.ts";
import type { Draft, Place } from "./place.ts";
import type { SnapshotTenant } from "./snapshot.ts";
import { presentRelease } from "./world.ts";

/** Whether the planner may move it: it has a shard, is not on its way already, and is wanted. */
export function isMovable(tenant: SnapshotTenant): boolean {
  return tenant.shard !== undefined && !tenant.move && !tenant.deleting;
}

/**
 * Plans the move to a place already taken, if it can begin now. It cannot while the target does not answer, while as many
 * moves as allowed are under way, or in the backoff after a failed one; a later plan begins it then.
 */
export function beginMove(
  draft: Draft,
  tenant: SnapshotTenant,
  place: Place,
  reason: PlannedMoveReason,
  message: string,
): void {
  const { world, actions } = draft;
  draft.handled.add(tenant.name);
  const release = presentRelease(world, tenant);
  if (release !== undefined) draft.busy.add(release);
  if (tenant.shard === undefined || !place.ready) return;
  if (draft.moves >= world.policy.maxConcurrentMoves) return;
  if (tenant.moveNotBefore !== undefined && world.now < tenant.moveNotBefore) return;
  draft.moves++;
  actions.push({ type: "Move", tenant: tenant.name, from: tenant.shard, to: place.shard, reason, message });
}
