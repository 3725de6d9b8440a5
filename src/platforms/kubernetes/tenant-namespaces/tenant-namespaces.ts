import { CoreV1Api, CustomObjectsApi, type KubeConfig, type V1Namespace } from "@kubernetes/client-node";
import { messageOf } from "../../../model/errors.ts";
import { attempt, attemptIfThere, isStatus } from "../api-error.ts";
import { API_GROUP, API_VERSION, apiClient } from "../client.ts";
import { ResourceCache } from "../resource-cache.ts";
import type { CustomList, SynapseTenant } from "../store/resources.ts";
import { ALLOWED_LABEL, claimActions, openedBy, type ClaimAction } from "./claims.ts";

/** Changes come in bursts. */
const SETTLE_MS = 200;
/** What was not possible is tried again. */
const AGAIN_MS = 10_000;
const TENANTS = { group: API_GROUP, version: API_VERSION, plural: "synapsetenants" } as const;

export interface TenantNamespacesOptions {
  config: KubeConfig;
  clusterId: string;
  /** The shards' namespace. */
  namespace: string;
  /** Whether owners may open their tenants to administrators; else that is the operator's to say. */
  ownersOpen: boolean;
  onError: (message: string) => void;
}

/**
 * Lets customers own their SynapseTenant in a namespace of their own, without rights in that of the shards: for each there is one beside the
 * shards, which the rest of the controller sees, and whose status is told to its owner.
 */
export class TenantNamespaces {
  readonly #options: TenantNamespacesOptions;
  readonly #api: CustomObjectsApi;
  readonly #tenants: ResourceCache<SynapseTenant>;
  readonly #namespaces: ResourceCache<V1Namespace>;
  #timer: NodeJS.Timeout | undefined;
  #dueAt = Number.POSITIVE_INFINITY;
  #working: Promise<void> | undefined;
  #closed = false;

  private constructor(options: TenantNamespacesOptions) {
    const { config, onError } = options;
    this.#options = options;
    this.#api = apiClient(config, CustomObjectsApi);
    const core = apiClient(config, CoreV1Api);
    const onChange = () => this.#schedule(SETTLE_MS);
    this.#tenants = new ResourceCache<SynapseTenant>({
      config,
      path: `/apis/${API_GROUP}/${API_VERSION}/${TENANTS.plural}`,
      list: (page) => this.#api.listClusterCustomObject({ ...TENANTS, ...page }) as Promise<CustomList<"Tenant">>,
      what: "SynapseTenants of all namespaces",
      keyOf: ({ metadata }) => `${metadata?.namespace}/${metadata?.name}`,
      onChange,
      onError,
    });
    this.#namespaces = new ResourceCache<V1Namespace>({
      config,
      path: "/api/v1/namespaces",
      list: (page) => core.listNamespace(page),
      what: "namespaces",
      onChange,
      onError,
    });
  }

  /** @throws UserError without the rights that it needs */
  static async open(options: TenantNamespacesOptions): Promise<TenantNamespaces> {
    const made = new TenantNamespaces(options);
    try {
      await Promise.all([made.#tenants.open(), made.#namespaces.open()]);
    } catch (error) {
      await made.close();
      throw error;
    }
    made.#schedule(0);
    return made;
  }

  /** The object of its owner, NAMESPACE/NAME, that says whether a tenant is open to its administrators; undefined where operators do. */
  accessSaidIn(tenant: string): string | undefined {
    const { namespace, ownersOpen } = this.#options;
    const hosted = this.#tenants.get(`${namespace}/${tenant}`);
    return hosted && openedBy(hosted, { ownersOpen, isAllowed: (of) => this.#isAllowed(of) });
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    await this.#working;
    await Promise.all([this.#tenants.close(), this.#namespaces.close()]);
  }

  #schedule(ms: number): void {
    const dueAt = performance.now() + ms;
    if (this.#closed || dueAt >= this.#dueAt) return;
    this.#dueAt = dueAt;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#dueAt = Number.POSITIVE_INFINITY;
      this.#working = (this.#working ?? Promise.resolve()).then(() => this.#work());
    }, ms).unref();
  }

  async #work(): Promise<void> {
    const { clusterId, namespace, ownersOpen, onError } = this.#options;
    const isAllowed = (of: string) => this.#isAllowed(of);
    const tenants = [...this.#tenants.values()];
    const now = new Date().toISOString();
    for (const action of claimActions({ clusterId, namespace, tenants, isAllowed, ownersOpen, now })) {
      if (this.#closed) return;
      try {
        await this.#carryOut(action);
      } catch (error) {
        this.#schedule(AGAIN_MS);
        // Somebody was quicker, of whom the watch tells.
        if (!(error instanceof Error && isStatus(error.cause, 409)))
          onError(`a tenant of another namespace: ${messageOf(error)}`);
      }
    }
  }

  #isAllowed(namespace: string): boolean {
    return this.#namespaces.get(namespace)?.metadata?.labels?.[ALLOWED_LABEL] === this.#options.namespace;
  }

  async #carryOut(action: ClaimAction): Promise<void> {
    switch (action.do) {
      case "create": {
        const at = this.#at(action.tenant);
        this.#tenants.put(
          await attempt(`create ${at.name}`, () =>
            this.#api.createNamespacedCustomObject({ ...at, body: action.tenant }),
          ),
        );
        return;
      }
      case "update": {
        const at = this.#at(action.tenant);
        this.#tenants.put(
          await attempt(`update ${at.name}`, () =>
            this.#api.replaceNamespacedCustomObject({ ...at, body: action.tenant }),
          ),
        );
        return;
      }
      case "setStatus": {
        const at = this.#at(action.claim);
        const told = await attemptIfThere(`tell the status of ${at.namespace}/${at.name}`, () =>
          this.#api.replaceNamespacedCustomObjectStatus({ ...at, body: action.claim }),
        );
        if (told) this.#tenants.put(told as SynapseTenant);
        return;
      }
      case "delete": {
        // Not for a watch that has missed something.
        const { namespace, name, uid } = action.claim;
        const found = (await attemptIfThere(`look for ${namespace}/${name}`, () =>
          this.#api.getNamespacedCustomObject({ ...TENANTS, namespace, name }),
        )) as SynapseTenant | undefined;
        if (found?.metadata?.uid === uid && found.metadata.deletionTimestamp === undefined) return;
        const at = this.#at(action.tenant);
        await attemptIfThere(`delete ${at.name}`, () => this.#api.deleteNamespacedCustomObject(at));
      }
    }
  }

  #at({ metadata }: SynapseTenant) {
    return { ...TENANTS, namespace: metadata?.namespace ?? "", name: metadata?.name ?? "" };
  }
}
