import { setTimeout as sleep } from "node:timers/promises";
import { CustomObjectsApi, type KubeConfig, type V1OwnerReference } from "@kubernetes/client-node";
import { isDeepStrictEqual } from "node:util";
import { API_GROUP, API_VERSION, apiClient } from "../client.ts";
import { attempt, attemptIfThere, isStatus, retrying } from "../api-error.ts";
import { UserError } from "../../../model/errors.ts";
import type { ClusterEvent } from "../../../model/event.ts";
import type { ConfigInEffect } from "../../../model/config-meaning.ts";
import type { Tenant } from "../../../model/tenant.ts";
import type { TenantSecretData } from "../../../model/tenant-secrets.ts";
import { ConflictError, type Change, type Kind, type Kinds, type Store } from "../../../ports/store.ts";
import { adminAccessFindings } from "./admin-access.ts";
import { ClusterEvents } from "./cluster-events.ts";
import type { Finding } from "./conditions.ts";
import { copyOf, fleetOf, newObject, objectName, shardOf, tenantOf, withSpec, withStatus } from "./mapping.ts";
import { ResourceCache, type CacheChange } from "../resource-cache.ts";
import {
  CUSTOM_KINDS,
  FINALIZER,
  PLURALS,
  type CustomKinds,
  type CustomList,
  type SynapseFleet,
  type SynapseShard,
  type SynapseTenant,
} from "./resources.ts";
import { DerivedStatus, outdatedShards, outdatedTenants, secretsFinding, strayTenants } from "./derived-status.ts";
import { TenantIndex } from "./tenant-index.ts";
import { TenantSecrets, type SecretProblem } from "./tenant-secrets.ts";

export interface KubernetesStoreOptions {
  config: KubeConfig;
  namespace: string;
  /** Objects of other clusters in the namespace are not seen. */
  clusterId: string;
  /** Names this controller in events, e.g. its pod. */
  instance: string;
  /** Told in words when the API server does not answer, or refuses; it is tried again. */
  onError?: (message: string) => void;
  now?: () => Date;
  /** Whether gateways let administrators of tenants in, where a tenant is open. */
  hasAdminEntrance?: boolean;
  /** Between two looks at a Secret of another namespace. */
  secretPollMs?: number;
}

/** What is a SynapseTenant's owner's to say. */
export interface TenantDefinition {
  labels: Record<string, string>;
  annotations: Record<string, string>;
  spec: SynapseTenant["spec"];
}

/** For the chart's own fleet to be there. */
const FLEET_MS = 15_000;
const FLEET_POLL_MS = 200;

const KINDS: Kind[] = ["Tenant", "Shard", "Fleet"];

/**
 * The store on Kubernetes: custom resources, Secrets and Events (docs/kubernetes-design.md). Reads are from memory, which watches keep
 * current and own writes go to at once; optimistic concurrency is the API server's.
 *
 * A controller that lost its leadership in the middle of something may write once more: only over what it had read, since every write
 * names its version; what it then does to a tenant is refused by the fence in the tenant's database.
 */
export class KubernetesStore implements Store {
  readonly #options: KubernetesStoreOptions;
  readonly #api: CustomObjectsApi;
  readonly #caches: { [K in Kind]: ResourceCache<CustomKinds[K]> };
  readonly #secrets: TenantSecrets;
  readonly #events: ClusterEvents;
  readonly #occupancy: DerivedStatus<SynapseShard>;
  readonly #tenantConditions: DerivedStatus<SynapseTenant>;
  readonly #index = new TenantIndex();
  readonly #listeners = new Set<(change: Change) => void>();
  #opened = false;
  #closed = false;

  private constructor(options: KubernetesStoreOptions) {
    const { config, namespace, clusterId, instance, onError = () => {} } = options;
    this.#options = options;
    this.#api = apiClient(config, CustomObjectsApi);
    this.#caches = { Tenant: this.#cacheOf("Tenant"), Shard: this.#cacheOf("Shard"), Fleet: this.#cacheOf("Fleet") };
    const { secretPollMs: pollMs } = options;
    this.#secrets = new TenantSecrets({
      config,
      namespace,
      onChange: (where, name) => this.#secretChanged(where, name),
      onError,
      ...(pollMs === undefined ? {} : { pollMs }),
    });
    const refer = (kind: Kind, name: string) => {
      const object = objectName(kind, name, clusterId);
      return { name: object, uid: this.#caches[kind].get(object)?.metadata?.uid };
    };
    this.#events = new ClusterEvents({ config, namespace, clusterId, instance, refer, onError });
    this.#occupancy = new DerivedStatus({
      outdated: (touched) => {
        const shards = [...touched].flatMap((name) => this.#object("Shard", name) ?? []);
        return outdatedShards(this.#index.counts, shards);
      },
      write: (shard) => this.#writeStatus("Shard", shard, shard.spec.name),
    });
    this.#tenantConditions = new DerivedStatus({
      outdated: (touched) => {
        const tenants = [...touched].flatMap((name) => this.#caches.Tenant.get(name) ?? []);
        const ours = tenants.filter((tenant) => this.#isOurs("Tenant", tenant));
        return [
          ...outdatedTenants(ours, (tenant) => this.#findingsOf(tenant), this.#now()),
          ...strayTenants(tenants, this.#clusters(), namespace),
        ];
      },
      write: (tenant) => this.#writeStatus("Tenant", tenant, tenant.metadata?.name ?? ""),
    });
  }

  /** Resolves when everything has been read once. @throws UserError Unauthorized, Unavailable */
  static async open(options: KubernetesStoreOptions): Promise<KubernetesStore> {
    const store = new KubernetesStore(options);
    try {
      // Secrets first: a tenant must not be seen without its configuration.
      await store.#secrets.open();
      await Promise.all([...KINDS.map((kind) => store.#caches[kind].open()), store.#events.open()]);
      await store.#secrets.openGranted(() => store.#ours("Tenant"));
      store.#opened = true;
      store.#occupancy.begin();
      store.#tenantConditions.begin();
      return store;
    } catch (error) {
      await store.close();
      throw error;
    }
  }

  async list<K extends Kind>(kind: K): Promise<Kinds[K][]> {
    const found = [...this.#ours(kind)].map((object) => this.#resourceOf(kind, object));
    return found.toSorted((a, b) => (a.metadata.name < b.metadata.name ? -1 : 1));
  }

  async get<K extends Kind>(kind: K, name: string): Promise<Kinds[K] | undefined> {
    const object = this.#object(kind, name);
    return object && this.#resourceOf(kind, object);
  }

  async create<K extends Kind>(
    kind: K,
    name: string,
    spec: Kinds[K]["spec"],
    status: Kinds[K]["status"],
  ): Promise<Kinds[K]> {
    return this.#create(kind, name, newObject(kind, name, spec, this.#options), status);
  }

  /** A tenant's object as somebody wrote it, which has more than the model knows of; undefined where it is not there. */
  definitionOf(name: string): TenantDefinition | undefined {
    const object = this.#object("Tenant", name);
    const { labels = {}, annotations = {} } = object?.metadata ?? {};
    return object && { labels, annotations, spec: object.spec };
  }

  /** Makes a tenant's object as it was. @throws UserError AlreadyExists */
  createAs(name: string, { labels, annotations, spec }: TenantDefinition, status: Tenant["status"]): Promise<Tenant> {
    const { clusterId, namespace } = this.#options;
    const bare = newObject(
      "Tenant",
      name,
      { serverName: "", release: "", config: "", reclaimPolicy: "Retain" },
      { clusterId, namespace },
    );
    const body = { ...bare, metadata: { ...bare.metadata, labels, annotations }, spec };
    return this.#create("Tenant", name, body, status);
  }

  /** The signing key that `removeSecret` would remove: not one that is in a Secret of the tenant's owner. */
  async ownSigningKey(tenant: string): Promise<string | undefined> {
    return this.#secrets.ownSigningKey(this.#tenantObject(tenant));
  }

  async #create<K extends Kind>(
    kind: K,
    name: string,
    body: CustomKinds[K],
    status: Kinds[K]["status"],
  ): Promise<Kinds[K]> {
    const exists = () => new UserError("AlreadyExists", `there is a ${kind.toLowerCase()} named ${name} already`);
    const cache = this.#cache(kind);
    const created = await cache.holding(body.metadata?.name ?? "", async () => {
      let bare: CustomKinds[K];
      try {
        bare = await this.#call<K>(kind, "create", { body });
      } catch (error) {
        throw isStatus(causeOf(error), 409) ? exists() : error;
      }
      const resource = { ...this.#resourceOf(kind, bare), status } as Kinds[K];
      // Anybody may have written to it by now; then that is what counts.
      const complete = await this.#replaceStatus(kind, bare, resource).catch((error: unknown) => {
        if (error instanceof ConflictError) return bare;
        throw error;
      });
      cache.put(complete);
      return complete;
    });
    return this.#resourceOf(kind, created);
  }

  async update<K extends Kind>(resource: Kinds[K]): Promise<Kinds[K]> {
    const kind = resource.kind as K;
    const { name, resourceVersion, deletionTimestamp } = resource.metadata;
    const known = this.#object(kind, name);
    if (!known || known.metadata?.resourceVersion !== resourceVersion) throw new ConflictError(kind, name);
    const before = this.#resourceOf(kind, known);
    const secretConfig = this.#secretConfigOf(known);
    if (secretConfig !== undefined) this.#refuseForeignConfig(before, resource);
    let object = known;
    // The status first: were it lost, nobody would notice; a spec or a deletion that is written begins something.
    if (!same(before.status, resource.status)) object = await this.#replaceStatus(kind, object, resource);
    if (!same(before.spec, resource.spec))
      object = await this.#replace(kind, withSpec(object, resource, secretConfig), name);
    if (deletionTimestamp !== undefined && before.metadata.deletionTimestamp === undefined)
      object = await this.#delete(kind, object, name);
    return this.#resourceOf(kind, object);
  }

  async remove(kind: Kind, name: string): Promise<void> {
    const cache = this.#cache(kind);
    await cache.holding(objectName(kind, name, this.#options.clusterId), async () => {
      const asked = this.#object(kind, name)?.metadata?.uid;
      for (let object = this.#object(kind, name); object; object = await this.#fresh(kind, name)) {
        // Somebody made another of the same name meanwhile, who did not mean this removal.
        if (object.metadata?.uid !== asked) return;
        try {
          const { finalizers = [] } = object.metadata ?? {};
          const others = finalizers.filter((finalizer) => finalizer !== FINALIZER);
          let released = object;
          if (others.length < finalizers.length) {
            const metadata = { ...object.metadata, finalizers: others };
            released = await this.#call(kind, "replace", {
              name: object.metadata?.name,
              body: { ...object, metadata },
            });
          }
          await this.#call(kind, "delete", {
            name: object.metadata?.name,
            body: { preconditions: { uid: object.metadata?.uid } },
          }).catch((error: unknown) => {
            if (!isStatus(causeOf(error), 404)) throw error;
          });
          cache.drop(released);
          return;
        } catch (error) {
          if (isStatus(causeOf(error), 404)) return cache.drop(object);
          if (!isStatus(causeOf(error), 409)) throw error;
        }
      }
    });
  }

  watch(listener: (change: Change) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** @throws UserError InvalidConfig where a Secret that is named is missing, is not the tenant's, or lacks a key */
  readSecret(tenant: string): Promise<TenantSecretData | undefined> {
    return this.#secrets.read(this.#tenantObject(tenant));
  }

  writeSecret(tenant: string, data: TenantSecretData): Promise<void> {
    return this.#secrets.write(this.#tenantObject(tenant), data);
  }

  removeSecret(tenant: string): Promise<void> {
    return this.#secrets.remove(this.#tenantObject(tenant));
  }

  /**
   * What is made for the whole cluster belongs to its fleet, and goes with it when the chart is uninstalled. The chart makes the fleet at the
   * same time as the controller, so it is waited for; undefined where there is none.
   */
  async fleetReference(): Promise<V1OwnerReference | undefined> {
    for (const deadline = performance.now() + FLEET_MS; ; await sleep(FLEET_POLL_MS)) {
      const reference = this.#referenceTo("Fleet", "fleet");
      if (reference) return reference;
      if (performance.now() > deadline) return undefined;
    }
  }

  #referenceTo(kind: Kind, name: string): V1OwnerReference | undefined {
    const { metadata } = this.#object(kind, name) ?? {};
    if (metadata?.name === undefined || metadata.uid === undefined) return undefined;
    const apiVersion = `${API_GROUP}/${API_VERSION}`;
    return { apiVersion, kind: CUSTOM_KINDS[kind], name: metadata.name, uid: metadata.uid };
  }

  /** The tenants whose configuration or keys cannot be read, and why. What runs of them goes on as it is. */
  secretProblems(): (SecretProblem & { tenant: string })[] {
    return [...this.#ours("Tenant")].flatMap((object) => {
      const problem = this.#secrets.problemOf(object);
      return problem ? [{ tenant: object.metadata?.name ?? "", ...problem }] : [];
    });
  }

  /** The namespace of another owner that the tenant's Secrets are in. */
  secretNamespaceOf(tenant: string): string | undefined {
    return this.#caches.Tenant.get(tenant)?.spec.secretNamespace;
  }

  readConfigInEffect(tenant: string): Promise<ConfigInEffect | undefined> {
    return this.#secrets.readConfigInEffect(tenant);
  }

  async writeConfigInEffect(tenant: string, config: ConfigInEffect): Promise<void> {
    const owner = this.#referenceTo("Tenant", tenant);
    await this.#secrets.writeConfigInEffect(tenant, config, owner);
  }

  appendEvent(event: Omit<ClusterEvent, "id" | "time">): Promise<ClusterEvent> {
    return this.#events.append(event);
  }

  async listEvents(options: { after?: number; object?: string; limit: number }): Promise<ClusterEvent[]> {
    return this.#events.list(options);
  }

  watchEvents(listener: (event: ClusterEvent) => void): () => void {
    return this.#events.watch(listener);
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#listeners.clear();
    this.#occupancy.close();
    this.#tenantConditions.close();
    await Promise.all([
      ...KINDS.map((kind) => this.#caches[kind].close()),
      this.#secrets.close(),
      this.#events.close(),
    ]);
  }

  #cacheOf<K extends Kind>(kind: K): ResourceCache<CustomKinds[K]> {
    const { config, namespace, onError = () => {} } = this.#options;
    return new ResourceCache<CustomKinds[K]>({
      config,
      path: `/apis/${API_GROUP}/${API_VERSION}/namespaces/${namespace}/${PLURALS[kind]}`,
      list: (page) => this.#api.listNamespacedCustomObject({ ...this.#place(kind), ...page }) as Promise<CustomList<K>>,
      what: PLURALS[kind],
      onChange: (change) => this.#changed(kind, change),
      onError,
    });
  }

  #cache<K extends Kind>(kind: K): ResourceCache<CustomKinds[K]> {
    return this.#caches[kind];
  }

  #place(kind: Kind) {
    const { namespace } = this.#options;
    return { group: API_GROUP, version: API_VERSION, namespace, plural: PLURALS[kind] };
  }

  /** The clusters of the namespace, each of which has a fleet of its name, and this one. */
  #clusters(): Set<string> {
    const names = [...this.#caches.Fleet.values()].map(({ spec }) => spec.clusterId);
    return new Set([...names, this.#options.clusterId]);
  }

  /** The API server refuses fleets of other names; those that were there before it did are not the cluster's. */
  #isOurs(kind: Kind, { metadata, spec }: CustomKinds[Kind]): boolean {
    const { clusterId } = this.#options;
    return spec.clusterId === clusterId && (kind !== "Fleet" || metadata?.name === clusterId);
  }

  *#ours<K extends Kind>(kind: K): Generator<CustomKinds[K]> {
    for (const object of this.#cache(kind).values()) if (this.#isOurs(kind, object)) yield object;
  }

  #object<K extends Kind>(kind: K, name: string): CustomKinds[K] | undefined {
    const object = this.#cache(kind).get(objectName(kind, name, this.#options.clusterId));
    return object && this.#isOurs(kind, object) ? object : undefined;
  }

  #resourceOf<K extends Kind>(kind: K, object: CustomKinds[K]): Kinds[K] {
    const mapped = {
      Tenant: () => tenantOf(object as SynapseTenant, this.#secretConfigOf(object)),
      Shard: () => shardOf(object as SynapseShard),
      Fleet: () => fleetOf(object as SynapseFleet),
    };
    return mapped[kind]() as Kinds[K];
  }

  #secretConfigOf(object: CustomKinds[Kind]): string | undefined {
    return "serverName" in object.spec ? this.#secrets.configOf(object as SynapseTenant) : undefined;
  }

  /** A tenant's object; if it is not there, what its Secret's name follows from. */
  #tenantObject(name: string): SynapseTenant {
    return this.#object("Tenant", name) ?? { metadata: { name }, spec: { clusterId: "", serverName: "" } };
  }

  #changed<K extends Kind>(kind: K, { type, object }: CacheChange<CustomKinds[K]>): void {
    // Also for tenants of clusters that are not here; which clusters there are concerns each of them.
    if (kind === "Fleet" && type !== "Modified")
      for (const { metadata } of this.#caches.Tenant.values()) this.#tenantConditions.touch(metadata?.name ?? "");
    if (kind === "Tenant") this.#tenantConditions.touch(object.metadata?.name ?? "");
    // Made again under its name, it may be another cluster's.
    if (kind === "Tenant" && !this.#isOurs(kind, object)) this.#enter("Deleted", object as SynapseTenant);
    if (this.#closed || !this.#isOurs(kind, object)) return;
    if (kind === "Tenant") this.#enter(type, object as SynapseTenant);
    if (kind === "Shard") this.#occupancy.touch((object as SynapseShard).spec.name);
    if (kind === "Tenant" && type !== "Deleted") {
      void this.#ensureFinalizer(object as SynapseTenant);
      // What it names elsewhere may have changed with it; a difference is announced when it is known.
      if (this.#opened) void this.#secrets.refresh(object as SynapseTenant);
    }
    this.#announce(kind, { type, object });
  }

  #announce<K extends Kind>(kind: K, { type, object }: CacheChange<CustomKinds[K]>): void {
    // Before the first list nobody hears of anything, and to read each tenant's configuration for nobody would take long.
    if (this.#listeners.size === 0 || this.#closed || !this.#isOurs(kind, object)) return;
    const resource = this.#resourceOf(kind, object);
    queueMicrotask(() => {
      for (const listener of this.#listeners) listener({ type, kind, resource: copyOf(resource) } as Change);
    });
  }

  /** A tenant made by hand has none; without it the tenant could vanish while it runs. */
  async #ensureFinalizer(object: SynapseTenant): Promise<void> {
    const { name, finalizers = [], deletionTimestamp } = object.metadata ?? {};
    if (deletionTimestamp !== undefined || finalizers.includes(FINALIZER)) return;
    const metadata = { ...object.metadata, finalizers: [...finalizers, FINALIZER] };
    // Not written now, it is at the tenant's next change, which comes soon: every tenant's status is written at its start.
    await this.#replace("Tenant", { ...object, metadata }, name ?? "").catch(() => {});
  }

  /** A tenant's configuration is in its Secret. */
  #secretChanged(namespace: string, name: string): void {
    for (const tenant of this.#index.madeFrom(`${namespace}/${name}`)) {
      this.#tenantConditions.touch(tenant);
      const object = this.#caches.Tenant.get(tenant);
      if (object) this.#announce("Tenant", { type: "Modified", object });
    }
  }

  #enter(type: CacheChange<unknown>["type"], tenant: SynapseTenant): void {
    const name = tenant.metadata?.name ?? "";
    const before = this.#index.shardOf(name);
    if (type === "Deleted") this.#index.remove(name);
    else this.#index.set(name, { secrets: this.#secrets.secretsOf(tenant), shard: tenant.status?.shard });
    for (const shard of [before, this.#index.shardOf(name)]) if (shard !== undefined) this.#occupancy.touch(shard);
  }

  #refuseForeignConfig(before: Kinds[Kind], after: Kinds[Kind]): void {
    if (before.kind !== "Tenant" || after.kind !== "Tenant" || before.spec.config === after.spec.config) return;
    const { name } = after.metadata;
    throw new UserError(
      "Conflict",
      `the configuration of ${name} is in the Secret ${this.#secrets.nameOf(this.#tenantObject(name))}; change it where that is made, e.g. in the values of its Helm release`,
    );
  }

  #replaceStatus<K extends Kind>(kind: K, object: CustomKinds[K], resource: Kinds[K]): Promise<CustomKinds[K]> {
    const isTenant = "serverName" in object.spec;
    const findings = isTenant ? this.#findingsOf(object as SynapseTenant) : [];
    return this.#writeStatus(kind, withStatus(object, resource, this.#now(), findings), resource.metadata.name);
  }

  /** What a tenant's resource does not say. */
  #findingsOf(tenant: SynapseTenant): Finding[] {
    const { hasAdminEntrance = false } = this.#options;
    return [secretsFinding(this.#secrets.problemOf(tenant)), ...adminAccessFindings(tenant, hasAdminEntrance)];
  }

  #writeStatus<K extends Kind>(kind: K, object: CustomKinds[K], name: string): Promise<CustomKinds[K]> {
    return this.#write(kind, name, () =>
      this.#call(kind, "replaceStatus", { name: object.metadata?.name, body: object }),
    );
  }

  #now(): string {
    return (this.#options.now?.() ?? new Date()).toISOString();
  }

  #replace<K extends Kind>(kind: K, object: CustomKinds[K], name: string): Promise<CustomKinds[K]> {
    return this.#write(kind, name, () => this.#call(kind, "replace", { name: object.metadata?.name, body: object }));
  }

  async #delete<K extends Kind>(kind: K, object: CustomKinds[K], name: string): Promise<CustomKinds[K]> {
    const { uid, resourceVersion, finalizers = [] } = object.metadata ?? {};
    let kept = object;
    // Without a finalizer it would be gone at once, and its clean-up would never be done.
    if (!finalizers.includes(FINALIZER)) {
      const metadata = { ...object.metadata, finalizers: [...finalizers, FINALIZER] };
      kept = await this.#replace(kind, { ...object, metadata }, name);
    }
    const version = kept === object ? resourceVersion : kept.metadata?.resourceVersion;
    return this.#write(kind, name, () =>
      this.#call(kind, "delete", {
        name: object.metadata?.name,
        body: { preconditions: { uid, resourceVersion: version } },
      }),
    );
  }

  /** A write that names a version. @throws ConflictError after having read what is there now, so that a second try can succeed */
  async #write<K extends Kind>(kind: K, name: string, call: () => Promise<CustomKinds[K]>): Promise<CustomKinds[K]> {
    try {
      const written = await call();
      this.#cache(kind).put(written);
      return written;
    } catch (error) {
      if (!isStatus(causeOf(error), 409) && !isStatus(causeOf(error), 404)) throw error;
      await this.#fresh(kind, name);
      throw new ConflictError(kind, name);
    }
  }

  /** Reads an object from the API server. */
  async #fresh<K extends Kind>(kind: K, name: string): Promise<CustomKinds[K] | undefined> {
    const object = objectName(kind, name, this.#options.clusterId);
    const found = await attemptIfThere(`read ${PLURALS[kind]}/${object}`, () =>
      retrying(() => this.#api.getNamespacedCustomObject({ ...this.#place(kind), name: object })),
    );
    const known = this.#cache(kind).get(object);
    if (found) this.#cache(kind).put(found as CustomKinds[K]);
    else if (known) this.#cache(kind).drop(known);
    return found as CustomKinds[K] | undefined;
  }

  #call<K extends Kind>(
    kind: K,
    verb: "create" | "replace" | "replaceStatus" | "delete",
    input: { name?: string; body: object },
  ): Promise<CustomKinds[K]> {
    const place = this.#place(kind);
    const name = input.name ?? "";
    const calls = {
      create: () => this.#api.createNamespacedCustomObject({ ...place, body: input.body }),
      replace: () => this.#api.replaceNamespacedCustomObject({ ...place, name, body: input.body }),
      replaceStatus: () => this.#api.replaceNamespacedCustomObjectStatus({ ...place, name, body: input.body }),
      delete: () => this.#api.deleteNamespacedCustomObject({ ...place, name, body: input.body }),
    };
    return attempt(`${verb} ${PLURALS[kind]}/${name}`, () => retrying(calls[verb])) as Promise<CustomKinds[K]>;
  }
}

function causeOf(error: unknown): unknown {
  return error instanceof UserError ? error.cause : error;
}

/** Equal but for keys whose value is undefined. */
function same(a: object, b: object): boolean {
  return isDeepStrictEqual(JSON.parse(JSON.stringify(a)), JSON.parse(JSON.stringify(b)));
}
