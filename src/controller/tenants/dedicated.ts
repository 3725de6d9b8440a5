/**
 * Tenants in a dedicated Synapse (`spec.dedicated`), and their way there from a shard and back. Nobody sees it, as with a move:
 *
 * | step      | to a dedicated Synapse                                | to a shard                                             |
 * | --------- | ------------------------------------------------------ | ------------------------------------------------------ |
 * | Preparing | the shard serves; wait until the other is ready        | none: the other is being removed already               |
 * | Parking   | gateways hold its requests                             | gateways hold its requests                             |
 * | Draining  | stopped on the shard, which releases the database      | wait until the other has released it, or is gone       |
 * | Starting  | the other claims the database; wait until it answers   | the planner gives it a shard, where it is started      |
 *
 * What is not done in time is not waited for: the fence shuts out the process that had the database. Each step is written down
 * before it is done and can be repeated, and a change of mind on the way is a way back.
 */
import { randomUUID } from "node:crypto";
import type { FenceState } from "../../ports/databases.ts";
import { timeText } from "../../model/clock.ts";
import { messageOf } from "../../model/errors.ts";
import type { DedicatedTransition } from "../../model/move.ts";
import { hostOf } from "../../model/names.ts";
import type { Tenant } from "../../model/tenant.ts";
import { modify } from "../../ports/store.ts";
import { recordEvent, type ControllerContext } from "../context.ts";
import { routeOf } from "../routes/routes.ts";
import type { ShardReconciler } from "../shards/shard-reconciler.ts";
import { asItRuns } from "../start/configs.ts";
import { nextEpoch } from "../start/start.ts";
import { AdminSessions } from "./admin-sessions.ts";

/** Less than a request may be parked (30 s), so that the shard still has time to start it. */
const RELEASED_WITHIN_MS = 15_000;
/** Longer than that, a dedicated Synapse that does not answer is an outage, and is called one. */
const ANSWERS_WITHIN_MS = 60_000;
const RELEASED_POLL_MS = 200;
const ANSWERS_POLL_MS = 200;
/** How often a serving process is asked, and a silent one. */
const WATCH_MS = 10_000;
const SILENT_WATCH_MS = 1_000;
const PROBE_MS = 3_000;
/** In a sentence. */
const NAMED_HOSTS = 3;

/** `shard`s have the name of their release; a dedicated Synapse calls itself so in the fence. */
const DEDICATED = "dedicated";

/** Whether a Synapse answers at `host:port`. Never fails. */
export async function answersHealth(address: string): Promise<boolean> {
  try {
    const answer = await fetch(`http://${address}/health`, {
      signal: AbortSignal.timeout(PROBE_MS),
      redirect: "manual",
    });
    await answer.body?.cancel();
    return answer.status === 200;
  } catch {
    return false;
  }
}

export class DedicatedTransitions {
  readonly #context: ControllerContext;
  readonly #shards: ShardReconciler;
  readonly #adminSessions: AdminSessions;
  /** Since when the Synapse of a tenant has not answered; milliseconds of the clock. */
  readonly #silentSince = new Map<string, number>();

  constructor(context: ControllerContext, shards: ShardReconciler) {
    this.#context = context;
    this.#shards = shards;
    this.#adminSessions = new AdminSessions(context);
  }

  /** Lets go of what is in memory of a tenant that is gone. */
  forget(name: string): void {
    this.#silentSince.delete(name);
  }

  /** @returns milliseconds to wait; or the tenant, where it is to be looked after as any on its shard */
  async run(tenant: Tenant): Promise<number | void | Tenant> {
    let current: Tenant | undefined = tenant;
    while (current) {
      const next: Tenant | number | undefined | "onShard" = await this.#step(current);
      if (next === "onShard") return current;
      if (typeof next !== "object") return next;
      current = next;
    }
    return undefined;
  }

  #step(tenant: Tenant): Promise<Tenant | number | undefined | "onShard"> {
    const { spec, status } = tenant;
    const { transition } = status;
    const to = spec.dedicated ? "dedicated" : "shard";
    const isWatched = !transition && spec.dedicated !== undefined && status.dedicated !== undefined;
    if (!isWatched) this.#silentSince.delete(tenant.metadata.name);
    if (transition && transition.to !== to) return this.#turnBack(tenant, transition);
    if (!transition) {
      if (spec.dedicated && status.dedicated) return this.#watch(tenant, spec.dedicated);
      if (!spec.dedicated && !status.dedicated) return Promise.resolve("onShard");
      return this.#begin(tenant, to);
    }
    switch (transition.step) {
      case "Preparing":
        return this.#prepare(tenant, transition);
      case "Parking":
        return this.#park(tenant, transition);
      case "Draining":
        return to === "dedicated" ? this.#drain(tenant, transition) : this.#awaitRelease(tenant, transition);
      case "Starting":
        return to === "dedicated" ? this.#awaitAnswer(tenant, transition) : this.#startedOnShard(tenant, transition);
    }
  }

  #begin(tenant: Tenant, to: DedicatedTransition["to"]): Promise<Tenant | undefined> {
    const { shard, dedicated } = tenant.status;
    const from = (to === "dedicated" ? shard : dedicated?.address) ?? "";
    const first = to === "shard" ? "Parking" : shard === undefined ? "Starting" : "Preparing";
    this.#context.feed.takeParkCount(tenant.metadata.name);
    return this.#write(tenant, undefined, (t) => {
      t.status.transition = {
        id: randomUUID(),
        to,
        from,
        step: first,
        requestedAt: timeText(this.#context.clock.now()),
      };
      if (first === "Starting") Object.assign(t.status, { phase: "Starting", dedicated: { ...t.spec.dedicated } });
      if (first === "Parking") {
        t.status.phase = "Moving";
        // The planner gives it a shard meanwhile, and is to leave it there.
        t.status.moveNotBefore = timeText(this.#context.clock.now() + ANSWERS_WITHIN_MS);
      }
    });
  }

  /** It is wanted elsewhere again before it has arrived. */
  #turnBack(tenant: Tenant, transition: DedicatedTransition): Promise<Tenant | undefined> {
    const { shard } = tenant.status;
    return this.#write(tenant, transition, (t) => {
      const untouched =
        transition.to === "dedicated" && (transition.step === "Preparing" || transition.step === "Parking");
      if (untouched && t.status.address !== undefined) {
        delete t.status.transition;
        Object.assign(t.status, { phase: "Running", reason: "", message: "" });
        return;
      }
      const to = transition.to === "dedicated" ? "shard" : "dedicated";
      t.status.transition = {
        ...transition,
        to,
        from: (to === "shard" ? t.status.dedicated?.address : shard) ?? "",
        step: "Draining",
      };
    });
  }

  async #prepare(tenant: Tenant, transition: DedicatedTransition): Promise<Tenant | "onShard" | undefined> {
    const { shard } = tenant.status;
    const address = tenant.spec.dedicated?.address ?? "";
    const fence = await this.#fence(tenant);
    // Who cannot read the database still sees that the other has it: it took it when its patience was over.
    const isReady = fence ? fence.waiting || fence.owner !== shard : await this.#context.answers(address);
    if (isReady || shard === undefined) return this.#advance(tenant, transition, "Parking");
    const message = `it runs on shard ${shard} until the Synapse at ${address} is ready to take over`;
    await this.#write(tenant, transition, ({ status }) => {
      if (status.phase !== "Running" || status.message === message) return false;
      Object.assign(status, { reason: "DedicatedNotReady", message });
      return true;
    });
    return "onShard";
  }

  async #park(tenant: Tenant, transition: DedicatedTransition): Promise<Tenant | undefined> {
    const { feed, log } = this.#context;
    const { name } = tenant.metadata;
    // The route is parked by the phase, and not while it has an address that would be served.
    if (!(await feed.settled(feed.publish(routeOf(tenant, this.#context.claims)))))
      log.warn(
        { tenant: name },
        "a gateway did not say in time that it parks; it will meet refused connections and hold requests itself",
      );
    return this.#advance(
      tenant,
      transition,
      "Draining",
      (h) => void (h.parkedAt = timeText(this.#context.clock.now())),
    );
  }

  /** Stops it on its shard; a shard that does not answer is shut out. */
  async #drain(tenant: Tenant, transition: DedicatedTransition): Promise<Tenant | undefined> {
    const { timing, log, store, databases } = this.#context;
    const { name } = tenant.metadata;
    const { shard } = tenant.status;
    const source = shard === undefined ? undefined : this.#shards.observation(shard);
    await this.#adminSessions.endAll(tenant);
    let released = false;
    try {
      released = (await source?.client.stopTenant(name, timing.drain, { release: true }))?.released ?? false;
    } catch (error) {
      log.warn({ tenant: name, shard, err: error }, "the shard does not confirm the stop; the fence will shut it out");
    }
    const fence = released ? undefined : await this.#fence(tenant);
    if (fence && fence.owner !== "" && !fence.owner.startsWith(DEDICATED)) {
      const runs = await asItRuns(this.#context, tenant);
      const { status } = await nextEpoch(this.#context, name, { above: fence.epoch });
      if (runs) {
        await databases.release({ ...runs.tenant, status }, runs.secrets, fence.owner).catch((error: unknown) => {
          log.warn(
            { tenant: name, why: messageOf(error) },
            "its database cannot be released; the other claims it when its patience is over",
          );
        });
      }
    }
    const advanced = await this.#advance(tenant, transition, "Starting", (_, { spec, status }) => {
      delete status.shard;
      delete status.address;
      delete status.retryAt;
      // It may run another release by now than the shard did.
      delete status.schemaRelease;
      delete status.refusedRelease;
      // From here on it runs with what its owner has deployed.
      delete status.inEffect;
      delete status.refusedConfig;
      status.dedicated = { address: spec.dedicated?.address ?? "" };
      Object.assign(status, { failures: 0, reason: "", message: "" });
    });
    if (shard !== undefined) {
      await modify(
        store,
        "Shard",
        shard,
        (s) => void (s.status.lastAssignmentChange = timeText(this.#context.clock.now())),
      );
      await this.#shards.refresh(shard);
    }
    return advanced;
  }

  async #awaitAnswer(tenant: Tenant, transition: DedicatedTransition): Promise<Tenant | number | undefined> {
    const address = tenant.spec.dedicated?.address ?? "";
    if (await this.#context.answers(address)) {
      return this.#finish(tenant, transition, (t) => {
        const { metadata, status } = t;
        status.dedicated = { address };
        const observedGeneration = metadata.generation;
        Object.assign(status, { phase: "Running", ...this.#wordsOf(t), address, observedGeneration });
      });
    }
    await this.#letIn(tenant);
    const waited = this.#context.clock.age(transition.parkedAt ?? transition.requestedAt);
    if (waited < ANSWERS_WITHIN_MS) return ANSWERS_POLL_MS;
    await this.#sayUnanswered(tenant, address, "Failed");
    return SILENT_WATCH_MS;
  }

  /** A process that still waits for a database that nobody has is of an older revision, as after `helm rollback`, and waits for our word. */
  async #letIn(tenant: Tenant): Promise<void> {
    const { databases, log } = this.#context;
    const { name } = tenant.metadata;
    const fence = await this.#fence(tenant);
    if (!fence?.waiting || fence.owner !== "") return;
    try {
      const runs = await asItRuns(this.#context, tenant);
      if (runs) await databases.grant(runs.tenant, runs.secrets);
    } catch (error) {
      log.warn({ tenant: name, why: messageOf(error) }, "a Synapse of an older revision cannot be let in");
    }
  }

  /** It serves; whether it answers is looked at now and then. Gateways hold what it refuses meanwhile. */
  async #watch(tenant: Tenant, { address }: { address: string }): Promise<number> {
    const { name, generation } = tenant.metadata;
    if (await this.#context.answers(address)) {
      this.#silentSince.delete(name);
      const { phase, address: served, observedGeneration, message } = tenant.status;
      const isAsWritten = observedGeneration === generation && message === this.#wordsOf(tenant).message;
      if (phase !== "Running" || served !== address || !isAsWritten) {
        await this.#write(tenant, undefined, (t) => {
          t.status.dedicated = { address };
          const now = { address, observedGeneration: t.metadata.generation };
          Object.assign(t.status, { phase: "Running", ...this.#wordsOf(t), ...now });
        });
      }
      return WATCH_MS;
    }
    const since = this.#silentSince.get(name) ?? this.#context.clock.now();
    this.#silentSince.set(name, since);
    const isOutage = this.#context.clock.now() - since > ANSWERS_WITHIN_MS;
    await this.#sayUnanswered(tenant, address, isOutage || tenant.status.phase === "Failed" ? "Failed" : "Starting");
    return SILENT_WATCH_MS;
  }

  async #awaitRelease(tenant: Tenant, transition: DedicatedTransition): Promise<Tenant | number | undefined> {
    const fence = await this.#fence(tenant);
    const waited = this.#context.clock.age(transition.parkedAt ?? transition.requestedAt);
    const isGone = fence
      ? !fence.owner.startsWith(DEDICATED) || !fence.connected
      : !(await this.#context.answers(transition.from));
    if (!isGone && waited < RELEASED_WITHIN_MS) return RELEASED_POLL_MS;
    if (!isGone)
      this.#context.log.warn(
        { tenant: tenant.metadata.name },
        "the dedicated Synapse has not let go; the fence will shut it out",
      );
    return this.#advance(tenant, transition, "Starting", (_, { status }) => {
      delete status.dedicated;
      delete status.address;
      delete status.schemaRelease;
      delete status.retryAt;
      // The dedicated process counted on.
      status.epoch = Math.max(status.epoch, fence?.epoch ?? 0);
      Object.assign(status, { failures: 0, reason: "", message: "" });
    });
  }

  async #startedOnShard(tenant: Tenant, transition: DedicatedTransition): Promise<Tenant | "onShard" | undefined> {
    if (tenant.status.phase !== "Running" || tenant.status.address === undefined) return "onShard";
    return this.#finish(tenant, transition, () => {});
  }

  async #finish(
    tenant: Tenant,
    transition: DedicatedTransition,
    change: (tenant: Tenant) => void,
  ): Promise<Tenant | undefined> {
    const { feed, metrics } = this.#context;
    const { name } = tenant.metadata;
    const { id, from, to, parkedAt } = transition;
    const written = await this.#write(tenant, transition, (t) => {
      change(t);
      delete t.status.transition;
    });
    if (!written || written.status.transition) return written;
    await feed.settled(feed.publish(routeOf(written, this.#context.claims)));
    const { clock } = this.#context;
    const now = clock.now();
    const blackoutSeconds = parkedAt === undefined ? 0 : clock.age(parkedAt) / 1000;
    const { parked, failed } = feed.takeParkCount(name);
    const target = (to === "shard" ? written.status.shard : written.status.address) ?? "";
    // A tenant that was never anywhere else has not changed sides.
    if (from !== "") {
      metrics.moves.inc({ reason: "Dedicated", outcome: "Succeeded" });
      metrics.migrations.inc({ to });
      metrics.blackout.observe(blackoutSeconds);
    }
    await recordEvent(this.#context, {
      type: "Normal",
      reason: from === "" ? "Started" : "Migrated",
      object: `Tenant/${name}`,
      message:
        from === ""
          ? `${name} is served by ${target}`
          : `${name} went from ${from} to ${target}: blackout ${blackoutSeconds.toFixed(3)} s, ${parked} requests waited, ${failed} failed`,
    });
    if (from === "") return written;
    return this.#write(written, undefined, ({ status }) => {
      status.lastMove = {
        id,
        from,
        to: target,
        reason: "Dedicated",
        outcome: "Succeeded",
        finishedAt: timeText(now),
        blackoutSeconds: Math.round(blackoutSeconds * 1000) / 1000,
        parkedRequests: parked,
        failedRequests: failed,
      };
    });
  }

  /** What is to be said of one that serves: nothing, or which names do not lead to it. Shards refuse such a configuration; its process has read it. */
  #wordsOf(tenant: Tenant): { reason: string; message: string } {
    const hosts = this.#context.claims.hostsNotAllowed(tenant);
    if (hosts.length === 0) return { reason: "", message: "" };
    const named = hosts.slice(0, NAMED_HOSTS).join(", ");
    const more = hosts.length > NAMED_HOSTS ? ` and ${hosts.length - NAMED_HOSTS} more` : "";
    const allowed = `allowed are ${hostOf(tenant.spec.serverName)}, names below it, and those in the operator's allowedHosts`;
    return {
      reason: "OptionNotAllowed",
      message: `${named}${more} in its configuration ${hosts.length === 1 ? "does" : "do"} not lead to it: ${allowed}`,
    };
  }

  async #sayUnanswered(tenant: Tenant, address: string, phase: "Starting" | "Failed"): Promise<void> {
    const message = `the Synapse at ${address} does not answer; see its pod's log`;
    let fresh = false;
    await this.#write(tenant, undefined, ({ status }) => {
      fresh = status.phase !== phase || status.reason !== "DedicatedNotReady";
      if (!fresh) return false;
      Object.assign(status, { phase, reason: "DedicatedNotReady", message });
      return true;
    });
    if (!fresh || phase !== "Failed") return;
    const object = `Tenant/${tenant.metadata.name}`;
    await recordEvent(this.#context, { type: "Warning", reason: "DedicatedNotReady", object, message });
  }

  /** Who has the database, or undefined where it cannot be read. */
  async #fence(tenant: Tenant): Promise<FenceState | undefined> {
    const { databases, log } = this.#context;
    try {
      const runs = await asItRuns(this.#context, tenant);
      // A database that nobody ever claimed has no owner.
      return runs && ((await databases.fence(runs.tenant, runs.secrets)) ?? NOBODY);
    } catch (error) {
      log.warn({ tenant: tenant.metadata.name, why: messageOf(error) }, "its database does not say who has it");
      return undefined;
    }
  }

  #advance(
    tenant: Tenant,
    transition: DedicatedTransition,
    step: DedicatedTransition["step"],
    change: (transition: DedicatedTransition, tenant: Tenant) => void = () => {},
  ): Promise<Tenant | undefined> {
    return this.#write(tenant, transition, (t) => {
      const present = t.status.transition;
      if (!present) return false;
      present.step = step;
      Object.assign(t.status, { phase: "Moving", reason: "", message: "" });
      change(present, t);
      return true;
    });
  }

  /** Writes, if the transition is still where it was: what was found out meanwhile holds for no other step. */
  #write(
    tenant: Tenant,
    expected: DedicatedTransition | undefined,
    change: (tenant: Tenant) => void | boolean,
  ): Promise<Tenant | undefined> {
    return modify(this.#context.store, "Tenant", tenant.metadata.name, (t) => {
      const { transition } = t.status;
      if (
        expected &&
        (transition?.id !== expected.id || transition.step !== expected.step || transition.to !== expected.to)
      )
        return false;
      return change(t);
    });
  }
}

const NOBODY: FenceState = { epoch: 0, owner: "", waiting: false, connected: false };
