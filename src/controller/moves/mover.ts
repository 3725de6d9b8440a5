/**
 * The move protocol: park, drain, fence, start, release.
 *
 * Each step is written to the store before it is carried out, and each can be carried out again: a controller that is
 * killed anywhere is replaced by one that reads the step and repeats it. What happens if a step fails:
 *
 * | step      | failure                                                                             |
 * | --------- | ----------------------------------------------------------------------------------- |
 * | Preparing | the move is dropped; the tenant never stopped                                       |
 * | Parking   | a silent gateway is not waited for (docs/route-feed.md)                             |
 * | Draining  | a silent shard is not waited for: the fence shuts it out                            |
 * | Starting  | with the configuration that last worked, else on the old shard, if its release can  |
 * | Releasing | none: only the gateways are told                                                    |
 *
 * What the tenant or its release does not cause (src/controller/blame.ts) is retried within the step, and interrupts the move
 * where it lasts.
 */
import { timeText } from "../../model/clock.ts";
import { messageOf, StartFailure } from "../../model/errors.ts";
import type { Move, MoveStep } from "../../model/move.ts";
import type { Shard } from "../../model/shard.ts";
import { reasonOfRunning, type Tenant } from "../../model/tenant.ts";
import type { Migration } from "../../ports/databases.ts";
import { ShardRefusal, ShardUnreachable } from "../../ports/shard-control.ts";
import { modify } from "../../ports/store.ts";
import { judged, Postponement } from "../blame.ts";
import type { ControllerContext } from "../context.ts";
import { routeOf } from "../routes/routes.ts";
import type { ShardReconciler } from "../shards/shard-reconciler.ts";
import { admit } from "../start/admission.ts";
import {
  asItRuns,
  bringsDatabase,
  candidates,
  configsOf,
  isConfigsFault,
  isRefused,
  withConfig,
  type StartConfig,
  type TenantConfigs,
} from "../start/configs.ts";
import { assignmentOf, recordFailure, running, schemaProblem, startOn, type Started } from "../start/start.ts";
import { asBefore, endMove, type Ending } from "./ending.ts";

/** For how long a step is retried before the move is given up: while the tenant is down, and while it still serves. */
const PATIENCE_DOWN_MS = 10_000;
const PATIENCE_SERVING_MS = 60_000;
const RETRY_MS = 250;
/** A shard that falls silent time and again when it starts a tenant does so because of that tenant, or of its release. */
const SILENT_AT_MOST = 3;

/** What the move under way of a tenant has in memory; another controller does without. */
interface InMemory {
  move: string;
  /** A process warmed up for it, while it is prepared. */
  migration?: Migration;
  /** Since when a step cannot be carried out; milliseconds of the clock. */
  troubleSince?: number;
}

export class Mover {
  readonly #context: ControllerContext;
  readonly #shards: ShardReconciler;
  readonly #inMemory = new Map<string, InMemory>();

  constructor(context: ControllerContext, shards: ShardReconciler) {
    this.#context = context;
    this.#shards = shards;
  }

  /** Carries a move on as far as it goes. @returns milliseconds to wait, where it must */
  async run(tenant: Tenant): Promise<number | void> {
    let current: Tenant | undefined = tenant;
    while (current?.status.move) {
      const move: Move = current.status.move;
      const next: Tenant | number | undefined = await this.#attempt(current, move);
      if (typeof next === "number") return next;
      current = next;
    }
    await this.forget(tenant.metadata.name);
    return undefined;
  }

  /** Lets go of what is in memory for a tenant that has no move any more, however that ended. */
  async forget(name: string): Promise<void> {
    const migration = this.#inMemory.get(name)?.migration;
    this.#inMemory.delete(name);
    await migration?.close();
  }

  async close(): Promise<void> {
    for (const name of this.#inMemory.keys()) await this.forget(name);
  }

  async #attempt(tenant: Tenant, move: Move): Promise<Tenant | number | undefined> {
    const { name } = tenant.metadata;
    if (this.#inMemory.get(name)?.move !== move.id) await this.forget(name);
    const memory = this.#inMemory.get(name) ?? { move: move.id };
    this.#inMemory.set(name, memory);
    try {
      const next = await this.#step(tenant, move, memory);
      // A number: it waits for something, which may be trouble that goes on.
      if (typeof next !== "number") memory.troubleSince = undefined;
      return next;
    } catch (error) {
      const { log, metrics } = this.#context;
      metrics.reconcileErrors.inc({ kind: "Move" });
      log.error(
        { tenant: name, move: move.id, step: move.step, err: error },
        "a step of a move failed, and is retried",
      );
      return this.#trouble(tenant, move, memory, messageOf(error)).catch((second: unknown) => {
        log.error({ tenant: name, move: move.id, err: second }, "nor can the move be interrupted yet");
        return RETRY_MS * 4;
      });
    }
  }

  #step(tenant: Tenant, move: Move, memory: InMemory): Promise<Tenant | number | undefined> {
    switch (move.step) {
      case "Preparing":
        return this.#prepare(tenant, move, memory);
      case "Parking":
        return this.#park(tenant, move);
      case "Draining":
        return this.#drain(tenant, move);
      case "Starting":
        return this.#start(tenant, move, memory);
      case "Releasing":
        return this.#release(tenant, move);
    }
  }

  /** A step cannot be carried out, and it is not the tenant's fault: it is retried, and interrupts the move where it lasts. */
  async #trouble(tenant: Tenant, move: Move, memory: InMemory, why: string): Promise<Tenant | number | undefined> {
    const now = this.#context.clock.now();
    memory.troubleSince ??= now;
    const patience = move.step === "Preparing" ? PATIENCE_SERVING_MS : PATIENCE_DOWN_MS;
    if (now - memory.troubleSince < patience) return RETRY_MS;
    if (move.step === "Preparing") return this.#end(tenant, move, { outcome: "Interrupted", message: why }, asBefore);
    if (move.step !== "Starting") return RETRY_MS;
    memory.troubleSince = undefined;
    return this.#goBack(tenant, move, "Interrupted", why);
  }

  async #prepare(tenant: Tenant, move: Move, memory: InMemory): Promise<Tenant | number | undefined> {
    const { store, databases, feed } = this.#context;
    const { name } = tenant.metadata;
    const target = await store.get("Shard", move.to);
    const gone = whyNotTo(tenant, move, target);
    if (gone !== undefined || !target) return this.#end(tenant, move, { outcome: "Refused", message: gone }, asBefore);
    if (!this.#shards.observation(move.to)) {
      if (!["Lost", "Failed"].includes(target.status.phase)) return RETRY_MS;
      const message = `shard ${move.to} is ${target.status.phase}`;
      return this.#end(tenant, move, { outcome: "Interrupted", message }, asBefore);
    }
    const { release } = target.spec;
    const configs = await configsOf(this.#context, tenant);
    const choice = await this.#chooseConfig(tenant, move, release, configs);
    if (choice instanceof StartFailure) return this.#refuse(tenant, move, release, choice, configs);
    if (tenant.status.schemaRelease !== release) {
      // Importing Synapse takes seconds: done now, while the old shard still serves.
      memory.migration ??= await databases.migration(release);
    }
    feed.takeParkCount(name);
    return this.#advance(tenant, move, "Parking", (t, m) => {
      m.configHash = choice.config?.hash;
      if (choice.refused) refuseConfig(t, configs.asked, choice.refused);
    });
  }

  async #park(tenant: Tenant, move: Move): Promise<Tenant | undefined> {
    const { feed, log, clock } = this.#context;
    const version = feed.publish(routeOf(tenant, this.#context.claims));
    if (!(await feed.settled(version)))
      log.warn(
        { tenant: tenant.metadata.name },
        "a gateway did not say in time that it parks; it will meet refused connections and hold requests itself",
      );
    return this.#advance(tenant, move, "Draining", (_, m) => void (m.parkedAt = timeText(clock.now())));
  }

  async #drain(tenant: Tenant, move: Move): Promise<Tenant | undefined> {
    const { timing, log, feed, claims } = this.#context;
    const source = this.#shards.observation(move.from);
    if (source) {
      try {
        await source.client.stopTenant(tenant.metadata.name, timing.drain);
      } catch (error) {
        log.warn(
          { tenant: tenant.metadata.name, shard: move.from, err: error },
          "the old shard does not confirm the stop; the fence will shut it out",
        );
      }
    }
    const stopped = await this.#advance(tenant, move, "Starting");
    // Nobody answers at the old address any more; what still hangs there, as the shard did not answer either, is sent again.
    if (stopped) feed.publish(routeOf(stopped, claims));
    return stopped;
  }

  async #start(tenant: Tenant, move: Move, memory: InMemory): Promise<Tenant | number | undefined> {
    const { store } = this.#context;
    const { name } = tenant.metadata;
    const observation = await this.#shards.refresh(move.to);
    const there = observation?.tenants.get(name);
    // A controller before this one may have come so far.
    if (there?.phase === "running" && there.epoch === tenant.status.epoch)
      return this.#started(move, { tenant, state: there }, move.to);
    if (there?.phase === "starting") return 100;
    if (!observation) return this.#targetSilent(tenant, move, memory);
    const target = await store.get("Shard", move.to);
    if (!target) return this.#goBack(tenant, move, "Interrupted", `shard ${move.to} is gone`);
    const configs = await configsOf(this.#context, tenant);
    const config = this.#pinned(move, configs);
    if (!config) {
      const failure = new StartFailure(configs.missing?.reason ?? "SecretMissing", configs.missing?.message ?? "");
      return this.#fail(tenant, move, failure);
    }
    const { migration } = memory;
    memory.migration = undefined;
    try {
      const { client } = observation;
      const { release } = target.spec;
      const started = await startOn(this.#context, tenant, { shard: move.to, release, client, config, migration });
      return await this.#started(move, started, move.to);
    } catch (error) {
      if (error instanceof ShardUnreachable) return this.#targetSilent(tenant, move, memory);
      if (isShardsTrouble(error))
        return this.#goBack(tenant, move, "Interrupted", `${move.to} could not start it: ${error.message}`, error);
      if (!(error instanceof StartFailure)) throw error;
      return this.#startFailed(tenant, move, config, configs, error);
    }
  }

  /** Its own configuration may be why: then it goes on with the one that last worked. Else back to the old shard. */
  async #startFailed(
    tenant: Tenant,
    move: Move,
    config: StartConfig,
    configs: TenantConfigs,
    failure: StartFailure,
  ): Promise<Tenant | number | undefined> {
    const { effective } = configs;
    if (effective && effective.hash !== config.hash && isConfigsFault(config, effective, failure))
      return this.#advance(tenant, move, "Starting", (t, m) => {
        m.configHash = effective.hash;
        refuseConfig(t, config, failure);
        if (move.from === move.to) m.unsuccessful = { outcome: "RolledBack", message: failure.message };
      });
    return this.#fail(tenant, move, failure);
  }

  #fail(tenant: Tenant, move: Move, failure: StartFailure): Promise<Tenant | number | undefined> {
    return this.#goBack(tenant, move, "RolledBack", `${move.to} could not start it: ${failure.message}`, failure);
  }

  #started(move: Move, { tenant, state }: Started, shard: string): Promise<Tenant | undefined> {
    const { clock } = this.#context;
    return this.#advance(tenant, move, "Releasing", (t) => {
      const isElsewhere = t.status.shard !== shard;
      running(t.status, shard, state, clock.now());
      if (isElsewhere) t.status.assignedAt = timeText(clock.now());
      if (shard === move.to) delete t.status.refusedRelease;
    });
  }

  async #release(tenant: Tenant, move: Move): Promise<Tenant | undefined> {
    const { feed } = this.#context;
    await feed.settled(feed.publish(routeOf(tenant, this.#context.claims)));
    const ending: Ending = { ...(move.unsuccessful ?? { outcome: "Succeeded" }), ...this.#blackout(move) };
    return this.#end(tenant, move, ending, ({ status }) => {
      status.phase = "Running";
      Object.assign(status, reasonOfRunning(status));
    });
  }

  /**
   * The new shard cannot start it: back to the old one, if that answers and its release can still read the database.
   * @param failure what its status says where it cannot go back
   */
  async #goBack(
    tenant: Tenant,
    move: Move,
    outcome: "RolledBack" | "Interrupted",
    why: string,
    failure: StartFailure | Postponement = new Postponement("ShardNotReady", why),
  ): Promise<Tenant | number | undefined> {
    const { log } = this.#context;
    const { name } = tenant.metadata;
    log.warn({ tenant: name, move, reason: failure.reason, why }, "the move did not succeed, going back");
    const source = move.from === move.to ? undefined : await this.#context.store.get("Shard", move.from);
    const client = source && this.#shards.observation(move.from)?.client;
    if (source && client && (await this.#canGoTo(tenant, source.spec.release))) {
      const { asked, effective } = await configsOf(this.#context, tenant);
      const config = effective ?? asked;
      try {
        if (config) {
          const { release } = source.spec;
          const back = await startOn(this.#context, tenant, { shard: move.from, release, client, config });
          const unsuccessful = { outcome, message: why };
          return await this.#started({ ...move, unsuccessful }, back, move.from);
        }
      } catch (error) {
        if (!(error instanceof StartFailure || error instanceof ShardUnreachable)) throw error;
        log.warn({ tenant: name, err: error }, "the old shard cannot start it again either");
      }
    }
    await this.#end(tenant, move, { outcome, message: why, ...this.#blackout(move) }, (t) => {
      t.status.phase = failure instanceof StartFailure ? "Failed" : "Starting";
      if (move.from !== move.to) t.status.assignedAt = timeText(this.#context.clock.now());
    });
    return recordFailure(this.#context, name, move.to, failure);
  }

  async #targetSilent(tenant: Tenant, move: Move, memory: InMemory): Promise<Tenant | number | undefined> {
    const why = `shard ${move.to} does not answer`;
    const isItsFault = (tenant.status.moveInterruptions ?? 0) + 1 >= SILENT_AT_MOST;
    const waited = this.#context.clock.now() - (memory.troubleSince ?? Number.POSITIVE_INFINITY);
    if (!isItsFault || waited < PATIENCE_DOWN_MS) return this.#trouble(tenant, move, memory, why);
    return this.#fail(tenant, move, new StartFailure("ShardNotReady", `${why}, ${SILENT_AT_MOST} times in a row`));
  }

  async #canGoTo(tenant: Tenant, release: string): Promise<boolean> {
    const runs = await asItRuns(this.#context, tenant);
    return runs !== undefined && (await schemaProblem(this.#context, runs.tenant, runs.secrets, release)) === undefined;
  }

  /**
   * What the tenant is to be started with on the target: the configuration asked for, or else the one that last worked.
   * @returns why neither can be; `refused` where the one asked for cannot
   */
  async #chooseConfig(
    tenant: Tenant,
    move: Move,
    release: string,
    configs: TenantConfigs,
  ): Promise<{ config?: StartConfig; refused?: StartFailure } | StartFailure> {
    const isRestart = move.from === move.to;
    // A tenant that does not run has nothing to lose: it is started, or shown as Failed. If its shard was lost, the old state is safer.
    if (move.reason === "ShardLost" || tenant.status.address === undefined)
      return { config: configs.effective ?? configs.asked };
    const possible = isRestart ? [configs.asked].filter((config) => config !== undefined) : candidates(tenant, configs);
    let refused: StartFailure | undefined;
    let last: StartFailure | undefined;
    for (const config of possible) {
      last = await this.#problemWith(tenant, move, release, config);
      if (!last) return { config, refused };
      if (config === configs.asked && !isRefused(tenant, config)) refused = last;
    }
    const missing = configs.missing ?? { reason: "SecretMissing", message: "its keys are missing" };
    return refused ?? last ?? new StartFailure(missing.reason, missing.message);
  }

  /** Nothing is stopped for a configuration that cannot be started. */
  async #problemWith(
    tenant: Tenant,
    move: Move,
    release: string,
    config: StartConfig,
  ): Promise<StartFailure | undefined> {
    const configured = withConfig(tenant, config);
    const rival = this.#context.claims.conflictOf(configured);
    if (rival) return new StartFailure(rival.reason, rival.message);
    const client = this.#shards.observation(move.to)?.client;
    try {
      const assignment = assignmentOf(this.#context, tenant, config);
      if (client) await admit(this.#context, client, { ...config, tenant: configured, assignment, isForMove: true });
      const problem = await schemaProblem(this.#context, configured, config.secrets, release);
      return problem === undefined ? undefined : new StartFailure("SchemaTooNew", problem);
    } catch (error) {
      if (error instanceof ShardUnreachable) return undefined; // found out again when it is started
      const verdict = judged(error, bringsDatabase(config));
      if (verdict instanceof StartFailure) return verdict;
      throw verdict;
    }
  }

  /** The configuration that the move goes on with. Asked for another one meanwhile, it is put to work afterwards. */
  #pinned({ configHash }: Move, { asked, effective }: TenantConfigs): StartConfig | undefined {
    if (configHash === undefined || asked?.hash === configHash) return asked ?? effective;
    return effective ?? asked;
  }

  async #refuse(
    tenant: Tenant,
    move: Move,
    release: string,
    { reason, message }: StartFailure,
    { asked }: TenantConfigs,
  ): Promise<Tenant | undefined> {
    const { clock } = this.#context;
    return this.#end(tenant, move, { outcome: "Refused", message }, (t) => {
      if (move.reason === "Upgrade") t.status.refusedRelease = { release, reason, message };
      else if (move.reason === "ConfigChanged") refuseConfig(t, asked, { reason, message });
      else t.status.moveNotBefore = timeText(clock.now() + 30_000);
      t.status.observedGeneration = tenant.metadata.generation;
      asBefore(t);
    });
  }

  async #end(
    tenant: Tenant,
    move: Move,
    ending: Ending,
    change: (tenant: Tenant) => void,
  ): Promise<Tenant | undefined> {
    const ended = await endMove(this.#context, this.#shards, tenant, move, ending, change);
    await this.forget(tenant.metadata.name);
    return ended;
  }

  async #advance(
    tenant: Tenant,
    move: Move,
    step: MoveStep,
    change: (tenant: Tenant, move: Move) => void = () => {},
  ): Promise<Tenant | undefined> {
    return modify(this.#context.store, "Tenant", tenant.metadata.name, (t) => {
      if (t.status.move?.id !== move.id) return false;
      t.status.move.step = step;
      if (move.unsuccessful) t.status.move.unsuccessful = move.unsuccessful;
      change(t, t.status.move);
      t.status.phase = "Moving";
      return true;
    });
  }

  #blackout({ parkedAt }: Move): { blackout: number; parked: boolean } {
    const parked = parkedAt !== undefined;
    return { parked, blackout: parked ? Math.max(0, this.#context.clock.age(parkedAt)) / 1000 : 0 };
  }
}

/** Why a move cannot go where it was meant to, or undefined. */
function whyNotTo(tenant: Tenant, move: Move, target: Shard | undefined): string | undefined {
  if (tenant.metadata.deletionTimestamp !== undefined) return "the tenant is deleted";
  const isLeft = target?.spec.drain !== undefined && move.from !== move.to;
  if (target && target.metadata.deletionTimestamp === undefined && !isLeft) return undefined;
  return `shard ${move.to} is no longer there to take it`;
}

function refuseConfig(
  { status }: Tenant,
  asked: StartConfig | undefined,
  { reason, message }: { reason: string; message: string },
): void {
  status.refusedConfig = { hash: asked?.hash ?? "", reason, message };
}

/** What keeps this shard from starting anything may not keep the old one: the tenant does not wait for it. */
function isShardsTrouble(error: unknown): error is Postponement {
  return error instanceof Postponement && error.cause instanceof ShardRefusal && !isOutranked(error.cause);
}

/** Another epoch was handed out meanwhile: the next attempt has a higher one. */
function isOutranked({ code }: ShardRefusal): boolean {
  return code === "Fenced" || code === "StaleEpoch";
}
