import type { Tenant } from "../../model/tenant.ts";
import { modify } from "../../ports/store.ts";
import { reservation } from "../../model/deleted-tenant.ts";
import { isTaken, NAME_RESERVED, type ClaimConflict } from "./claims.ts";
import { recordEvent, type ControllerContext } from "../context.ts";

/** Nobody tells that a deleted tenant is gone for good, or back. */
const RESERVED_AGAIN_MS = 30_000;

/** Why a tenant is turned away, and until when. */
interface Refusal {
  reason: string;
  /** One sentence. */
  message: string;
  holder?: string;
  /** Whether it still holds. */
  stands(tenant: Tenant): boolean;
}

/** Turns away tenants that ask for the server name, a host or the database of another, and lets them in when that one has let go. */
export class ClaimConflicts {
  readonly #context: ControllerContext;

  constructor(context: ControllerContext) {
    this.#context = context;
  }

  /** @returns the tenant as it is now; where it was turned away, undefined, or when to look again */
  async settle(tenant: Tenant): Promise<Tenant | number | undefined> {
    const { claims } = this.#context;
    const rival = claims.blockingConflictOf(tenant);
    if (rival) return this.#turnAway(tenant, this.#refusalBy(rival)).then(() => undefined);
    const reserved = await this.#reservedFor(tenant);
    if (reserved !== undefined)
      return this.#turnAway(tenant, {
        reason: NAME_RESERVED,
        message: reserved,
        stands: ({ status }) => status.epoch === 0,
      }).then(() => RESERVED_AGAIN_MS);
    const { reason, refusedRelease, refusedConfig } = tenant.status;
    const was = [reason, refusedRelease?.reason, refusedConfig?.reason].some((said) => isTaken(said ?? ""));
    return was && !claims.conflictOf(tenant) ? this.#letIn(tenant) : tenant;
  }

  #refusalBy({ reason, message, holder }: ClaimConflict): Refusal {
    return {
      reason,
      message: `${message}, which had it first; it is placed when that one has let go`,
      holder,
      stands: (tenant) => this.#context.claims.blockingConflictOf(tenant) !== undefined,
    };
  }

  /** Who asks for it by the API is refused there; others make the object of a tenant themselves. */
  async #reservedFor({ metadata: { name }, spec: { serverName }, status }: Tenant): Promise<string | undefined> {
    const { deletions } = this.#context;
    if (!deletions || status.epoch > 0 || status.provisioned) return undefined;
    for (const record of await deletions.records.list()) {
      const reserved = reservation(record, { name, serverName });
      if (reserved !== undefined) return reserved;
    }
    return undefined;
  }

  async #turnAway(tenant: Tenant, { reason, message, holder, stands }: Refusal): Promise<void> {
    const { store, metrics, log } = this.#context;
    const { name } = tenant.metadata;
    let fresh = false;
    await modify(store, "Tenant", name, (t) => {
      const { status } = t;
      if (status.move || !stands(t)) return false;
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
