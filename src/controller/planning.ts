import { randomUUID } from "node:crypto";
import { messageOf, UserError } from "../model/errors.ts";
import { wantedVersion, type Shard, type Tenant } from "../model/resources.ts";
import type { Action, NoPlaceReason } from "../planner/actions.ts";
import { plan } from "../planner/plan.ts";
import type { ShardView, Snapshot, TenantView } from "../planner/snapshot.ts";
import { ConflictError, modify, type Store } from "../store/store.ts";
import { recordEvent, type ControllerContext } from "./context.ts";

/** Reasons that only the planner gives, and takes back: `NoPlaceReason`. */
const NO_PLACE: ReadonlySet<string> = new Set<NoPlaceReason>(["MaxShardsReached", "ShardFailed"]);

/** What the planner needs of the store. */
export async function snapshotOf(store: Store): Promise<Snapshot> {
  const [tenants, shards] = [await store.list("Tenant"), await store.list("Shard")];
  const releases = new Map(shards.map(({ metadata, spec }) => [metadata.name, spec.synapseVersion]));
  const views = tenants.map((tenant) => tenantView(tenant, releases)).filter((view) => view !== undefined);
  return { now: Date.now(), tenants: views, shards: shards.map(shardView) };
}

/** Undefined for a tenant that nobody has given a release yet: there is nothing to be planned for it. */
function tenantView(tenant: Tenant, releases: ReadonlyMap<string, string>): TenantView | undefined {
  const { metadata, spec, status } = tenant;
  const version = wantedVersion(tenant) || releases.get(status.shard ?? "");
  if (version === undefined) return undefined;
  return {
    name: metadata.name,
    version,
    shard: status.shard,
    move: status.move && { from: status.move.from, to: status.move.to },
    // One that is to run in a Synapse of its own is none of the planner's, as one that is to be deleted.
    deleting: metadata.deletionTimestamp !== undefined || spec.dedicated !== undefined,
    refusedVersion: status.refusedVersion?.version,
    moveNotBefore: status.moveNotBefore === undefined ? undefined : Date.parse(status.moveNotBefore),
  };
}

function shardView({ metadata, spec, status }: Shard): ShardView {
  return {
    name: metadata.name,
    version: spec.synapseVersion,
    phase: metadata.deletionTimestamp === undefined ? status.phase : "Stopping",
    drain: spec.drain,
    lastAssignmentChange: Date.parse(status.lastAssignmentChange ?? metadata.creationTimestamp),
  };
}

/** Makes plans, and writes them to the store, where the reconcilers find them. Carries out nothing itself. */
export class Planning {
  readonly #context: ControllerContext;

  constructor(context: ControllerContext) {
    this.#context = context;
  }

  /** @returns the number of actions that changed something */
  async pass(): Promise<number> {
    const { store, policy, metrics, log } = this.#context;
    const snapshot = await snapshotOf(store);
    const stopTimer = metrics.planSeconds.startTimer();
    const actions = plan(snapshot, policy);
    stopTimer();
    let changes = 0;
    for (const action of actions) {
      try {
        if (!(await this.#apply(action))) continue;
        changes += 1;
        metrics.actions.inc({ action: action.type });
        log.info({ action }, "planned");
      } catch (error) {
        // The world changed under the plan: the rest of it may rest on what is no longer so. The next pass sees it.
        if (error instanceof ConflictError || (error instanceof UserError && error.code === "AlreadyExists")) {
          log.info({ action, why: messageOf(error) }, "plan overtaken, planning again");
          return changes + 1;
        }
        throw error;
      }
    }
    await this.#clearStaleReasons(actions);
    return changes;
  }

  /** Each action is checked once more against the object as it is now. @returns whether it changed anything */
  #apply(action: Action): Promise<boolean> {
    switch (action.type) {
      case "CreateShard":
        return createShard(this.#context, action.name, action.version, action.message).then(() => true);
      case "Assign":
        return this.#assign(action);
      case "Move":
        return this.#move(action);
      case "SetPending":
        return this.#explain(action.tenant, action.reason, action.message, true);
      case "MarkWaiting":
        return this.#explain(action.tenant, action.reason, action.message, false);
      case "DrainShard":
        return this.#changeShard(
          action.shard,
          "Draining",
          action.message,
          (shard) => (shard.spec.drain = "Consolidation"),
        );
      case "CancelDrain":
        return this.#changeShard(action.shard, "DrainCancelled", action.message, (shard) => delete shard.spec.drain);
      case "StopShard":
        return this.#changeShard(action.shard, "Stopping", action.message, (shard) => {
          shard.metadata.deletionTimestamp = new Date().toISOString();
          shard.status.phase = "Stopping";
        });
    }
  }

  async #assign({ tenant: name, shard, message }: Extract<Action, { type: "Assign" }>): Promise<boolean> {
    const { store } = this.#context;
    const now = new Date().toISOString();
    let done = false;
    await this.#touch(shard, now);
    await modify(store, "Tenant", name, ({ metadata, status }) => {
      done = status.move === undefined && metadata.deletionTimestamp === undefined;
      if (!done) return false;
      status.shard = shard;
      status.assignedAt = now;
      delete status.address;
      if (status.phase === "Pending") Object.assign(status, { phase: "Starting", reason: "", message: "" });
      return true;
    });
    if (done) await this.#say("Assigned", `Tenant/${name}`, message);
    return done;
  }

  async #move({ tenant: name, from, to, reason, message }: Extract<Action, { type: "Move" }>): Promise<boolean> {
    const now = new Date().toISOString();
    let done = false;
    await this.#touch(to, now);
    await modify(this.#context.store, "Tenant", name, ({ metadata, status }) => {
      const busy = status.move !== undefined || status.handover !== undefined;
      done = !busy && metadata.deletionTimestamp === undefined && status.shard === from;
      if (!done) return false;
      status.move = { id: randomUUID(), from, to, reason, step: "Preparing", requestedAt: now };
      status.phase = "Moving";
      // Whatever kept it from starting on its old shard is to be found out anew on the other.
      delete status.retryAt;
      return true;
    });
    if (done) await this.#say("Moving", `Tenant/${name}`, message);
    return done;
  }

  async #explain(name: string, reason: string, message: string, pending: boolean): Promise<boolean> {
    let done = false;
    await modify(this.#context.store, "Tenant", name, ({ status }) => {
      const known = status.reason === reason && status.message === message && (!pending || status.phase === "Pending");
      // A failure of its own says more than that it also waits for a place.
      done = !known && (pending || status.reason === "" || NO_PLACE.has(status.reason));
      if (!done) return false;
      if (pending) status.phase = "Pending";
      status.reason = reason;
      status.message = message;
      return true;
    });
    if (done) await this.#say(reason, `Tenant/${name}`, message, "Warning");
    return done;
  }

  /** "Waits for a place" is taken back once it no longer does. */
  async #clearStaleReasons(actions: Action[]): Promise<void> {
    const { store } = this.#context;
    const waiting = new Set(
      actions.flatMap((a) => (a.type === "SetPending" || a.type === "MarkWaiting" ? [a.tenant] : [])),
    );
    for (const tenant of await store.list("Tenant")) {
      if (!NO_PLACE.has(tenant.status.reason) || waiting.has(tenant.metadata.name)) continue;
      await modify(store, "Tenant", tenant.metadata.name, ({ status }) => {
        if (!NO_PLACE.has(status.reason)) return false;
        status.reason = "";
        status.message = "";
        return true;
      });
    }
  }

  async #changeShard(name: string, reason: string, message: string, change: (shard: Shard) => void): Promise<boolean> {
    const changed = await modify(this.#context.store, "Shard", name, (shard) => void change(shard));
    if (changed) await this.#say(reason, `Shard/${name}`, message);
    return changed !== undefined;
  }

  /** Written before the tenant's side, so that a shard that is about to get a tenant does not look quiet. @throws ConflictError */
  async #touch(shard: string, now: string): Promise<void> {
    const touched = await modify(this.#context.store, "Shard", shard, ({ metadata, status }) => {
      if (metadata.deletionTimestamp !== undefined) return false;
      status.lastAssignmentChange = now;
      return true;
    });
    if (!touched || touched.metadata.deletionTimestamp !== undefined) throw new ConflictError("Shard", shard);
  }

  async #say(reason: string, object: string, message: string, type: "Normal" | "Warning" = "Normal"): Promise<void> {
    await recordEvent(this.#context, { type, reason, object, message });
  }
}

export async function createShard(
  context: ControllerContext,
  name: string,
  version: string,
  why: string,
): Promise<void> {
  await context.store.create(
    "Shard",
    name,
    { synapseVersion: version },
    { phase: "Pending", reason: "", message: "", failures: 0 },
  );
  await recordEvent(context, {
    type: "Normal",
    reason: "ShardCreated",
    object: `Shard/${name}`,
    message: `shard ${name} is made: ${why}`,
  });
}
