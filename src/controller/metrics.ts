import { Counter, Gauge, Histogram, type Registry } from "prom-client";
import { Scrape } from "./scrape.ts";
import { MOVE_OUTCOMES, MOVE_REASONS } from "../model/move.ts";
import { SLEEP_REASONS, WAKE_REASONS } from "../model/sleep.ts";

export const CONTROLLER_PREFIX = "synapse_shards_controller_";

/** A gauge whose series somebody else knows: they are asked for them at each scrape. */
export class AskedGauge<T extends string> {
  /** Each has the value 1. */
  ask: () => Iterable<Record<T, string>> = () => [];

  constructor(name: string, help: string, labelNames: T[], registry: Registry) {
    const series = () => this.ask();
    const gauge = new Gauge<T>({
      name,
      help,
      labelNames,
      registers: [],
      collect() {
        this.reset();
        for (const labels of series()) this.set(labels as Partial<Record<T, string>>, 1);
      },
    });
    registry.registerMetric(gauge);
  }
}

/** A counter by shard. Each shard that is there has a series, and a count that comes after its end brings none back. */
export class ShardCounter {
  readonly #counts = new Map<string, number>();

  constructor(name: string, help: string, registry: Registry, scrape: Scrape) {
    const counts = this.#counts;
    const counter = new Counter({
      name,
      help,
      labelNames: ["shard"],
      registers: [],
      async collect() {
        await scrape.refresh();
        this.reset();
        for (const [shard, count] of counts) this.inc({ shard }, count);
      },
    });
    registry.registerMetric(counter);
  }

  inc(shard: string): void {
    this.#counts.set(shard, (this.#counts.get(shard) ?? 0) + 1);
  }

  /** @param present at this scrape: only these are told */
  keep(present: ReadonlySet<string>): void {
    for (const shard of this.#counts.keys()) if (!present.has(shard)) this.#counts.delete(shard);
    for (const shard of present) if (!this.#counts.has(shard)) this.#counts.set(shard, 0);
  }
}

/** Every metric of the controller, in one place; docs/metrics.md is made from it. The prefix is the product's. */
export function createControllerMetrics(registry: Registry) {
  const name = (rest: string) => `${CONTROLLER_PREFIX}${rest}`;
  const registers = [registry];
  const scrape = new Scrape();
  /** A gauge of the store's content: read when it is asked for, and at no other time. */
  const stored = <T extends string = never>(rest: string, help: string, labelNames: T[] = []) => {
    const gauge = new Gauge<T>({ name: name(rest), help, labelNames, registers, collect: () => scrape.refresh() });
    scrape.own(gauge, labelNames);
    return gauge;
  };
  return {
    scrape,
    leader: new Gauge({
      name: name("leader"),
      help: "1 on the leading replica, 0 on a standby",
      registers,
    }),
    tenants: stored("tenants", "Tenants by image tag, phase, reason, and where they run: on a shard, or dedicated", [
      "image_tag",
      "phase",
      "reason",
      "hosting",
    ]),
    archiveLag: new Gauge({
      name: name("archive_lag_seconds"),
      help: "How long ago everything that was committed then was in the backup target, where moments between backups are kept (backups.pointInTime); otherwise 0",
      registers,
    }),
    tenantNotReadySince: stored(
      "tenant_not_ready_since_timestamp_seconds",
      "Since when a tenant that is not Running has been in its phase, in seconds of Unix time, as far as this leader knows; tenants that run have no series",
      ["tenant", "phase", "reason"],
    ),
    sleeps: startedAtZero(
      new Counter({
        name: name("sleeps_total"),
        help: "Tenants that fell asleep, by reason: Idle, Done, PlacesNeeded, Requested, Renamed",
        labelNames: ["reason"],
        registers,
      }),
      Object.keys(SLEEP_REASONS).map((reason) => ({ reason })),
    ),
    absences: new Counter({
      name: name("absences_total"),
      help: "Tenants that were away unplanned for more than a minute and told other servers that they are back",
      registers,
    }),
    wakes: startedAtZero(
      new Counter({
        name: name("wakes_total"),
        help: "Tenants that were woken and run, by reason: request, poll, federation, due, operator",
        labelNames: ["reason"],
        registers,
      }),
      Object.keys(WAKE_REASONS).map((reason) => ({ reason })),
    ),
    wakeFailures: new Counter({
      name: name("wake_failures_total"),
      help: "Starts of tenants that are woken that failed, by reason",
      labelNames: ["reason"],
      registers,
    }),
    wakeSeconds: new Histogram({
      name: name("wake_seconds"),
      help: "From when a tenant is wanted awake until it runs",
      buckets: [0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60],
      registers,
    }),
    tenantQuarantined: stored(
      "tenant_quarantined",
      "1 for a tenant that runs on a shard of its own until somebody lifts its quarantine",
      ["tenant"],
    ),
    tenantThrottle: stored(
      "tenant_throttle_ratio",
      "Part of its requests in flight that gateways let through of a tenant that takes more than its CPU budget; others have no series",
      ["tenant"],
    ),
    tenantHeavy: stored(
      "tenant_heavy",
      "1 for a tenant that exceeded its CPU budget long enough to get a shard of its own",
      ["tenant"],
    ),
    tenantDatabaseBytes: stored(
      "tenant_database_bytes",
      "Size of a tenant's database on our own server, of the 20 largest",
      ["tenant"],
    ),
    tenantDatabaseRows: stored(
      "tenant_database_rows_written",
      "Rows inserted, changed and deleted in one of the 20 largest databases since the server's statistics began",
      ["tenant"],
    ),
    tenantMoveFailures: stored(
      "tenant_move_failures",
      "Moves of a tenant rolled back in a row; tenants whose last move went well have no series",
      ["tenant"],
    ),
    tenantSecretUnreadable: new AskedGauge(
      name("tenant_secret_unreadable"),
      "1 for a tenant whose configuration or keys cannot be read from their Secrets, by reason; what runs of it goes on. On Kubernetes only",
      ["tenant", "reason"],
      registry,
    ),
    shards: stored("shards", "Shards by image tag and phase", ["image_tag", "phase"]),
    shardNotReadySince: stored(
      "shard_not_ready_since_timestamp_seconds",
      "Since when a shard that is not Ready has been in its phase, in seconds of Unix time, as far as this leader knows; shards that are ready have no series",
      ["shard", "image_tag", "phase", "reason"],
    ),
    shardTenants: stored("shard_tenants", "Tenants assigned to a shard", ["shard", "image_tag"]),
    shardLoad: stored(
      "shard_load_ratio",
      "Share of one core that a shard used of late; it cannot use more than about 1",
      ["shard", "image_tag"],
    ),
    shardKeepsTenants: stored(
      "shard_keeps_tenants",
      "1 for a shard that keeps its tenants although it takes much, or could be given up, by the reason; others have no series",
      ["shard", "image_tag", "reason"],
    ),
    shardMemory: stored("shard_memory_ratio", "Part of the memory that a shard may have; none where it has no limit", [
      "shard",
      "image_tag",
    ]),
    shardMemorySuspect: stored(
      "shard_memory_suspect_ratio",
      "While a shard's memory is high: the tenant that has most of what its tenants hold in caches and had through it of late, and that part",
      ["shard", "tenant"],
    ),
    capacity: stored(
      "capacity",
      "Tenants that the shards of an image tag can hold at the most, with maxShardsPerSynapseImageTag of them",
      ["image_tag"],
    ),
    saturated: stored("saturated", "1 when every shard of the image tag is full and no more may be made", [
      "image_tag",
    ]),
    moves: startedAtZero(
      new Counter({
        name: name("moves_total"),
        help: "Moves ended, by reason and outcome: Succeeded, RolledBack (the target could not start it), Refused (nothing was stopped), Interrupted (something else was away; retried)",
        labelNames: ["reason", "outcome"],
        registers,
      }),
      MOVE_REASONS.flatMap((reason) => Object.keys(MOVE_OUTCOMES).map((outcome) => ({ reason, outcome }))),
    ),
    migrations: startedAtZero(
      new Counter({
        name: name("migrations_total"),
        help: "Tenants that went over between a shard and a dedicated Synapse, by where they went: shard, dedicated; in moves_total their reason is Dedicated",
        labelNames: ["to"],
        registers,
      }),
      [{ to: "shard" }, { to: "dedicated" }],
    ),
    blackout: new Histogram({
      name: name("move_blackout_seconds"),
      help: "Time of a move in which neither shard served the tenant",
      buckets: [0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30],
      registers,
    }),
    movesInProgress: stored(
      "moves_in_progress",
      "Moves under way, those between shards and a dedicated Synapse included",
    ),
    tenantStarts: new Counter({
      name: name("tenant_starts_total"),
      help: "Attempts to start a tenant, by result (ok, or the reason of the failure)",
      labelNames: ["result"],
      registers,
    }),
    tenantStartSeconds: new Histogram({
      name: name("tenant_start_seconds"),
      help: "Time to start a tenant on its shard",
      buckets: [0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30],
      registers,
    }),
    shardStalls: new ShardCounter(
      name("shard_stalls_total"),
      "Shards that were ended because a tenant's code held up their reactor",
      registry,
      scrape,
    ),
    shardRestarts: new ShardCounter(
      name("shard_restarts_total"),
      "Ends of a shard's process that were not asked for, as far as this leader saw them",
      registry,
      scrape,
    ),
    planSeconds: new Histogram({
      name: name("plan_seconds"),
      help: "Time to make a plan",
      buckets: [0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5],
      registers,
    }),
    actions: new Counter({
      name: name("actions_total"),
      help: "Actions of the planner carried out, by kind",
      labelNames: ["action"],
      registers,
    }),
    reconcileErrors: startedAtZero(
      new Counter({
        name: name("reconcile_errors_total"),
        help: "Reconciliations that ended in an unexpected error and are tried again",
        labelNames: ["kind"],
        registers,
      }),
      [{ kind: "Tenant" }, { kind: "Shard" }, { kind: "Plan" }],
    ),
    certificates: new Gauge({
      name: name("certificates"),
      help: "Names whose certificate the cluster looks after, by state: Valid, Ordering, Waiting, Failed, Ended",
      labelNames: ["state"],
      registers,
    }),
    certificateSoonestEnd: new Gauge({
      name: name("certificate_soonest_end_timestamp_seconds"),
      help: "When the first of these certificates ends, in seconds of Unix time; 0 where there is none",
      registers,
    }),
    certificatesEndingSoon: new Gauge({
      name: name("certificates_ending_soon"),
      help: "Certificates of which less than a fifth of their life is left, and which are not renewed",
      registers,
    }),
    certificateOrders: new Counter({
      name: name("certificate_orders_total"),
      help: "Orders of certificates, by outcome: issued, failed, limited (the authority wants no more for a while)",
      labelNames: ["outcome"],
      registers,
    }),
    gateways: stored("gateways", "Gateways connected to the route feed"),
    tenantQuotaReached: stored(
      "tenant_quota_reached",
      "1 for each quota of a tenant whose soft or hard limit is reached, by that limit",
      ["tenant", "quota", "limit"],
    ),
    rolloutPhase: stored("rollout_phase", "1 for the phase in which the fleet's rollout is, 0 for the others", [
      "phase",
    ]),
    rolloutInfo: stored("rollout_info", "1; the labels are the image tag that the rollout brings, and the one before", [
      "image_tag",
      "previous_image_tag",
    ]),
    rolloutWave: stored("rollout_wave", "The wave under way, from 0 (canaries)"),
    rolloutWaves: stored("rollout_waves", "Waves of the rollout"),
    rolloutTenants: stored("rollout_tenants", "Tenants that follow the fleet"),
    rolloutTenantsUpdated: stored("rollout_tenants_updated", "Tenants that follow the fleet and have its image tag"),
    rolloutTenantsFailed: stored(
      "rollout_tenants_failed",
      "Tenants that failed under the new image tag, or could not be moved to it",
    ),
  };
}
export type ControllerMetrics = ReturnType<typeof createControllerMetrics>;

function startedAtZero<T extends string>(counter: Counter<T>, series: Partial<Record<T, string>>[]): Counter<T> {
  for (const labels of series) counter.inc(labels, 0);
  return counter;
}
