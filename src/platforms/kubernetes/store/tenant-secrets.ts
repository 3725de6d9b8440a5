import type { KubeConfig, V1Secret, V1OwnerReference } from "@kubernetes/client-node";
import type { ConfigInEffect } from "../../../model/config-meaning.ts";
import { messageOf, UserError } from "../../../model/errors.ts";
import type { TenantSecretData } from "../../../model/tenant-secrets.ts";
import { composeConfig, type ConfigPart } from "./compose-config.ts";
import { GrantedSecrets } from "./granted-secrets.ts";
import { decode, LabelledSecrets, TENANT_LABEL } from "./labelled-secrets.ts";
import { secretNameOf } from "./mapping.ts";
import type { SecretRef, SynapseTenant } from "./resources.ts";

/** The keys in a tenant's Secret; docs/kubernetes-design.md. */
const KEYS = {
  signingKey: "signing.key",
  macaroonSecretKey: "macaroon-secret-key",
  formSecret: "form-secret",
  registrationSharedSecret: "registration-shared-secret",
} as const;
const OWN_KEYS = { serverName: "server-name", databasePassword: "database-password" } as const;
const CONFIG_KEY = "homeserver.yaml";
const APP_SERVICE = "app-service";
const HASH_KEY = "config-hash";
const KEPT_KEYS = "keys.json";

/** The Secret with the configuration that a tenant last ran with. The dot keeps it apart from all names of tenants. */
function configSecretName(tenant: string): string {
  return `${tenant}.config-in-effect`;
}

/** Why a tenant's configuration or keys cannot be read. */
export interface SecretProblem {
  reason:
    | "SecretMissing"
    | "SecretKeyMissing"
    | "SecretNotLabelled"
    | "SecretForbidden"
    | "SecretUnreadable"
    | "SecretUnfit";
  message: string;
}

export interface TenantSecretsOptions {
  config: KubeConfig;
  namespace: string;
  /** Told of each Secret that a tenant may have its configuration from. */
  onChange: (namespace: string, name: string) => void;
  onError: (message: string) => void;
  /** Between two looks at a Secret of another namespace. */
  pollMs?: number;
}

/**
 * The Secrets of tenants: made by their owners, or by us where they made none. A Secret that is not ours is never changed, and one that does not
 * name the tenant in its label is not read: who may write a SynapseTenant must not get at Secrets of others that way.
 */
export class TenantSecrets {
  readonly #namespace: string;
  readonly #own: LabelledSecrets;
  readonly #granted: GrantedSecrets;
  /** What was last composed, so that a configuration that cannot be read for now is not taken for an empty one. */
  readonly #lastConfigs = new Map<string, string>();
  /** Compositions by what they were made from: every list of tenants asks for all of them. */
  readonly #composed = new Map<string, { from: string; text: string }>();
  /** What is wrong with a tenant's Secrets, by its object; and those that it was found in. */
  readonly #problems = new WeakMap<SynapseTenant, { from: readonly unknown[]; problem: SecretProblem | undefined }>();

  constructor({ config, namespace, onChange, onError, pollMs }: TenantSecretsOptions) {
    this.#namespace = namespace;
    const changed = (name: string) => onChange(namespace, name);
    this.#own = new LabelledSecrets({ config, namespace, onChange: changed, onError });
    this.#granted = new GrantedSecrets({ config, onChange, onError, ...(pollMs === undefined ? {} : { pollMs }) });
  }

  open(): Promise<void> {
    return this.#own.open();
  }

  /** Reads the Secrets of other namespaces that tenants name, now and from time to time. */
  openGranted(tenants: () => Iterable<SynapseTenant>): Promise<void> {
    const places = () => [...tenants()].flatMap((tenant) => this.#placesOf(tenant));
    return this.#granted.open(() => places().filter(({ namespace }) => namespace !== this.#namespace));
  }

  async close(): Promise<void> {
    this.#granted.close();
    await this.#own.close();
  }

  /** The Secrets that the tenant's configuration and keys come from, NAMESPACE/NAME. */
  secretsOf(tenant: SynapseTenant): string[] {
    return this.#placesOf(tenant).map(({ namespace, name }) => `${namespace}/${name}`);
  }

  /** Reads what the tenant names in other namespaces, after it was changed. */
  async refresh(tenant: SynapseTenant): Promise<void> {
    const elsewhere = this.#placesOf(tenant).filter(({ namespace }) => namespace !== this.#namespace);
    await Promise.all(elsewhere.map(({ namespace, name }) => this.#granted.read(namespace, name)));
  }

  /** The tenant's part of homeserver.yaml, if a Secret has it; while that cannot be read, as it last was. */
  configOf(tenant: SynapseTenant): string | undefined {
    const uid = tenant.metadata?.uid ?? "";
    try {
      const text = this.#compose(tenant);
      if (text === undefined) this.#lastConfigs.delete(uid);
      else this.#lastConfigs.set(uid, text);
      return text;
    } catch (error) {
      if (error instanceof Unreadable) return this.#lastConfigs.get(uid);
      throw error;
    }
  }

  /** Why a Secret that the tenant names cannot be used; undefined where all is well. */
  problemOf(tenant: SynapseTenant): SecretProblem | undefined {
    if (tenant.spec.secretName === undefined && (tenant.spec.secretRefs ?? []).length === 0) return undefined;
    const from = this.#placesOf(tenant).map(({ namespace, name }) => this.#look(namespace, name));
    const known = this.#problems.get(tenant);
    if (known?.from.every((one, at) => one === from[at])) return known.problem;
    const problem = this.#findProblem(tenant);
    this.#problems.set(tenant, { from, problem });
    return problem;
  }

  #findProblem(tenant: SynapseTenant): SecretProblem | undefined {
    try {
      this.#compose(tenant);
      this.#keysOf(tenant);
      return undefined;
    } catch (error) {
      if (error instanceof Unreadable) return { reason: error.reason, message: error.message };
      throw error;
    }
  }

  /** @returns undefined where the tenant names no Secret and has none @throws UserError InvalidConfig saying what is missing */
  async read(tenant: SynapseTenant): Promise<TenantSecretData | undefined> {
    await this.refresh(tenant);
    const { namespace, name } = this.#placeOf(tenant);
    // A tenant and its Secret are made together, and two watches may tell of them in the other order.
    if (namespace === this.#namespace) await this.#own.fresh(name);
    try {
      this.#compose(tenant);
      return this.#keysOf(tenant);
    } catch (error) {
      if (!(error instanceof Unreadable)) throw error;
      if (error.reason === "SecretUnreadable") throw new UserError("Unavailable", error.message);
      throw new UserError("InvalidConfig", error.message);
    }
  }

  /** Makes the Secret, or replaces one that we made. @throws UserError Conflict where it is somebody else's */
  async write(tenant: SynapseTenant, data: TenantSecretData): Promise<void> {
    const { namespace, name } = this.#placeOf(tenant);
    if (namespace !== this.#namespace)
      throw new UserError(
        "Conflict",
        `the Secret ${namespace}/${name} is not the controller's, and is not changed by it`,
      );
    const stringData = Object.fromEntries(
      Object.entries({ ...KEYS, ...OWN_KEYS }).map(([field, key]) => [key, data[field as keyof TenantSecretData]]),
    );
    await this.#own.write(name, tenant.metadata?.name ?? "", stringData);
  }

  /** Removes the Secrets that we made for the tenant; those of its owner are left to them. */
  async remove(tenant: SynapseTenant): Promise<void> {
    const { namespace, name } = this.#placeOf(tenant);
    const owner = tenant.metadata?.name ?? "";
    if (namespace === this.#namespace) await this.#own.remove(name, owner);
    await this.#own.remove(configSecretName(owner), owner);
  }

  /** The signing key in a Secret that we made for the tenant; undefined where its owner made it. */
  async ownSigningKey(tenant: SynapseTenant): Promise<string | undefined> {
    const { namespace, name } = this.#placeOf(tenant);
    if (namespace !== this.#namespace) return undefined;
    const data = (await this.#own.ours(name, tenant.metadata?.name ?? ""))?.data?.[KEYS.signingKey];
    return data === undefined ? undefined : decode(data);
  }

  async readConfigInEffect(tenant: string): Promise<ConfigInEffect | undefined> {
    const secret = await this.#own.fresh(configSecretName(tenant));
    const [hash, config] = [secret?.data?.[HASH_KEY], secret?.data?.[CONFIG_KEY]];
    if (hash === undefined || config === undefined) return undefined;
    const keys = secret?.data?.[KEPT_KEYS];
    const secrets = keys === undefined ? {} : { secrets: JSON.parse(decode(keys)) as TenantSecretData };
    return { hash: decode(hash), config: decode(config), ...secrets };
  }

  /** @param owner with which it goes: the tenant's object, whose data may be kept without it */
  async writeConfigInEffect(
    tenant: string,
    { hash, config, secrets }: ConfigInEffect,
    owner?: V1OwnerReference,
  ): Promise<void> {
    const keys: Record<string, string> = secrets ? { [KEPT_KEYS]: JSON.stringify(secrets) } : {};
    const data = { [HASH_KEY]: hash, [CONFIG_KEY]: config, ...keys };
    await this.#own.write(configSecretName(tenant), tenant, data, owner);
  }

  /** NAMESPACE/NAME of the tenant's Secret. */
  nameOf(tenant: SynapseTenant): string {
    const { namespace, name } = this.#placeOf(tenant);
    return `${namespace}/${name}`;
  }

  #placeOf(tenant: SynapseTenant): { namespace: string; name: string } {
    return { namespace: tenant.spec.secretNamespace ?? this.#namespace, name: secretNameOf(tenant) };
  }

  #placesOf(tenant: SynapseTenant): { namespace: string; name: string }[] {
    const own = this.#placeOf(tenant);
    const more = (tenant.spec.secretRefs ?? []).map(({ name }) => ({ namespace: own.namespace, name }));
    return [own, ...more];
  }

  #compose(tenant: SynapseTenant): string | undefined {
    const { namespace, name } = this.#placeOf(tenant);
    const secret = this.#usable(tenant, namespace, name);
    const parts: ConfigPart[] = (tenant.spec.secretRefs ?? [])
      .filter((ref) => ref.for === CONFIG_KEY || ref.for === APP_SERVICE)
      .map((ref) => ({
        ...(ref.for === APP_SERVICE ? { isAppService: true as const } : {}),
        ...(ref.path === undefined ? {} : { path: ref.path }),
        ...this.#partOf(tenant, namespace, ref),
      }));
    const { hosts = [] } = tenant.spec;
    if (parts.length === 0 && hosts.length === 0) return secret && textIn(secret);
    const own = (secret && textIn(secret)) ?? tenant.spec.config ?? "";
    const from = JSON.stringify([own, parts, hosts]);
    const known = this.#composed.get(tenant.metadata?.uid ?? "");
    if (known?.from === from) return known.text;
    try {
      const composed = composeConfig(own, parts, hosts);
      this.#composed.set(tenant.metadata?.uid ?? "", { from, text: composed });
      return composed;
    } catch (error) {
      if (error instanceof UserError) throw new Unreadable("SecretUnfit", messageOf(error));
      throw error;
    }
  }

  #partOf(tenant: SynapseTenant, namespace: string, { name, key }: SecretRef): { content: string; from: string } {
    const secret = this.#usable(tenant, namespace, name, true);
    return {
      content: contentOf(secret, namespace, name, key),
      from: `the key ${key} of the Secret ${namespace}/${name}`,
    };
  }

  #keysOf(tenant: SynapseTenant): TenantSecretData | undefined {
    const { namespace, name } = this.#placeOf(tenant);
    const refs = new Map((tenant.spec.secretRefs ?? []).map((ref) => [ref.for, ref]));
    const secret = this.#usable(tenant, namespace, name);
    if (!secret && Object.values(KEYS).some((key) => !refs.has(key))) return undefined;
    const value = (key: (typeof KEYS)[keyof typeof KEYS]): string => {
      const ref = refs.get(key);
      if (ref) return this.#partOf(tenant, namespace, ref).content.trim();
      return contentOf(secret, namespace, name, key, `; it needs ${Object.values(KEYS).join(", ")}`);
    };
    const optional = (key: string): string | undefined =>
      secret?.data?.[key] ? contentOf(secret, namespace, name, key) : undefined;
    return {
      serverName: optional(OWN_KEYS.serverName) ?? tenant.spec.serverName,
      signingKey: value(KEYS.signingKey),
      macaroonSecretKey: value(KEYS.macaroonSecretKey),
      formSecret: value(KEYS.formSecret),
      registrationSharedSecret: value(KEYS.registrationSharedSecret),
      databasePassword: optional(OWN_KEYS.databasePassword) ?? "",
    };
  }

  /**
   * A Secret that names the tenant.
   * @returns undefined where it is missing and need not be there @throws Unreadable
   */
  #usable(
    tenant: SynapseTenant,
    namespace: string,
    name: string,
    needed = tenant.spec.secretName !== undefined,
  ): V1Secret | undefined {
    const secret = this.#known(namespace, name);
    const tenantName = tenant.metadata?.name ?? "";
    if (!secret) {
      if (!needed) return undefined;
      throw new Unreadable(
        "SecretMissing",
        `there is no Secret ${namespace}/${name}, which the SynapseTenant ${tenantName} names`,
      );
    }
    const label = secret.metadata?.labels?.[TENANT_LABEL];
    if (label === tenantName) return secret;
    const is =
      label === undefined ? `has no label ${TENANT_LABEL}` : `belongs to ${label}, says its label ${TENANT_LABEL}`;
    throw new Unreadable(
      "SecretNotLabelled",
      `the Secret ${namespace}/${name} ${is}; its value is to be ${tenantName}`,
    );
  }

  /** What is known of a Secret: the same object until the Secret changes. */
  #look(namespace: string, name: string): unknown {
    return namespace === this.#namespace ? this.#own.get(name) : this.#granted.known(namespace, name);
  }

  #known(namespace: string, name: string): V1Secret | undefined {
    if (namespace === this.#namespace) return this.#own.get(name);
    const known = this.#granted.get(namespace, name);
    switch (known.state) {
      case "found":
        return known.secret;
      case "missing":
        return undefined;
      case "forbidden":
        throw new Unreadable(
          "SecretForbidden",
          `the namespace ${namespace} does not let this cluster's controller read the Secret ${name}: a Role and a RoleBinding there have to`,
        );
      case "unknown":
        throw new Unreadable("SecretUnreadable", `the Secret ${namespace}/${name} cannot be read: ${known.why}`);
    }
  }
}

const texts = new WeakMap<V1Secret, string>();

/** The homeserver.yaml of a Secret. All who hold it hold one text: it is the largest part of a tenant, and asked for all the time. */
function textIn(secret: V1Secret): string | undefined {
  const known = texts.get(secret);
  if (known !== undefined) return known;
  const data = secret.data?.[CONFIG_KEY];
  if (data === undefined) return undefined;
  const text = decode(data);
  texts.set(secret, text);
  return text;
}

/** Says why a Secret is of no use; what the callers make of it differs. */
class Unreadable extends Error {
  readonly reason: SecretProblem["reason"];
  constructor(reason: SecretProblem["reason"], message: string) {
    super(message);
    this.reason = reason;
  }
}

/** @throws Unreadable naming the key that is missing */
function contentOf(secret: V1Secret | undefined, namespace: string, name: string, key: string, hint = ""): string {
  const data = secret?.data?.[key];
  if (data === undefined || data === "")
    throw new Unreadable("SecretKeyMissing", `the Secret ${namespace}/${name} has no key ${key}${hint}`);
  return decode(data);
}
