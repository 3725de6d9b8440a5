import { setImmediate as nextTurn } from "node:timers/promises";
import { messageOf } from "../model/errors.ts";
import type { CachedReader } from "./cached-reader.ts";
import type { Change, Kind } from "../ports/store.ts";
import type { ControllerContext } from "./context.ts";
import { TenantDeletion } from "./tenants/deletion.ts";
import { OnlineCopies } from "./tenants/online-copies.ts";
import { Expiry } from "./tenants/expiry.ts";
import { FleetRollout } from "./planning/fleet-rollout.ts";
import { Mover } from "./moves/mover.ts";
import { PLAN_EVERY_MS, Planning } from "./planning/planning.ts";
import { routeOf } from "./routes/routes.ts";
import { ShardReconciler } from "./shards/shard-reconciler.ts";
import { Sleeper } from "./sleep/sleeper.ts";
import { TenantReconciler } from "./tenants/tenant-reconciler.ts";
import { DatabaseTimeLoop } from "./usage/database-time.ts";
import { DatabaseUsageLoop } from "./usage/database-usage.ts";
import { DedicatedUsageLoop } from "./usage/dedicated-usage.ts";
import { GatewayCounts } from "./usage/gateway-counts.ts";
import type { AnsweredRequests } from "../model/routes.ts";
import { UsageReadingLoop } from "./usage/usage-reading.ts";
import { quotasOfTenant, QuotaWatch } from "./usage/quota-watch.ts";
import { valuesOf } from "./history/sample.ts";
import { Gauges } from "./gauges.ts";
import { exponential } from "../model/backoff.ts";
import { laneOfShard, laneOfTenant } from "./lanes.ts";
import { WorkQueue, type Lane } from "./work-queue.ts";

/** Changes that come together are planned together. */
const PLAN_DELAY_MS = 20;
const TAKEN_IN_AT_ONCE = 100;

/**
 * The control loops. The store's changes drive them: the planner decides and writes its decisions to the store; the reconcilers
 * of shards and tenants make the world match.
 */
export class Controller {
  readonly #context: ControllerContext;
  readonly #reader: CachedReader;
  readonly #shards: ShardReconciler;
  readonly #mover: Mover;
  readonly #shardQueue: WorkQueue;
  readonly #tenantQueue: WorkQueue;
  readonly #planQueue: WorkQueue;
  readonly #databaseUsage: DatabaseUsageLoop;
  readonly #expiry: Expiry;
  readonly #onlineCopies: OnlineCopies;
  readonly #databaseTime: DatabaseTimeLoop;
  readonly #usageReading: UsageReadingLoop;
  readonly #dedicatedUsage: DedicatedUsageLoop;
  readonly #quotaWatch: QuotaWatch;
  readonly #gatewayCounts = new GatewayCounts();
  #unwatch: () => void = () => {};
  #unhear: (() => void) | undefined;
  /** Whether all has been read once. */
  #isOpen = false;

  constructor(context: ControllerContext) {
    this.#context = context;
    this.#reader = context.reader;
    // First of its listeners: who is woken by a change finds it there.
    this.#reader.onChange((kind, name) => this.#takeIn(kind, name));
    context.claims.onChange((name) => this.#tenantQueue.add(name));
    this.#shards = new ShardReconciler(context, this.#reader, (tenant) => this.#tenantQueue.add(tenant));
    this.#mover = new Mover(context, this.#shards);
    const sleeper = new Sleeper(context, this.#shards);
    const deletion = new TenantDeletion(context, this.#shards);
    const tenants = new TenantReconciler(context, this.#shards, { mover: this.#mover, deletion, sleeper });
    const fleet = new FleetRollout(context, this.#reader);
    const planning = new Planning(context, this.#reader);
    const laneOf = {
      Shard: (name: string) => laneOfShard(this.#reader.get("Shard", name)),
      Tenant: (name: string) => laneOfTenant(this.#reader.get("Tenant", name)),
      Plan: () => ({ name: "plan", slots: 1 }),
    };
    this.#shardQueue = this.#queue("Shard", laneOf.Shard, (name) => this.#shards.reconcile(name));
    this.#tenantQueue = this.#queue("Tenant", laneOf.Tenant, (name) => tenants.reconcile(name));
    this.#planQueue = this.#queue("Plan", laneOf.Plan, async () => {
      const rolledOut = await fleet.pass();
      const changes = await planning.pass();
      return rolledOut || changes > 0 ? PLAN_DELAY_MS : PLAN_EVERY_MS;
    });
    this.#databaseUsage = new DatabaseUsageLoop(context);
    this.#expiry = new Expiry(context);
    this.#onlineCopies = new OnlineCopies(context);
    this.#databaseTime = new DatabaseTimeLoop(context);
    this.#usageReading = new UsageReadingLoop(context);
    this.#dedicatedUsage = new DedicatedUsageLoop(context);
    this.#quotaWatch = new QuotaWatch(context);
    context.feed.placesOf = (name) => quotasOfTenant(context, name).requestsInFlight;
    context.feed.onAnswered = (requests) => this.#countAnswered(requests);
    context.feed.onCounts((tenant) => this.#tenantQueue.add(tenant));
  }

  /** Publishes the routes as they were left, so that a gateway that asks gets them all, then starts the loops. */
  async start(): Promise<void> {
    const { store, feed, metrics, claims, launcher } = this.#context;
    // Before our own watch: who hears of a change finds it there.
    await this.#reader.open();
    this.#shards.open();
    await this.#takeInAll();
    claims.settle();
    for (const tenant of this.#reader.values("Tenant")) feed.publish(routeOf(tenant, claims));
    this.#unwatch = store.watch((change) => this.#changed(change));
    this.#unhear = launcher.onEnded?.((shard) => this.#shardQueue.add(shard));
    for (const shard of this.#reader.values("Shard")) this.#shardQueue.add(shard.metadata.name);
    for (const tenant of this.#reader.values("Tenant")) this.#tenantQueue.add(tenant.metadata.name);
    this.#planQueue.add("plan");
    const gauges = new Gauges(this.#context, this.#reader);
    metrics.scrape.begin(() => gauges.update());
    this.#databaseUsage.start();
    this.#expiry.start();
    this.#onlineCopies.start();
    this.#databaseTime.start();
    this.#context.recorder?.start();
    this.#usageReading.start();
    this.#dedicatedUsage.start();
    this.#quotaWatch.start();
    this.#context.history?.start((since) => this.#look(since));
    metrics.leader.set(1);
  }

  /** Looks at all tenants again: what they are run by has changed, such as their plans. */
  lookAgain(): void {
    for (const tenant of this.#reader.values("Tenant")) this.#tenantQueue.add(tenant.metadata.name);
  }

  /** Ends the loops after what they are at; shards and tenants stay as they are. */
  async stop(): Promise<void> {
    const { metrics } = this.#context;
    metrics.leader.set(0);
    metrics.scrape.end();
    this.#unwatch();
    this.#unhear?.();
    await this.#databaseUsage.close();
    await this.#expiry.close();
    await this.#onlineCopies.close();
    await this.#databaseTime.close();
    await this.#usageReading.close();
    await this.#dedicatedUsage.close();
    await this.#quotaWatch.close();
    await Promise.all([this.#planQueue.close(), this.#tenantQueue.close(), this.#shardQueue.close()]);
    await this.#mover.close();
    await this.#shards.close();
    await this.#context.recorder?.close();
    // Last: nobody's work depends on it, and where it is kept may be away.
    await this.#context.history?.close();
    this.#reader.close();
  }

  /** Reading 100,000 configurations takes many seconds, in which a leader must be able to say that it still leads. */
  async #takeInAll(): Promise<void> {
    this.#isOpen = true;
    let count = 0;
    for (const { metadata } of this.#reader.values("Tenant")) {
      this.#takeIn("Tenant", metadata.name);
      if (++count % TAKEN_IN_AT_ONCE === 0) await nextTurn();
    }
  }

  #look(since: string): Record<string, number> {
    const { loads, policy } = this.#context;
    return valuesOf({
      tenants: this.#reader.values("Tenant"),
      shards: this.#reader.values("Shard"),
      policy,
      loadOf: (shard) => loads.shards.get(shard)?.share,
      memoryOf: (shard) => loads.memory.get(shard),
      since,
    });
  }

  #takeIn(kind: Kind, name: string): void {
    if (kind !== "Tenant" || !this.#isOpen) return;
    const tenant = this.#reader.get("Tenant", name);
    if (tenant) this.#context.claims.set(tenant);
    else {
      this.#context.claims.remove(name);
      this.#gatewayCounts.forget(name);
    }
  }

  /** Requests of dedicated tenants, which no shard counts. */
  #countAnswered({ tenants, ...told }: AnsweredRequests): void {
    const { recorder, clock } = this.#context;
    const theirs = Object.entries(tenants).filter(([name, { epoch }]) => {
      const status = this.#reader.get("Tenant", name)?.status;
      return status?.dedicated !== undefined && epoch <= status.epoch;
    });
    const counted = this.#gatewayCounts.heard({ ...told, tenants: Object.fromEntries(theirs) });
    void recorder?.looked(clock.now(), { tenants: counted });
  }

  #changed(change: Change): void {
    if (change.kind === "Shard") this.#shardQueue.add(change.resource.metadata.name);
    if (change.kind === "Tenant") this.#tenantQueue.add(change.resource.metadata.name);
    this.#planQueue.addAfter("plan", PLAN_DELAY_MS);
  }

  #queue(kind: string, laneOf: (key: string) => Lane, handler: (key: string) => Promise<number | void>): WorkQueue {
    const { log, metrics, clock } = this.#context;
    return new WorkQueue(handler, {
      clock,
      laneOf,
      retryDelay: exponential(200, 30_000),
      onError: (key, error, attempt) => {
        metrics.reconcileErrors.inc({ kind });
        log.error({ kind, key, attempt, err: error, why: messageOf(error) }, "reconciliation failed, and is retried");
      },
    });
  }
}
