import { randomBytes } from "node:crypto";
import {
  AppsV1Api,
  CoreV1Api,
  CustomObjectsApi,
  PatchStrategy,
  setHeaderOptions,
  type KubeConfig,
  type V1OwnerReference,
  type V1Pod,
  type V1StatefulSet,
} from "@kubernetes/client-node";
import { UserError } from "../../../model/errors.ts";
import { ControlClient } from "../../../shard/control-client.ts";
import { ShardRefusal, type ShardControl } from "../../../ports/shard-control.ts";
import type { Launcher, ProcessState } from "../../../ports/launcher.ts";
import { apiFailure, attempt, attemptIfThere, isStatus, wordsOf } from "../api-error.ts";
import { API_GROUP, API_VERSION, apiClient } from "../client.ts";
import { CopyingControl, type AssignmentCopies } from "./assignment-secret.ts";
import {
  selectorOf,
  shardSecret,
  shardService,
  shardSettings,
  shardStatefulSet,
  type ShardIdentity,
} from "./manifests.ts";
import { objectName } from "../store/mapping.ts";
import { PLURALS } from "../store/resources.ts";
import { podNameOf, shardObjectName } from "./names.ts";
import { podLog } from "./pod-log.ts";
import type { ShardPodOptions } from "./pod-options.ts";
import { stateOfPod } from "./pod-state.ts";
import { ShardCache } from "./shard-cache.ts";

export interface KubernetesLauncherOptions {
  config: KubeConfig;
  clusterId: string;
  namespace: string;
  pods: ShardPodOptions;
  /** Of this project, for the label `app.kubernetes.io/version`. */
  managerVersion: string;
  /** Told what the API server refuses or fails to do in the background; it is tried again. */
  onError(what: string): void;
}

const FIELD_MANAGER = "synapse-shards-controller";
const MERGE = setHeaderOptions("Content-Type", PatchStrategy.MergePatch);
const APPLY = setHeaderOptions("Content-Type", PatchStrategy.ServerSideApply);
/** For our own changes to be seen in the cache. */
const SEEN_MS = 10_000;
/** For a pod that is being killed to be gone. Its node may be away, and never say so. */
const KILLED_MS = 10_000;
/** A StatefulSet without a pod for this long: somebody refuses the pod. */
const NO_POD_MS = 3_000;
const REFUSAL_AGE_MS = 10_000;

/** Shards as StatefulSets of one replica (docs/kubernetes-design.md). */
export class KubernetesLauncher implements Launcher {
  readonly #options: KubernetesLauncherOptions;
  readonly #core: CoreV1Api;
  readonly #apps: AppsV1Api;
  readonly #custom: CustomObjectsApi;
  readonly #cache: ShardCache;
  /** Why pods were not made, by StatefulSet; asked for at most every ten seconds. */
  readonly #refusals = new Map<string, { askedAt: number; message?: string }>();

  private constructor(options: KubernetesLauncherOptions) {
    this.#options = options;
    this.#core = apiClient(options.config, CoreV1Api);
    this.#apps = apiClient(options.config, AppsV1Api);
    this.#custom = apiClient(options.config, CustomObjectsApi);
    const selector = Object.entries(selectorOf(options.clusterId)).map(([key, value]) => `${key}=${value}`);
    this.#cache = new ShardCache(options.config, options.namespace, selector.join(","), options.onError);
  }

  /** Resolves when it knows the shards that there are. @throws UserError */
  static async open(options: KubernetesLauncherOptions): Promise<KubernetesLauncher> {
    const launcher = new KubernetesLauncher(options);
    try {
      await launcher.#cache.open();
      return launcher;
    } catch (error) {
      await launcher.close();
      throw error;
    }
  }

  async close(): Promise<void> {
    await this.#cache.close();
  }

  /** An image in a registry cannot be looked into from here: the shard says what its release is when it answers. */
  /** Which images a registry has is known when a node fetches one. */
  async checkRelease(): Promise<undefined> {
    return undefined;
  }

  async prepareRelease(): Promise<undefined> {
    return undefined;
  }

  /**
   * Makes the shard's objects, or starts one that was stopped, from the options as they are now. A shard that has a process, or
   * will soon have one, is left as it is: new options are for new shards.
   */
  async start(shard: string, version: string): Promise<void> {
    const name = this.#nameOf(shard);
    if ((this.#cache.statefulSet(name)?.spec?.replicas ?? 0) > 0) return;
    const { namespace, clusterId, managerVersion, pods } = this.#options;
    const owner = await this.#ownerOf(shard);
    const identity: ShardIdentity = { clusterId, namespace, shard, imageTag: version, managerVersion, owner };
    await attempt(`make Secret ${name}`, () => this.#ensureSecret(identity));
    const apply = { name, namespace, fieldManager: FIELD_MANAGER, force: true };
    await attempt(`make Service ${name}`, () =>
      this.#core.patchNamespacedService({ ...apply, body: shardService(identity, pods) }, APPLY),
    );
    await attempt(`make StatefulSet ${name}`, () =>
      this.#apps.patchNamespacedStatefulSet({ ...apply, body: shardStatefulSet(identity, pods) }, APPLY),
    );
    await this.#cache.until(() => (this.#cache.statefulSet(name)?.spec?.replicas ?? 0) > 0, SEEN_MS);
  }

  async observe(shard: string): Promise<ProcessState> {
    const name = this.#nameOf(shard);
    const [statefulSet, pod] = [this.#cache.statefulSet(name), this.#cache.pod(name)];
    if (pod) return stateOfPod(pod);
    if (!statefulSet || (statefulSet.spec?.replicas ?? 0) === 0 || statefulSet.metadata?.deletionTimestamp)
      return { state: "absent" };
    const refusal = await this.#refusalOf(statefulSet);
    if (refusal === undefined) return { state: "starting", message: "its pod is being made" };
    const message = `its pod is not let in: ${refusal}`;
    return { state: "starting", message, problem: { reason: "PodRefused", message } };
  }

  async stop(shard: string, graceSeconds: number): Promise<void> {
    const name = this.#nameOf(shard);
    const { namespace } = this.#options;
    const scaled = await attemptIfThere(`stop StatefulSet ${name}`, () =>
      this.#apps.patchNamespacedStatefulSet({ name, namespace, body: { spec: { replicas: 0 } } }, MERGE),
    );
    const generation = scaled?.metadata?.generation ?? 0;
    // Its controller must have seen that, or it would make a new pod for the one that is deleted here.
    await this.#cache.until(() => {
      const now = this.#cache.statefulSet(name);
      return !now || (now.status?.observedGeneration ?? 0) >= generation;
    }, SEEN_MS);
    if (!this.#cache.pod(name)) return;
    await this.#deletePod(name, graceSeconds);
    if (await this.#cache.until(() => !this.#cache.pod(name), graceSeconds * 1000 + KILLED_MS)) return;
    await this.#deletePod(name, 0);
    if (await this.#cache.until(() => !this.#cache.pod(name), KILLED_MS)) return;
    throw new UserError("Timeout", `pod ${podNameOf(name)} of shard ${shard} does not end`);
  }

  async kill(shard: string): Promise<void> {
    const name = this.#nameOf(shard);
    const pod = this.#cache.pod(name);
    // Deleting a pod that has no process yet would only start pulling its image again.
    if (!pod || !hasProcess(pod)) return;
    const gone = () => this.#cache.pod(name)?.metadata?.uid !== pod.metadata?.uid;
    await this.#deletePod(name, 1);
    if (await this.#cache.until(gone, KILLED_MS)) return;
    // Its node does not answer. Should it live on, the fence shuts it out.
    await this.#deletePod(name, 0);
    await this.#cache.until(gone, SEEN_MS);
  }

  async remove(shard: string): Promise<void> {
    const name = this.#nameOf(shard);
    const { namespace } = this.#options;
    const running = (this.#cache.statefulSet(name)?.spec?.replicas ?? 0) > 0;
    if (running || this.#cache.pod(name)) throw new Error(`shard ${shard} still runs`);
    await attemptIfThere(`remove StatefulSet ${name}`, () =>
      this.#apps.deleteNamespacedStatefulSet({ name, namespace }),
    );
    await attemptIfThere(`remove Service ${name}`, () => this.#core.deleteNamespacedService({ name, namespace }));
    await attemptIfThere(`remove Secret ${name}`, () => this.#core.deleteNamespacedSecret({ name, namespace }));
    await this.#cache.until(() => !this.#cache.statefulSet(name), SEEN_MS);
    this.#refusals.delete(name);
  }

  async client(shard: string, address: string): Promise<ShardControl> {
    const name = this.#nameOf(shard);
    const { namespace } = this.#options;
    const secret = await attempt(`read Secret ${name}`, () => this.#core.readNamespacedSecret({ name, namespace }));
    const token = Buffer.from(secret.data?.["token"] ?? "", "base64").toString();
    return new CopyingControl(new ControlClient(shard, address, token), this.#copiesIn(shard, name));
  }

  /** The pod of a shard, if it has one. */
  podOf(shard: string): V1Pod | undefined {
    return this.#cache.pod(this.#nameOf(shard));
  }

  log(shard: string, options: { tail?: number; follow?: boolean; signal?: AbortSignal }): AsyncIterable<string> {
    const name = this.#nameOf(shard);
    const { config, namespace } = this.#options;
    return podLog(config, { ...options, namespace, pod: () => this.#cache.pod(name) });
  }

  #copiesIn(shard: string, name: string): AssignmentCopies {
    const { namespace } = this.#options;
    // A patch of one key: tenants that are started at the same time do not meet.
    const patch = (data: Record<string, string | null>) =>
      this.#core.patchNamespacedSecret({ name, namespace, body: { data } }, MERGE);
    return {
      write: async (tenant, content) => {
        try {
          await patch({ [keyOf(tenant)]: content.toString("base64") });
        } catch (error) {
          if (!isTooLarge(error)) throw apiFailure(`write the assignment of ${tenant} to Secret ${name}`, error);
          throw new ShardRefusal(
            422,
            "AssignmentTooLarge",
            `the configurations of the tenants of shard ${shard}, compressed, would exceed the 1 MiB that a Kubernetes Secret ` +
              `can hold (this one has ${content.length} bytes); shorten homeserver.yaml, or lower maxTenantsPerShard`,
          );
        }
      },
      remove: async (tenant) => {
        await attemptIfThere(`remove the assignment of ${tenant} from Secret ${name}`, () =>
          patch({ [keyOf(tenant)]: null }),
        );
      },
    };
  }

  /** The token, once made, stays; the settings follow the options. */
  async #ensureSecret(identity: ShardIdentity): Promise<void> {
    const { namespace, pods } = this.#options;
    const name = this.#nameOf(identity.shard);
    try {
      const body = shardSecret(identity, pods, randomBytes(32).toString("base64url"));
      await this.#core.createNamespacedSecret({ namespace, body });
    } catch (error) {
      if (!isStatus(error, 409)) throw error;
      const data = { "shard.json": Buffer.from(shardSettings(identity, pods)).toString("base64") };
      await this.#core.patchNamespacedSecret({ name, namespace, body: { data } }, MERGE);
    }
  }

  async #deletePod(name: string, gracePeriodSeconds: number): Promise<void> {
    const { namespace } = this.#options;
    const pod = podNameOf(name);
    await attemptIfThere(`delete pod ${pod}`, () =>
      this.#core.deleteNamespacedPod({ name: pod, namespace, gracePeriodSeconds }),
    );
  }

  /** So that what belongs to a SynapseShard ends with it, also without this controller. */
  async #ownerOf(shard: string): Promise<V1OwnerReference | undefined> {
    const { clusterId, namespace } = this.#options;
    const place = { group: API_GROUP, version: API_VERSION, plural: PLURALS.Shard, namespace };
    const found = (await attemptIfThere(`read the SynapseShard of ${shard}`, () =>
      this.#custom.getNamespacedCustomObject({ ...place, name: objectName("Shard", shard, clusterId) }),
    )) as ShardObject | undefined;
    if (found?.spec?.clusterId !== clusterId || found.spec.name !== shard) return undefined;
    const { name, uid } = found.metadata;
    return {
      apiVersion: `${API_GROUP}/${API_VERSION}`,
      kind: "SynapseShard",
      name,
      uid,
      controller: true,
      blockOwnerDeletion: false,
    };
  }

  /** A quota, a policy, an admission webhook: the StatefulSet's controller tells it in an event, and nowhere else. */
  async #refusalOf({ metadata }: V1StatefulSet): Promise<string | undefined> {
    const name = metadata?.name ?? "";
    const since = Date.now() - timeOf(metadata?.creationTimestamp);
    if (since < NO_POD_MS) return undefined;
    const known = this.#refusals.get(name);
    if (known && Date.now() - known.askedAt < REFUSAL_AGE_MS) return known.message;
    const { namespace } = this.#options;
    const fieldSelector = `involvedObject.kind=StatefulSet,involvedObject.name=${name},reason=FailedCreate`;
    const events = await this.#core.listNamespacedEvent({ namespace, fieldSelector }).catch((error: unknown) => {
      this.#options.onError(`cannot list events of StatefulSet ${name}: ${wordsOf(error)}`);
      return undefined;
    });
    const recent = events?.items
      .filter(({ involvedObject }) => involvedObject.uid === metadata?.uid)
      .toSorted((a, b) => timeOf(a.lastTimestamp ?? a.eventTime) - timeOf(b.lastTimestamp ?? b.eventTime))
      .at(-1);
    const message = recent?.message;
    this.#refusals.set(name, { askedAt: Date.now(), message });
    return message;
  }

  #nameOf(shard: string): string {
    return shardObjectName(this.#options.clusterId, shard);
  }
}

interface ShardObject {
  metadata: { name: string; uid: string };
  spec?: { clusterId?: string; name?: string };
}

function keyOf(tenant: string): string {
  return `${tenant}.json.gz`;
}

function hasProcess(pod: V1Pod): boolean {
  const running = pod.status?.containerStatuses?.some(({ state }) => state?.running) ?? false;
  return running || pod.metadata?.deletionTimestamp !== undefined;
}

/** The API server measures a Secret, and etcd measures a request. */
function isTooLarge(error: unknown): boolean {
  return (
    isStatus(error, 413) ||
    ((isStatus(error, 422) || isStatus(error, 500)) && /too long|too large/i.test(wordsOf(error)))
  );
}

/** What a watch tells is not converted: there it is text. */
function timeOf(time: Date | string | undefined): number {
  return time === undefined ? 0 : new Date(time).getTime();
}
