import { spawn, type ChildProcess } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { CoordinationV1Api, CoreV1Api, CustomObjectsApi, type KubeConfig } from "@kubernetes/client-node";
import { runCli, type CliResult } from "../../../cli/cli-under-test.ts";
import { applyCrds } from "../../../kubernetes/support/crds.ts";
import { freePort } from "../../../support/free-port.ts";
import { until } from "../../../support/patience.ts";

const MAIN = resolve(import.meta.dirname, "../../../../src/platforms/kubernetes/controller-main.ts");
const CLUSTER = "replicas";
const TOKEN = "the-token-of-the-owner-of-this-cluster";

export interface Replica {
  url: string;
  name: string;
  child: ChildProcess;
}

/** Controllers as processes of this machine, which have a real API server, and no tenants. */
export class Controllers {
  readonly namespace = `replicas-${randomBytes(4).toString("hex")}`;
  readonly clusterId = CLUSTER;
  directory = "";
  readonly #config: KubeConfig;
  readonly #replicas: Replica[] = [];

  constructor(config: KubeConfig) {
    this.#config = config;
  }

  async prepare(): Promise<void> {
    this.directory = await mkdtemp(join(tmpdir(), "controllers-"));
    await applyCrds();
    const { namespace } = this;
    const core = this.#config.makeApiClient(CoreV1Api);
    await core.createNamespace({ body: { metadata: { name: namespace } } });
    const stringData = { "api-token": TOKEN, "gateway-token": "the-token-of-the-gateways-of-this-cluster" };
    await core.createNamespacedSecret({ namespace, body: { metadata: { name: "tokens" }, stringData } });
    await this.#config.makeApiClient(CustomObjectsApi).createNamespacedCustomObject({
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
  }

  /** @param more of its configuration */
  async start(more: object = {}, env: Record<string, string> = {}): Promise<Replica> {
    const port = await freePort();
    const file = join(this.directory, `${port}.yaml`);
    const api = { host: "127.0.0.1", port };
    const tokens = { secret: "tokens", make: false };
    const config = { ...more, clusterId: CLUSTER, namespace: this.namespace, api, tokens };
    await writeFile(file, JSON.stringify(config));
    const name = `replica-${port}`;
    const all = { ...process.env, ...env, POD_NAME: name, POD_IP: "127.0.0.1" };
    const child = spawn(process.execPath, [MAIN, "--config", file], { env: all, stdio: "ignore" });
    const replica = { url: `http://127.0.0.1:${port}`, name, child };
    this.#replicas.push(replica);
    return replica;
  }

  /** Asks for what is refused: it is in the audit log, too, and needs no tenants. @returns the status, 0 without an answer */
  sleep({ url }: Replica, tenant: string): Promise<number> {
    const headers = { authorization: `Bearer ${TOKEN}` };
    return fetch(`${url}/v1/tenants/${tenant}/sleep`, { method: "POST", headers }).then(
      ({ status }) => status,
      () => 0,
    );
  }

  answers(replica: Replica): Promise<unknown> {
    return until(`${replica.name} answers`, async () => (await this.sleep(replica, "nobody")) === 404);
  }

  async leader(): Promise<Replica | undefined> {
    const api = this.#config.makeApiClient(CoordinationV1Api);
    const { spec } = await api.readNamespacedLease({ namespace: this.namespace, name: `${CLUSTER}-controller` });
    const name = spec?.holderIdentity?.split("_")[0];
    return this.#replicas.find((replica) => replica.name === name);
  }

  leads(replica: Replica): Promise<unknown> {
    return until(`${replica.name} leads`, async () => (await this.leader()) === replica);
  }

  cli({ url }: Replica, ...args: string[]): Promise<CliResult> {
    return runCli(args, { env: { SYNAPSE_SHARDS_SERVER: url, SYNAPSE_SHARDS_TOKEN: TOKEN } });
  }

  async close(): Promise<void> {
    for (const { child } of this.#replicas) child.kill("SIGKILL");
    await this.#config.makeApiClient(CoreV1Api).deleteNamespace({ name: this.namespace });
    await rm(this.directory, { recursive: true });
  }
}
