import { exponential } from "../../model/backoff.ts";
import { timeText } from "../../model/clock.ts";
import type { Move, MoveOutcome, MoveReason, MoveResult } from "../../model/move.ts";
import { reasonOfRunning, type Tenant, type TenantStatus } from "../../model/tenant.ts";
import { modify } from "../../ports/store.ts";
import { recordEvent, type ControllerContext } from "../context.ts";
import { routeOf } from "../routes/routes.ts";
import type { ShardReconciler } from "../shards/shard-reconciler.ts";

export const LONGEST_MOVE_DELAY_MS = 3_600_000;
/** A tenant whose move did not succeed is left alone for a while, longer each time. */
export const moveAgainAfter = exponential(30_000, LONGEST_MOVE_DELAY_MS);

export interface Ending {
  outcome: MoveOutcome;
  message?: string;
  /** Seconds. */
  blackout?: number;
  /** Whether gateways have held its requests. */
  parked?: boolean;
}

/** Ends a move: what came of it is written down in one piece, and told. */
export async function endMove(
  context: ControllerContext,
  shards: ShardReconciler,
  tenant: Tenant,
  move: Move,
  ending: Ending,
  change: (tenant: Tenant) => void,
): Promise<Tenant | undefined> {
  const { store, feed, metrics, clock } = context;
  const { name } = tenant.metadata;
  const { id, from, to, reason } = move;
  const { outcome, message, blackout = 0 } = ending;
  const counts = ending.parked ? feed.takeParkCount(name) : { parked: 0, failed: 0 };
  const finishedAt = timeText(clock.now());
  const result: MoveResult = {
    id,
    from,
    to,
    reason,
    outcome,
    ...(message === undefined ? {} : { message }),
    finishedAt,
    blackoutSeconds: Math.round(blackout * 1000) / 1000,
    parkedRequests: counts.parked,
    failedRequests: counts.failed,
  };
  const written = await modify(store, "Tenant", name, (t) => {
    if (t.status.move?.id !== id) return false;
    delete t.status.move;
    t.status.lastMove = result;
    change(t);
    if (from !== to) countEnd(t.status, outcome, clock.now());
    return true;
  });
  if (written) feed.publish(routeOf(written, context.claims));
  for (const shard of new Set([from, to])) {
    await modify(store, "Shard", shard, (s) => void (s.status.lastAssignmentChange = finishedAt));
    await shards.refresh(shard);
  }
  metrics.moves.inc({ reason, outcome });
  if (outcome === "Succeeded") metrics.blackout.observe(blackout);
  await tell(context, name, result);
  return written;
}

/** What did not succeed is not begun again at once; it is held against the tenant only where it was rolled back. */
function countEnd(status: TenantStatus, outcome: MoveOutcome, now: number): void {
  if (outcome === "Succeeded") {
    status.moveFailures = 0;
    delete status.moveInterruptions;
    delete status.moveNotBefore;
  } else if (outcome === "RolledBack") {
    status.moveFailures = (status.moveFailures ?? 0) + 1;
    status.moveNotBefore = timeText(now + moveAgainAfter(status.moveFailures));
  } else if (outcome === "Interrupted") {
    status.moveInterruptions = (status.moveInterruptions ?? 0) + 1;
    status.moveNotBefore = timeText(now + moveAgainAfter(status.moveInterruptions));
  }
}

/** It is where it was before the move. */
export function asBefore({ status }: Tenant): void {
  status.phase = status.address === undefined ? "Starting" : "Running";
  Object.assign(status, reasonOfRunning(status));
}

/** What a restart is with, where it is not its configuration. */
const WITH: Partial<Record<MoveReason, string>> = {
  Restored: "the restored database",
  DatabaseMoved: "its database on another server",
};

async function tell(context: ControllerContext, name: string, result: MoveResult): Promise<void> {
  const { from, to, reason, outcome, message } = result;
  const counts = `blackout ${result.blackoutSeconds} s, ${result.parkedRequests} requests waited, ${result.failedRequests} failed`;
  const isRestart = from === to;
  const done = isRestart
    ? `${name} was restarted on ${to} with ${WITH[reason] ?? "its new configuration"}`
    : `${name} moved from ${from} to ${to}`;
  const notDone = isRestart
    ? `${name} ${WITH[reason] ? `was not restarted with ${WITH[reason]}` : "goes on with its previous configuration"}: ${message}`
    : `${name} did not move from ${from} to ${to}: ${message}`;
  await recordEvent(context, {
    type: outcome === "Succeeded" ? "Normal" : "Warning",
    reason: outcome === "Succeeded" ? (isRestart ? "Restarted" : "Moved") : `Move${outcome}`,
    object: `Tenant/${name}`,
    message: outcome === "Succeeded" ? `${done} (${reason}): ${counts}` : notDone,
  });
}
