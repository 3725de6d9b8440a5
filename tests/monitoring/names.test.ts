import { readFileSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { collectDefaultMetrics, Registry, type Metric } from "prom-client";
import { expect, test } from "vitest";
import { CONTROLLER_PREFIX } from "../../src/controller/metrics.ts";
import { GATEWAY_PREFIX } from "../../src/gateway/metrics.ts";
import { ownMetrics, reference, REFERENCE_FILE } from "../../src/monitoring/reference.ts";
import { SHARD_METRICS } from "../../src/monitoring/shard-metrics.ts";
import { readAlertTemplates, readDashboard } from "./support/chart.ts";

const ROOT = resolve(import.meta.dirname, "../..");
/** What scraping adds: the chart's monitors, and Prometheus itself. */
const TARGET_LABELS = ["namespace", "cluster_id", "component", "instance", "pod", "shard", "image_tag"];

/** Every metric that there is, by name, with its labels. */
function known(): Map<string, string[]> {
  const { controller, gateway } = ownMetrics();
  const metrics = new Map([["up", []] as [string, string[]]]);
  for (const { name, type, labels } of [...controller, ...gateway, ...SHARD_METRICS]) {
    if (type !== "histogram") metrics.set(name, labels);
    else for (const part of ["bucket", "sum", "count"]) metrics.set(`${name}_${part}`, [...labels, "le"]);
  }
  for (const prefix of [CONTROLLER_PREFIX, GATEWAY_PREFIX]) {
    const registry = new Registry();
    collectDefaultMetrics({ register: registry, prefix });
    const defaults = registry.getMetricsAsArray() as unknown as (Metric & { name: string; labelNames: string[] })[];
    for (const { name, labelNames } of defaults) metrics.set(name, labelNames);
  }
  return metrics;
}

/** Selectors of an expression: the metric's name, and the labels that are looked at. */
function selectors(expr: string): { name: string; labels: string[] }[] {
  return [...expr.matchAll(/([a-z_][a-z0-9_]*)\{([^}]*)\}/g)].map(([, name = "", matchers = ""]) => ({
    name,
    labels: [...matchers.matchAll(/([a-z_]+)\s*(?:=~|!~|!=|=)/g)].map(([, label = ""]) => label),
  }));
}

function grouping(expr: string): string[] {
  return [...expr.matchAll(/\b(?:by|on) \(([^)]*)\)/g)].flatMap(([, list = ""]) =>
    list.split(",").map((one) => one.trim()),
  );
}

const expressions = [
  ...readAlertTemplates().map(({ alert, expr }) => ({ where: alert, expr })),
  ...readDashboard().panels.flatMap(({ title, targets = [] }) => targets.map(({ expr }) => ({ where: title, expr }))),
];

test("alerts and panels name only metrics and labels that exist", () => {
  const metrics = known();
  for (const { where, expr } of expressions) {
    const found = selectors(expr);
    expect(found, where).not.toEqual([]);
    for (const { name, labels } of found) {
      expect(metrics.has(name), `${where}: there is a metric ${name}`).toBe(true);
      for (const label of labels)
        expect([...TARGET_LABELS, ...metrics.get(name)!], `${where}: ${name}`).toContain(label);
    }
    const labels = new Set([...TARGET_LABELS, ...found.flatMap(({ name }) => metrics.get(name)!)]);
    for (const label of grouping(expr)) expect([...labels], `${where}: ${expr}`).toContain(label);
  }
});

test("every expression is of one release", () => {
  for (const { where, expr } of expressions) {
    const ours = expr.includes("[[ selector ]]") ? "[[ selector ]]" : 'namespace="$namespace",cluster_id="$cluster_id"';
    const all = [...expr.matchAll(/\{[^}]*\}/g)].map(([matchers]) => matchers);
    expect(
      all.filter((matchers) => !matchers.startsWith(`{${ours}`)),
      where,
    ).toEqual([]);
  }
});

test("legends and texts name labels that the series have", () => {
  for (const { title, targets = [] } of readDashboard().panels)
    for (const { expr, legendFormat } of targets)
      for (const [, label] of legendFormat.matchAll(/\{\{(\w+)\}\}/g)) expect(grouping(expr), title).toContain(label);
  for (const { alert, expr, annotations } of readAlertTemplates())
    for (const text of Object.values(annotations))
      for (const [, label] of text.matchAll(/\$labels\.(\w+)/g))
        expect([...grouping(expr), "namespace", "cluster_id"], alert).toContain(label);
});

test("panels have names and places of their own", () => {
  const panels = readDashboard().panels.filter(({ type }) => type !== "row");
  const titles = panels.map(({ title }) => title);
  expect(titles).toEqual([...new Set(titles)]);
  for (const [index, { gridPos: a, title }] of panels.entries()) {
    expect(a.x + a.w, title).toBeLessThanOrEqual(24);
    for (const { gridPos: b, title: other } of panels.slice(index + 1)) {
      const apart = a.x + a.w <= b.x || b.x + b.w <= a.x || a.y + a.h <= b.y || b.y + b.h <= a.y;
      expect([title, other, apart]).toEqual([title, other, true]);
    }
  }
});

test("the reference is that of the code; `node src/monitoring/reference.ts` writes it", async () => {
  expect(await readFile(REFERENCE_FILE, "utf8")).toBe(reference());
});

test("the reference has what a shard exports", () => {
  const source = readFileSync(join(ROOT, "multi_synapse/metrics.py"), "utf8");
  const families = /EXPORTED_FAMILIES = \(([^)]*)\)/.exec(source)![1]!;
  const exported = [...families.matchAll(/"(\w+)"/g)].map(([, name = ""]) => name.replace(/_bucket$/, ""));
  const own = [
    ...readFileSync(join(ROOT, "multi_synapse/control.py"), "utf8").matchAll(
      /(?:# TYPE |\(")(multi_synapse_\w+)(?: |", "(?:counter|gauge)")/g,
    ),
  ];
  expect(SHARD_METRICS.map(({ name }) => name).toSorted()).toEqual(
    [...exported, ...own.map(([, name = ""]) => name)].toSorted(),
  );
});

test("documents name metrics that exist", async () => {
  const metrics = new Set(known().keys());
  const histograms = new Set([...metrics].map((name) => name.replace(/_bucket$/, "")));
  for (const folder of ["docs", "docs/runbooks"]) {
    for (const file of (await readdir(join(ROOT, folder))).filter((name) => name.endsWith(".md"))) {
      const text = await readFile(join(ROOT, folder, file), "utf8");
      for (const [name, star] of text.matchAll(/\bsynapse_shards_(?:controller|gateway)_[a-z][a-z0-9_]*(\*|…)?/g)) {
        const start = name.slice(0, -1);
        const exists = star
          ? [...metrics].some((one) => one.startsWith(start))
          : metrics.has(name) || histograms.has(name);
        expect(exists, `${file}: ${name}`).toBe(true);
      }
    }
  }
});
