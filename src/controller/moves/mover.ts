/**
 * The move protocol: park, drain, fence, start, release.
 *
 * Each step is written to the store before it is carried out, and each can be carried out again: a controller that is
 * killed anywhere is replaced by one that reads the step and repeats it. What happens if a step fails:
 *
 * | step      | failure                                                   |
 * | --------- | --------------------------------------------------------- |
 * | Preparing | the move is dropped; the tenant never stopped             |
 * | Parking   | a silent gateway is not waited for (docs/route-feed.md)   |
 * | Draining  | a silent shard is not waited for: the fence shuts it out  |
 * | Starting  | started on the old shard again, if its release can        |
 * | Releasing | none: only the gateways are told                          |
 */
import { messageOf, StartFailure } from "../../model/errors.ts";
import type { Move, MoveResult, MoveStep } from "../../model/move.ts";
import type { Tenant } from "../../model/tenant.ts";
import { ShardRefusal, ShardUnreachable, type TenantState } from "../../ports/shard-control.ts";
import { modify } from "../../ports/store.ts";
import { recordEvent, type ControllerContext } from "../context.ts";
import { routeOf } from "../routes/routes.ts";
import type { ShardReconciler } from "../shards/shard-reconciler.ts";
import { assignmentOf, configHash, recordFailure, running, schemaRefusal, startOn } from "../start/start.ts";
import type { Migration } from "../../ports/databases.ts";
import { exponential } from "../work-queue.ts";

/** A tenant whose move was rolled back is left alone for a while, longer each time. */
const againAfter = exponential(30_000, 3_600_000);
/** How long a started tenant's shard may be silent in the middle of a move before the move gives up on it. */
const TARGET_SILENT_MS = 10_000;

export class Mover {
  readonly #context: ControllerContext;
  readonly #shards: ShardReconciler;
  /** Processes warmed up for moves that wait in Preparing; made again if lost. */
  readonly #migrations = new Map<string, Migration>();
  readonly #silentSince = new Map<string, number>();

  constructor(context: ControllerContext, shards: ShardReconciler) {
    this.#context = context;
    this.#shards = shards;
  }

  /** Carries a move on as far as it goes. @returns milliseconds to wait, where it must */
  async run(tenant: Tenant): Promise<number | void> {
    let current: Tenant | undefined = tenant;
    while (current?.status.move) {
      const move: Move = current.status.move;
      const next: Tenant | number | undefined = await this.#step(current, move);
      if (typeof next === "number") return next;
      current = next;
    }
    return undefined;
  }

  async close(): Promise<void> {
    for (const name of this.#migrations.keys()) await this.#dropMigration(name);
  }

  #step(tenant: Tenant, move: Move): Promise<Tenant | number | undefined> {
    switch (move.step) {
      case "Preparing":
        return this.#prepare(tenant, move);
      case "Parking":
        return this.#park(tenant, move);
      case "Draining":
        return this.#drain(tenant, move);
      case "Starting":
        return this.#start(tenant, move);
      case "Releasing":
        return this.#release(tenant, move);
    }
  }

  async #prepare(tenant: Tenant, move: Move): Promise<Tenant | number | undefined> {
    const { store, databases, feed } = this.#context;
    const { name } = tenant.metadata;
    const target = await store.get("Shard", move.to);
    const leaving = tenant.metadata.deletionTimestamp !== undefined;
    if (
      leaving ||
      !target ||
      target.metadata.deletionTimestamp !== undefined ||
      (target.spec.drain && move.from !== move.to)
    ) {
      return this.#abandon(
        tenant,
        move,
        leaving ? "the tenant is deleted" : `shard ${move.to} is no longer there to take it`,
      );
    }
    if (!this.#shards.observation(move.to)) {
      if (["Lost", "Failed"].includes(target.status.phase))
        return this.#abandon(tenant, move, `shard ${move.to} is ${target.status.phase}`);
      return 250;
    }
    const release = target.spec.release;
    const problem = await this.#checkConfig(tenant, move);
    if (problem) return this.#refuse(tenant, move, release, problem.reason, problem.message);
    if (tenant.status.schemaRelease !== release) {
      const refusal = await this.#refusal(tenant, release);
      if (refusal !== undefined) return this.#refuse(tenant, move, release, "SchemaTooNew", refusal);
      // Importing Synapse takes seconds: done now, while the old shard still serves.
      if (!this.#migrations.has(name)) this.#migrations.set(name, await databases.migration(release));
    }
    feed.takeParkCount(name);
    return this.#advance(tenant, move, "Parking");
  }

  async #park(tenant: Tenant, move: Move): Promise<Tenant | undefined> {
    const { feed, log } = this.#context;
    const version = feed.publish(routeOf(tenant, this.#context.claims));
    if (!(await feed.settled(version)))
      log.warn(
        { tenant: tenant.metadata.name },
        "a gateway did not say in time that it parks; it will meet refused connections and hold requests itself",
      );
    return this.#advance(tenant, move, "Draining", (t) => void (t.parkedAt = new Date().toISOString()));
  }

  async #drain(tenant: Tenant, move: Move): Promise<Tenant | undefined> {
    const { timing, log } = this.#context;
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
    return this.#advance(tenant, move, "Starting");
  }

  async #start(tenant: Tenant, move: Move): Promise<Tenant | number | undefined> {
    const { store } = this.#context;
    const { name } = tenant.metadata;
    const observation = await this.#shards.refresh(move.to);
    const there = observation?.tenants.get(name);
    // A controller before this one may have come so far.
    if (there?.phase === "running" && there.epoch === tenant.status.epoch) return this.#started(tenant, move, there);
    if (there?.phase === "starting") return 100;
    if (!observation) return this.#targetSilent(tenant, move);
    this.#silentSince.delete(name);
    const target = await store.get("Shard", move.to);
    if (!target) return this.#rollBack(tenant, move, new StartFailure("ShardGone", `shard ${move.to} is gone`));
    try {
      const migration = this.#migrations.get(name);
      this.#migrations.delete(name);
      const started = await startOn(this.#context, name, {
        shard: move.to,
        release: target.spec.release,
        client: observation.client,
        migration,
      });
      return await this.#started(started.tenant, move, started.state);
    } catch (error) {
      if (error instanceof ShardUnreachable) return this.#targetSilent(tenant, move);
      if (error instanceof StartFailure) return this.#rollBack(tenant, move, error);
      throw error;
    }
  }

  async #started(tenant: Tenant, move: Move, state: TenantState): Promise<Tenant | undefined> {
    return modify(this.#context.store, "Tenant", tenant.metadata.name, (t) => {
      if (t.status.move?.id !== move.id) return false;
      running(t.status, move.to, state);
      t.status.phase = "Moving";
      t.status.move.step = "Releasing";
      if (move.from !== move.to) t.status.assignedAt = new Date().toISOString();
      delete t.status.refusedRelease;
      return true;
    });
  }

  async #release(tenant: Tenant, move: Move): Promise<Tenant | undefined> {
    const { feed } = this.#context;
    const { name } = tenant.metadata;
    await feed.settled(feed.publish(routeOf(tenant, this.#context.claims)));
    const blackoutSeconds = move.parkedAt === undefined ? 0 : (Date.now() - Date.parse(move.parkedAt)) / 1000;
    return this.#finish(tenant, move, { outcome: "Succeeded", blackoutSeconds, ...this.#parkCount(name) }, (t) => {
      t.status.phase = "Running";
      t.status.moveFailures = 0;
      delete t.status.moveNotBefore;
    });
  }

  /** The new shard cannot start it: back to the old one, if that answers and its release can still read the database. */
  async #rollBack(tenant: Tenant, move: Move, failure: StartFailure): Promise<Tenant | number | undefined> {
    const { store, log } = this.#context;
    const { name } = tenant.metadata;
    const why = `${move.to} could not start it: ${failure.message}`;
    log.warn({ tenant: name, move, reason: failure.reason, why: failure.message }, "move failed, going back");
    const source = move.from === move.to ? undefined : await store.get("Shard", move.from);
    const observation = source && this.#shards.observation(move.from);
    if (source && observation && (await this.#refusal(tenant, source.spec.release).catch(messageOf)) === undefined) {
      try {
        const { state } = await startOn(this.#context, name, {
          shard: move.from,
          release: source.spec.release,
          client: observation.client,
        });
        const back = await modify(store, "Tenant", name, (t) => {
          running(t.status, move.from, state);
          t.status.phase = "Moving";
        });
        if (!back) return undefined;
        return await this.#finish(back, move, { outcome: "RolledBack", message: why, ...this.#blackout(move) }, (t) => {
          t.status.phase = "Running";
          const failures = (t.status.moveFailures ?? 0) + 1;
          t.status.moveFailures = failures;
          t.status.moveNotBefore = new Date(Date.now() + againAfter(failures)).toISOString();
        });
      } catch (error) {
        if (!(error instanceof StartFailure || error instanceof ShardUnreachable)) throw error;
        log.warn({ tenant: name, err: error }, "the old shard cannot start it again either");
      }
    }
    await this.#finish(tenant, move, { outcome: "RolledBack", message: why, ...this.#blackout(move) }, (t) => {
      t.status.phase = "Failed";
      if (move.from !== move.to) t.status.assignedAt = new Date().toISOString();
    });
    return recordFailure(this.#context, name, move.to, failure);
  }

  async #targetSilent(tenant: Tenant, move: Move): Promise<Tenant | number | undefined> {
    const { name } = tenant.metadata;
    const since = this.#silentSince.get(name) ?? performance.now();
    this.#silentSince.set(name, since);
    if (performance.now() - since < TARGET_SILENT_MS) return 250;
    this.#silentSince.delete(name);
    return this.#rollBack(tenant, move, new StartFailure("ShardNotReady", `shard ${move.to} does not answer`));
  }

  /** Why the release cannot take the database, or undefined. */
  async #refusal(tenant: Tenant, release: string): Promise<string | undefined> {
    const { databases, store } = this.#context;
    const facts = databases.facts(release);
    const secrets = await store.readSecret(tenant.metadata.name);
    if (!facts || !secrets) return undefined;
    return schemaRefusal(await databases.describe(tenant, secrets), release, facts);
  }

  /** Nothing is stopped for a configuration that cannot be started. */
  async #checkConfig(tenant: Tenant, move: Move): Promise<StartFailure | undefined> {
    const client = this.#shards.observation(move.to)?.client;
    const secrets = await this.#context.store.readSecret(tenant.metadata.name);
    // A tenant that does not run has nothing to lose: it is started, or shown as Failed.
    const runs = move.reason !== "ShardLost" && tenant.status.address !== undefined;
    const rival = runs ? this.#context.claims.conflictOf(tenant) : undefined;
    if (rival) return new StartFailure(rival.reason, rival.message);
    if (!client || !secrets || !runs) return undefined;
    try {
      await client.checkTenant(tenant.metadata.name, assignmentOf(this.#context, tenant, secrets));
      return undefined;
    } catch (error) {
      if (error instanceof ShardRefusal) return new StartFailure(error.code, error.message);
      if (error instanceof ShardUnreachable) return undefined; // found out again when it is started
      throw error;
    }
  }

  async #refuse(tenant: Tenant, move: Move, release: string, reason: string, why: string): Promise<Tenant | undefined> {
    const message = `the change is not made, and it runs on as before: ${why}`;
    const result = {
      outcome: "Refused",
      message: why,
      blackoutSeconds: 0,
      parkedRequests: 0,
      failedRequests: 0,
    } as const;
    const secrets = await this.#context.store.readSecret(tenant.metadata.name).catch(() => undefined);
    return this.#finish(tenant, move, result, (t) => {
      t.status.phase = t.status.address === undefined ? "Starting" : "Running";
      t.status.reason = reason;
      t.status.message = message;
      t.status.observedGeneration = t.metadata.generation;
      if (move.reason === "Upgrade") t.status.refusedRelease = { release, reason, message: why };
      else if (move.reason === "ConfigChanged" && secrets) t.status.refusedConfigHash = configHash(tenant, secrets);
      else t.status.moveNotBefore = new Date(Date.now() + againAfter(1)).toISOString();
    });
  }

  /** Nothing was done yet, so nothing is to be undone. */
  async #abandon(tenant: Tenant, move: Move, message: string): Promise<Tenant | undefined> {
    return this.#finish(
      tenant,
      move,
      { outcome: "Refused", message, blackoutSeconds: 0, parkedRequests: 0, failedRequests: 0 },
      (t) => {
        t.status.phase = t.status.address === undefined ? "Starting" : "Running";
      },
    );
  }

  async #finish(
    tenant: Tenant,
    move: Move,
    result: Pick<MoveResult, "outcome" | "message" | "blackoutSeconds" | "parkedRequests" | "failedRequests">,
    change: (tenant: Tenant) => void,
  ): Promise<Tenant | undefined> {
    const { store, feed, metrics } = this.#context;
    const { name } = tenant.metadata;
    await this.#dropMigration(name);
    const finishedAt = new Date().toISOString();
    const { id, from, to, reason } = move;
    const blackoutSeconds = Math.round(result.blackoutSeconds * 1000) / 1000;
    const written = await modify(store, "Tenant", name, (t) => {
      if (t.status.move?.id !== id) return false;
      delete t.status.move;
      t.status.lastMove = { id, from, to, reason, finishedAt, ...result, blackoutSeconds };
      change(t);
      return true;
    });
    if (written) feed.publish(routeOf(written, this.#context.claims));
    for (const shard of new Set([from, to])) {
      await modify(store, "Shard", shard, (s) => void (s.status.lastAssignmentChange = finishedAt));
      await this.#shards.refresh(shard);
    }
    metrics.moves.inc({ reason, outcome: result.outcome });
    if (result.outcome === "Succeeded") metrics.blackout.observe(result.blackoutSeconds);
    const what =
      from === to ? `${name} was restarted on ${to} with its new configuration` : `${name} moved from ${from} to ${to}`;
    const counts = `blackout ${blackoutSeconds} s, ${result.parkedRequests} requests waited, ${result.failedRequests} failed`;
    await recordEvent(this.#context, {
      type: result.outcome === "Succeeded" ? "Normal" : "Warning",
      reason: result.outcome === "Succeeded" ? (from === to ? "Restarted" : "Moved") : `Move${result.outcome}`,
      object: `Tenant/${name}`,
      message:
        result.outcome === "Succeeded"
          ? `${what} (${reason}): ${counts}`
          : `${name} did not move from ${from} to ${to}: ${result.message}`,
    });
    return written;
  }

  async #advance(
    tenant: Tenant,
    move: Move,
    step: MoveStep,
    change: (move: Move) => void = () => {},
  ): Promise<Tenant | undefined> {
    return modify(this.#context.store, "Tenant", tenant.metadata.name, (t) => {
      if (t.status.move?.id !== move.id) return false;
      t.status.move.step = step;
      change(t.status.move);
      t.status.phase = "Moving";
      return true;
    });
  }

  #blackout(move: Move): Pick<MoveResult, "blackoutSeconds" | "parkedRequests" | "failedRequests"> {
    const blackoutSeconds = move.parkedAt === undefined ? 0 : (Date.now() - Date.parse(move.parkedAt)) / 1000;
    return { blackoutSeconds, parkedRequests: 0, failedRequests: 0 };
  }

  #parkCount(name: string): { parkedRequests: number; failedRequests: number } {
    const { parked, failed } = this.#context.feed.takeParkCount(name);
    return { parkedRequests: parked, failedRequests: failed };
  }

  async #dropMigration(name: string): Promise<void> {
    const migration = this.#migrations.get(name);
    this.#migrations.delete(name);
    await migration?.close();
  }
}
