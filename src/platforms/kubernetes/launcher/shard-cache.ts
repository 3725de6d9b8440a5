import {
  AppsV1Api,
  CoreV1Api,
  makeInformer,
  type Informer,
  type KubeConfig,
  type KubernetesObject,
  type ObjectCache,
  type V1Pod,
  type V1StatefulSet,
} from "@kubernetes/client-node";
import { attempt, wordsOf } from "../api-error.ts";
import { podNameOf } from "./names.ts";

/** Between attempts to watch again, where the API server does not let us. */
const AGAIN_MS = 2_000;

type Watched<T extends KubernetesObject> = Informer<T> & ObjectCache<T>;

/** The shards' StatefulSets and pods as the API server last told: to look at them costs no call. */
export class ShardCache {
  readonly #namespace: string;
  readonly #statefulSets: Watched<V1StatefulSet>;
  readonly #pods: Watched<V1Pod>;
  readonly #onError: (what: string) => void;
  readonly #listeners = new Set<() => void>();
  readonly #timers = new Set<NodeJS.Timeout>();
  #closed = false;

  /** @param onError told in words when the API server does not answer, or refuses; it is tried again */
  constructor(config: KubeConfig, namespace: string, labelSelector: string, onError: (what: string) => void) {
    this.#namespace = namespace;
    this.#onError = onError;
    const [apps, core] = [config.makeApiClient(AppsV1Api), config.makeApiClient(CoreV1Api)];
    this.#statefulSets = makeInformer(
      config,
      `/apis/apps/v1/namespaces/${namespace}/statefulsets`,
      () => apps.listNamespacedStatefulSet({ namespace, labelSelector }),
      labelSelector,
    );
    this.#pods = makeInformer(
      config,
      `/api/v1/namespaces/${namespace}/pods`,
      () => core.listNamespacedPod({ namespace, labelSelector }),
      labelSelector,
    );
  }

  /** Resolves when all that there is has been read once. @throws UserError */
  async open(): Promise<void> {
    await Promise.all([this.#run(this.#statefulSets, "StatefulSets"), this.#run(this.#pods, "pods")]);
  }

  statefulSet(name: string): V1StatefulSet | undefined {
    return this.#statefulSets.get(name, this.#namespace);
  }

  /** The pod of the StatefulSet of that name. */
  pod(name: string): V1Pod | undefined {
    return this.#pods.get(podNameOf(name), this.#namespace);
  }

  /** Waits until something is so. @returns whether it came to be in time */
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
    await Promise.all([this.#statefulSets.stop(), this.#pods.stop()]);
  }

  async #run<T extends KubernetesObject>(informer: Watched<T>, what: string): Promise<void> {
    let opened = false;
    let failure: unknown;
    informer.on("change", () => this.#changed());
    informer.on("error", (error: unknown) => {
      failure = error;
      if (!opened || this.#closed) return;
      this.#onError(`cannot watch ${what}, trying again: ${wordsOf(error)}`);
      const timer = setTimeout(() => {
        this.#timers.delete(timer);
        if (!this.#closed) void informer.start();
      }, AGAIN_MS);
      this.#timers.add(timer);
    });
    await attempt(`watch ${what}`, async () => {
      await informer.start();
      if (failure !== undefined) throw failure;
    });
    opened = true;
  }

  #changed(): void {
    for (const listener of this.#listeners) listener();
  }
}
