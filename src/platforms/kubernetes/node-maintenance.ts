import { CoreV1Api, type KubeConfig, type V1Node, type V1Pod } from "@kubernetes/client-node";
import { messageOf } from "../../model/errors.ts";
import { modify, type Store } from "../../ports/store.ts";
import { apiClient } from "./client.ts";
import { ResourceCache } from "./resource-cache.ts";

/** Also for shards that come to a node which is already on its way out. */
const LOOK_AGAIN_MS = 10_000;

/** How those who are about to empty a node say so: kubectl and most tools cordon it, autoscalers taint it. */
const LEAVING_TAINTS = new Set([
  "node.kubernetes.io/unschedulable",
  "karpenter.sh/disrupted",
  "ToBeDeletedByClusterAutoscaler",
]);

export interface NodeMaintenanceOptions {
  config: KubeConfig;
  store: Store;
  /** The pod of a shard, if it has one. */
  podOf: (shard: string) => V1Pod | undefined;
  onError: (message: string) => void;
}

/**
 * Drains the shards of nodes that are about to be emptied. Their PodDisruptionBudget refuses evictions meanwhile, so the tenants have moved,
 * with their requests held by the gateway, before their shard's pod goes.
 */
export class NodeMaintenance {
  readonly #options: NodeMaintenanceOptions;
  readonly #nodes: ResourceCache<V1Node>;
  #timer: NodeJS.Timeout | undefined;
  #looking = false;

  private constructor(options: NodeMaintenanceOptions) {
    const { config, onError } = options;
    this.#options = options;
    const api = apiClient(config, CoreV1Api);
    this.#nodes = new ResourceCache<V1Node>({
      config,
      path: "/api/v1/nodes",
      list: (page) => api.listNode(page),
      what: "nodes",
      onChange: () => void this.#look(),
      onError,
    });
  }

  /** Without the right to read nodes it says so once, and does nothing: shards are drained by hand then. */
  static async open(options: NodeMaintenanceOptions): Promise<NodeMaintenance> {
    const maintenance = new NodeMaintenance(options);
    try {
      await maintenance.#nodes.open();
      maintenance.#timer = setInterval(() => void maintenance.#look(), LOOK_AGAIN_MS).unref();
    } catch (error) {
      options.onError(`shards on cordoned nodes are not drained automatically: ${messageOf(error)}`);
    }
    return maintenance;
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#nodes.close();
  }

  async #look(): Promise<void> {
    if (this.#looking) return;
    this.#looking = true;
    try {
      for (const { metadata, spec } of await this.#options.store.list("Shard")) {
        if (spec.drain === "Requested" || metadata.deletionTimestamp !== undefined) continue;
        const node = this.#options.podOf(metadata.name)?.spec?.nodeName;
        if (node !== undefined && isLeaving(this.#nodes.get(node))) await this.#drain(metadata.name, node);
      }
    } catch (error) {
      this.#options.onError(`cannot drain the shards of a cordoned node, trying again: ${messageOf(error)}`);
    } finally {
      this.#looking = false;
    }
  }

  async #drain(shard: string, node: string): Promise<void> {
    const { store } = this.#options;
    await modify(store, "Shard", shard, ({ spec }) => void (spec.drain = "Requested"));
    await store.appendEvent({
      type: "Normal",
      reason: "NodeMaintenance",
      object: `Shard/${shard}`,
      message: `shard ${shard} is drained, because its node ${node} is cordoned`,
    });
  }
}

/** Whether pods are about to be taken off a node. */
export function isLeaving(node: V1Node | undefined): boolean {
  if (!node) return false;
  return node.spec?.unschedulable === true || (node.spec?.taints ?? []).some(({ key }) => LEAVING_TAINTS.has(key));
}
