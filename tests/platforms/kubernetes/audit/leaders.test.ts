import { spawn, type ChildProcess } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { CoordinationV1Api, CoreV1Api, CustomObjectsApi } from "@kubernetes/client-node";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { AuditEntry } from "../../../../src/api/audit.ts";
import { loadKubeConfig } from "../../../../src/platforms/kubernetes/client.ts";
import { runCli } from "../../../cli/cli-under-test.ts";
import { withoutCluster } from "../../../kubernetes/support/cluster.ts";
import { applyCrds } from "../../../kubernetes/support/crds.ts";
import { freePort } from "../../../support/free-port.ts";
import { until } from "../../../support/patience.ts";

const MAIN = resolve(import.meta.dirname, "../../../../src/platforms/kubernetes/controller-main.ts");
const CLUSTER = "audited";
const TOKEN = "the-token-of-the-owner-of-this-cluster";

interface Replica {
  url: string;
  child: ChildProcess;
}

/** Two controllers as processes of this machine, with a real API server, of which the leader is killed. */
describe.skipIf(withoutCluster)("the audit log over leaders (needs KUBECONFIG)", () => {
  const config = withoutCluster ? undefined! : loadKubeConfig();
  const namespace = `audit-${randomBytes(4).toString("hex")}`;
  const replicas: Replica[] = [];
  let directory = "";

  async function start(): Promise<Replica> {
    const port = await freePort();
    const file = join(directory, `${port}.yaml`);
    const api = { host: "127.0.0.1", port };
    const tokens = { secret: "tokens", make: false };
    await writeFile(file, JSON.stringify({ clusterId: CLUSTER, namespace, api, tokens }));
    const env = { ...process.env, POD_NAME: `replica-${port}`, POD_IP: "127.0.0.1" };
    const child = spawn(process.execPath, [MAIN, "--config", file], { env, stdio: "ignore" });
    const replica = { url: `http://127.0.0.1:${port}`, child };
    replicas.push(replica);
    return replica;
  }
  const headers = { authorization: `Bearer ${TOKEN}` };
  /** What is refused is in the log, too, and needs no tenants. */
  const sleep = (url: string, name: string) =>
    fetch(`${url}/v1/tenants/${name}/sleep`, { method: "POST", headers }).then(
      ({ status }) => status,
      () => 0,
    );
  const answers = ({ url }: Replica) => until("it answers", async () => (await sleep(url, "nobody")) === 404);
  const leader = async () => {
    const lease = await config
      .makeApiClient(CoordinationV1Api)
      .readNamespacedLease({ namespace, name: `${CLUSTER}-controller` });
    const name = lease.spec?.holderIdentity?.split("_")[0];
    return replicas.find(({ url }) => name === `replica-${new URL(url).port}`);
  };
  const audit = async ({ url }: Replica, ...args: string[]) =>
    runCli(["audit", ...args], { env: { SYNAPSE_SHARDS_SERVER: url, SYNAPSE_SHARDS_TOKEN: TOKEN } });

  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), "audit-leaders-"));
    await applyCrds();
    const core = config.makeApiClient(CoreV1Api);
    await core.createNamespace({ body: { metadata: { name: namespace } } });
    const stringData = { "api-token": TOKEN, "gateway-token": "the-token-of-the-gateways-of-this-cluster" };
    await core.createNamespacedSecret({ namespace, body: { metadata: { name: "tokens" }, stringData } });
    await config.makeApiClient(CustomObjectsApi).createNamespacedCustomObject({
      group: "synapse-shards.io",
      version: "v1alpha1",
      namespace,
      plural: "synapsefleets",
      body: {
        apiVersion: "synapse-shards.io/v1alpha1",
        kind: "SynapseFleet",
        metadata: { name: CLUSTER },
        spec: { clusterId: CLUSTER, imageTag: "1.163.2" },
      },
    });
  });
  afterAll(async () => {
    for (const { child } of replicas) child.kill("SIGKILL");
    await config.makeApiClient(CoreV1Api).deleteNamespace({ name: namespace });
    await rm(directory, { recursive: true });
  });

  it("is one chain, which has whatever was answered, wherever the leader is killed", async () => {
    const [first, second] = [await start(), await start()];
    await answers(first);
    await answers(second);
    const former = (await leader())!;
    const other = former === first ? second : first;
    const answered: string[] = [];
    let isKilled = false;
    const asking = [0, 1, 2].map(async (person) => {
      for (let number = 0; !isKilled; number++) {
        const name = `nobody-${person}-${number}`;
        if ((await sleep(former.url, name)) === 404) answered.push(`/v1/tenants/${name}/sleep`);
      }
    });
    await until("they ask", async () => answered.length > 300);
    former.child.kill("SIGKILL");
    isKilled = true;
    await Promise.all(asking);
    await until("another one leads", async () => (await leader()) === other);
    await answers(other);
    expect(await sleep(other.url, "after-the-kill")).toBe(404);

    const entries = (await audit(other, "export")).stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as AuditEntry);
    const paths = entries.map(({ path }) => path);
    expect(paths.filter((path) => answered.includes(path)).toSorted()).toEqual(answered.toSorted());
    expect(paths.at(-1)).toBe("/v1/tenants/after-the-kill/sleep");
    const verified = await audit(other, "verify", "-o", "json");
    expect(verified).toMatchObject({ code: 0, stderr: "" });
    expect(JSON.parse(verified.stdout)).toMatchObject({ entries: entries.length, unchained: 0, breaks: [] });
    const listed = (await audit(other, "--tail", "100000")).stdout;
    for (const path of [answered[0]!, answered.at(-1)!, paths.at(-1)!]) expect(listed).toContain(path);
  });

  it("is there after all controllers have stopped in order", async () => {
    const before = replicas.at(-1) === (await leader()) ? replicas.at(-1)! : (await leader())!;
    const { head } = JSON.parse((await audit(before, "verify", "-o", "json")).stdout) as { head: string };
    before.child.kill("SIGTERM");
    await new Promise((done) => before.child.once("exit", done));
    const next = await start();
    await until("it leads", async () => (await leader()) === next);
    await answers(next);
    const found = JSON.parse((await audit(next, "verify", "-o", "json")).stdout) as { head: string; breaks: object[] };
    expect(found.breaks).toEqual([]);
    const chained = (await audit(next, "export")).stdout;
    expect(chained).toContain(`"previous":"${head}"`);
  });
});
