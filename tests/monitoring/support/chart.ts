import { readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseAllDocuments, parse } from "yaml";
import { run } from "./tools.ts";

const CHART = resolve(import.meta.dirname, "../../../charts/synapse-shards");
export const MONITORING_APIS = ["ServiceMonitor", "PodMonitor", "PrometheusRule"].map(
  (kind) => `monitoring.coreos.com/v1/${kind}`,
);

export interface KubernetesObject {
  kind: string;
  metadata: { name: string; namespace?: string; labels?: Record<string, string>; annotations?: Record<string, string> };
  spec?: any;
  data?: Record<string, string>;
}

export interface AlertRule {
  alert: string;
  expr: string;
  for: string;
  labels: Record<string, string>;
  annotations: Record<string, string>;
}

/** What the chart makes, as release `synapse-shards` in namespace `shards` unless said otherwise. @throws helm's own words */
export async function renderChart(
  options: { values?: object; apis?: string[]; release?: string; namespace?: string } = {},
): Promise<KubernetesObject[]> {
  const { values = {}, apis = MONITORING_APIS, release = "synapse-shards", namespace = "shards" } = options;
  const directory = await mkdtemp(join(tmpdir(), "chart-"));
  try {
    const valuesFile = join(directory, "values.json");
    await writeFile(valuesFile, JSON.stringify(values));
    const args = ["template", release, CHART, "--namespace", namespace, "--values", valuesFile];
    const { stdout } = await run("helm", [...args, ...apis.flatMap((api) => ["--api-versions", api])], {
      maxBuffer: 64 * 1024 * 1024,
    });
    return parseAllDocuments(stdout).flatMap((document) => (document.toJS() as KubernetesObject | null) ?? []);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

export function ofKind(objects: KubernetesObject[], kind: string): KubernetesObject[] {
  return objects.filter((object) => object.kind === kind);
}

export function alertsIn(rule: KubernetesObject): AlertRule[] {
  return (rule.spec.groups as { rules: AlertRule[] }[]).flatMap(({ rules }) => rules);
}

export interface Panel {
  id: number;
  title: string;
  type: string;
  datasource?: unknown;
  gridPos: { x: number; y: number; w: number; h: number };
  targets?: { expr: string; legendFormat: string }[];
}

export interface Dashboard {
  uid: string;
  panels: Panel[];
  templating: { list: { name: string; definition?: string }[] };
}

/** As the chart ships it. */
export function readDashboard(): Dashboard {
  return JSON.parse(readFileSync(join(CHART, "files/dashboard.json"), "utf8")) as Dashboard;
}

/** The texts of the alerts' expressions, before the chart fills in what differs from release to release. */
export function readAlertTemplates(): AlertRule[] {
  const { groups } = parse(readFileSync(join(CHART, "files/alerts.yaml"), "utf8")) as {
    groups: { rules: AlertRule[] }[];
  };
  return groups.flatMap(({ rules }) => rules);
}
