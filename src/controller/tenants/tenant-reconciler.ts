import { randomUUID } from "node:crypto";
import { messageOf, UserError, StartFailure } from "../../model/errors.ts";
import { forgetRefusedRelease, wantedRelease, type Tenant } from "../../model/tenant.ts";
import { ShardUnreachable } from "../../ports/shard-control.ts";
import { modify } from "../../ports/store.ts";
import { ownDatabase } from "../../model/homeserver-config.ts";
import { newTenantSecrets } from "../../model/tenant-secrets.ts";
import { recordEvent, type ControllerContext } from "../context.ts";
import { ClaimConflicts } from "../claims/claim-conflicts.ts";
import { DedicatedTransitions } from "./dedicated.ts";
import type { TenantDeletion } from "./deletion.ts";
import type { Mover } from "../moves/mover.ts";
import { routeOf } from "../routes/routes.ts";
import type { ShardReconciler } from "../shards/shard-reconciler.ts";
import { configHash, recordFailure, running, startOn } from "../start/start.ts";

/** How often it is asked whether a Synapse of its own is ready to take a tenant over from its shard: at first, and when it takes long. */
const PREPARING_MS = 500;
const LONG_PREPARING_MS = 5_000;
const LONG_AFTER_MS = 120_000;

/** Brings each tenant from where it stands to where it shall be, on the shard that the planner gave it. */
export class TenantReconciler {
  readonly #context: ControllerContext;
  readonly #shards: ShardReconciler;
  readonly #mover: Mover;
  readonly #deletion: TenantDeletion;
  readonly #transitions: DedicatedTransitions;
  readonly #conflicts: ClaimConflicts;

  constructor(context: ControllerContext, shards: ShardReconciler, mover: Mover, deletion: TenantDeletion) {
    this.#context = context;
    this.#shards = shards;
    this.#mover = mover;
    this.#deletion = deletion;
    this.#transitions = new DedicatedTransitions(context, shards);
    this.#conflicts = new ClaimConflicts(context);
  }

  async reconcile(name: string): Promise<number | void> {
    const tenant = await this.#context.store.get("Tenant", name);
    if (!tenant) {
      this.#context.feed.remove(name);
      return undefined;
    }
    this.#context.feed.publish(routeOf(tenant, this.#context.claims));
    // A move that has begun is brought to an end first: only then is it clear where the tenant is to be stopped.
    if (tenant.status.move) return this.#mover.run(tenant);
    if (tenant.metadata.deletionTimestamp !== undefined) return this.#deletion.run(tenant);
    const admitted = await this.#conflicts.settle(tenant);
    if (!admitted) return undefined;
    const verdict = await this.#transitions.run(admitted);
    if (typeof verdict !== "object") return verdict;
    const { shard, transition } = verdict.status;
    if (shard === undefined) return undefined;
    const delay = await this.#keepRunning(verdict, shard);
    if (transition?.step !== "Preparing") return delay;
    // While the shard has it only until another is ready, both are looked after.
    const isLong = Date.now() - Date.parse(transition.requestedAt) > LONG_AFTER_MS;
    const again = isLong ? LONG_PREPARING_MS : PREPARING_MS;
    return Math.min(delay ?? again, again);
  }

  async #keepRunning(tenant: Tenant, shardName: string): Promise<number | void> {
    const { store } = this.#context;
    const { name } = tenant.metadata;
    const { status } = tenant;
    const shard = await store.get("Shard", shardName);
    if (!shard) {
      await modify(store, "Tenant", name, (t) => {
        if (t.status.move) return false;
        delete t.status.shard;
        delete t.status.address;
        t.status.phase = "Pending";
        return true;
      });
      return undefined;
    }
    const due = status.retryAt === undefined ? 0 : Date.parse(status.retryAt) - Date.now();
    if (due > 0 && !(await this.#isChanged(tenant))) return due;

    // The database is made while the shard's process comes up; not before its release is installed, which may take long.
    const installed = shard.status.phase !== "Pending" && shard.status.phase !== "Failed";
    if (!status.provisioned && installed) return this.#start(tenant, shardName, shard.spec.release);
    const observation = this.#shards.observation(shardName);
    if (!observation) return this.#awaitShard(tenant, shardName, shard.status.message);
    const there = observation.tenants.get(name);
    if (there?.phase === "running" && there.epoch === status.epoch) return this.#adopt(tenant, shardName);
    if (there && ["starting", "draining", "stopping"].includes(there.phase)) {
      await this.#shards.refresh(shardName);
      return 250;
    }
    // A tenant that waits for another release is not started on this one first, unless that release cannot have it.
    const wanted = wantedRelease(tenant);
    if (status.epoch === 0 && shard.spec.release !== wanted && status.refusedRelease?.release !== wanted)
      return undefined;
    return this.#start(tenant, shardName, shard.spec.release);
  }

  async #start(tenant: Tenant, shard: string, release: string): Promise<number | void> {
    const { store, feed } = this.#context;
    const { name } = tenant.metadata;
    try {
      if (!tenant.status.provisioned) {
        await this.#provision(tenant);
        return 0;
      }
      const client = this.#shards.observation(shard)?.client;
      if (!client) return 250;
      await this.#setPhase(name, "Starting");
      const { state } = await startOn(this.#context, name, { shard, release, client });
      const started = await modify(store, "Tenant", name, ({ status }) => running(status, shard, state));
      if (started) feed.publish(routeOf(started, this.#context.claims));
      await this.#shards.refresh(shard);
      await this.#say(tenant, "Normal", "Started", `${name} runs on shard ${shard}`);
      return undefined;
    } catch (error) {
      if (error instanceof ShardUnreachable) {
        await this.#shards.refresh(shard);
        return 500;
      }
      if (error instanceof StartFailure) return recordFailure(this.#context, name, shard, error);
      throw error;
    }
  }

  /** It runs as it should; what the store says of it is brought up to date, and a changed configuration is put to work. */
  async #adopt(tenant: Tenant, shard: string): Promise<void> {
    const { store } = this.#context;
    const { name } = tenant.metadata;
    const { status } = tenant;
    const there = this.#shards.observation(shard)?.tenants.get(name);
    if (!there) return;
    if (status.phase !== "Running" || status.address !== there.address) {
      await modify(store, "Tenant", name, (t) => {
        if (t.status.move || t.status.epoch !== there.epoch) return false;
        t.status.phase = "Running";
        t.status.reason = "";
        t.status.message = "";
        t.status.address = there.address ?? undefined;
        t.status.failures = 0;
        delete t.status.retryAt;
        return true;
      });
    }
    const secrets = await store.readSecret(name).catch(() => undefined);
    // Without its keys it could not be started again: better it runs on as it is. And one that leaves is not restarted on the way out.
    if (!secrets || tenant.spec.dedicated) return;
    const hash = configHash(tenant, secrets);
    const wanted = wantedRelease(tenant);
    if (hash === status.configHash && status.refusedConfigHash !== undefined) await this.#forgetRefusedConfig(name);
    if (status.refusedRelease && status.refusedRelease.release !== wanted) await this.#forgetRefusedRelease(name);
    const isSame = hash === status.configHash || hash === status.refusedConfigHash;
    if (isSame && status.observedGeneration === tenant.metadata.generation) return;
    const here = await store.get("Shard", shard);
    // Another release is the planner's to move it to; the configuration is taken up on the way.
    if (wanted !== "" && here?.spec.release !== wanted && status.refusedRelease?.release !== wanted) return;
    if (isSame) {
      await modify(store, "Tenant", name, (t) => void (t.status.observedGeneration = tenant.metadata.generation));
      return;
    }
    await modify(store, "Tenant", name, (t) => {
      if (t.status.move) return false;
      t.status.phase = "Moving";
      t.status.move = {
        id: randomUUID(),
        from: shard,
        to: shard,
        reason: "ConfigChanged",
        step: "Preparing",
        requestedAt: new Date().toISOString(),
      };
      return true;
    });
  }

  /** A configuration that was refused, and then taken back, is nothing to speak of any more. */
  async #forgetRefusedConfig(name: string): Promise<void> {
    await modify(this.#context.store, "Tenant", name, ({ status }) => {
      if (status.move) return false;
      delete status.refusedConfigHash;
      if (!status.refusedRelease) Object.assign(status, { reason: "", message: "" });
      return true;
    });
  }

  async #forgetRefusedRelease(name: string): Promise<void> {
    await modify(this.#context.store, "Tenant", name, (t) => {
      if (t.status.move || t.status.refusedRelease?.release === wantedRelease(t)) return false;
      forgetRefusedRelease(t.status);
      return true;
    });
  }

  async #isChanged({ metadata, spec, status }: Tenant): Promise<boolean> {
    if (status.observedGeneration !== metadata.generation) return true;
    const secrets = await this.#context.store.readSecret(metadata.name).catch(() => undefined);
    const started = status.configHash;
    return secrets !== undefined && started !== undefined && configHash({ spec }, secrets) !== started;
  }

  async #awaitShard(tenant: Tenant, shard: string, why: string): Promise<void> {
    if (tenant.status.phase === "Failed" || tenant.status.phase === "Pending")
      return this.#setPhase(tenant.metadata.name, "Starting");
    await modify(this.#context.store, "Tenant", tenant.metadata.name, ({ status }) => {
      if (status.move || (status.phase === "Starting" && status.reason === "ShardNotReady")) return false;
      status.phase = "Starting";
      status.reason = "ShardNotReady";
      status.message = why === "" ? `shard ${shard} is not ready` : `shard ${shard} is not ready: ${why}`;
      return true;
    });
  }

  async #provision(tenant: Tenant): Promise<void> {
    const { store, databases } = this.#context;
    const { name } = tenant.metadata;
    await this.#setPhase(name, "Provisioning");
    // The secret first: a database whose password nobody knows could only be thrown away.
    const kept = await store.readSecret(name).catch((error: unknown) => {
      if (error instanceof UserError) throw new StartFailure("SecretInvalid", error.message, { cause: error });
      throw error;
    });
    const secrets = kept ?? newTenantSecrets(tenant.spec.serverName);
    if (!kept) await store.writeSecret(name, secrets);
    if (ownDatabase(tenant.spec.config)) {
      // It may have run elsewhere before: the next claim must be higher than the last.
      const found = await databases.describe(tenant, secrets);
      await modify(store, "Tenant", name, ({ status }) => {
        status.provisioned = true;
        status.epoch = Math.max(status.epoch, found?.epoch ?? 0);
      });
      return;
    }
    try {
      const found = await databases.provision(tenant, secrets);
      await modify(store, "Tenant", name, ({ status }) => {
        status.provisioned = true;
        status.epoch = Math.max(status.epoch, found.epoch);
        if (!found.kept) status.schemaRelease = wantedRelease(tenant);
      });
      if (found.kept)
        await this.#say(
          tenant,
          "Normal",
          "DatabaseKept",
          `${name} continues with the database that was kept from before`,
        );
    } catch (error) {
      if (error instanceof StartFailure) throw error;
      const reason = error instanceof UserError ? error.code : "ProvisioningFailed";
      throw new StartFailure(reason === "Unavailable" ? "DatabaseUnreachable" : reason, messageOf(error), {
        cause: error,
      });
    }
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
