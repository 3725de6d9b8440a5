import { CoreV1Api, type KubeConfig, type V1Secret } from "@kubernetes/client-node";
import { attempt, attemptIfThere, isStatus, retrying } from "../api-error.ts";
import { apiClient } from "../client.ts";
import { UserError } from "../../../model/errors.ts";
import type { ConfigInEffect } from "../../../model/config-meaning.ts";
import type { TenantSecretData } from "../../../model/tenant-secrets.ts";
import { ResourceCache, type CacheChange } from "../resource-cache.ts";

/** Which tenant a Secret belongs to; only Secrets with this label are read. */
export const TENANT_LABEL = "synapse-shards.io/tenant";
const MANAGED_BY = "app.kubernetes.io/managed-by";
const OURS = "synapse-shards-controller";

/** The keys in a tenant's Secret; docs/kubernetes-design.md. */
const KEYS = {
  signingKey: "signing.key",
  macaroonSecretKey: "macaroon-secret-key",
  formSecret: "form-secret",
  registrationSharedSecret: "registration-shared-secret",
} as const;
const OWN_KEYS = { serverName: "server-name", databasePassword: "database-password" } as const;
const CONFIG_KEY = "homeserver.yaml";
const HASH_KEY = "config-hash";

/** The Secret with the configuration that a tenant last ran with. The dot keeps it apart from all names of tenants. */
export function configSecretName(tenant: string): string {
  return `${tenant}.config-in-effect`;
}

export interface TenantSecretsOptions {
  config: KubeConfig;
  namespace: string;
  onChange: (secretName: string) => void;
  onError: (message: string) => void;
}

/** The Secrets of tenants: made by their owners, or by us where they made none. One that is not ours is never changed. */
export class TenantSecrets {
  readonly #api: CoreV1Api;
  readonly #namespace: string;
  readonly #cache: ResourceCache<V1Secret>;

  constructor({ config, namespace, onChange, onError }: TenantSecretsOptions) {
    this.#api = apiClient(config, CoreV1Api);
    this.#namespace = namespace;
    this.#cache = new ResourceCache<V1Secret>({
      config,
      path: `/api/v1/namespaces/${namespace}/secrets`,
      list: () => this.#api.listNamespacedSecret({ namespace, labelSelector: TENANT_LABEL }),
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

  /** The tenant's part of homeserver.yaml, if the Secret has one. */
  configIn(name: string): string | undefined {
    const data = this.#cache.get(name)?.data?.[CONFIG_KEY];
    return data === undefined ? undefined : decode(data);
  }

  /** @returns undefined where there is no such Secret @throws UserError InvalidConfig naming the key that is missing */
  async read(name: string, serverName: string): Promise<TenantSecretData | undefined> {
    // A tenant and its Secret are made together, and two watches may tell of them in the other order.
    const secret = this.#cache.get(name) ?? (await this.#fresh(name));
    if (!secret) return undefined;
    const value = (key: string): string => {
      const data = secret.data?.[key];
      if (data === undefined || data === "")
        throw new UserError(
          "InvalidConfig",
          `the Secret ${this.#namespace}/${name} has no key ${key}; it needs ${Object.values(KEYS).join(", ")}`,
        );
      return decode(data);
    };
    const optional = (key: string): string | undefined => (secret.data?.[key] ? value(key) : undefined);
    return {
      serverName: optional(OWN_KEYS.serverName) ?? serverName,
      signingKey: value(KEYS.signingKey),
      macaroonSecretKey: value(KEYS.macaroonSecretKey),
      formSecret: value(KEYS.formSecret),
      registrationSharedSecret: value(KEYS.registrationSharedSecret),
      databasePassword: optional(OWN_KEYS.databasePassword) ?? "",
    };
  }

  /** Makes the Secret, or replaces one that we made. @throws UserError Conflict where it is somebody else's */
  async write(name: string, tenant: string, data: TenantSecretData): Promise<void> {
    const stringData = Object.fromEntries(
      Object.entries({ ...KEYS, ...OWN_KEYS }).map(([field, key]) => [key, data[field as keyof TenantSecretData]]),
    );
    await this.#write(name, tenant, stringData);
  }

  async readConfigInEffect(tenant: string): Promise<ConfigInEffect | undefined> {
    const name = configSecretName(tenant);
    const secret = this.#cache.get(name) ?? (await this.#fresh(name));
    const [hash, config] = [secret?.data?.[HASH_KEY], secret?.data?.[CONFIG_KEY]];
    return hash === undefined || config === undefined ? undefined : { hash: decode(hash), config: decode(config) };
  }

  async writeConfigInEffect(tenant: string, { hash, config }: ConfigInEffect): Promise<void> {
    await this.#write(configSecretName(tenant), tenant, { [HASH_KEY]: hash, [CONFIG_KEY]: config });
  }

  async #write(name: string, tenant: string, stringData: Record<string, string>): Promise<void> {
    const present = this.#cache.get(name);
    const foreign = () =>
      new UserError(
        "Conflict",
        `the Secret ${this.#namespace}/${name} is not the controller's, and is not changed by it`,
      );
    if (present && present.metadata?.labels?.[MANAGED_BY] !== OURS) throw foreign();
    const body: V1Secret = {
      metadata: {
        name,
        namespace: this.#namespace,
        labels: { [TENANT_LABEL]: tenant, [MANAGED_BY]: OURS },
        resourceVersion: present?.metadata?.resourceVersion,
      },
      data: present?.data,
      stringData,
    };
    const namespace = this.#namespace;
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

  /** Removes a Secret that we made; one of somebody else's is left to its owner. */
  async remove(name: string): Promise<void> {
    const present = this.#cache.get(name);
    if (!present || present.metadata?.labels?.[MANAGED_BY] !== OURS) return;
    const namespace = this.#namespace;
    await attemptIfThere(`remove the Secret ${namespace}/${name}`, () =>
      retrying(() =>
        this.#api.deleteNamespacedSecret({ namespace, name, body: { preconditions: { uid: present.metadata?.uid } } }),
      ),
    );
    this.#cache.drop(present);
  }

  /** Reads a Secret that no watch has told of. @throws UserError InvalidConfig where it lacks the label, as no change of it would be noticed */
  async #fresh(name: string): Promise<V1Secret | undefined> {
    const namespace = this.#namespace;
    const found = await attemptIfThere(`read the Secret ${namespace}/${name}`, () =>
      retrying(() => this.#api.readNamespacedSecret({ namespace, name })),
    );
    if (!found) return undefined;
    if (found.metadata?.labels?.[TENANT_LABEL] === undefined)
      throw new UserError(
        "InvalidConfig",
        `the Secret ${namespace}/${name} has no label ${TENANT_LABEL}; its value is to be the tenant's name`,
      );
    this.#cache.put(found);
    return found;
  }
}

function decode(base64: string): string {
  return Buffer.from(base64, "base64").toString("utf8");
}
