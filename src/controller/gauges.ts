import { FLEET_PHASES, type Fleet } from "../model/fleet.ts";
import { hasStarted, wantedRelease, type Tenant, type TenantPhase } from "../model/tenant.ts";
import type { Shard } from "../model/shard.ts";
import { occupancyOf } from "../model/occupancy.ts";
import type { CachedReader } from "./cached-reader.ts";
import type { ControllerContext } from "./context.ts";

/** When things came into their present state, as far as that has been seen: nothing in the store says so for every phase. */
class StateBeginnings {
  #known = new Map<string, { state: string; at: number }>();
  #next = new Map<string, { state: string; at: number }>();

  /** @param earliest where the store knows when it began, in ms @returns seconds of Unix time */
  of(name: string, state: string, now: number, earliest?: number): number {
    const known = this.#known.get(name);
    const at = earliest ?? (known?.state === state ? known.at : now);
    this.#next.set(name, { state, at });
    return Math.round(at / 1000);
  }

  /** Forgets what was not asked for since the last call. */
  forgetRest(): void {
    this.#known = this.#next;
    this.#next = new Map();
  }
}

/** A series for each of 100,000 tenants would be a burden for those who collect them; the API tells of every one. */
const LARGEST_DATABASES = 20;

/** Brings the gauges up to date with the store, whenever they are asked for. */
export class Gauges {
  readonly #context: ControllerContext;
  readonly #reader: CachedReader;
  readonly #tenantBeginnings = new StateBeginnings();
  readonly #shardBeginnings = new StateBeginnings();

  constructor(context: ControllerContext, reader: CachedReader) {
    this.#context = context;
    this.#reader = reader;
  }

  async update(): Promise<void> {
    const { metrics, feed, clock } = this.#context;
    const tenants = [...this.#reader.values("Tenant")];
    const shards = [...this.#reader.values("Shard")];
    const [fleet] = this.#reader.values("Fleet");
    const now = clock.now();
    metrics.scrape.clear();
    this.#tenants(tenants, now);
    this.#shards(shards, tenants, now);
    this.#databases();
    this.#rollout(fleet);
    metrics.movesInProgress.set(tenants.filter(({ status }) => status.move ?? status.transition).length);
    metrics.gateways.set(feed.gateways().length);
  }

  #tenants(tenants: Tenant[], now: number): void {
    const { metrics } = this.#context;
    for (const tenant of tenants) {
      const { metadata, status } = tenant;
      const { phase, reason } = status;
      const { name } = metadata;
      const hosting = status.dedicated ? "dedicated" : "shard";
      metrics.tenants.inc({ image_tag: wantedRelease(tenant), phase, reason, hosting });
      for (const [quota, { state }] of Object.entries(status.quotas ?? {}))
        metrics.tenantQuotaReached.set({ tenant: name, quota, limit: state.toLowerCase() }, 1);
      if (status.quarantine) metrics.tenantQuarantined.set({ tenant: name }, 1);
      if (status.throttle) metrics.tenantThrottle.set({ tenant: name }, status.throttle.part);
      if (status.heavy) metrics.tenantHeavy.set({ tenant: name }, 1);
      if (status.moveFailures) metrics.tenantMoveFailures.set({ tenant: name }, status.moveFailures);
      // A tenant that sleeps, or is suspended, is as it should be.
      if (AS_IT_SHOULD_BE.has(phase)) continue;
      const since = this.#tenantBeginnings.of(name, phase, now, beginningOf(tenant));
      metrics.tenantNotReadySince.set({ tenant: name, phase, reason }, since);
    }
    this.#tenantBeginnings.forgetRest();
  }

  #databases(): void {
    const { metrics, usage } = this.#context;
    const present = [...usage.databases()].filter(([tenant]) => this.#reader.get("Tenant", tenant) !== undefined);
    const largest = present.toSorted(([, a], [, b]) => b.bytes - a.bytes).slice(0, LARGEST_DATABASES);
    for (const [tenant, { bytes, rowsWritten }] of largest) {
      metrics.tenantDatabaseBytes.set({ tenant }, bytes);
      metrics.tenantDatabaseRows.set({ tenant }, rowsWritten);
    }
  }

  #shards(shards: Shard[], tenants: Tenant[], now: number): void {
    const { metrics, policy } = this.#context;
    const { tenantsOf, tags } = occupancyOf(shards, tenants, policy);
    for (const shard of shards) {
      const { phase, reason, load } = shard.status;
      const image_tag = shard.spec.release;
      const { name } = shard.metadata;
      metrics.shards.inc({ image_tag, phase });
      metrics.shardTenants.set({ shard: name, image_tag }, tenantsOf.get(name)?.length ?? 0);
      if (load !== undefined) metrics.shardLoad.set({ shard: name, image_tag }, load);
      const { keeps } = shard.status;
      if (keeps) metrics.shardKeepsTenants.set({ shard: name, image_tag, reason: keeps.reason }, 1);
      const usage = this.#context.usage.shard(name);
      if (usage) metrics.shardMemory.set({ shard: name, image_tag }, usage.memoryRatio);
      if (usage?.suspect)
        metrics.shardMemorySuspect.set({ shard: name, tenant: usage.suspect.tenant }, usage.suspect.part);
      if (phase === "Ready") continue;
      const since = this.#shardBeginnings.of(name, phase, now);
      metrics.shardNotReadySince.set({ shard: name, image_tag, phase, reason }, since);
    }
    this.#shardBeginnings.forgetRest();
    for (const { version: image_tag, capacity, saturated } of tags) {
      metrics.capacity.set({ image_tag }, capacity);
      metrics.saturated.set({ image_tag }, saturated ? 1 : 0);
    }
    // Image tags come and go, and with them shards' names: their counters must not stay forever.
    const present = new Set(shards.map(({ metadata }) => metadata.name));
    metrics.shardRestarts.keep(present);
    metrics.shardStalls.keep(present);
  }

  #rollout(fleet: Fleet | undefined): void {
    if (!fleet) return;
    const { metrics } = this.#context;
    const { phase, release, previousRelease, wave, waves, total, updated, failed } = fleet.status;
    for (const known of Object.keys(FLEET_PHASES)) metrics.rolloutPhase.set({ phase: known }, known === phase ? 1 : 0);
    // Before the first rollout there is none to report.
    if (release !== "") metrics.rolloutInfo.set({ image_tag: release, previous_image_tag: previousRelease ?? "" }, 1);
    metrics.rolloutWave.set(wave);
    metrics.rolloutWaves.set(waves);
    metrics.rolloutTenants.set(total);
    metrics.rolloutTenantsUpdated.set(updated);
    metrics.rolloutTenantsFailed.set(failed.length);
  }
}

const AS_IT_SHOULD_BE: ReadonlySet<TenantPhase> = new Set(["Running", "Asleep", "FallingAsleep", "Suspended"]);

/** When it came into its phase, in ms, where the store says so: then another leader knows it as well. */
function beginningOf({ metadata, status }: Tenant): number | undefined {
  if (metadata.deletionTimestamp !== undefined) return Date.parse(metadata.deletionTimestamp);
  const move = status.move ?? status.transition ?? status.wake;
  if (move) return Date.parse(move.requestedAt);
  // It never ran: it has been waiting since it was made.
  return !hasStarted(status) && status.phase !== "Failed" ? Date.parse(metadata.creationTimestamp) : undefined;
}
