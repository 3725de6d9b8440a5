/** Writes docs/metrics.md from the metrics themselves: `node src/monitoring/reference.ts`. A test fails while the file is not current. */
import { writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { Registry, type Metric } from "prom-client";
import { CONTROLLER_PREFIX, createControllerMetrics } from "../controller/metrics.ts";
import { GATEWAY_PREFIX, GatewayMetrics } from "../gateway/metrics.ts";
import { SHARD_METRICS, type ShardMetric } from "./shard-metrics.ts";

export const REFERENCE_FILE = resolve(import.meta.dirname, "../../docs/metrics.md");

const INTRODUCTION = `# Metrics

Made by \`node src/monitoring/reference.ts\` from the code; do not edit.

Controller, gateway and shards each serve \`GET /metrics\` in Prometheus' text format, without a token: they tell names of tenants and
numbers, nothing secret. Keep their ports within the cluster.

| part | on Kubernetes | on one machine |
| --- | --- | --- |
| controller | port \`metrics\` (9090) of the Service \`<release>-controller\`, each replica | the API's port |
| gateway | port \`metrics\` (9090) of the Service \`<release>-gateway\`, each replica | \`metrics\` of its configuration |
| shard | port \`control\` (9000) of each pod | the control API's port, in \`shard list\` |

Where the Prometheus Operator's CRDs are installed, the chart \`synapse-shards\` makes a ServiceMonitor for controller and gateway, a PodMonitor for
shards, and a PrometheusRule with alerts ([runbooks](runbooks/)). Its Grafana dashboard is a ConfigMap with the label \`grafana_dashboard: "1"\`,
which Grafana's sidecar looks for. Values: \`serviceMonitors\`, \`monitoring\`.

Who scrapes in another way has to give the targets the labels that alerts and dashboard go by: \`namespace\`, \`cluster_id\` (the name of the
release), \`component\` (\`controller\`, \`gateway\` or \`shard\`), and on shards \`shard\` and \`image_tag\`.

Only the controller that leads has the series that tell of tenants, shards and rollouts; \`max by (…)\` over all replicas is right at any time.
Series by tenant number as many as there are tenants, those by server name a few dozen for each tenant that is used; they end with it.
`;

export interface Described {
  name: string;
  type: string;
  labels: string[];
  help: string;
}

/** Of controller and gateway, without what the libraries add (`process_…`, `nodejs_…`). */
export function ownMetrics(): { controller: Described[]; gateway: Described[] } {
  const registry = new Registry();
  createControllerMetrics(registry);
  const gateway = new GatewayMetrics({
    parked: () => [],
    parkedSeconds: () => [],
    oldestParkSeconds: () => 0,
    queued: () => [],
    inFlight: () => 0,
    routes: () => 0,
  });
  const defaults = new RegExp(`^${GATEWAY_PREFIX}(process|nodejs)_`);
  return {
    controller: described(registry),
    gateway: described(gateway.registry).filter(({ name }) => !defaults.test(name)),
  };
}

function described(registry: Registry): Described[] {
  // The library tells labels of series only, and a metric without series has labels too.
  const metrics = registry.getMetricsAsArray() as unknown as (Metric & {
    labelNames: string[];
    type: string;
    help: string;
    name: string;
  })[];
  return metrics.map(({ name, type, labelNames, help }) => ({ name, type, labels: [...labelNames], help }));
}

export function reference(): string {
  const { controller, gateway } = ownMetrics();
  return [
    INTRODUCTION,
    `## Controller\n\nAll begin with \`${CONTROLLER_PREFIX}\`. Besides, \`process_…\` and \`nodejs_…\` of the process, with the same prefix.\n`,
    table(controller, CONTROLLER_PREFIX),
    `## Gateway\n\nAll begin with \`${GATEWAY_PREFIX}\`. Besides, \`process_…\` and \`nodejs_…\` of the process, with the same prefix. Only tenants that have a route become labels.\n`,
    table(gateway, GATEWAY_PREFIX),
    "## Shard\n\nOf all that Synapse counts, what is of use for many tenants at once; `server_name` says whose it is.\n",
    table(SHARD_METRICS, ""),
  ].join("\n");
}

function table(metrics: readonly (Described | ShardMetric)[], prefix: string): string {
  const rows = metrics.map(({ name, type, labels, help }) => {
    const cells = [`\`${name.slice(prefix.length)}\``, type, labels.map((label) => `\`${label}\``).join(", "), help];
    return `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  });
  return `| name | type | labels | meaning |\n| --- | --- | --- | --- |\n${rows.join("\n")}\n`;
}

if (import.meta.main) writeFileSync(REFERENCE_FILE, reference());
