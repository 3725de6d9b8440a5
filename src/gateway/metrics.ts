import { Counter, Gauge, Histogram, Registry, collectDefaultMetrics } from "prom-client";
import { EVENT_LOOP_SAMPLE_MS } from "../model/event-loop.ts";
import { WAKE_CAUSES } from "../model/routes.ts";
import { TOPICS } from "./sleep/known-answers.ts";
import { HELD_OUTCOMES } from "./sleep/held-polls.ts";
import { PARK_OUTCOMES, type ParkOutcome } from "./parking.ts";
import { TenantCounter } from "./tenant-counter.ts";

export const GATEWAY_PREFIX = "synapse_shards_gateway_";
const PREFIX = GATEWAY_PREFIX;

export type RetryReason = "refused" | "cut" | "misdirected" | "moved" | "database";
export type UpstreamError = "timeout" | "cut" | "half";
/** The bound that was reached. */
export type WaitBound = "requests" | "bytes" | "seconds";

/** What metrics are read from when they are asked for. */
export interface MetricSources {
  parked(): Iterable<[tenant: string, size: number]>;
  parkedSeconds(): Iterable<[tenant: string, seconds: number]>;
  oldestParkSeconds(): number;
  /** A tenant may be there more than once. */
  queued(): Iterable<[tenant: string, size: number]>;
  inFlight(): number;
  heldBytes(): number;
  connections(): number;
  routes(): number;
  heldPolls(): number;
  rememberedBytes(): number;
  hasRoute(tenant: string): boolean;
}

/** Every metric of the gateway; docs/metrics.md is made from it. Only tenants that have a route become labels. */
export class GatewayMetrics {
  readonly registry = new Registry();
  readonly #registers = [this.registry];
  readonly #byTenant: TenantCounter<never>[] = [];

  readonly answered: TenantCounter<string>;
  readonly refused = new Counter({
    name: `${PREFIX}refused_total`,
    help: "Requests that were answered without a tenant, by status",
    labelNames: ["status"],
    registers: this.#registers,
  });
  readonly connectionsRefused = new Counter({
    name: `${PREFIX}connections_refused_total`,
    help: "Connections that were closed at once, by the bound that was reached: address (maxConnectionsPerAddress), total (file descriptors)",
    labelNames: ["bound"],
    registers: this.#registers,
  });
  readonly parkSeconds = new Histogram({
    name: `${PREFIX}park_seconds`,
    help: "How long requests waited for their tenant",
    buckets: [0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60],
    registers: this.#registers,
  });
  readonly #parks = new Counter({
    name: `${PREFIX}parks_total`,
    help: "Requests that waited for their tenant, or would have, by how it ended: sent, timeout, full (no room to wait), failed (the tenant became unavailable), left (the client went away)",
    labelNames: ["outcome"],
    registers: this.#registers,
  });
  readonly #requestSeconds = new Histogram({
    name: `${PREFIX}request_seconds`,
    help: "From a request's arrival to the end of its answer, parked time included. kind: computing; waiting for what does not count for the fair share (long polls, media)",
    labelNames: ["kind"],
    buckets: [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60],
    registers: this.#registers,
  });
  // Made once: finding them by their labels at each request costs time.
  readonly #computing = this.#requestSeconds.labels("computing");
  readonly #waiting = this.#requestSeconds.labels("waiting");
  readonly parkRejected: TenantCounter<WaitBound>;
  readonly shareSeconds = new Histogram({
    name: `${PREFIX}share_seconds`,
    help: "How long requests waited for their turn because of maxInFlightPerTenant; those that did not are not in it",
    buckets: [0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30],
    registers: this.#registers,
  });
  readonly shareRejected: TenantCounter<WaitBound>;
  readonly retries: TenantCounter<RetryReason>;
  readonly upstreamErrors: TenantCounter<UpstreamError>;
  readonly wakes = new Counter({
    name: `${PREFIX}wakes_total`,
    help: "Wakes that were asked for, by why: request (of a client), poll (that may have missed something), federation (a request of another server)",
    labelNames: ["why"],
    registers: this.#registers,
  });
  readonly fromMemory = new Counter({
    name: `${PREFIX}memory_answers_total`,
    help: "Requests for tenants that sleep that were answered without waking them, by what was asked: poll (nothing new), unrecognized (404, no homeserver serves it), or a question to any homeserver",
    labelNames: ["what"],
    registers: this.#registers,
  });
  readonly polls = new Counter({
    name: `${PREFIX}held_polls_total`,
    help: "Polls that were held while their tenant slept, by how it ended: answered (nothing new in its time), passed (the tenant woke), doubted (something may be new, so it woke the tenant), failed (the tenant cannot be woken), left (the client went away)",
    labelNames: ["outcome"],
    registers: this.#registers,
  });
  readonly routesVersion = new Gauge({
    name: `${PREFIX}routes_version`,
    help: "Version of the routes in use, as the controller counts; -1: only those from disk",
    registers: this.#registers,
  });
  readonly feedConnected = new Gauge({
    name: `${PREFIX}feed_connected`,
    help: "1 while the controller's route feed is open",
    registers: this.#registers,
  });

  constructor(sources: MetricSources) {
    const byTenant = <Value extends string>(name: string, label: string, help: string): TenantCounter<Value> => {
      const hasRoute = sources.hasRoute.bind(sources);
      const counter = new TenantCounter<Value>(this.registry, { name: `${PREFIX}${name}`, label, help, hasRoute });
      this.#byTenant.push(counter);
      return counter;
    };
    this.routesVersion.set(-1);
    this.feedConnected.set(0);
    for (const outcome of Object.keys(PARK_OUTCOMES)) this.#parks.inc({ outcome }, 0);
    for (const why of Object.keys(WAKE_CAUSES)) this.wakes.inc({ why }, 0);
    for (const what of ["poll", "unrecognized", ...TOPICS]) this.fromMemory.inc({ what }, 0);
    for (const outcome of HELD_OUTCOMES) this.polls.inc({ outcome }, 0);
    for (const kind of ["computing", "waiting"]) this.#requestSeconds.zero({ kind });
    const parked = new Gauge({
      name: `${PREFIX}parked_requests`,
      help: "Requests that wait now",
      labelNames: ["tenant"],
      registers: [],
      collect() {
        this.reset();
        for (const [tenant, size] of sources.parked()) this.set({ tenant }, size);
      },
    });
    const parkedSeconds = new Gauge({
      name: `${PREFIX}tenant_parked_seconds`,
      help: "For how long a tenant has had waiting requests without interruption; tenants without waiting requests have no series",
      labelNames: ["tenant"],
      registers: [],
      collect() {
        this.reset();
        for (const [tenant, seconds] of sources.parkedSeconds()) this.set({ tenant }, seconds);
      },
    });
    const oldestPark = new Gauge({
      name: `${PREFIX}oldest_park_seconds`,
      help: "How long the request that waits longest for its tenant has waited, 0 if none waits",
      registers: [],
      collect() {
        this.set(sources.oldestParkSeconds());
      },
    });
    const queued = new Gauge({
      name: `${PREFIX}share_waiting_requests`,
      help: "Requests that wait for their turn now, because their tenant has maxInFlightPerTenant in flight",
      labelNames: ["tenant"],
      registers: [],
      collect() {
        this.reset();
        for (const [tenant, size] of sources.queued()) this.inc({ tenant }, size);
      },
    });
    const inFlight = new Gauge({
      name: `${PREFIX}requests_in_flight`,
      help: "Requests of tenants that are not answered yet, parked ones and long polls included",
      registers: [],
      collect() {
        this.set(sources.inFlight());
      },
    });
    const held = new Gauge({
      name: `${PREFIX}held_bytes`,
      help: "Memory taken by requests that wait or whose bodies are kept; bounded by maxHeldBytes",
      registers: [],
      collect() {
        this.set(sources.heldBytes());
      },
    });
    const connections = new Gauge({
      name: `${PREFIX}client_connections`,
      help: "Connections of clients that are open, idle ones included",
      registers: [],
      collect() {
        this.set(sources.connections());
      },
    });
    const routes = new Gauge({
      name: `${PREFIX}routes`,
      help: "Tenants with a route",
      registers: [],
      collect() {
        this.set(sources.routes());
      },
    });
    const heldPolls = new Gauge({
      name: `${PREFIX}held_polls`,
      help: "Polls that are held now, as their tenants sleep and nothing is new; bounded by sleeping.maxHeldPolls",
      registers: [],
      collect() {
        this.set(sources.heldPolls());
      },
    });
    const remembered = new Gauge({
      name: `${PREFIX}remembered_bytes`,
      help: "Memory taken by answers that may be given again while tenants sleep; bounded by sleeping.maxRememberedBytes",
      registers: [],
      collect() {
        this.set(sources.rememberedBytes());
      },
    });
    this.parkRejected = byTenant<WaitBound>(
      "park_rejected_total",
      "bound",
      "Requests that could not wait (any longer), by the bound that was reached: requests, bytes, seconds",
    );
    this.shareRejected = byTenant<WaitBound>(
      "share_rejected_total",
      "bound",
      "Requests that could not wait for their turn (any longer), by the bound that was reached: requests, bytes, seconds",
    );
    this.retries = byTenant<RetryReason>(
      "upstream_retries_total",
      "reason",
      "Attempts that failed and were repeated. refused: no connection; cut: the connection broke before the answer; misdirected: another tenant has the port; moved: the route left the address before the answer; database: the homeserver's database was away",
    );
    this.upstreamErrors = byTenant<UpstreamError>(
      "upstream_errors_total",
      "reason",
      "Requests that the homeserver did not answer to the end. timeout: answered with 504; cut: the connection broke, answered with 502; half: it broke within the answer",
    );
    this.answered = byTenant<string>(
      "requests_total",
      "code",
      "Requests of tenants that were answered, by status class; aborted: the client went away or the connection broke",
    );
    for (const metric of [
      parked,
      parkedSeconds,
      oldestPark,
      queued,
      inFlight,
      held,
      connections,
      routes,
      heldPolls,
      remembered,
    ])
      this.registry.registerMetric(metric);
    collectDefaultMetrics({
      register: this.registry,
      prefix: PREFIX,
      eventLoopMonitoringPrecision: EVENT_LOOP_SAMPLE_MS,
    });
  }

  parked(outcome: ParkOutcome, seconds: number): void {
    this.#parks.inc({ outcome });
    if (outcome !== "full") this.parkSeconds.observe(seconds);
  }

  /** @param computing what counts for the fair share */
  took(computing: boolean, seconds: number): void {
    (computing ? this.#computing : this.#waiting).observe(seconds);
  }

  /** Drops the series of a tenant that is gone. */
  forget(tenant: string): void {
    for (const counter of this.#byTenant) counter.forget(tenant);
  }
}
