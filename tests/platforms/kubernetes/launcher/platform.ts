import { randomBytes } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { CoreV1Api, KubeConfig, PatchStrategy, setHeaderOptions } from "@kubernetes/client-node";
import { KubernetesLauncher } from "../../../../src/platforms/kubernetes/launcher/kubernetes-launcher.ts";
import { podNameOf, shardObjectName } from "../../../../src/platforms/kubernetes/launcher/names.ts";
import { applyCrds } from "../../../kubernetes/support/crds.ts";
import { kubectl, run } from "../../../kubernetes/support/run.ts";
import { postgres, POSTGRES_PASSWORD } from "../../../kubernetes/support/servers.ts";
import {
  ShardPodOptionsSchema,
  type ShardPodOptions,
} from "../../../../src/platforms/kubernetes/launcher/pod-options.ts";

/** The cluster to test on; undefined without one. */
export const KUBECONFIG = process.env["KUBECONFIG"];
/** An image of a shard that the cluster has, `REPOSITORY:RELEASE`. */
export const SHARD_IMAGE = process.env["SHARD_IMAGE"] ?? "ghcr.io/synapse-shards/shard:1.163.2";
export const VERSION = SHARD_IMAGE.slice(SHARD_IMAGE.lastIndexOf(":") + 1);
export const CLUSTER_ID = "under-test";

/** A namespace of its own, and launchers that work in it. */
export class KubernetesUnderTest {
  readonly config = new KubeConfig();
  readonly core: CoreV1Api;
  readonly namespace = `launcher-${randomBytes(3).toString("hex")}`;
  readonly errors: string[] = [];
  readonly #databases = `${this.namespace}-db`;
  readonly #launchers: KubernetesLauncher[] = [];

  private constructor() {
    this.config.loadFromFile(KUBECONFIG ?? "");
    this.core = this.config.makeApiClient(CoreV1Api);
  }

  static async open(): Promise<KubernetesUnderTest> {
    const made = new KubernetesUnderTest();
    await made.core.createNamespace({
      body: {
        metadata: {
          name: made.namespace,
          // The strictest of Kubernetes' own policies: whatever in our pods it does not let through fails here.
          labels: { "pod-security.kubernetes.io/enforce": "restricted" },
        },
      },
    });
    return made;
  }

  async launcher(pods: Record<string, unknown> = {}): Promise<KubernetesLauncher> {
    const launcher = await KubernetesLauncher.open({
      config: this.config,
      clusterId: CLUSTER_ID,
      namespace: this.namespace,
      pods: podOptions(pods),
      managerVersion: "0.0.0-test",
      onError: (what) => void this.errors.push(what),
    });
    this.#launchers.push(launcher);
    return launcher;
  }

  /** As the controller makes it. @returns its uid */
  async createShardObject(shard: string): Promise<string> {
    await applyCrds();
    const metadata = { name: `${CLUSTER_ID}-${shard}`, namespace: this.namespace };
    const object = {
      apiVersion: "synapse-shards.io/v1alpha1",
      kind: "SynapseShard",
      metadata,
      spec: { clusterId: CLUSTER_ID, name: shard, image: { tag: VERSION } },
    };
    return run("kubectl", ["create", "-f", "-", "-o", "jsonpath={.metadata.uid}"], JSON.stringify(object));
  }

  /** For tenants' databases; not in the shards' namespace, whose policy the test's image does not keep to. */
  async startPostgres(): Promise<void> {
    await kubectl("create", "namespace", this.#databases);
    const objects = { apiVersion: "v1", kind: "List", items: postgres() };
    await run("kubectl", ["-n", this.#databases, "apply", "-f", "-"], JSON.stringify(objects));
    await kubectl("-n", this.#databases, "wait", "--for=condition=Ready", "--timeout=240s", "pod/postgres");
  }

  /** A role and a database of its own for a tenant. */
  async createDatabase(name: string): Promise<void> {
    const psql = ["env", `PGPASSWORD=${POSTGRES_PASSWORD}`, "psql", "-h", "127.0.0.1", "-U", "postgres", "-qc"];
    for (const statement of [
      `CREATE ROLE "${name}" LOGIN PASSWORD 'pw-${name}'`,
      `CREATE DATABASE "${name}" OWNER "${name}" TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'`,
    ])
      await kubectl("-n", this.#databases, "exec", "postgres", "--", ...psql, statement);
  }

  /** Arguments of psycopg2, whether the database is there or not. */
  databaseOf(name: string): Record<string, unknown> {
    const host = `postgres.${this.#databases}.svc.cluster.local`;
    return { host, port: 5432, user: name, password: `pw-${name}`, dbname: name };
  }

  async patchSecret(name: string, body: object): Promise<void> {
    const merge = setHeaderOptions("Content-Type", PatchStrategy.MergePatch);
    await this.core.patchNamespacedSecret({ name, namespace: this.namespace, body }, merge);
  }

  podOf(shard: string): string {
    return podNameOf(shardObjectName(CLUSTER_ID, shard));
  }

  /** `kill -9` of a shard's process, from its node, which must be this machine: within a pod nobody can kill its first process. */
  async killProcess(shard: string): Promise<void> {
    const pod = await this.core.readNamespacedPod({ name: this.podOf(shard), namespace: this.namespace });
    const uid = (pod.metadata?.uid ?? "").replaceAll("-", "[-_]");
    for (const pid of (await readdir("/proc")).filter((entry) => /^\d+$/.test(entry))) {
      const read = (file: string) => readFile(`/proc/${pid}/${file}`, "utf8").catch(() => "");
      if (!new RegExp(uid).test(await read("cgroup"))) continue;
      if (!/\0multi_synapse\0/.test(await read("cmdline"))) continue;
      process.kill(Number(pid), "SIGKILL");
      return;
    }
    throw new Error(`the process of pod ${pod.metadata?.name} is not on this machine`);
  }

  async close(): Promise<void> {
    await Promise.all(this.#launchers.map((launcher) => launcher.close()));
    await this.core.deleteNamespace({ name: this.namespace });
    await this.core.deleteNamespace({ name: this.#databases }).catch(() => {});
  }
}

export function podOptions(over: Record<string, unknown> = {}): ShardPodOptions {
  const [, registry, repository] = /^([^/]+)\/(.+):/.exec(SHARD_IMAGE) ?? [];
  return ShardPodOptionsSchema.parse({ image: { registry, repository }, ...over });
}
