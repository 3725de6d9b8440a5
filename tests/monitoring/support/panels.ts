import { readDashboard } from "./chart.ts";
import type { Prometheus } from "./prometheus.ts";

/** What has no data while all is well: failures, and what happens rarely. Everything else must have. */
const EMPTY_WHEN_WELL: ReadonlySet<string> = new Set([
  "Not running",
  "Not ready",
  "Moves that fail",
  "Errors of homeservers",
]);
/** The same of single expressions, by the metric's name; and one tenant alone has nobody to federate with. */
const EMPTY_SERIES = [
  "park_rejected_total",
  "share_rejected_total",
  "upstream_",
  "tenant_parked_seconds",
  "synapse_federation_",
  "controller_sleeps_total",
  "controller_wakes_total",
  "wake_failures_total",
];

export interface PanelAnswer {
  panel: string;
  expr: string;
  series: number;
  mayBeEmpty: boolean;
}

/** Asks Prometheus what Grafana would ask for each panel. @throws Error when Prometheus refuses an expression */
export async function askPanels(
  prometheus: Prometheus,
  release: { namespace: string; clusterId: string; without?: string[] },
): Promise<PanelAnswer[]> {
  const answers: PanelAnswer[] = [];
  for (const { title, targets = [] } of readDashboard().panels) {
    for (const { expr } of targets) {
      const filled = expr
        .replaceAll("$namespace", release.namespace)
        .replaceAll("$cluster_id", release.clusterId)
        .replaceAll("$__range", "1h");
      const [instant, range] = [await prometheus.query(filled), await prometheus.queryRange(filled, 60)];
      const mayBeEmpty =
        EMPTY_WHEN_WELL.has(title) ||
        EMPTY_SERIES.some((name) => expr.includes(name)) ||
        (release.without ?? []).some((name) => expr.includes(name));
      answers.push({ panel: title, expr: filled, series: Math.max(instant.length, range), mayBeEmpty });
    }
  }
  return answers;
}
