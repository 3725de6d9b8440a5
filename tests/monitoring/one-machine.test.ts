import { spawn } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ownMetrics, type Described } from "../../src/monitoring/reference.ts";
import { SHARD_METRICS } from "../../src/monitoring/shard-metrics.ts";
import { Cluster } from "../e2e/support/cluster.ts";
import { newUser } from "../e2e/support/matrix.ts";
import { ask } from "../gateway/harness.ts";
import { askPanels } from "./support/panels.ts";
import { freePort, Prometheus } from "./support/prometheus.ts";
import type { History } from "../../src/model/history.ts";
import { prometheusTool, skipped } from "./support/tools.ts";

const [program, promtool] = [await prometheusTool("prometheus"), await prometheusTool("promtool")];
const why = program === undefined || promtool === undefined ? skipped : "";
/** Of a homeserver with a user who does a few things: what a tenant costs Prometheus, at its shard. */
const MOST_SERIES_OF_A_TENANT = 100;

describe.skipIf(why !== "")(`a cluster on one machine, scraped by a real Prometheus ${why}`, () => {
  let cluster: Cluster;
  let prometheus: Prometheus;
  let texts: Record<"controller" | "gateway" | "shard", string>;

  beforeAll(async () => {
    const at = `127.0.0.1:${await freePort()}`;
    cluster = await Cluster.start({
      history: { prometheus: { url: `http://${at}`, labels: { cluster_id: "local" } } },
    });
    await cluster.createTenant("clinic-a");
    await cluster.json("tenant", "move", "clinic-a");
    const alice = await newUser(cluster, "clinic-a", "alice");
    const { room_id: room } = await alice.client.createRoom({ name: "Ward" });
    const port = await cluster.gatewayPort();
    await ask({ port }, "nobody.localhost");
    const [shard] = (await cluster.shards()).filter(({ tenants }) => tenants === 1);
    const urls = {
      controller: await urlIn(cluster, "controller.ready.json", "apiUrl"),
      gateway: await urlIn(cluster, "gateway.ready.json", "metrics"),
      shard: new URL(shard!.address!),
    };
    const labels = (component: string) => (component === "shard" ? { shard: shard!.name, image_tag: "1.163.2" } : {});
    prometheus = await Prometheus.start(
      program!,
      Object.entries(urls).map(([component, { host }]) => ({
        job_name: component,
        static_configs: [
          { targets: [host], labels: { namespace: "here", cluster_id: "local", component, ...labels(component) } },
        ],
      })),
      { address: at },
    );
    // Rates need samples.
    for (let i = 0; i < 40; i += 1) {
      if (i % 5 === 0) await alice.client.sendTextMessage(room, `message ${i}`);
      await ask({ port }, "clinic-a.localhost");
      await sleep(200);
    }
    const textOf = async (url: URL) => (await fetch(new URL("/metrics", url))).text();
    texts = {
      controller: await textOf(urls.controller),
      gateway: await textOf(urls.gateway),
      shard: await textOf(urls.shard),
    };
  });
  afterAll(async () => {
    await prometheus?.stop();
    await cluster?.destroy();
  });

  test("Prometheus reads the metrics, and promtool accepts their names", async () => {
    for (const [component, text] of Object.entries(texts)) {
      const { code, output } = await checkMetrics(text);
      // 3: complaints about style. Those about metrics of libraries and of Synapse are theirs.
      expect([0, 3], `${component}: ${output}`).toContain(code);
      const theirs = /^(synapse_(?!shards_)|python_|process_)|_(nodejs|process)_/;
      expect(
        output.split("\n").filter((line) => line !== "" && !theirs.test(line)),
        component,
      ).toEqual([]);
    }
  });

  test("the reference has what is served", () => {
    const own = ownMetrics();
    expectAsDescribed(texts.controller, own.controller);
    expectAsDescribed(texts.gateway, own.gateway);
    expectAsDescribed(texts.shard, SHARD_METRICS);
  });

  test("bounds the series of a tenant", () => {
    const ofTenant = texts.shard.split("\n").filter((line) => line.includes('server_name="clinic-a.localhost"'));
    expect(ofTenant.length).toBeGreaterThan(5);
    expect(ofTenant.length).toBeLessThan(MOST_SERIES_OF_A_TENANT);
    const byTenant = (text: string) => text.split("\n").filter((line) => line.includes('tenant="clinic-a"'));
    // Of the largest databases alone.
    const ofDatabases = "synapse_shards_controller_tenant_database_";
    expect(byTenant(texts.controller).filter((line) => !line.startsWith(ofDatabases))).toEqual([]);
    expect(byTenant(texts.gateway).length).toBeLessThan(20);
  });

  test("every panel has an expression with data", async () => {
    expect((await prometheus.targets()).map(({ health, lastError }) => health + lastError)).toEqual(["up", "up", "up"]);
    // One machine has no rollouts.
    const answers = await askPanels(prometheus, { namespace: "here", clusterId: "local", without: ["rollout_"] });
    expect(answers.filter(({ series, mayBeEmpty }) => series === 0 && !mayBeEmpty)).toEqual([]);
    expect(answers.filter(({ series }) => series > 0).length).toBeGreaterThan(40);
  });

  // Ends Prometheus.
  test("the plots come from it, and from the controller's own history while it is away", async () => {
    const latest = ({ series }: History) => {
      const last = ({ values }: History["series"][number]) => values.findLast((value) => value !== null);
      return Object.fromEntries(series.map((one) => [one.name, last(one)]));
    };
    const plots = async (query: string) => (await cluster.api("GET", `/v1/history?${query}`)).body as History;
    const found = await plots("range=hour");
    expect(found).toMatchObject({ source: "prometheus", stepSeconds: 60 });
    expect(latest(found)).toMatchObject({ running: 1, failed: 0, placesTaken: 1 });
    expect(latest(found)["memory"]).toBeGreaterThan(50e6);
    const [shard] = (await cluster.shards()).filter(({ tenants }) => tenants === 1);
    const ofShard = await plots(`range=hour&shard=${shard!.name}`);
    expect(ofShard).toMatchObject({ source: "prometheus", series: [{ name: "load" }, { name: "memory" }] });
    await prometheus.stop();
    const own = await plots("range=day");
    expect(own).toMatchObject({ source: "controller", problem: expect.stringContaining("cannot be reached") });
    expect((await cluster.cli("history", "--range", "day")).stderr).toContain("the controller's own history");
  });
});

async function urlIn(cluster: Cluster, file: string, key: string): Promise<URL> {
  const ready = JSON.parse(await readFile(join(cluster.dataDir, file), "utf8")) as Record<string, string>;
  return new URL(ready[key]!);
}

function checkMetrics(text: string): Promise<{ code: number | null; output: string }> {
  return new Promise((done, reject) => {
    const child = spawn(promtool!, ["check", "metrics"]);
    let output = "";
    child.stderr.on("data", (chunk) => (output += chunk));
    child.stdout.on("data", (chunk) => (output += chunk));
    child.on("error", reject);
    child.on("close", (code) => done({ code, output }));
    child.stdin.end(text);
  });
}

/** What is served is described, with its type; labels are those described. What has no series at present may be missing. */
function expectAsDescribed(text: string, described: Pick<Described, "name" | "type" | "labels">[]): void {
  const types = new Map([...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(([, name, type]) => [name!, type!]));
  const served = [...types].filter(([name]) => !/_(nodejs|process)_|_created$/.test(name));
  const known = new Map(described.map((metric) => [metric.name, metric]));
  expect(served.map(([name]) => name).filter((name) => !known.has(name))).toEqual([]);
  for (const [name, type] of served) expect([name, known.get(name)!.type]).toEqual([name, type]);
  const labelled = [...text.matchAll(/^([a-z_]+)\{([^}]*)\} /gm)].flatMap(([, name = "", list = ""]) => {
    const metric = known.get(name) ?? known.get(name.replace(/_(bucket|sum|count)$/, ""));
    const labels = [...list.matchAll(/([a-z_]+)="/g)].map(([, label]) => label!).filter((label) => label !== "le");
    return metric ? [{ name, labels: labels.toSorted(), described: metric.labels.toSorted() }] : [];
  });
  for (const { name, labels, described: expected } of labelled) expect([name, labels]).toEqual([name, expected]);
}
