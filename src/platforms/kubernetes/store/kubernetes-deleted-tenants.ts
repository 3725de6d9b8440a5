import { CoreV1Api, type KubeConfig, type V1Secret } from "@kubernetes/client-node";
import type { DeletedTenant, PurgeProof } from "../../../model/deleted-tenant.ts";
import { UserError } from "../../../model/errors.ts";
import type { Tenant, TenantStatus } from "../../../model/tenant.ts";
import type { DeletedTenants } from "../../../ports/deleted-tenants.ts";
import { attempt, attemptIfThere, isStatus, retrying } from "../api-error.ts";
import { apiClient } from "../client.ts";
import { ResourceCache } from "../resource-cache.ts";
import { CLAIM } from "../tenant-namespaces/claims.ts";
import type { KubernetesStore, TenantDefinition } from "./kubernetes-store.ts";
import { packed, unpacked, type Kept } from "./deleted-record.ts";
import { PurgeProofs } from "./purge-proofs.ts";

/** On the Secret of a deleted tenant: its cluster. */
const DELETED_LABEL = "synapse-shards.io/deleted-tenant-of";
/** What kubectl keeps there has the whole object once more. */
const LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration";

export interface KubernetesDeletedTenantsOptions {
  config: KubeConfig;
  namespace: string;
  clusterId: string;
  store: Pick<KubernetesStore, "definitionOf" | "createAs">;
  onError: (message: string) => void;
}

/**
 * Deleted tenants in a Secret each, as a configuration may hold passwords, and proofs in further ones. None belongs to an object that goes with the
 * chart: they are there again when it is installed again.
 */
export class KubernetesDeletedTenants implements DeletedTenants {
  readonly #options: KubernetesDeletedTenantsOptions;
  readonly #api: CoreV1Api;
  readonly #secrets: ResourceCache<V1Secret>;
  readonly #proofs: PurgeProofs;
  /** What is in each Secret, which is read once: they are listed whenever a name is asked for. */
  readonly #read = new WeakMap<V1Secret, Kept>();

  private constructor(options: KubernetesDeletedTenantsOptions) {
    const { config, namespace, clusterId, onError } = options;
    this.#options = options;
    this.#api = apiClient(config, CoreV1Api);
    this.#proofs = new PurgeProofs({ config, namespace, clusterId });
    const labelSelector = `${DELETED_LABEL}=${clusterId}`;
    this.#secrets = new ResourceCache<V1Secret>({
      config,
      path: `/api/v1/namespaces/${namespace}/secrets`,
      list: (page) => this.#api.listNamespacedSecret({ namespace, labelSelector, ...page }),
      labelSelector,
      what: "Secrets of deleted tenants",
      onChange: () => {},
      onError,
    });
  }

  /** Resolves when all of them have been read. @throws UserError */
  static async open(options: KubernetesDeletedTenantsOptions): Promise<KubernetesDeletedTenants> {
    const deleted = new KubernetesDeletedTenants(options);
    try {
      await deleted.#secrets.open();
    } catch (error) {
      await deleted.close();
      throw error;
    }
    return deleted;
  }

  close(): Promise<void> {
    return this.#secrets.close();
  }

  async list(): Promise<DeletedTenant[]> {
    const found = [...this.#secrets.values()].map((secret) => recordIn(this.#in(secret)));
    return found.toSorted((a, b) => (a.name < b.name ? -1 : 1));
  }

  async get(name: string): Promise<DeletedTenant | undefined> {
    const kept = this.#kept(name);
    return kept && recordIn(kept);
  }

  async put(tenant: DeletedTenant): Promise<void> {
    const { name } = tenant;
    const { namespace, clusterId, store } = this.#options;
    // While it is there, it is newer than what may be left of an earlier life. What is being removed is never made again.
    const definition = tenant.purge
      ? undefined
      : (plainDefinition(store.definitionOf(name)) ?? this.#kept(name)?.definition);
    const kept: Kept = {
      record: { ...tenant, spec: { ...tenant.spec, config: "" } },
      ...(definition ? { definition } : {}),
    };
    const at = this.#nameOf(name);
    const present = this.#secrets.get(at);
    const body: V1Secret = {
      metadata: {
        name: at,
        namespace,
        labels: { [DELETED_LABEL]: clusterId, "app.kubernetes.io/managed-by": "synapse-shards-controller" },
        resourceVersion: present?.metadata?.resourceVersion,
      },
      data: packed(kept),
    };
    const written = await attempt(`write the Secret ${namespace}/${at}`, () =>
      retrying(() =>
        present
          ? this.#api.replaceNamespacedSecret({ namespace, name: at, body })
          : this.#api.createNamespacedSecret({ namespace, body }),
      ).catch(async (error: unknown) => {
        // As it is now, it is found the next time.
        if (isStatus(error, 409)) await this.#refresh(at);
        throw error;
      }),
    );
    this.#secrets.put(written);
  }

  async remove(name: string): Promise<void> {
    const { namespace } = this.#options;
    const at = this.#nameOf(name);
    const present = this.#secrets.get(at);
    if (!present) return;
    await attemptIfThere(`remove the Secret ${namespace}/${at}`, () =>
      retrying(() => this.#api.deleteNamespacedSecret({ namespace, name: at })),
    );
    this.#secrets.drop(present);
  }

  prove(proof: Omit<PurgeProof, "previous" | "sha256">): Promise<PurgeProof> {
    return this.#proofs.add(proof);
  }

  proofs(limit: number): Promise<PurgeProof[]> {
    return this.#proofs.newest(limit);
  }

  /** Makes a deleted tenant's object as it was. @throws UserError Conflict where that is not ours to do */
  async recreate({ name, spec }: DeletedTenant, status: TenantStatus): Promise<Tenant> {
    const definition = this.#kept(name)?.definition;
    if (!definition)
      throw new UserError("Conflict", `how the SynapseTenant ${name} was is not known; create it, and it continues`);
    const claim = definition.annotations[CLAIM];
    if (claim !== undefined)
      throw new UserError(
        "Conflict",
        `${name} was made for the SynapseTenant ${claim}: create that one again with the server name ${spec.serverName}, and it continues`,
      );
    const retained = { ...definition, spec: { ...definition.spec, reclaimPolicy: "Retain" as const } };
    return this.#options.store.createAs(name, retained, status);
  }

  #kept(name: string): Kept | undefined {
    const secret = this.#secrets.get(this.#nameOf(name));
    return secret && this.#in(secret);
  }

  #in(secret: V1Secret): Kept {
    const known = this.#read.get(secret) ?? unpacked(secret);
    this.#read.set(secret, known);
    return known;
  }

  /** The dots keep it apart from what tenants' owners call their Secrets. */
  #nameOf(tenant: string): string {
    return `${this.#options.clusterId}.${tenant}.deleted`;
  }

  async #refresh(name: string): Promise<void> {
    const { namespace } = this.#options;
    const found = await attemptIfThere(`read the Secret ${namespace}/${name}`, () =>
      retrying(() => this.#api.readNamespacedSecret({ namespace, name })),
    );
    const known = this.#secrets.get(name);
    if (found) this.#secrets.put(found);
    else if (known) this.#secrets.drop(known);
  }
}

function recordIn({ record, definition }: Kept): DeletedTenant {
  return { ...record, spec: { ...record.spec, config: definition?.spec.config ?? "" } };
}

function plainDefinition(definition: TenantDefinition | undefined): TenantDefinition | undefined {
  if (!definition) return undefined;
  const { [LAST_APPLIED]: _, ...annotations } = definition.annotations;
  return { ...definition, annotations };
}
