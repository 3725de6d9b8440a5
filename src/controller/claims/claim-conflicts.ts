import type { Tenant } from "../../model/tenant.ts";
import { modify } from "../../ports/store.ts";
import { isTaken, type ClaimConflict } from "./claims.ts";
import { recordEvent, type ControllerContext } from "../context.ts";

/** Turns away tenants that ask for the server name, a host or the database of another, and lets them in when that one has let go. */
export class ClaimConflicts {
  readonly #context: ControllerContext;

  constructor(context: ControllerContext) {
    this.#context = context;
  }

  /** @returns the tenant as it is now, or undefined where it was turned away */
  async settle(tenant: Tenant): Promise<Tenant | undefined> {
    const { claims } = this.#context;
    const rival = claims.blockingConflictOf(tenant);
    if (rival) return this.#turnAway(tenant, rival).then(() => undefined);
    const { reason, refusedRelease, refusedConfig } = tenant.status;
    const was = [reason, refusedRelease?.reason, refusedConfig?.reason].some((said) => isTaken(said ?? ""));
    return was && !claims.conflictOf(tenant) ? this.#letIn(tenant) : tenant;
  }

  async #turnAway(tenant: Tenant, { reason, message: what, holder }: ClaimConflict): Promise<void> {
    const { store, claims, metrics, log } = this.#context;
    const { name } = tenant.metadata;
    const message = `${what}, which had it first; it is placed when that one has let go`;
    let fresh = false;
    await modify(store, "Tenant", name, (t) => {
      const { status } = t;
      if (status.move || !claims.blockingConflictOf(t)) return false;
      fresh = status.phase !== "Failed" || status.reason !== reason || status.message !== message;
      if (!fresh && status.shard === undefined) return false;
      Object.assign(status, { phase: "Failed", reason, message });
      // Where it should still run on a shard, it is stopped there as any that does not belong there.
      for (const key of ["shard", "address", "assignedAt", "retryAt", "transition"] as const) delete status[key];
      return true;
    });
    if (!fresh) return;
    metrics.tenantStarts.inc({ result: reason });
    log.warn({ tenant: name, holder, reason }, message);
    await recordEvent(this.#context, {
      type: "Warning",
      reason,
      object: `Tenant/${name}`,
      message: `${name} is not placed: ${message}`,
    });
  }

  /** Also a running tenant whose change was refused: it is tried again. */
  async #letIn(tenant: Tenant): Promise<Tenant | undefined> {
    return modify(this.#context.store, "Tenant", tenant.metadata.name, ({ status }) => {
      if (status.move) return false;
      if (isTaken(status.refusedRelease?.reason ?? "")) delete status.refusedRelease;
      if (isTaken(status.refusedConfig?.reason ?? "")) delete status.refusedConfig;
      if (!isTaken(status.reason)) return true;
      delete status.moveNotBefore;
      delete status.retryAt;
      Object.assign(status, { reason: "", message: "", failures: 0 });
      if (status.phase === "Failed") status.phase = status.shard === undefined ? "Pending" : "Starting";
      return true;
    });
  }
}
