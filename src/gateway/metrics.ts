import { Counter, Gauge, Histogram, Registry, collectDefaultMetrics } from "prom-client";

const PREFIX = "synapse_shards_gateway_";

/** What metrics are read from when they are asked for. */
export interface MetricSources {
  parked(): Iterable<[tenant: string, size: number]>;
  queued(): Iterable<[tenant: string, size: number]>;
  inFlight(): number;
  routes(): number;
}

/** Every metric of the gateway; docs/gateway.md has the table. Only tenants that have a route become labels. */
export class GatewayMetrics {
  readonly registry = new Registry();
  readonly #registers = [this.registry];

  /** By tenant and code. Counted at each request, which is why it does not go through the library's labels. */
  readonly #requests = new Map<string, Map<string, number>>();
  readonly refused = new Counter({
    name: `${PREFIX}refused_total`,
    help: "Requests that were answered without a tenant, by status",
    labelNames: ["status"],
    registers: this.#registers,
  });
  readonly parkSeconds = new Histogram({
    name: `${PREFIX}park_seconds`,
    help: "How long requests waited for their tenant",
    buckets: [0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60],
    registers: this.#registers,
  });
  readonly parkRejected = new Counter({
    name: `${PREFIX}park_rejected_total`,
    help: "Requests that could not wait (any longer), by the bound that was reached: requests, bytes, seconds",
    labelNames: ["tenant", "bound"],
    registers: this.#registers,
  });
  readonly shareSeconds = new Histogram({
    name: `${PREFIX}share_seconds`,
    help: "How long requests waited for their turn because of maxInFlightPerTenant; those that did not are not in it",
    buckets: [0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30],
    registers: this.#registers,
  });
  readonly shareRejected = new Counter({
    name: `${PREFIX}share_rejected_total`,
    help: "Requests that could not wait for their turn (any longer), by the bound that was reached: requests, bytes, seconds",
    labelNames: ["tenant", "bound"],
    registers: this.#registers,
  });
  readonly retries = new Counter({
    name: `${PREFIX}upstream_retries_total`,
    help: "Attempts that failed and were repeated. refused: no connection; cut: the connection broke before the answer; misdirected: another tenant has the port",
    labelNames: ["tenant", "reason"],
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
    this.routesVersion.set(-1);
    this.feedConnected.set(0);
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
    const queued = new Gauge({
      name: `${PREFIX}share_waiting_requests`,
      help: "Requests that wait for their turn now, because their tenant has maxInFlightPerTenant in flight",
      labelNames: ["tenant"],
      registers: [],
      collect() {
        this.reset();
        for (const [tenant, size] of sources.queued()) this.set({ tenant }, size);
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
    const routes = new Gauge({
      name: `${PREFIX}routes`,
      help: "Tenants with a route",
      registers: [],
      collect() {
        this.set(sources.routes());
      },
    });
    const requests = this.#requests;
    const answered = new Counter({
      name: `${PREFIX}requests_total`,
      help: "Requests of tenants that were answered, by status class; aborted: the client went away or the connection broke",
      labelNames: ["tenant", "code"],
      registers: [],
      collect() {
        this.reset();
        for (const [tenant, codes] of requests) for (const [code, count] of codes) this.inc({ tenant, code }, count);
      },
    });
    this.registry.registerMetric(answered);
    this.registry.registerMetric(parked);
    this.registry.registerMetric(queued);
    this.registry.registerMetric(inFlight);
    this.registry.registerMetric(routes);
    collectDefaultMetrics({ register: this.registry, prefix: PREFIX });
  }

  /** @param code status class, or `aborted` */
  answered(tenant: string, code: string): void {
    let codes = this.#requests.get(tenant);
    if (!codes) this.#requests.set(tenant, (codes = new Map()));
    codes.set(code, (codes.get(code) ?? 0) + 1);
  }

  /** Drops the series of a tenant that is gone. */
  forget(tenant: string): void {
    this.#requests.delete(tenant);
    for (const bound of ["requests", "bytes", "seconds"]) {
      this.parkRejected.remove({ tenant, bound });
      this.shareRejected.remove({ tenant, bound });
    }
    for (const reason of ["refused", "cut", "misdirected"]) this.retries.remove({ tenant, reason });
  }
}
