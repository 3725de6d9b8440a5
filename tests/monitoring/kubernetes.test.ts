import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { request } from "undici";
import { alertsIn, ofKind, renderChart } from "./support/chart.ts";
import { discover, scrapeConfigs } from "./support/discovery.ts";
import { Installation } from "./support/kubernetes.ts";
import { askPanels } from "./support/panels.ts";
import { Prometheus } from "./support/prometheus.ts";
import { onPath, prometheusTool, run, skipped } from "./support/tools.ts";

vi.setConfig({ testTimeout: 480_000, hookTimeout: 480_000 });

const RUNBOOKS = resolve(import.meta.dirname, "../../docs/runbooks");
const kubeconfig = process.env["KUBECONFIG"];
const program = await prometheusTool("prometheus");
const why =
  kubeconfig === undefined || onPath("helm") === undefined
    ? "skipped: there is no cluster (KUBECONFIG), or no helm"
    : program === undefined
      ? skipped
      : "";

describe.skipIf(why !== "")(`the chart on a cluster, scraped by a real Prometheus ${why}`, () => {
  const installation = new Installation();
  const { namespace, release } = installation;
  let scratch: string;
  let prometheus: Prometheus;

  beforeAll(async () => {
    scratch = await mkdtemp(join(tmpdir(), "monitoring-"));
    await installation.install({
      "controller.resources.requests.cpu": "10m",
      "gateway.resources.requests.cpu": "10m",
      "shard.resources.requests.cpu": "10m",
    });
    const objects = await renderChart({ namespace, release });
    const monitors = [...ofKind(objects, "ServiceMonitor"), ...ofKind(objects, "PodMonitor")];
    const rules = ofKind(objects, "PrometheusRule")[0]!.spec as object;
    const targets = join(scratch, "targets.json");
    await discover(installation, targets);
    prometheus = await Prometheus.start(program!, scrapeConfigs(monitors, targets), { rules });
    await installation.createTenant("a");
    await discover(installation, targets);
    await useTenant(namespace, "a.example");
  });
  afterAll(async () => {
    await prometheus?.stop();
    await installation.remove();
    await rm(scratch, { recursive: true });
  });

  test("monitors choose pods that exist, and ports that they have", async () => {
    const targets = await prometheus.targets();
    const found = targets.map(({ labels, health, lastError }) =>
      `${labels["component"]} ${health} ${lastError}`.trim(),
    );
    expect(found.toSorted()).toEqual(["controller up", "controller up", "gateway up", "gateway up", "shard up"]);
    const shard = targets.find(({ labels }) => labels["component"] === "shard")!.labels;
    expect(shard).toMatchObject({ namespace, cluster_id: release, shard: "1.163.2-0", image_tag: "1.163.2" });
  });

  test("every panel has an expression with data", async () => {
    const answers = await askPanels(prometheus, { namespace, clusterId: release });
    expect(answers.filter(({ series, mayBeEmpty }) => series === 0 && !mayBeEmpty)).toEqual([]);
  });

  test("Prometheus evaluates every alert, and none fires while all is well", async () => {
    const alerts = alertsIn(ofKind(await renderChart({ namespace, release }), "PrometheusRule")[0]!);
    for (const { expr } of alerts) await prometheus.query(expr);
    const rules = await prometheus.rules();
    expect(rules.map(({ name }) => name).toSorted()).toEqual(alerts.map(({ alert }) => alert).toSorted());
    expect(rules.filter(({ state, health }) => state !== "inactive" || health !== "ok")).toEqual([]);
  });

  test("commands of the runbooks work", async () => {
    const preamble = codeOf(await readFile(join(RUNBOOKS, "README.md"), "utf8"));
    for (const page of (await readdir(RUNBOOKS)).filter((name) => name.startsWith("SynapseShards"))) {
      const text = await readFile(join(RUNBOOKS, page), "utf8");
      const diagnosis = codeOf(text.slice(text.indexOf("## Diagnosis"), text.indexOf("## Mitigation")))
        .replaceAll("TENANT", "a")
        .replaceAll("SHARD", "1.163.2-0")
        .replaceAll("system:serviceaccount:shards:", `system:serviceaccount:${namespace}:`)
        .replaceAll("-n shards", `-n ${namespace}`);
      const script = `set -euo pipefail\n${preamble.replaceAll("-n shards", `-n ${namespace}`)}\n${diagnosis}`;
      await expect(run("bash", ["-c", script]), page).resolves.toBeDefined();
    }
  });

  test("logs are JSON lines", async () => {
    for (const component of ["controller", "gateway", "shard"]) {
      const log = await installation.kubectl("logs", "-l", `app.kubernetes.io/component=${component}`, "--tail=200");
      const lines = log.split("\n").filter((line) => line !== "");
      expect(lines.length, component).toBeGreaterThan(0);
      for (const line of lines) expect(() => JSON.parse(line) as unknown, `${component}: ${line}`).not.toThrow();
    }
  });

  test("a tenant that fails on a real cluster sets off an alert", async () => {
    await installation.sql("ALTER ROLE a PASSWORD 'other'");
    await installation.kubectl("delete", "pod", "-l", "app.kubernetes.io/component=shard");
    const failed = `synapse_shards_controller_tenant_not_ready_since_timestamp_seconds{namespace="${namespace}",tenant="a",phase="Failed"}`;
    await vi.waitFor(async () => expect(await prometheus.query(failed)).toHaveLength(1), {
      timeout: 180_000,
      interval: 1000,
    });
    const [sample] = await prometheus.query(failed);
    expect(sample!.metric["reason"]).toBe("DatabaseAuthenticationFailed");
    await installation.sql("ALTER ROLE a PASSWORD 'pw'");
    await vi.waitFor(async () => expect(await prometheus.query(failed)).toEqual([]), {
      timeout: 120_000,
      interval: 1000,
    });
    const restarts = `sum(synapse_shards_controller_shard_restarts_total{namespace="${namespace}"})`;
    expect(Number((await prometheus.query(restarts))[0]!.value[1])).toBeGreaterThanOrEqual(1);
  });
});

/** A user who writes a few messages through the gateway's Service, so that there is something to count. */
async function useTenant(namespace: string, host: string): Promise<void> {
  const { stdout } = await run("kubectl", [
    "-n",
    namespace,
    "get",
    "service",
    "synapse-shards-gateway",
    "-o",
    "jsonpath={.spec.clusterIP}",
  ]);
  const call = async (method: "GET" | "POST" | "PUT", path: string, token = "", body?: object) => {
    const answer = await request(`http://${stdout}:8008${path}`, {
      method,
      headers: {
        host,
        "content-type": "application/json",
        ...(token === "" ? {} : { authorization: `Bearer ${token}` }),
      },
      ...(body ? { body: JSON.stringify(body) } : {}),
    });
    const text = await answer.body.text();
    if (answer.statusCode !== 200) throw new Error(`${method} ${path}: ${answer.statusCode} ${text}`);
    return JSON.parse(text) as Record<string, string>;
  };
  const account = { username: "alice", password: "correct horse battery", auth: { type: "m.login.dummy" } };
  const { access_token: token } = await call("POST", "/_matrix/client/v3/register", "", account);
  const { room_id: room } = await call("POST", "/_matrix/client/v3/createRoom", token, {});
  await request(`http://${stdout}:8008/`, { headers: { host: "nobody.example" } }).then(({ body }) => body.dump());
  // Rates need samples, and gauges of load are measured every ten seconds.
  for (let i = 0; i < 8; i += 1) {
    const message = { msgtype: "m.text", body: `message ${i}` };
    await call("PUT", `/_matrix/client/v3/rooms/${encodeURIComponent(room!)}/send/m.room.message/${i}`, token, message);
    await sleep(3000);
  }
  await call("GET", "/_matrix/client/v3/sync?timeout=0", token);
}

function codeOf(markdown: string): string {
  return [...markdown.matchAll(/^```sh\n([\s\S]*?)^```/gm)].map(([, code = ""]) => code).join("\n");
}
