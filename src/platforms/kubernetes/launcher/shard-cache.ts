import { AppsV1Api, CoreV1Api, type KubeConfig, type V1Pod, type V1StatefulSet } from "@kubernetes/client-node";
import { apiClient } from "../client.ts";
import { ResourceCache } from "../resource-cache.ts";
import { podNameOf } from "./names.ts";

/** The shards' StatefulSets and pods as the API server last told, so that looking at them costs no call. */
export class ShardCache {
  readonly #statefulSets: ResourceCache<V1StatefulSet>;
  readonly #pods: ResourceCache<V1Pod>;
  readonly #listeners = new Set<() => void>();
  readonly #timers = new Set<NodeJS.Timeout>();
  #closed = false;

  /** @param onError told in words when the API server does not answer, or refuses; the watch is retried */
  constructor(config: KubeConfig, namespace: string, labelSelector: string, onError: (what: string) => void) {
    const [apps, core] = [apiClient(config, AppsV1Api), apiClient(config, CoreV1Api)];
    const shared = { config, labelSelector, onError, onChange: () => this.#changed() };
    this.#statefulSets = new ResourceCache<V1StatefulSet>({
      ...shared,
      path: `/apis/apps/v1/namespaces/${namespace}/statefulsets`,
      list: (page) => apps.listNamespacedStatefulSet({ namespace, labelSelector, ...page }),
      what: "StatefulSets",
    });
    this.#pods = new ResourceCache<V1Pod>({
      ...shared,
      path: `/api/v1/namespaces/${namespace}/pods`,
      list: (page) => core.listNamespacedPod({ namespace, labelSelector, ...page }),
      what: "pods",
    });
  }

  /** Resolves when everything has been read once. @throws UserError */
  async open(): Promise<void> {
    await Promise.all([this.#statefulSets.open(), this.#pods.open()]);
  }

  statefulSet(name: string): V1StatefulSet | undefined {
    return this.#statefulSets.get(name);
  }

  /** The pod of the StatefulSet of that name. */
  pod(name: string): V1Pod | undefined {
    return this.#pods.get(podNameOf(name));
  }

  /** Waits for a condition. @returns whether it came true in time */
  until(isSo: () => boolean, timeoutMs: number): Promise<boolean> {
    if (isSo()) return Promise.resolve(true);
    return new Promise((resolve) => {
      const end = (result: boolean) => {
        clearTimeout(timer);
        this.#timers.delete(timer);
        this.#listeners.delete(look);
        resolve(result);
      };
      const look = () => {
        if (this.#closed) end(false);
        else if (isSo()) end(true);
      };
      const timer = setTimeout(() => end(isSo()), timeoutMs);
      this.#timers.add(timer);
      this.#listeners.add(look);
    });
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const listener of this.#listeners) listener();
    for (const timer of this.#timers) clearTimeout(timer);
    await Promise.all([this.#statefulSets.close(), this.#pods.close()]);
  }

  #changed(): void {
    for (const listener of this.#listeners) listener();
  }
}
