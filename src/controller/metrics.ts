import { Counter, Gauge, Histogram, type Registry } from "prom-client";

/** Every metric of the controller, in one place. The prefix is the product's. */
export function createControllerMetrics(registry: Registry) {
  const name = (rest: string) => `synapse_shards_controller_${rest}`;
  const registers = [registry];
  return {
    tenants: new Gauge({
      name: name("tenants"),
      help: "Tenants by image tag, phase and reason",
      labelNames: ["image_tag", "phase", "reason"],
      registers,
    }),
    shards: new Gauge({
      name: name("shards"),
      help: "Shards by image tag and phase",
      labelNames: ["image_tag", "phase"],
      registers,
    }),
    shardTenants: new Gauge({
      name: name("shard_tenants"),
      help: "Tenants assigned to a shard",
      labelNames: ["shard", "image_tag"],
      registers,
    }),
    capacity: new Gauge({
      name: name("capacity"),
      help: "Tenants that the shards of an image tag can hold at the most, with maxShardsPerSynapseImageTag of them",
      labelNames: ["image_tag"],
      registers,
    }),
    saturated: new Gauge({
      name: name("saturated"),
      help: "1 when every shard of the image tag is full and no more may be made",
      labelNames: ["image_tag"],
      registers,
    }),
    moves: new Counter({
      name: name("moves_total"),
      help: "Moves ended, by reason and outcome",
      labelNames: ["reason", "outcome"],
      registers,
    }),
    blackout: new Histogram({
      name: name("move_blackout_seconds"),
      help: "Time of a move in which neither shard served the tenant",
      buckets: [0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30],
      registers,
    }),
    movesInProgress: new Gauge({ name: name("moves_in_progress"), help: "Moves under way", registers }),
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
    shardRestarts: new Counter({
      name: name("shard_restarts_total"),
      help: "Ends of a shard's process that were not asked for",
      labelNames: ["shard"],
      registers,
    }),
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
    reconcileErrors: new Counter({
      name: name("reconcile_errors_total"),
      help: "Reconciliations that ended in an unexpected error and are tried again",
      labelNames: ["kind"],
      registers,
    }),
    gateways: new Gauge({ name: name("gateways"), help: "Gateways connected to the route feed", registers }),
  };
}
export type ControllerMetrics = ReturnType<typeof createControllerMetrics>;
