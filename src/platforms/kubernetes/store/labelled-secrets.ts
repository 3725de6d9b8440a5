import { CoreV1Api, type KubeConfig, type V1Secret, type V1OwnerReference } from "@kubernetes/client-node";
import { attempt, attemptIfThere, isStatus, retrying } from "../api-error.ts";
import { apiClient } from "../client.ts";
import { UserError } from "../../../model/errors.ts";
import { ResourceCache, type CacheChange } from "../resource-cache.ts";

/** Which tenant a Secret belongs to: nobody else's configuration or keys are read from it. */
export const TENANT_LABEL = "synapse-shards.io/tenant";
const MANAGED_BY = "app.kubernetes.io/managed-by";
const OURS = "synapse-shards-controller";

export interface LabelledSecretsOptions {
  config: KubeConfig;
  namespace: string;
  onChange: (name: string) => void;
  onError: (message: string) => void;
}

/** The Secrets of the shards' namespace that name a tenant: made by their owners or by us. A Secret that is not ours is never changed. */
export class LabelledSecrets {
  readonly #api: CoreV1Api;
  readonly #namespace: string;
  readonly #cache: ResourceCache<V1Secret>;
  /** Secrets without the label, which no watch tells of: known only to say what is wrong with them. */
  readonly #unlabelled = new Map<string, V1Secret>();

  constructor({ config, namespace, onChange, onError }: LabelledSecretsOptions) {
    this.#api = apiClient(config, CoreV1Api);
    this.#namespace = namespace;
    this.#cache = new ResourceCache<V1Secret>({
      config,
      path: `/api/v1/namespaces/${namespace}/secrets`,
      list: (page) => this.#api.listNamespacedSecret({ namespace, labelSelector: TENANT_LABEL, ...page }),
      labelSelector: TENANT_LABEL,
      what: "Secrets of tenants",
      onChange: ({ object }: CacheChange<V1Secret>) => onChange(object.metadata?.name ?? ""),
      onError,
    });
  }

  open(): Promise<void> {
    return this.#cache.open();
  }

  close(): Promise<void> {
    return this.#cache.close();
  }

  get(name: string): V1Secret | undefined {
    return this.#cache.get(name) ?? this.#unlabelled.get(name);
  }

  /** The same; asks for a Secret that no watch has told of. */
  async fresh(name: string): Promise<V1Secret | undefined> {
    const known = this.#cache.get(name);
    if (known) return known;
    const namespace = this.#namespace;
    const found = await attemptIfThere(`read the Secret ${namespace}/${name}`, () =>
      retrying(() => this.#api.readNamespacedSecret({ namespace, name })),
    );
    this.#unlabelled.delete(name);
    if (!found) return undefined;
    if (found.metadata?.labels?.[TENANT_LABEL] === undefined) this.#unlabelled.set(name, found);
    else this.#cache.put(found);
    return found;
  }

  /** Makes the Secret, or replaces one that we made for the tenant. @throws UserError Conflict where it is somebody else's */
  async write(
    name: string,
    tenant: string,
    stringData: Record<string, string>,
    owner?: V1OwnerReference,
  ): Promise<void> {
    const namespace = this.#namespace;
    const present = this.#cache.get(name);
    const foreign = () =>
      new UserError(
        "Conflict",
        `the Secret ${namespace}/${name} was not made by the controller for ${tenant}, and is not changed by it`,
      );
    if (present && !isOurs(present, tenant)) throw foreign();
    const body: V1Secret = {
      metadata: {
        name,
        namespace,
        labels: { [TENANT_LABEL]: tenant, [MANAGED_BY]: OURS },
        ...(owner ? { ownerReferences: [owner] } : {}),
        resourceVersion: present?.metadata?.resourceVersion,
      },
      data: present?.data,
      stringData,
    };
    const written = await attempt(`write the Secret ${namespace}/${name}`, () =>
      retrying(() =>
        present
          ? this.#api.replaceNamespacedSecret({ namespace, name, body })
          : this.#api.createNamespacedSecret({ namespace, body }),
      ).catch((error: unknown) => {
        throw !present && isStatus(error, 409) ? foreign() : error;
      }),
    );
    this.#cache.put(written);
  }

  /** The Secret, if we made it for the tenant. */
  async ours(name: string, tenant: string): Promise<V1Secret | undefined> {
    const present = await this.fresh(name);
    return isOurs(present, tenant) ? present : undefined;
  }

  /** Removes a Secret that we made for the tenant; one of somebody else's, or another tenant's, is left to its owner. */
  async remove(name: string, tenant: string): Promise<void> {
    const present = this.#cache.get(name);
    if (!isOurs(present, tenant)) return;
    const namespace = this.#namespace;
    await attemptIfThere(`remove the Secret ${namespace}/${name}`, () =>
      retrying(() =>
        this.#api.deleteNamespacedSecret({ namespace, name, body: { preconditions: { uid: present.metadata?.uid } } }),
      ),
    );
    this.#cache.drop(present);
  }
}

function isOurs(secret: V1Secret | undefined, tenant: string): secret is V1Secret {
  const labels = secret?.metadata?.labels ?? {};
  return labels[MANAGED_BY] === OURS && labels[TENANT_LABEL] === tenant;
}

export function decode(base64: string): string {
  return Buffer.from(base64, "base64").toString("utf8");
}
