import { randomBytes } from "node:crypto";
import { CoreV1Api, CustomObjectsApi, type KubeConfig } from "@kubernetes/client-node";
import { API_GROUP, API_VERSION } from "../../../../src/platforms/kubernetes/client.ts";
import type { KubernetesStoreOptions } from "../../../../src/platforms/kubernetes/store/kubernetes-store.ts";

export const CLUSTER = "shards";
type Raw = { metadata: { name: string; finalizers?: string[]; generation: number } & Record<string, unknown> } & Record<
  string,
  Record<string, unknown>
>;

/** Namespaces for stores under test, and what others than the store do in them. */
export class StoreNamespaces {
  namespace = "";
  readonly core: CoreV1Api;
  readonly custom: CustomObjectsApi;
  readonly #config: KubeConfig;
  readonly #used: string[] = [];

  constructor(config: KubeConfig) {
    this.#config = config;
    this.core = config.makeApiClient(CoreV1Api);
    this.custom = config.makeApiClient(CustomObjectsApi);
  }

  async next(): Promise<void> {
    this.namespace = `store-${randomBytes(4).toString("hex")}`;
    this.#used.push(this.namespace);
    await this.core.createNamespace({ body: { metadata: { name: this.namespace } } });
  }

  get options(): KubernetesStoreOptions {
    return { config: this.#config, namespace: this.namespace, clusterId: CLUSTER, instance: "test" };
  }

  #place(plural: string, name?: string) {
    return { group: API_GROUP, version: API_VERSION, namespace: this.namespace, plural, name: name ?? "" };
  }

  /** Makes a tenant as its owner does. */
  async apply(name: string, spec: object = {}): Promise<void> {
    const kind = { apiVersion: `${API_GROUP}/${API_VERSION}`, kind: "SynapseTenant" };
    const body = { ...kind, metadata: { name }, spec: { clusterId: CLUSTER, serverName: `${name}.example`, ...spec } };
    await this.custom.createNamespacedCustomObject({ ...this.#place("synapsetenants"), body });
  }

  async patch(name: string, path: string, value: unknown): Promise<void> {
    await this.custom.patchNamespacedCustomObject({
      ...this.#place("synapsetenants", name),
      body: [{ op: "replace", path, value }],
    });
  }

  async raw(name: string, plural = "synapsetenants"): Promise<Raw> {
    return (await this.custom.getNamespacedCustomObject(this.#place(plural, name))) as Raw;
  }

  async delete(name: string): Promise<void> {
    await this.custom.deleteNamespacedCustomObject(this.#place("synapsetenants", name));
  }

  async secret(name: string, data: Record<string, string>, labels: Record<string, string>): Promise<void> {
    await this.core.createNamespacedSecret({
      namespace: this.namespace,
      body: { metadata: { name, labels }, stringData: data },
    });
  }

  async removeAll(): Promise<void> {
    for (const name of this.#used) {
      this.namespace = name;
      for (const plural of ["synapsetenants", "synapseshards", "synapsefleets"]) {
        const { items } = (await this.custom.listNamespacedCustomObject(this.#place(plural))) as { items: Raw[] };
        // Nobody is left to take the finalizers off.
        for (const { metadata } of items.filter((item) => item.metadata.finalizers?.length))
          await this.custom
            .patchNamespacedCustomObject({
              ...this.#place(plural, metadata.name),
              body: [{ op: "remove", path: "/metadata/finalizers" }],
            })
            .catch(() => {});
      }
      await this.core.deleteNamespace({ name });
    }
  }
}
