/**
 * Suspends a tenant, and takes that back. A suspended tenant holds no place, like one that sleeps; nothing wakes it, and gateways refuse its
 * requests instead of holding them. What it was at before does not matter: on a shard, asleep, without a place or failed.
 *
 * The phase is written first, so that no gateway sends it anything more; then its shard stops it, or is shut out by the fence. Each part can be
 * repeated.
 */
import { timeText } from "../../model/clock.ts";
import { messageOf } from "../../model/errors.ts";
import { hasStarted, isSuspended, type Tenant } from "../../model/tenant.ts";
import { modify } from "../../ports/store.ts";
import { recordEvent, type ControllerContext } from "../context.ts";
import { routeOf } from "../routes/routes.ts";
import type { ShardReconciler } from "../shards/shard-reconciler.ts";
import { stopTenant } from "../shards/stop-tenant.ts";
import { asItRuns } from "../start/configs.ts";
import { nextEpoch } from "../start/start.ts";
import { lastWordsOf } from "./last-words.ts";

const RETRY_MS = 500;
/** The database does not answer, so nobody can be shut out of it. */
const DATABASE_AGAIN_MS = 5_000;

/** Whether suspension is what there is to do for it. A dedicated tenant is its own process's, which nobody here can stop. */
export function concernsSuspension(tenant: Tenant): boolean {
  const { spec, status } = tenant;
  return isSuspended(tenant) && !spec.dedicated && !status.dedicated && !status.transition;
}

export class Suspension {
  readonly #context: ControllerContext;
  readonly #shards: ShardReconciler;

  constructor(context: ControllerContext, shards: ShardReconciler) {
    this.#context = context;
    this.#shards = shards;
  }

  /** @returns milliseconds to wait, where it must */
  async run(tenant: Tenant): Promise<number | void> {
    if (!tenant.spec.suspended) return this.#resume(tenant);
    const refused = tenant.status.phase === "Suspended" ? tenant : await this.#refuse(tenant);
    if (!refused || refused.status.phase !== "Suspended") return undefined;
    const { feed, claims } = this.#context;
    await feed.settled(feed.publish(routeOf(refused, claims)));
    const { shard } = refused.status;
    if (shard !== undefined) return this.#leave(refused, shard);
    await this.#takeNote(refused);
  }

  /** From now on its requests are refused; what is in flight is finished. */
  async #refuse(tenant: Tenant): Promise<Tenant | undefined> {
    // Gateways say it for as long as this lasts: also those that never saw it awake.
    const lastWords = tenant.status.move ? undefined : await lastWordsOf(this.#context, tenant);
    return modify(this.#context.store, "Tenant", tenant.metadata.name, ({ spec, status }) => {
      if (!spec.suspended || status.move || status.phase === "Suspended") return false;
      for (const key of ["sleep", "wake", "awake", "retryAt", "refusedRelease"] as const) delete status[key];
      Object.assign(status, { phase: "Suspended", reason: "", message: "", failures: 0 });
      if (lastWords) status.lastWords = lastWords;
      return true;
    });
  }

  async #leave(tenant: Tenant, shard: string): Promise<number | void> {
    const { store, clock } = this.#context;
    const { name } = tenant.metadata;
    const stopped = await stopTenant(this.#context, this.#shards, name, shard);
    if (!stopped) return RETRY_MS;
    if (!stopped.confirmed && !(await this.#shutOut(tenant, shard))) return DATABASE_AGAIN_MS;
    let left = false;
    await modify(store, "Tenant", name, ({ metadata, status }) => {
      left = status.phase === "Suspended" && status.shard === shard;
      if (!left) return false;
      for (const key of ["shard", "address", "assignedAt", "pin", "throttle", "heavy"] as const) delete status[key];
      // What a shard that was not asked since still says of it is of the epoch before.
      status.epoch += 1;
      status.observedGeneration = metadata.generation;
      return true;
    });
    if (!left) return undefined;
    this.#context.idle.forget(name);
    await modify(store, "Shard", shard, ({ status }) => void (status.lastAssignmentChange = timeText(clock.now())));
    await this.#shards.refresh(shard);
    await this.#say(name, "Suspended", `${name} is suspended: it runs nowhere, and its data and keys stay`);
  }

  /** A shard that is lost may still run it. @returns whether it cannot any more */
  async #shutOut(tenant: Tenant, shard: string): Promise<boolean> {
    const { databases, log } = this.#context;
    const { name } = tenant.metadata;
    if (!hasStarted(tenant.status)) return true;
    try {
      const runs = await asItRuns(this.#context, tenant);
      const fence = runs && (await databases.fence(runs.tenant, runs.secrets));
      if (!runs || fence?.owner !== shard) return true;
      const { status } = await nextEpoch(this.#context, name, { above: fence.epoch });
      await databases.release({ ...runs.tenant, status }, runs.secrets, shard);
      return true;
    } catch (error) {
      log.warn({ tenant: name, shard, why: messageOf(error) }, "the shard cannot be shut out of the tenant's database");
      return false;
    }
  }

  /** A specification that changes while it is suspended takes effect when it is resumed. */
  async #takeNote({ metadata, status }: Tenant): Promise<void> {
    if (status.observedGeneration === metadata.generation) return;
    await modify(this.#context.store, "Tenant", metadata.name, (t) => {
      if (t.status.phase !== "Suspended") return false;
      t.status.observedGeneration = metadata.generation;
      return true;
    });
  }

  /** As any tenant that has no shard, or, where it was not stopped yet, that is to be started on it. */
  async #resume({ metadata: { name } }: Tenant): Promise<void> {
    let resumed = false;
    await modify(this.#context.store, "Tenant", name, ({ spec, status }) => {
      resumed = !spec.suspended && status.phase === "Suspended";
      if (!resumed) return false;
      const phase = status.shard === undefined ? "Pending" : "Starting";
      Object.assign(status, { phase, reason: "", message: "" });
      return true;
    });
    if (resumed) await this.#say(name, "Resumed", `${name} is no longer suspended`);
  }

  #say(name: string, reason: string, message: string): Promise<void> {
    return recordEvent(this.#context, { type: "Normal", reason, object: `Tenant/${name}`, message });
  }
}
