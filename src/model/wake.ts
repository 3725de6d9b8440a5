import { timeText } from "./clock.ts";
import type { Wake, WakeReason } from "./sleep.ts";
import type { TenantStatus } from "./tenant.ts";

/** Wanted awake: placed like any tenant that has no shard. @returns false where it is wanted already, or does not sleep */
export function wantAwake(status: TenantStatus, reason: WakeReason, now: number): boolean {
  const { phase, sleep, wake } = status;
  if (wake || !sleep || (phase !== "Asleep" && phase !== "FallingAsleep")) return false;
  status.wake = { requestedAt: timeText(now), reason };
  if (phase === "Asleep") beginWaking(status);
  return true;
}

/** From now on the planner has it, as any tenant without a shard. */
export function beginWaking(status: TenantStatus): void {
  delete status.sleep;
  Object.assign(status, { phase: "Pending", reason: WAKING, message: "" });
}

/** Reason of a tenant that is wanted awake and that nothing keeps from it. */
export const WAKING = "Waking";

/** It runs. @returns the wake that it was, if it was one */
export function noteAwake(status: TenantStatus, now: number): Wake | undefined {
  const { wake } = status;
  if (wake) status.awake = { since: timeText(now), reason: wake.reason };
  delete status.wake;
  delete status.sleep;
  return wake;
}
