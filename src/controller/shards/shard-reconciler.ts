import type { ProcessState } from "../../ports/launcher.ts";
import { timeText } from "../../model/clock.ts";
import { messageOf, UserError } from "../../model/errors.ts";
import type { Shard, ShardPhase } from "../../model/shard.ts";
import type { ShardControl, ShardState, TenantState } from "../../ports/shard-control.ts";
import { shardsOf, type CachedReader } from "../cached-reader.ts";
import { modify } from "../../ports/store.ts";
import { recordEvent, type ControllerContext } from "../context.ts";
import { exponential } from "../../model/backoff.ts";
import { Absences, type Absence } from "./absences.ts";
import { countedStops } from "./counted-stops.ts";
import { CpuBudgets } from "./cpu-budgets.ts";
import { ShardMemory } from "./shard-memory.ts";
import { recordStalls } from "./stalls.ts";

/** A process that ran for this long before it ended did not fail to start. */
const HEALTHY_AFTER_MS = 30_000;
const LONGEST_RESTART_DELAY_MS = 60_000;
/** For how long what tenants tell other servers is spread: those of a lost shard are back together. */
const GREETINGS_WITHIN_SECONDS = 60;
const restartDelay = exponential(500, LONGEST_RESTART_DELAY_MS);

/** What is known of a shard's process at present; nothing here outlives the controller, as all of it can be asked again. */
interface Observation {
  client: ShardControl;
  address: string;
  state: ShardState;
  tenants: Map<string, TenantState>;
}

interface Watched {
  observation?: Observation;
  /** When its present process was first seen, and when it last answered; milliseconds of the clock. */
  startedAt?: number;
  /** Since when a process has been on its way without an address. */
  awaitedSince?: number;
  /** Which run of its process last answered. */
  instance?: string;
  answeredAt?: number;
  polledAt?: number;
  load?: { at: number; cpuSeconds: number };
  budgets?: CpuBudgets;
  memory?: ShardMemory;
}

/** Keeps each shard's process running, and knows what runs on it. */
export class ShardReconciler {
  readonly #context: ControllerContext;
  readonly #reader: CachedReader;
  readonly #watched = new Map<string, Watched>();
  readonly #onTenantSeen: (tenant: string) => void;
  readonly #absences: Absences;

  /** @param onTenantSeen called with each tenant whose state on a shard is another than before */
  constructor(context: ControllerContext, reader: CachedReader, onTenantSeen: (tenant: string) => void) {
    this.#context = context;
    this.#reader = reader;
    this.#onTenantSeen = onTenantSeen;
    this.#absences = new Absences(context.clock, reader, context.timing.absentAfter);
    context.feed.onReturn((since) => this.#absences.gatewaysBack(since));
  }

  /** To be called as soon as the store is read, before any shard is asked. */
  open(): void {
    this.#absences.open();
  }

  /** What is known of a shard that answers; undefined if it does not. */
  observation(shard: string): Observation | undefined {
    return this.#watched.get(shard)?.observation;
  }

  /** Asks the shard now, instead of at its next turn. */
  async refresh(shard: string): Promise<Observation | undefined> {
    const watched = this.#watched.get(shard);
    if (!watched?.observation) return undefined;
    await this.#ask(shard, watched, watched.observation.client, watched.observation.address).catch(() => {});
    return watched.observation;
  }

  async reconcile(name: string): Promise<number | void> {
    const shard = await this.#context.store.get("Shard", name);
    if (!shard) return this.#forget(name);
    if (shard.metadata.deletionTimestamp !== undefined) return this.#remove(shard);
    const due = this.#context.clock.until(shard.status.retryAt, LONGEST_RESTART_DELAY_MS);
    if (due > 0) return due;
    if (!(await this.#prepareRelease(shard))) return 0;
    const watched = this.#watched.get(name) ?? {};
    this.#watched.set(name, watched);
    const seen = await this.#context.launcher.observe(name);
    if (seen.state === "absent") return this.#startProcess(shard, watched);
    watched.startedAt ??= this.#context.clock.now();
    if (seen.state === "starting") return this.#await(shard, watched, seen);
    if (watched.awaitedSince !== undefined) {
      // What it did not say while it was on its way is no silence.
      Object.assign(watched, {
        awaitedSince: undefined,
        startedAt: this.#context.clock.now(),
        answeredAt: this.#context.clock.now(),
      });
    }
    return this.#poll(shard, watched, seen.address);
  }

  /** The process is on its way: for the first time, or again where the platform restarts it automatically. */
  async #await(
    shard: Shard,
    watched: Watched,
    { message = "", problem }: Extract<ProcessState, { state: "starting" }>,
  ): Promise<number> {
    const { timing, launcher } = this.#context;
    const { name } = shard.metadata;
    await this.#loseSight(name, watched);
    watched.awaitedSince ??= this.#context.clock.now();
    const waited = (this.#context.clock.now() - watched.awaitedSince) / 1000;
    const served = shard.status.lastSeen !== undefined;
    // A process that cannot be had any more (no node takes it, its image is gone) is treated like a silent one: its tenants go
    // elsewhere. Not if it crashes, perhaps because of a tenant: that tenant would crash the next shard too.
    if (problem && problem.reason !== "Crashed" && served) {
      if (waited > timing.shardLostAfter) return this.#lost(shard, problem.reason, problem.message);
    } else if (problem) return this.#failed(shard, problem.reason, problem.message);
    else if (waited > timing.shardStartWithin) {
      await launcher.kill(name);
      watched.awaitedSince = undefined;
      const last = message === "" ? "" : `: ${message}`;
      return this.#failed(shard, "NotStarted", `it did not come up within ${timing.shardStartWithin} s${last}`);
    }
    await this.#setPhase(name, "Starting", message === "" ? "" : "NotRunning", message);
    return message === "" ? 100 : 500;
  }

  async close(): Promise<void> {
    for (const name of this.#watched.keys()) await this.#forget(name);
  }

  async #prepareRelease(shard: Shard): Promise<boolean> {
    const { launcher, databases } = this.#context;
    const { name } = shard.metadata;
    try {
      const facts = await launcher.prepareRelease(
        shard.spec.release,
        (step) => void this.#setPhase(name, "Pending", "InstallingImage", step),
      );
      if (facts) databases.learn(facts);
      return true;
    } catch (error) {
      const reason = error instanceof UserError ? error.code : "ImageFailed";
      await this.#failed(shard, reason, messageOf(error));
      return false;
    }
  }

  async #startProcess(shard: Shard, watched: Watched): Promise<number> {
    const { name } = shard.metadata;
    const ranFor = watched.startedAt === undefined ? undefined : this.#context.clock.now() - watched.startedAt;
    await this.#loseSight(name, watched);
    if (ranFor !== undefined) {
      this.#context.metrics.shardRestarts.inc(name);
      watched.startedAt = undefined;
      watched.instance = undefined;
      await recordEvent(this.#context, {
        type: "Warning",
        reason: "ShardCrashed",
        object: `Shard/${name}`,
        message: `the process of shard ${name} ended without being asked to, after ${Math.round(ranFor / 1000)} s; it is started again`,
      });
      if (ranFor < HEALTHY_AFTER_MS) {
        return this.#failed(
          shard,
          "Crashed",
          `its process ended ${Math.round(ranFor / 1000)} s after its start; its log says why`,
        );
      }
    }
    await this.#setPhase(name, "Starting", "", "");
    watched.startedAt = this.#context.clock.now();
    await this.#context.launcher.start(name, shard.spec.release);
    return 50;
  }

  async #poll(shard: Shard, watched: Watched, address: string): Promise<number> {
    const { timing, launcher } = this.#context;
    const { name } = shard.metadata;
    const now = this.#context.clock.now();
    const sinceLastPoll = now - (watched.polledAt ?? now);
    watched.polledAt = now;
    const known = watched.observation?.address === address ? watched.observation.client : undefined;
    const client = known ?? this.#counted(await launcher.client(name, address));
    try {
      await this.#ask(name, watched, client, address);
    } catch (error) {
      if (!known) await client.close();
      // Time in which this controller itself did not run (suspended, overloaded) is no silence of the shard's.
      if (sinceLastPoll > timing.shardPoll * 5000) watched.answeredAt = this.#context.clock.now();
      return this.#silent(shard, watched, messageOf(error));
    }
    const settled = now - (watched.startedAt ?? now) > HEALTHY_AFTER_MS;
    await this.#setPhase(name, "Ready", "", "", (status) => {
      if (settled) status.failures = 0;
    });
    await this.#stopStrays(name, watched);
    await this.#measureLoad(name, watched);
    return this.#untilNextPoll(shard, watched) * 1000;
  }

  /** Very many shards are asked less often, as long as each is as it should be. Seconds. */
  #untilNextPoll(shard: Shard, { observation }: Watched): number {
    const { shardPoll, shardPollsPerSecond } = this.#context.timing;
    const shared = this.#watched.size / shardPollsPerSecond;
    const tenants = observation?.state.tenants ?? [];
    const isCalm = shard.status.phase === "Ready" && tenants.every(({ phase }) => phase === "running");
    if (!isCalm || shared <= shardPoll) return shardPoll;
    // Not all of them at once, as they were first asked.
    return shared * (0.75 + Math.random() / 2);
  }

  async #silent(shard: Shard, watched: Watched, why: string): Promise<number> {
    const { timing, launcher, log } = this.#context;
    const { name } = shard.metadata;
    watched.answeredAt ??= this.#context.clock.now();
    const silentFor = (this.#context.clock.now() - watched.answeredAt) / 1000;
    log.warn({ shard: name, silentFor, why }, "shard does not answer");
    if (silentFor < timing.shardLostAfter) return timing.shardPoll * 500;
    await this.#loseSight(name, watched);
    if (silentFor > timing.shardGiveUpAfter) {
      await launcher.kill(name);
      return 0;
    }
    if (shard.status.phase === "Lost" && shard.status.reason === "NoAnswer") return timing.shardPoll * 1000;
    return this.#lost(shard, "NoAnswer", `it has not answered for ${Math.round(silentFor)} s`);
  }

  async #lost(shard: Shard, reason: string, why: string): Promise<number> {
    const { name } = shard.metadata;
    const message = `${why}; its tenants are started elsewhere`;
    const fresh = shard.status.phase !== "Lost";
    await this.#setPhase(name, "Lost", reason, message);
    if (fresh) {
      await recordEvent(this.#context, {
        type: "Warning",
        reason: "ShardLost",
        object: `Shard/${name}`,
        message: `shard ${name}: ${message}`,
      });
    }
    return this.#context.timing.shardPoll * 1000;
  }

  async #ask(name: string, watched: Watched, client: ShardControl, address: string): Promise<void> {
    const state = await client.state();
    watched.answeredAt = this.#context.clock.now();
    this.#context.feed.setSecret(name, state.gatewaySecret);
    const before = watched.observation;
    if (before && before.client !== client) await before.client.close();
    if (before?.state.instance !== state.instance) await this.#learn(name, state);
    // Before anybody starts the tenant that it was.
    if (before?.state.instance !== state.instance) await recordStalls(this.#context, name, state.stalls);
    const tenants = new Map(state.tenants.map((tenant) => [tenant.name, tenant]));
    // Where the platform restarts processes automatically, another instance is all that is seen of it.
    if (watched.instance !== undefined && watched.instance !== state.instance) await this.#restarted(name);
    watched.instance = state.instance;
    watched.observation = { client, address, state, tenants };
    this.#context.shardClients.set(name, client);
    if (before?.state.instance !== state.instance) this.#lookAtTenantsOf(name);
    for (const key of new Set([...tenants.keys(), ...(before?.tenants.keys() ?? [])])) {
      if (JSON.stringify(tenants.get(key)) !== JSON.stringify(before?.tenants.get(key))) this.#onTenantSeen(key);
    }
    for (const absence of this.#absences.note(state)) await this.#greet(client, absence);
  }

  /** Other servers back off for ten minutes and longer from one that they found away, unless they hear of it. */
  async #greet(client: ShardControl, { tenant, seconds }: Absence): Promise<void> {
    const { metrics, log } = this.#context;
    try {
      const greeted = await client.greet(tenant, GREETINGS_WITHIN_SECONDS);
      if (greeted === undefined) return;
      metrics.absences.inc();
      await recordEvent(this.#context, {
        type: "Warning",
        reason: "WasAway",
        object: `Tenant/${tenant}`,
        message: `${tenant} was away for up to ${seconds} s, and tells ${greeted} other servers that it is back`,
      });
    } catch (error) {
      // They hear of it with its next event.
      log.warn({ tenant, err: error }, "a tenant that was away cannot tell other servers that it is back");
    }
  }

  async #restarted(name: string): Promise<void> {
    this.#context.metrics.shardRestarts.inc(name);
    await recordEvent(this.#context, {
      type: "Warning",
      reason: "ShardRestarted",
      object: `Shard/${name}`,
      message: `shard ${name} is another process than before; its tenants are started again`,
    });
  }

  /** An image that cannot be looked into beforehand says itself what it is. It is known by its tag, which is what tenants name. */
  async #learn(name: string, { schemaVersion, schemaCompatVersion }: ShardState): Promise<void> {
    const shard = await this.#context.store.get("Shard", name);
    if (!shard) return;
    const { release } = shard.spec;
    this.#context.databases.learn({ release, schemaVersion, schemaCompatVersion });
  }

  #counted(client: ShardControl): ShardControl {
    const { recorder } = this.#context;
    return recorder ? countedStops(client, (tenant, load) => recorder.stopped(tenant, load)) : client;
  }

  /** Stops tenants that run here and belong elsewhere: the fence keeps them from writing, this ends them. */
  async #stopStrays(name: string, watched: Watched): Promise<void> {
    const observation = watched.observation;
    if (!observation || observation.tenants.size === 0) return;
    for (const tenantName of observation.tenants.keys()) {
      if (shardsOf(this.#reader.get("Tenant", tenantName)).includes(name)) continue;
      // The reader may not know yet what another controller, or a user, has written.
      const tenant = await this.#context.store.get("Tenant", tenantName);
      if (shardsOf(tenant).includes(name)) continue;
      this.#context.log.warn({ shard: name, tenant: tenantName }, "stopping a tenant that belongs elsewhere");
      await observation.client.stopTenant(tenantName, 0).catch((error: unknown) => {
        this.#context.log.warn({ shard: name, tenant: tenantName, err: error }, "cannot stop it yet");
      });
    }
  }

  async #measureLoad(name: string, watched: Watched): Promise<void> {
    const at = this.#context.clock.now();
    const before = watched.load;
    if (!watched.observation || (before && at - before.at < this.#context.timing.loadEvery * 1000)) return;
    const all = await watched.observation.client.load();
    const { process } = all;
    this.#context.idle.learn(all);
    await this.#context.recorder?.looked(at, all);
    watched.budgets ??= new CpuBudgets(this.#context);
    watched.memory ??= new ShardMemory(this.#context, name);
    const known = this.#reader.get("Shard", name)?.status.load;
    this.#context.loads.measured(name, at, all, this.#context.policy.balancing.averageSeconds, known);
    await watched.budgets.measured(name, at, all);
    await watched.memory.measured(process.memory, watched.budgets);
    watched.load = { at, cpuSeconds: process.cpuSeconds };
    if (!before || process.cpuSeconds < before.cpuSeconds) return;
    const load = Math.round(((process.cpuSeconds - before.cpuSeconds) / ((at - before.at) / 1000)) * 1000) / 1000;
    await modify(this.#context.store, "Shard", name, (shard) => {
      // Written only when it says something new: a shard that idles must not cost the store a write every ten seconds.
      if (Math.abs((shard.status.load ?? -1) - load) < 0.02) return false;
      shard.status.load = load;
      shard.status.lastSeen = timeText(this.#context.clock.now());
      return true;
    });
  }

  async #remove(shard: Shard): Promise<void> {
    const { launcher, store } = this.#context;
    const { name } = shard.metadata;
    await launcher.stop(name, 30);
    await launcher.remove(name);
    await store.remove("Shard", name);
    await this.#forget(name);
    await recordEvent(this.#context, {
      type: "Normal",
      reason: "ShardStopped",
      object: `Shard/${name}`,
      message: `shard ${name} was stopped`,
    });
  }

  async #failed(shard: Shard, reason: string, message: string): Promise<number> {
    const failures = shard.status.failures + 1;
    const delay = restartDelay(failures);
    const fresh = shard.status.reason !== reason || shard.status.message !== message;
    await this.#setPhase(shard.metadata.name, "Failed", reason, message, (status) => {
      status.failures = failures;
      status.retryAt = timeText(this.#context.clock.now() + delay);
    });
    if (fresh) {
      const object = `Shard/${shard.metadata.name}`;
      await recordEvent(this.#context, {
        type: "Warning",
        reason: `Shard${reason}`,
        object,
        message: `shard ${shard.metadata.name}: ${message}`,
      });
    }
    this.#lookAtTenantsOf(shard.metadata.name);
    return delay;
  }

  async #setPhase(
    name: string,
    phase: ShardPhase,
    reason: string,
    message: string,
    change: (status: Shard["status"]) => void = () => {},
  ): Promise<void> {
    const address = this.#watched.get(name)?.observation?.address;
    const instance = this.#watched.get(name)?.observation?.state.instance;
    let became = false;
    let isOther = false;
    await modify(this.#context.store, "Shard", name, (shard) => {
      // It may be carried out again, after somebody else's write.
      [became, isOther] = [false, false];
      // Since this was found out it may have been decided to stop it.
      if (shard.metadata.deletionTimestamp !== undefined) return false;
      const before = JSON.stringify(shard.status);
      // These stay on show until they are overcome: at each new attempt the planner would take the shard for one with places,
      // or make another one beside it.
      const attempt = phase === "Pending" || phase === "Starting";
      if (attempt && (shard.status.phase === "Failed" || shard.status.phase === "Lost")) return false;
      isOther = phase !== shard.status.phase;
      became = isOther && phase === "Ready";
      // Another process too, as it may have been away until now.
      if (became || (instance !== undefined && instance !== shard.status.instance))
        shard.status.lastSeen = timeText(this.#context.clock.now());
      Object.assign(shard.status, { phase, reason, message, address, instance });
      if (phase !== "Failed") delete shard.status.retryAt;
      change(shard.status);
      return JSON.stringify(shard.status) !== before;
    });
    if (became)
      await recordEvent(this.#context, {
        type: "Normal",
        reason: "ShardReady",
        object: `Shard/${name}`,
        message: `shard ${name} takes tenants`,
      });
    if (isOther) this.#lookAtTenantsOf(name);
  }

  #lookAtTenantsOf(shard: string): void {
    for (const tenant of this.#reader.tenantsOf(shard)) this.#onTenantSeen(tenant);
  }

  async #loseSight(name: string, watched: Watched): Promise<void> {
    const { observation } = watched;
    if (!observation) return;
    watched.observation = undefined;
    watched.load = undefined;
    watched.budgets?.close();
    watched.budgets = undefined;
    watched.memory?.close();
    watched.memory = undefined;
    this.#context.loads.forgetShard(name);
    this.#context.shardClients.delete(name);
    await observation.client.close();
    this.#lookAtTenantsOf(name);
  }

  async #forget(name: string): Promise<void> {
    const watched = this.#watched.get(name);
    this.#watched.delete(name);
    this.#context.feed.forgetShard(name);
    this.#context.loads.forgetShard(name);
    watched?.budgets?.close();
    watched?.memory?.close();
    this.#context.shardClients.delete(name);
    await watched?.observation?.client.close();
  }
}
