import { storageOf } from "../../model/storage-name.ts";
import { messageOf } from "../../model/errors.ts";
import { hasStarted, type Tenant } from "../../model/tenant.ts";
import { modify } from "../../ports/store.ts";
import { RecordTooLarge } from "../../ports/deleted-tenants.ts";
import { timeText } from "../../model/clock.ts";
import { recordEvent, type ControllerContext } from "../context.ts";
import { leaveCopy } from "../start/database-move.ts";
import { routeOf } from "../routes/routes.ts";
import { asItRuns, bringsDatabase } from "../start/configs.ts";
import { nextEpoch } from "../start/start.ts";
import type { ShardReconciler } from "../shards/shard-reconciler.ts";
import { readUsage } from "../usage/usage-reading.ts";
import { ownerOf } from "../usage/usage-recorder.ts";
import { KeptTenants, refuseUnknownServers } from "./kept-tenants.ts";

/** What there is to be kept does not change unless somebody changes the tenant. */
const AGAIN_MS = 600_000;

/** Stops a tenant, and removes what its owner wants removed. Each part can be repeated; the object goes last. */
export class TenantDeletion {
  readonly #context: ControllerContext;
  readonly #shards: ShardReconciler;
  readonly #kept: KeptTenants | undefined;

  constructor(context: ControllerContext, shards: ShardReconciler) {
    this.#context = context;
    this.#shards = shards;
    this.#kept = context.deletions && new KeptTenants(context, context.deletions);
  }

  /** @returns milliseconds to wait where it has to stay */
  async run(tenant: Tenant): Promise<number | void> {
    const { store, feed } = this.#context;
    const { name } = tenant.metadata;
    const marked = await this.#mark(name);
    if (!marked) return;
    await feed.settled(feed.publish(routeOf(marked, this.#context.claims)));
    const { shard } = tenant.status;
    const isStopped = shard === undefined || (await this.#stop(name, shard));
    await readUsage(this.#context, marked, { isStopped });
    await this.#context.recorder?.ended(ownerOf(marked));
    const fate = await this.#letGoOfData(tenant, isStopped).catch((error: unknown) => {
      if (error instanceof RecordTooLarge) return error;
      throw error;
    });
    if (typeof fate !== "string") return this.#stays(name, fate.message);
    await store.remove("Tenant", name);
    feed.remove(name);
    if (shard !== undefined) await this.#noteLeft(shard);
    await recordEvent(this.#context, {
      type: "Normal",
      reason: "Deleted",
      object: `Tenant/${name}`,
      message: `${name} was deleted; ${fate}`,
    });
  }

  /** Somebody has to change it, of which we hear; it is stopped, and has all of its data. */
  async #stays(name: string, message: string): Promise<number> {
    if (await this.#say(name, "RecordTooLarge", message))
      await recordEvent(this.#context, {
        type: "Warning",
        reason: "RecordTooLarge",
        object: `Tenant/${name}`,
        message,
      });
    return AGAIN_MS;
  }

  /** In its status. @returns whether it is news */
  async #say(name: string, reason: string, message: string): Promise<boolean> {
    let isNews = false;
    await modify(this.#context.store, "Tenant", name, ({ status }) => {
      isNews = status.message !== message;
      if (isNews) Object.assign(status, { reason, message });
      return isNews;
    });
    return isNews;
  }

  /** @returns the tenant as it is now, unless it is gone */
  #mark(name: string): Promise<Tenant | undefined> {
    return modify(this.#context.store, "Tenant", name, ({ status }) => {
      if (status.phase === "Deleting") return false;
      Object.assign(status, { phase: "Deleting", reason: "", message: "" });
      return true;
    });
  }

  /** Removes the tenant's data, or shuts out what may still run it. @returns what became of the data, in words */
  async #letGoOfData(tenant: Tenant, isStopped: boolean): Promise<string> {
    const { store, databases } = this.#context;
    const storage = storageOf(tenant);
    const { provisioned, dedicated } = tenant.status;
    await leaveCopy(this.#context, storage);
    if (await this.#kept?.isTurnedAway(tenant))
      return "it had no data; what is kept of the deleted tenant of its name stays";
    // A dedicated process goes on without us: it has, or is about to have, the database and the media.
    const lives = tenant.spec.dedicated !== undefined || dedicated !== undefined;
    const runs = await asItRuns(this.#context, tenant);
    const managed = provisioned && !bringsDatabase((runs?.tenant ?? tenant).spec);
    const purge = tenant.spec.reclaimPolicy === "Delete" && !lives;
    if (purge) await this.#refuseUnknownServers(tenant);
    const begun = purge ? await this.#kept?.beginPurge(tenant, managed) : undefined;
    // Also what it had from us before it brought a database along.
    if (purge) await databases.drop(storage);
    const isGone = managed && purge;
    if (!isGone && !isStopped && hasStarted(tenant.status)) await this.#shutOut(runs?.tenant ?? tenant, managed);
    if (purge) {
      await this.#context.removeMedia(storage);
      await store.removeSecret(storage);
      if (begun) await this.#kept?.endPurge(begun);
    }
    if (lives) return DEDICATED_LIVES;
    const kept = purge || !provisioned ? undefined : await this.#kept?.keep(tenant, managed);
    return kept ? `its database and media are kept until ${kept.keptUntil}` : describeFate(provisioned, managed, purge);
  }

  /** Said in its status: it stays like this until somebody acts. */
  async #refuseUnknownServers({ metadata: { name }, status }: Tenant): Promise<void> {
    try {
      refuseUnknownServers(this.#context.databases, name, status);
    } catch (error) {
      await this.#say(name, "DatabaseServerUnknown", messageOf(error));
      throw error;
    }
  }

  async #noteLeft(shard: string): Promise<void> {
    const { store, clock } = this.#context;
    await modify(store, "Shard", shard, (s) => void (s.status.lastAssignmentChange = timeText(clock.now())));
    await this.#shards.refresh(shard);
  }

  async #shutOut(tenant: Tenant, managed: boolean): Promise<void> {
    const { databases, log } = this.#context;
    const { name } = tenant.metadata;
    if (managed) return databases.fenceOff(tenant);
    try {
      const runs = await asItRuns(this.#context, tenant);
      const fence = runs && (await databases.fence(runs.tenant, runs.secrets));
      if (!runs || !fence || fence.owner !== tenant.status.shard) return;
      const { status } = await nextEpoch(this.#context, name, { above: fence.epoch });
      await databases.release({ ...runs.tenant, status }, runs.secrets, fence.owner);
    } catch (error) {
      // It is its owner's, who may have removed it already.
      log.warn({ tenant: name, why: messageOf(error) }, "the shard cannot be shut out of the tenant's database");
    }
  }

  /** @returns whether it is certain that the shard no longer runs it */
  async #stop(name: string, shard: string): Promise<boolean> {
    const observation = this.#shards.observation(shard);
    if (!observation) return (await this.#context.launcher.observe(shard)).state === "absent";
    try {
      // Whatever has the database next need not wait for us.
      await observation.client.stopTenant(name, this.#context.timing.drain, { release: true });
      return true;
    } catch (error) {
      this.#context.log.warn(
        { tenant: name, shard, err: error },
        "the shard does not confirm the stop; the fence will shut it out",
      );
      return false;
    }
  }
}

const DEDICATED_LIVES = "the dedicated process that serves it goes on, without the gateway";

function describeFate(provisioned: boolean, managed: boolean, purge: boolean): string {
  if (!provisioned) return "it had no database yet";
  if (!purge) return "its database and media are kept";
  return managed
    ? "its database and media were removed"
    : "its media were removed; the database it brought along is its owner's, and was left alone";
}
