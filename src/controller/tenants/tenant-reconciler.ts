import { storageOf } from "../../model/storage-name.ts";
import { randomUUID } from "node:crypto";
import { timeText } from "../../model/clock.ts";
import { messageOf, StartFailure, UserError } from "../../model/errors.ts";
import type { MoveReason } from "../../model/move.ts";
import type { Shard } from "../../model/shard.ts";
import { isMoveDue } from "../../model/database-move.ts";
import {
  forgetRefusedRelease,
  hasStarted,
  INSTALLING,
  reasonOfRunning,
  wantedRelease,
  type Tenant,
} from "../../model/tenant.ts";
import { ShardUnreachable, type TenantState } from "../../ports/shard-control.ts";
import { readConfig } from "../../model/config-reading.ts";
import { modify } from "../../ports/store.ts";
import { newTenantSecrets, type TenantSecretData } from "../../model/tenant-secrets.ts";
import { judged, Postponement } from "../blame.ts";
import { recordEvent, type ControllerContext } from "../context.ts";
import { ClaimConflicts } from "../claims/claim-conflicts.ts";
import { AdminSessions } from "./admin-sessions.ts";
import { DedicatedTransitions } from "./dedicated.ts";
import type { TenantDeletion } from "./deletion.ts";
import { concernsSuspension, Suspension } from "./suspension.ts";
import { Renaming } from "./renaming.ts";
import type { Mover } from "../moves/mover.ts";
import { routeOf } from "../routes/routes.ts";
import type { ShardReconciler } from "../shards/shard-reconciler.ts";
import {
  asItRuns,
  bringsDatabase,
  candidates,
  configsOf,
  isConfigsFault,
  isRefused,
  keepConfigInEffect,
  type StartConfig,
  type TenantConfigs,
} from "../start/configs.ts";
import { type Wake } from "../../model/sleep.ts";
import { noteAwake } from "../../model/wake.ts";
import { AsleepTenants } from "../sleep/asleep.ts";
import type { Sleeper } from "../sleep/sleeper.ts";
import { inEffectOf, recordFailure, running, schemaProblem, startOn, tellAwake } from "../start/start.ts";

/** How often it is asked whether a dedicated Synapse is ready to take a tenant over from its shard: at first, and when it takes long. */
const PREPARING_MS = 500;
const LONG_PREPARING_MS = 5_000;
const LONG_AFTER_MS = 120_000;

/** What a shard says of a release that it will never run. */
const NO_SUCH_RELEASE: ReadonlySet<string> = new Set(["UnknownRelease", "UnsupportedRelease"]);

/** A copy of a template takes a fraction of it. */
const SILENT_PROVISIONING_MS = 2_000;

/** Brings each tenant from where it stands to where it shall be, on the shard that the planner gave it. */
export class TenantReconciler {
  readonly #context: ControllerContext;
  readonly #shards: ShardReconciler;
  readonly #mover: Mover;
  readonly #deletion: TenantDeletion;
  readonly #transitions: DedicatedTransitions;
  readonly #conflicts: ClaimConflicts;
  readonly #sleeper: Sleeper;
  readonly #asleep: AsleepTenants;
  readonly #suspension: Suspension;
  readonly #renaming: Renaming;
  readonly #adminSessions: AdminSessions;

  constructor(
    context: ControllerContext,
    shards: ShardReconciler,
    { mover, deletion, sleeper }: { mover: Mover; deletion: TenantDeletion; sleeper: Sleeper },
  ) {
    this.#context = context;
    this.#shards = shards;
    this.#mover = mover;
    this.#deletion = deletion;
    this.#transitions = new DedicatedTransitions(context, shards);
    this.#conflicts = new ClaimConflicts(context);
    this.#sleeper = sleeper;
    this.#asleep = new AsleepTenants(context, shards);
    this.#suspension = new Suspension(context, shards);
    this.#renaming = new Renaming(context);
    this.#adminSessions = new AdminSessions(context);
  }

  async reconcile(name: string): Promise<number | void> {
    const tenant = await this.#context.store.get("Tenant", name);
    if (!tenant) {
      this.#context.feed.remove(name);
      this.#transitions.forget(name);
      return this.#mover.forget(name);
    }
    this.#context.feed.publish(routeOf(tenant, this.#context.claims));
    if (!tenant.status.move && !tenant.status.transition) await this.#addLateCounts(tenant);
    // A move that has begun is brought to an end first: only then is it clear where the tenant is to be stopped.
    if (tenant.status.move) return this.#mover.run(tenant);
    if (tenant.metadata.deletionTimestamp !== undefined) return this.#deletion.run(tenant);
    if (tenant.status.rename) {
      const verdict = await this.#renaming.run(tenant, tenant.status.rename);
      if (verdict !== "goes on") return verdict;
    }
    if (concernsSuspension(tenant)) return this.#suspension.run(tenant);
    const admitted = await this.#conflicts.settle(tenant);
    if (!admitted || typeof admitted === "number") return admitted;
    if (admitted.status.phase === "FallingAsleep") return this.#sleeper.run(admitted);
    if (admitted.status.phase === "Asleep") return this.#asleep.run(admitted);
    const verdict = await this.#transitions.run(admitted);
    if (typeof verdict !== "object") return verdict;
    const { shard, transition } = verdict.status;
    if (shard === undefined) return undefined;
    const delay = await this.#keepRunning(verdict, shard);
    if (transition?.step !== "Preparing") return delay;
    // While the shard has it only until another is ready, both are looked after.
    const isLong = this.#context.clock.age(transition.requestedAt) > LONG_AFTER_MS;
    const again = isLong ? LONG_PREPARING_MS : PREPARING_MS;
    return Math.min(delay ?? again, again);
  }

  /** A request may fail because of a move when that is over already, as seen from here. */
  async #addLateCounts({ metadata, status }: Tenant): Promise<void> {
    const { store, feed } = this.#context;
    const { parked, failed } = feed.takeParkCount(metadata.name);
    const { lastMove } = status;
    if (!lastMove || parked + failed === 0) return;
    await modify(store, "Tenant", metadata.name, (t) => {
      if (t.status.lastMove?.id !== lastMove.id) return false;
      t.status.lastMove.parkedRequests += parked;
      t.status.lastMove.failedRequests += failed;
      return true;
    });
  }

  async #keepRunning(tenant: Tenant, shardName: string): Promise<number | void> {
    const { store, clock, timing } = this.#context;
    const { status } = tenant;
    const shard = await store.get("Shard", shardName);
    if (!shard) return this.#leaveShard(tenant.metadata.name);
    const due = clock.until(status.retryAt, timing.retryMost * 1000);
    if (due > 0 && !(await this.#isChanged(tenant))) return due;

    // The database is made while the shard's process comes up; not before its release is installed, which may take long.
    const installed = shard.status.phase !== "Pending" && shard.status.phase !== "Failed";
    if (!status.provisioned && installed) return this.#start(tenant, shard);
    return this.#keepRunningOn(tenant, shard);
  }

  async #keepRunningOn(tenant: Tenant, shard: Shard): Promise<number | void> {
    const { name } = tenant.metadata;
    const { status } = tenant;
    const observation = this.#shards.observation(shard.metadata.name);
    if (!observation) return this.#awaitShard(tenant, shard);
    const there = observation.tenants.get(name);
    if (there?.phase === "running" && there.epoch === status.epoch) {
      await this.#keepUpToDate(tenant, shard, there);
      return this.#adminSessions.settle(tenant);
    }
    if (there && ["starting", "draining", "stopping"].includes(there.phase)) {
      await this.#shards.refresh(shard.metadata.name);
      return 250;
    }
    // A tenant that waits for another release is not started on this one first, unless that release cannot have it.
    const wanted = wantedRelease(tenant);
    const isRefusedRelease = status.refusedRelease?.release === wanted;
    if (!hasStarted(status) && shard.spec.release !== wanted && !isRefusedRelease) return undefined;
    return this.#start(tenant, shard);
  }

  /** Its shard is gone: it is placed again. */
  async #leaveShard(name: string): Promise<void> {
    await modify(this.#context.store, "Tenant", name, (t) => {
      if (t.status.move) return false;
      delete t.status.shard;
      delete t.status.address;
      t.status.phase = "Pending";
      return true;
    });
  }

  async #start(tenant: Tenant, shard: Shard): Promise<number | void> {
    const { name } = tenant.metadata;
    if (!tenant.status.provisioned) return this.#provision(tenant, shard);
    const client = this.#shards.observation(shard.metadata.name)?.client;
    if (!client) return 250;
    const configs = await configsOf(this.#context, tenant);
    const [config] = candidates(tenant, configs);
    if (!config) return this.#failed(tenant, shard, notReadable(configs), undefined, configs);
    await this.#setPhase(name, "Starting");
    try {
      const { release } = shard.spec;
      const target = { shard: shard.metadata.name, release, client, config };
      const { state } = await startOn(this.#context, tenant, target);
      const now = this.#context.clock.now();
      let wake: Wake | undefined;
      const started = await modify(this.#context.store, "Tenant", name, ({ status }) => {
        wake = running(status, shard.metadata.name, state, now);
      });
      if (started) this.#context.feed.publish(routeOf(started, this.#context.claims));
      await this.#shards.refresh(shard.metadata.name);
      if (wake) await tellAwake(this.#context, name, wake);
      else await this.#say(tenant, "Normal", "Started", `${name} runs on shard ${shard.metadata.name}`);
      return undefined;
    } catch (error) {
      if (!(error instanceof ShardUnreachable)) return this.#failed(tenant, shard, error, config, configs);
      await this.#shards.refresh(shard.metadata.name);
      return 500;
    }
  }

  /** @returns milliseconds until the next attempt */
  async #failed(
    tenant: Tenant,
    shard: Shard,
    error: unknown,
    tried: StartConfig | undefined,
    { effective }: TenantConfigs,
  ): Promise<number> {
    const { name } = tenant.metadata;
    if (error instanceof Postponement) return recordFailure(this.#context, name, shard.metadata.name, error);
    if (!(error instanceof StartFailure)) throw error;
    const isOther = tried && effective && tried.hash !== effective.hash;
    if (!isOther || !isConfigsFault(tried, effective, error))
      return recordFailure(this.#context, name, shard.metadata.name, error);
    // At once with what worked before.
    const { reason, message } = error;
    await modify(this.#context.store, "Tenant", name, ({ status }) => {
      if (status.move) return false;
      status.refusedConfig = { hash: tried.hash, reason, message };
      return true;
    });
    await this.#say(tenant, "Warning", reason, `${name} goes on with its previous configuration: ${message}`);
    return 0;
  }

  /** It runs as it should: what the store says of it is brought up to date, and a changed configuration is put to work. */
  async #keepUpToDate(tenant: Tenant, shard: Shard, there: TenantState): Promise<void> {
    const current = await this.#recordRunning(tenant, there);
    // A tenant that leaves is not restarted on the way out.
    if (!current || current.spec.dedicated) return;
    if (current.status.restore) return this.#restart(current.metadata.name, shard.metadata.name, "Restored");
    if (isMoveDue(current.status.databaseMove))
      return this.#restart(current.metadata.name, shard.metadata.name, "DatabaseMoved");
    const configs = await configsOf(this.#context, current);
    const { asked } = configs;
    if (asked && asked.hash === current.status.configHash) await keepConfigInEffect(this.#context, current, asked);
    if (!(await this.#settleRefusals(current, configs)) || !asked) return;
    const { status, metadata } = current;
    const wanted = wantedRelease(current);
    const isSame = asked.hash === status.configHash || isRefused(current, asked);
    if (isSame && status.observedGeneration === metadata.generation) return;
    // Another release is the planner's to move it to; the configuration is taken up on the way.
    if (wanted !== "" && shard.spec.release !== wanted && status.refusedRelease?.release !== wanted)
      return this.#refuseRelease(current, wanted);
    if (isSame)
      await modify(
        this.#context.store,
        "Tenant",
        metadata.name,
        (t) => void (t.status.observedGeneration = metadata.generation),
      );
    else await this.#restart(metadata.name, shard.metadata.name);
  }

  /** @returns the tenant as it is now, or undefined where it is something else by now */
  async #recordRunning(tenant: Tenant, there: TenantState): Promise<Tenant | undefined> {
    const { name } = tenant.metadata;
    const { phase, address, inEffect, configHash } = tenant.status;
    const isKnown = phase === "Running" && address === there.address && !tenant.status.wake;
    if (isKnown && (!there.meaning || inEffect?.hash === configHash)) return tenant;
    let wake: Wake | undefined;
    const written = await modify(this.#context.store, "Tenant", name, ({ status }) => {
      if (status.move || status.sleep || status.epoch !== there.epoch) return false;
      if (there.meaning && status.configHash !== undefined)
        status.inEffect = inEffectOf(status.configHash, there.meaning, there);
      if (!isKnown) Object.assign(status, { phase: "Running", failures: 0, ...reasonOfRunning(status) });
      status.address = there.address ?? undefined;
      delete status.retryAt;
      wake = noteAwake(status, this.#context.clock.now());
      return true;
    });
    if (wake) await tellAwake(this.#context, name, wake);
    return written?.status.move || written?.status.epoch !== there.epoch ? undefined : written;
  }

  /**
   * Refusals of what is no longer asked for are nothing to speak of any more; that its keys cannot be read is.
   * @returns whether nothing was changed: else it is looked at again
   */
  async #settleRefusals(tenant: Tenant, { asked, missing }: TenantConfigs): Promise<boolean> {
    const { status, metadata } = tenant;
    const isTakenBack = asked !== undefined && asked.hash === status.configHash && status.refusedConfig !== undefined;
    const isMissing = missing !== undefined && missing.message !== status.refusedConfig?.message;
    const isOtherRelease =
      status.refusedRelease !== undefined && status.refusedRelease.release !== wantedRelease(tenant);
    if (!isTakenBack && !isMissing && !isOtherRelease) return true;
    await modify(this.#context.store, "Tenant", metadata.name, (t) => {
      if (t.status.move) return false;
      if (isTakenBack) delete t.status.refusedConfig;
      if (isMissing) t.status.refusedConfig = missing;
      if (isOtherRelease && t.status.refusedRelease?.release !== wantedRelease(t)) forgetRefusedRelease(t.status);
      if (t.status.phase === "Running") Object.assign(t.status, reasonOfRunning(t.status));
      return true;
    });
    if (isMissing) await this.#say(tenant, "Warning", missing.reason, missing.message);
    return false;
  }

  /**
   * The release that it waits for may be none, or its database may forbid it. A move would find that out; but for a move there has to be a shard
   * of that release, which then perhaps never comes up.
   */
  async #refuseRelease(tenant: Tenant, release: string): Promise<void> {
    const { name, generation } = tenant.metadata;
    const problem = await this.#problemWith(tenant, release);
    if (!problem) return;
    const refused = await modify(this.#context.store, "Tenant", name, (t) => {
      if (t.status.move || wantedRelease(t) !== release) return false;
      t.status.refusedRelease = { release, reason: problem.reason, message: problem.message };
      t.status.observedGeneration = generation;
      Object.assign(t.status, reasonOfRunning(t.status));
      return true;
    });
    if (refused) await this.#say(tenant, "Warning", problem.reason, `${name} stays as it is: ${problem.message}`);
  }

  async #problemWith(tenant: Tenant, release: string): Promise<{ reason: string; message: string } | undefined> {
    const { databases, reader, log } = this.#context;
    if (!databases.facts(release)) {
      const shards = [...reader.values("Shard")].filter((shard) => shard.spec.release === release);
      return shards.map(({ status }) => status).find(({ reason }) => NO_SUCH_RELEASE.has(reason));
    }
    try {
      const runs = await asItRuns(this.#context, tenant);
      const message = runs && (await schemaProblem(this.#context, runs.tenant, runs.secrets, release));
      return message === undefined ? undefined : { reason: "SchemaTooNew", message };
    } catch (error) {
      // The move, or the next look, gets to know it.
      log.warn({ tenant: tenant.metadata.name, release, why: messageOf(error) }, "the schema cannot be looked at");
      return undefined;
    }
  }

  async #restart(name: string, shard: string, reason: MoveReason = "ConfigChanged"): Promise<void> {
    const { store, clock } = this.#context;
    await modify(store, "Tenant", name, ({ status }) => {
      if (status.move) return false;
      const requestedAt = timeText(clock.now());
      status.phase = "Moving";
      status.move = {
        id: randomUUID(),
        from: shard,
        to: shard,
        reason,
        step: "Preparing",
        requestedAt,
      };
      return true;
    });
  }

  async #isChanged(tenant: Tenant): Promise<boolean> {
    const { metadata, status } = tenant;
    if (status.observedGeneration !== metadata.generation) return true;
    const { asked } = await configsOf(this.#context, tenant);
    const started = status.configHash;
    return asked !== undefined && started !== undefined && asked.hash !== started && !isRefused(tenant, asked);
  }

  async #awaitShard(tenant: Tenant, shard: Shard): Promise<void> {
    const { name } = tenant.metadata;
    // A new leader has not asked its shard yet, and hears of no trouble: it runs as it did under the former one.
    if (shard.status.phase === "Ready" && tenant.status.phase === "Running") return;
    if (tenant.status.phase === "Failed" || tenant.status.phase === "Pending") return this.#setPhase(name, "Starting");
    const { message: why, reason: because } = shard.status;
    const reason = because === "InstallingImage" ? INSTALLING : "ShardNotReady";
    const message = `shard ${shard.metadata.name} is not ready${why === "" ? "" : `: ${why}`}`;
    await modify(this.#context.store, "Tenant", name, ({ status }) => {
      if (status.move || (status.phase === "Starting" && status.message === message)) return false;
      Object.assign(status, { phase: "Starting", reason, message });
      return true;
    });
  }

  /** Makes its keys and its database. @returns milliseconds to wait */
  async #provision(tenant: Tenant, shard: Shard): Promise<number> {
    const { name } = tenant.metadata;
    await this.#setPhase(name, "Provisioning");
    const explanation = setTimeout(() => void this.#explainProvisioning(name), SILENT_PROVISIONING_MS);
    try {
      await this.#makeDatabase(tenant);
      return 0;
    } catch (error) {
      const verdict = judged(error, bringsDatabase(tenant.spec));
      const isSaid = verdict instanceof StartFailure || verdict instanceof Postponement;
      // Whatever it is: who looks at the tenant sees why nothing happens.
      if (!isSaid) this.#context.log.error({ tenant: name, err: error }, "a tenant cannot be provisioned");
      return await this.#failed(
        tenant,
        shard,
        isSaid ? verdict : new Postponement("ProvisioningFailed", error),
        undefined,
        {},
      );
    } finally {
      clearTimeout(explanation);
    }
  }

  async #explainProvisioning(name: string): Promise<void> {
    const { store, log } = this.#context;
    try {
      await modify(store, "Tenant", name, ({ status }) => {
        if (status.phase !== "Provisioning" || status.message !== "") return false;
        status.reason = "DatabaseInTheMaking";
        status.message =
          "its database is being made; the first tenant of a release waits until that release's schema is there, which takes a minute or two";
        return true;
      });
    } catch (error) {
      log.warn({ tenant: name, why: messageOf(error) }, "the status cannot say what provisioning waits for");
    }
  }

  async #makeDatabase(tenant: Tenant): Promise<void> {
    const { store, databases } = this.#context;
    const { name } = tenant.metadata;
    const { database } = readConfig(tenant.spec.config);
    const storage = storageOf(tenant);
    const present = await this.#keysInStore(storage);
    // The secret first: a database whose password nobody knows could only be thrown away.
    const secrets = present ?? (await this.#keysFor(tenant, database !== undefined));
    if (!present) await store.writeSecret(storage, secrets);
    if (database) {
      await databases.keep(tenant, secrets);
      // It may have run elsewhere before: the next claim must be higher than the last.
      const found = await databases.describe(tenant, secrets);
      await modify(store, "Tenant", name, ({ status }) => {
        status.provisioned = true;
        delete status.databaseKept;
        status.epoch = Math.max(status.epoch, found?.epoch ?? 0);
      });
      return;
    }
    const found = await databases.provision(await this.#placed(tenant), secrets).catch((error: unknown) => {
      if (isOnItsWay(tenant, error)) return { epoch: 0, kept: true };
      throw error;
    });
    await modify(store, "Tenant", name, ({ status }) => {
      status.provisioned = true;
      status.epoch = Math.max(status.epoch, found.epoch);
      delete status.databaseKept;
      if (!found.kept) status.schemaRelease = wantedRelease(tenant);
    });
    if (!found.kept) return;
    const message = `${name} continues with the database that was kept from before`;
    await this.#say(tenant, "Normal", "DatabaseKept", message);
  }

  /** Written down before the database is made: who looks for it looks there. */
  async #placed(tenant: Tenant): Promise<Tenant> {
    const { store, databases } = this.#context;
    const { name } = tenant.metadata;
    const server = await databases.placeFor(storageOf(tenant));
    if (server === undefined || server === tenant.status.databaseServer) return tenant;
    return (await modify(store, "Tenant", name, ({ status }) => void (status.databaseServer = server))) ?? tenant;
  }

  async #keysInStore(storage: string): Promise<TenantSecretData | undefined> {
    try {
      return await this.#context.store.readSecret(storage);
    } catch (error) {
      if (!(error instanceof UserError && error.code === "InvalidConfig")) throw error;
      throw new StartFailure("SecretInvalid", error.message, { cause: error });
    }
  }

  /** The store has no keys for it. A database that was kept belongs to its keys: with new ones all other servers would turn it away. */
  async #keysFor(tenant: Tenant, bringsItsOwn: boolean): Promise<TenantSecretData> {
    const { name } = tenant.metadata;
    const { serverName } = tenant.spec;
    const { hasDatabase, keepsake, stranded } = await this.#context.databases.keptData(storageOf(tenant));
    if (stranded && !bringsItsOwn)
      throw new StartFailure(
        "DatabaseMissing",
        `of an earlier tenant ${name} ${stranded.join(" and ")} is left of a move or restore that was cut off, which may have the only copy of its data: ` +
          `have it put back under its name, or delete ${name} with --purge to begin without that data`,
      );
    // Whether a database that it brings along is the one of those keys, the server name tells.
    const isKept = bringsItsOwn ? keepsake?.serverName === serverName : hasDatabase;
    if (!isKept) return newTenantSecrets(serverName);
    const remedy = `or delete ${name} with --purge to begin without that data`;
    if (!keepsake)
      throw new StartFailure(
        "KeysMissing",
        `a database of an earlier tenant ${name} is kept, and its signing key is neither in the store nor beside it: restore the store from a backup, ${remedy}`,
      );
    if (keepsake.serverName !== serverName)
      throw new StartFailure(
        "KeysMissing",
        `a database of an earlier tenant ${name} is kept, whose server name is ${keepsake.serverName}: create it with that one, ${remedy}`,
      );
    const message = `${name} has the keys again that were kept ${bringsItsOwn ? "for" : "beside"} its database`;
    await this.#say(tenant, "Normal", "KeysRestored", message);
    return keepsake.secrets;
  }

  /** Failed stays on show until it is overcome: a tenant that is tried again every minute is not "starting" for its owner. */
  async #setPhase(name: string, phase: "Provisioning" | "Starting"): Promise<void> {
    await modify(this.#context.store, "Tenant", name, ({ status }) => {
      if (status.phase === phase || status.phase === "Failed" || status.move) return false;
      status.phase = phase;
      status.reason = "";
      status.message = "";
      return true;
    });
  }

  async #say(tenant: Tenant, type: "Normal" | "Warning", reason: string, message: string): Promise<void> {
    await recordEvent(this.#context, { type, reason, object: `Tenant/${tenant.metadata.name}`, message });
  }
}

/** Whether its database is between two servers since before it was deleted: the start finishes the move that was cut off. */
function isOnItsWay({ status }: Tenant, error: unknown): boolean {
  const isKept = status.databaseKept === true && status.databaseMove !== undefined;
  return isKept && error instanceof StartFailure && error.reason === "DatabaseMissing";
}

function notReadable({ missing }: TenantConfigs): StartFailure {
  return new StartFailure(missing?.reason ?? "SecretMissing", missing?.message ?? "its keys are missing");
}
