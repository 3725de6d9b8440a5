import { randomUUID } from "node:crypto";
import { timeText } from "../../model/clock.ts";
import { messageOf, UserError } from "../../model/errors.ts";
import { newShardStatus, type Shard } from "../../model/shard.ts";
import { INSTALLING, isHeld } from "../../model/tenant.ts";
import { windowAt } from "../../model/windows.ts";
import type { Action, KeepReason } from "../../planner/actions.ts";
import { planFromIndex } from "../../planner/plan.ts";
import { WAKING, wantAwake } from "../../model/wake.ts";
import { SleepRequests } from "../sleep/sleep-requests.ts";
import type { CachedReader } from "../cached-reader.ts";
import { ConflictError, modify } from "../../ports/store.ts";
import { recordEvent, type ControllerContext } from "../context.ts";
import { NO_PLACE, PlannedCluster } from "./planned-cluster.ts";

/** These belong to a move that was just told of. */
const PASSING: ReadonlySet<string> = new Set<KeepReason>(["CoolDown", "MoveUnderWay", "ShardComing"]);

/** The planner also runs without cause: time alone makes shards due for consolidation, and waiting tenants for retry. */
export const PLAN_EVERY_MS = 2_000;

/** Makes plans, and writes them to the store, where the reconcilers find them. Carries out nothing itself. */
export class Planning {
  readonly #context: ControllerContext;
  readonly #cluster: PlannedCluster;
  readonly #sleep: SleepRequests;
  #plannedAt = Number.NEGATIVE_INFINITY;

  /** @param reader not opened yet */
  constructor(context: ControllerContext, reader: CachedReader) {
    this.#context = context;
    this.#sleep = new SleepRequests(context);
    this.#cluster = new PlannedCluster(reader, context);
  }

  /** @returns the number of actions that changed something */
  async pass(): Promise<number> {
    const { policy, metrics, log } = this.#context;
    const begunAt = this.#context.clock.now();
    // A timer may be early by a little.
    const isDue = begunAt - this.#plannedAt > PLAN_EVERY_MS * 0.9;
    // What changes most often, loads and messages, is nothing to the planner.
    if (!this.#cluster.update() && !isDue) return 0;
    // Until all of the plan is written, another one is due.
    this.#plannedAt = Number.NEGATIVE_INFINITY;
    const stopTimer = metrics.planSeconds.startTimer();
    this.#cluster.index.nobodyWakes = !this.#context.feed.wakes;
    this.#cluster.index.windowClosed = !windowAt(this.#context.maintenanceWindows, begunAt).open;
    const actions = planFromIndex(this.#cluster.index, begunAt, policy);
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
    await this.#explainKept(actions);
    this.#plannedAt = begunAt;
    return changes;
  }

  /** Each action is checked once more against the object as it is now. @returns whether it changed anything */
  #apply(action: Action): Promise<boolean> {
    switch (action.type) {
      case "CreateShard":
        return createShard(this.#context, action.name, action.release, action.message).then(() => true);
      case "Assign":
        return this.#assign(action);
      case "Unassign":
        return this.#unassign(action);
      case "Move":
        return this.#move(action);
      case "SetPending":
        return this.#explain(action.tenant, action.reason, action.message, true);
      case "MarkWaiting":
        return this.#explain(action.tenant, action.reason, action.message, false);
      case "DrainShard":
        return this.#changeShard(action.shard, "Draining", action.message, (shard) => {
          if (shard.spec.drain !== undefined) return false;
          shard.spec.drain = "Consolidation";
          return true;
        });
      case "CancelDrain":
        return this.#changeShard(action.shard, "DrainCancelled", action.message, (shard) => {
          // Somebody may have asked for the drain meanwhile.
          if (shard.spec.drain !== "Consolidation") return false;
          delete shard.spec.drain;
          shard.status.drainCalledOffAt = timeText(this.#context.clock.now());
          return true;
        });
      case "Sleep":
        // Asked for beside this plan: nothing is written before the shard has agreed.
        void this.#sleep.ask(action.tenant, action.shard, action.reason);
        return Promise.resolve(false);
      case "Wake":
        return this.#wake(action);
      case "KeepTenants":
        // Written all at once, after the plan.
        return Promise.resolve(false);
      case "StopShard":
        return this.#changeShard(action.shard, "Stopping", action.message, (shard) => {
          const [inhabitant] = this.#context.reader.tenantsOf(action.shard);
          if (inhabitant !== undefined) return false;
          shard.metadata.deletionTimestamp = timeText(this.#context.clock.now());
          shard.status.phase = "Stopping";
          return true;
        });
    }
  }

  async #assign({ tenant: name, shard, message }: Extract<Action, { type: "Assign" }>): Promise<boolean> {
    const { store } = this.#context;
    const now = timeText(this.#context.clock.now());
    let done = false;
    let isWoken = false;
    await this.#touch(shard, now, this.#context.reader.get("Tenant", name)?.status.wake !== undefined);
    await modify(store, "Tenant", name, (tenant) => {
      const { metadata, status } = tenant;
      done = !status.move && !status.sleep && metadata.deletionTimestamp === undefined && !isHeld(tenant);
      if (!done) return false;
      status.shard = shard;
      status.assignedAt = now;
      delete status.address;
      isWoken = status.wake !== undefined;
      if (status.phase === "Pending") Object.assign(status, { phase: "Starting", reason: "", message: "" });
      return true;
    });
    if (done && !isWoken) await this.#say("Assigned", `Tenant/${name}`, message);
    return done;
  }

  async #wake({ tenant: name, shard, message }: Extract<Action, { type: "Wake" }>): Promise<boolean> {
    const { store, clock, log } = this.#context;
    const now = clock.now();
    let done = false;
    await this.#touch(shard, timeText(now), true);
    await modify(store, "Tenant", name, ({ metadata, spec, status }) => {
      const sleeps =
        metadata.deletionTimestamp === undefined && status.phase === "Asleep" && !spec.suspended && !status.rename;
      done = sleeps && wantAwake(status, "due", now);
      if (!done) return false;
      Object.assign(status, { phase: "Starting", reason: "", shard, assignedAt: timeText(now) });
      return true;
    });
    if (done) log.info({ tenant: name, shard, message }, "a tenant is woken for what is due");
    return done;
  }

  /** The shard stops it as it stops any tenant that does not belong there. */
  async #unassign({ tenant: name, shard, reason, message }: Extract<Action, { type: "Unassign" }>): Promise<boolean> {
    let done = false;
    await modify(this.#context.store, "Tenant", name, (tenant) => {
      const { status } = tenant;
      done = !status.move && status.shard === shard && status.quarantine !== undefined && !isHeld(tenant);
      if (!done) return false;
      for (const key of ["shard", "address", "assignedAt", "retryAt"] as const) delete status[key];
      Object.assign(status, { phase: "Pending", reason, message });
      return true;
    });
    if (done) await this.#touch(shard, timeText(this.#context.clock.now()));
    return done;
  }

  async #move({ tenant: name, from, to, reason, message }: Extract<Action, { type: "Move" }>): Promise<boolean> {
    const now = timeText(this.#context.clock.now());
    let done = false;
    await this.#touch(to, now);
    await modify(this.#context.store, "Tenant", name, (tenant) => {
      const { metadata, status } = tenant;
      const busy = status.move !== undefined || status.transition !== undefined || isHeld(tenant);
      done = !busy && metadata.deletionTimestamp === undefined && status.shard === from;
      if (!done) return false;
      status.move = { id: randomUUID(), from, to, reason, step: "Preparing", requestedAt: now };
      status.phase = "Moving";
      // Whatever kept it from starting on its old shard may not be so on the other.
      delete status.retryAt;
      delete status.pin;
      if (reason === "Balance") status.balanced = { at: now, from, to };
      return true;
    });
    if (done) await this.#say("Moving", `Tenant/${name}`, message);
    return done;
  }

  async #explain(name: string, reason: string, message: string, pending: boolean): Promise<boolean> {
    let done = false;
    await modify(this.#context.store, "Tenant", name, (tenant) => {
      const { status } = tenant;
      const known = status.reason === reason && status.message === message && (!pending || status.phase === "Pending");
      // A failure of its own says more than that it also waits for a place.
      if (status.sleep || isHeld(tenant)) return false;
      done = !known && (pending || ["", INSTALLING].includes(status.reason) || NO_PLACE.has(status.reason));
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
    const waiting = new Set(
      actions.flatMap((a) => (a.type === "SetPending" || a.type === "MarkWaiting" ? [a.tenant] : [])),
    );
    for (const name of this.#cluster.withoutPlace()) {
      if (waiting.has(name)) continue;
      await modify(this.#context.store, "Tenant", name, ({ status }) => {
        if (!NO_PLACE.has(status.reason)) return false;
        status.reason = status.phase === "Pending" && status.wake ? WAKING : "";
        status.message = "";
        return true;
      });
    }
  }

  /** Why shards keep their tenants is written when the reason is another than before: the figures in it change all the time. */
  async #explainKept(actions: Action[]): Promise<void> {
    const kept = new Map(actions.flatMap((action) => (action.type === "KeepTenants" ? [[action.shard, action]] : [])));
    for (const name of new Set([...this.#cluster.keeping(), ...kept.keys()])) {
      const action = kept.get(name);
      if (this.#context.reader.get("Shard", name)?.status.keeps?.reason === action?.reason) continue;
      let isNew = false;
      await modify(this.#context.store, "Shard", name, ({ status }) => {
        if (status.keeps?.reason === action?.reason) return false;
        isNew = action !== undefined;
        if (action)
          status.keeps = { since: timeText(this.#context.clock.now()), reason: action.reason, message: action.message };
        else delete status.keeps;
        return true;
      });
      if (action && isNew && !PASSING.has(action.reason))
        await this.#say("TenantsKept", `Shard/${name}`, action.message);
    }
  }

  /** @param change false where the action rests on what is no longer so */
  async #changeShard(
    name: string,
    reason: string,
    message: string,
    change: (shard: Shard) => boolean,
  ): Promise<boolean> {
    let done = false;
    await modify(this.#context.store, "Shard", name, (shard) => {
      done = shard.metadata.deletionTimestamp === undefined && change(shard);
      return done;
    });
    if (done) await this.#say(reason, `Shard/${name}`, message);
    return done;
  }

  /** Written before the tenant's side, so that a shard that is about to get a tenant does not look quiet. @throws ConflictError */
  async #touch(shard: string, now: string, wakes = false): Promise<void> {
    const touched = await modify(this.#context.store, "Shard", shard, ({ metadata, status }) => {
      if (metadata.deletionTimestamp !== undefined) return false;
      status[wakes ? "lastSleepOrWake" : "lastAssignmentChange"] = now;
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
  release: string,
  why: string,
): Promise<void> {
  await context.store.create("Shard", name, { release: release }, newShardStatus());
  await recordEvent(context, {
    type: "Normal",
    reason: "ShardCreated",
    object: `Shard/${name}`,
    message: `shard ${name} is made: ${why}`,
  });
}
