import { beforeAll, describe, expect, test } from "vitest";
import { ApiServer, apiServerPrograms } from "./support/api-server.ts";
import { MONITORING_APIS, ofKind, readDashboard, renderChart } from "./support/chart.ts";
import { operatorCrds } from "./support/operator-crds.ts";
import { onPath } from "./support/tools.ts";

const noHelm = onPath("helm") === undefined;

describe.skipIf(noHelm)(`monitoring in the chart ${noHelm ? "skipped: there is no helm on the PATH" : ""}`, () => {
  test("installs without the Prometheus Operator", async () => {
    const objects = await renderChart({ apis: [] });
    for (const kind of ["ServiceMonitor", "PodMonitor", "PrometheusRule"]) expect(ofKind(objects, kind)).toEqual([]);
    expect(ofKind(objects, "ConfigMap").map(({ metadata }) => metadata.name)).toContain("synapse-shards-dashboard");
  });

  test("makes only objects of CRDs that are there", async () => {
    const objects = await renderChart({ apis: ["monitoring.coreos.com/v1/PrometheusRule"] });
    expect(ofKind(objects, "PrometheusRule")).toHaveLength(1);
    expect([...ofKind(objects, "ServiceMonitor"), ...ofKind(objects, "PodMonitor")]).toEqual([]);
  });

  test("monitoring can be turned off", async () => {
    const values = {
      serviceMonitors: { enabled: false },
      monitoring: { rules: { enabled: false }, dashboard: { enabled: false } },
    };
    const objects = await renderChart({ values });
    for (const kind of ["ServiceMonitor", "PodMonitor", "PrometheusRule"]) expect(ofKind(objects, kind)).toEqual([]);
    expect(ofKind(objects, "ConfigMap").map(({ metadata }) => metadata.name)).not.toContain("synapse-shards-dashboard");
  });

  test("labels what an operator or a sidecar looks for", async () => {
    const release = { release: "kube-prometheus-stack" };
    const values = {
      serviceMonitors: { labels: release, interval: "15s" },
      monitoring: {
        rules: { labels: release, runbookBaseUrl: "https://wiki.example/runbooks/" },
        dashboard: { namespace: "grafana", labels: { my_dashboard: "yes" }, annotations: { grafana_folder: "Matrix" } },
      },
    };
    const objects = await renderChart({ values, release: "shards-b", namespace: "b" });
    const monitors = [...ofKind(objects, "ServiceMonitor"), ...ofKind(objects, "PodMonitor")];
    expect(monitors.map(({ metadata }) => metadata.name)).toEqual([
      "shards-b-controller",
      "shards-b-gateway",
      "shards-b-shard",
    ]);
    for (const { metadata, spec } of monitors) {
      expect(metadata.labels).toMatchObject({ ...release, "app.kubernetes.io/instance": "shards-b" });
      const [endpoint] = spec.endpoints ?? spec.podMetricsEndpoints;
      expect(endpoint.interval).toBe("15s");
      expect(endpoint.relabelings).toContainEqual({ targetLabel: "cluster_id", replacement: "shards-b" });
    }
    const [rule] = ofKind(objects, "PrometheusRule");
    expect(rule!.metadata.labels).toMatchObject(release);
    expect(JSON.stringify(rule!.spec)).toContain("https://wiki.example/runbooks/SynapseShardsFull.md");
    expect(JSON.stringify(rule!.spec)).not.toContain("[[");
    const dashboard = ofKind(objects, "ConfigMap").find(({ metadata }) => metadata.name === "shards-b-dashboard")!;
    expect(dashboard.metadata).toMatchObject({
      namespace: "grafana",
      labels: { my_dashboard: "yes", grafana_dashboard: "1" },
      annotations: { grafana_folder: "Matrix" },
    });
    expect(JSON.parse(dashboard.data!["synapse-shards.json"]!)).toEqual(readDashboard());
  });
});

const programs = apiServerPrograms();
const crds = programs ? await operatorCrds() : undefined;
const why = !programs
  ? "skipped: there is no kube-apiserver and etcd on the PATH"
  : !crds
    ? "skipped: the operator's CRDs cannot be had here"
    : "";

// An API server of its own: CRDs are everybody's on a cluster, and every chart that others install meanwhile would use them.
describe.skipIf(why !== "" || noHelm)(`the chart and the Prometheus Operator's real CRDs ${why}`, () => {
  let server: ApiServer;
  beforeAll(async () => {
    server = await ApiServer.start(programs!);
    return () => server.stop();
  });

  test("a real API server with the operator's CRDs takes monitors and rules", async () => {
    const kinds = "servicemonitors,podmonitors,prometheusrules";
    await server.install("without", "first");
    await server.kubectl("apply", "--server-side", ...crds!.flatMap((file) => ["-f", file]));
    await server.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s");
    expect(await server.kubectl("get", kinds, "-A", "-o", "name")).toBe("");
    await server.install("with", "second");
    const made = (await server.kubectl("get", kinds, "-A", "-o", "name")).trim().split("\n");
    expect(made.toSorted()).toEqual([
      "podmonitor.monitoring.coreos.com/second-shard",
      "prometheusrule.monitoring.coreos.com/second",
      "servicemonitor.monitoring.coreos.com/second-controller",
      "servicemonitor.monitoring.coreos.com/second-gateway",
    ]);
    // Unknown fields would have been dropped without a word.
    const rendered = (await renderChart({ release: "second", namespace: "with" })).filter(({ metadata }) =>
      metadata.name.startsWith("second"),
    );
    for (const kind of MONITORING_APIS.map((api) => api.split("/").at(-1)!))
      for (const { metadata, spec } of ofKind(rendered, kind)) {
        const stored = JSON.parse(await server.kubectl("get", kind, metadata.name, "-n", "with", "-o", "json")) as {
          spec: unknown;
        };
        expect(stored.spec).toMatchObject(spec as object);
      }
  });
});
