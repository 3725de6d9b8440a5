import { randomBytes } from "node:crypto";
import { CoreV1Api, type KubeConfig, type V1OwnerReference, type V1Secret } from "@kubernetes/client-node";
import { UserError } from "../../model/errors.ts";
import type { NamedToken } from "../../model/role.ts";
import { namedIn } from "./named-keys.ts";
import { grantOf } from "../../model/grant.ts";
import { RememberedUses } from "../../api/access/last-uses.ts";
import type { NamedTokens } from "../../api/access/named-tokens.ts";
import { attempt, isStatus, retrying } from "./api-error.ts";
import { apiClient } from "./client.ts";
import { ResourceCache } from "./resource-cache.ts";

const KEYS = { api: "api-token", gateway: "gateway-token" } as const;
type TokenOf = keyof typeof KEYS;

/** The kubelet brings a changed Secret to gateways' pods within a minute or two; until then they have the token before. */
const GATEWAY_OVERLAP_MS = 300_000;

export interface ClusterTokensOptions {
  config: KubeConfig;
  namespace: string;
  /** Name of the Secret. */
  secret: string;
  /** Makes the Secret where it is missing. */
  make: boolean;
  /** With what a Secret that is made goes. */
  owner: V1OwnerReference | undefined;
  labels: Record<string, string>;
  onError: (message: string) => void;
  /** Monotonic, in milliseconds. */
  now?: () => number;
}

/** The tokens of the API, as they are in their Secret now: a changed one counts at once. */
export class ClusterTokens {
  readonly #options: ClusterTokensOptions;
  readonly #api: CoreV1Api;
  readonly #cache: ResourceCache<V1Secret>;
  #tokens: Record<TokenOf, string> | undefined;
  #named = new Map<string, NamedToken>();
  /** Of this leader. */
  readonly #uses = new RememberedUses();
  #gatewayBefore: { token: string; until: number } | undefined;

  private constructor(options: ClusterTokensOptions) {
    const { config, namespace, secret: name, onError } = options;
    this.#options = options;
    this.#api = apiClient(config, CoreV1Api);
    const fieldSelector = `metadata.name=${name}`;
    this.#cache = new ResourceCache<V1Secret>({
      config,
      path: `/api/v1/namespaces/${namespace}/secrets?fieldSelector=${encodeURIComponent(fieldSelector)}`,
      list: (page) => this.#api.listNamespacedSecret({ namespace, fieldSelector, ...page }),
      what: `the Secret ${name}`,
      onChange: ({ type, object }) => this.#take(type === "Deleted" ? undefined : object),
      onError,
    });
  }

  /** Resolves when there are tokens. @throws UserError InvalidConfig that names the Secret and what it lacks */
  static async open(options: ClusterTokensOptions): Promise<ClusterTokens> {
    const tokens = new ClusterTokens(options);
    try {
      await tokens.#cache.open();
      if (!tokens.#cache.get(options.secret) && options.make) await tokens.#make();
      if (!tokens.#tokens) throw new UserError("InvalidConfig", tokens.#problem());
      return tokens;
    } catch (error) {
      await tokens.close();
      throw error;
    }
  }

  /** For replicas that do not lead: what is in the Secret, if there is one, and when there is. @throws UserError */
  static async follow(
    options: Omit<ClusterTokensOptions, "make" | "owner" | "labels">,
  ): Promise<Pick<ClusterTokens, "api" | "close">> {
    const tokens = new ClusterTokens({ ...options, make: false, owner: undefined, labels: {} });
    try {
      await tokens.#cache.open();
      return tokens;
    } catch (error) {
      await tokens.close();
      throw error;
    }
  }

  close(): Promise<void> {
    return this.#cache.close();
  }

  /** Those that are good for people and the CLI. */
  api(): readonly string[] {
    return this.#tokens ? [this.#tokens.api] : [];
  }

  /** Named tokens are keys `ROLE.NAME` of the Secret, so that they come from where other secrets come from. */
  readonly named: NamedTokens = {
    actorOf: (digest) => {
      const found = this.#named.get(digest);
      if (!found || (found.expiresAt !== undefined && Date.parse(found.expiresAt) <= Date.now())) return undefined;
      this.#uses.note(found.name);
      return { name: found.name, ...grantOf(found) };
    },
    list: () =>
      [...this.#named.values()]
        .toSorted((a, b) => (a.name < b.name ? -1 : 1))
        .map((token) => {
          const lastUsedAt = this.#uses.of(token.name);
          return lastUsedAt === undefined ? token : { ...token, lastUsedAt };
        }),
    create: () => this.#refuse(),
    revoke: () => this.#refuse(),
  };

  #refuse(): never {
    const { namespace, secret } = this.#options;
    throw new UserError(
      "Conflict",
      `on Kubernetes, tokens are keys ROLE.NAME of the Secret ${namespace}/${secret}, which belongs to whoever manages that cluster: docs/access.md says how they are added and removed`,
    );
  }

  /** Those that are good for gateways. */
  gateway(): readonly string[] {
    const before = this.#gatewayBefore;
    const overlap = before && this.#now() < before.until ? [before.token] : [];
    return this.#tokens ? [this.#tokens.gateway, ...overlap] : [];
  }

  #take(secret: V1Secret | undefined): void {
    if (!secret && this.#options.make && this.#tokens) {
      void this.#make().catch((error: unknown) => this.#options.onError(String(error)));
      return;
    }
    const tokens = secret && tokensIn(secret);
    if (!tokens) {
      // Who has the tokens of before goes on with them: without any, nobody could do anything.
      if (this.#tokens) this.#options.onError(`${this.#problem()}; the tokens of before stay in use`);
      return;
    }
    if (this.#tokens && this.#tokens.gateway !== tokens.gateway)
      this.#gatewayBefore = { token: this.#tokens.gateway, until: this.#now() + GATEWAY_OVERLAP_MS };
    this.#tokens = tokens;
    this.#named = namedIn(secret.data ?? {}, { own: Object.values(KEYS), onError: this.#options.onError });
  }

  #problem(): string {
    const { namespace, secret, make } = this.#options;
    const keys = Object.values(KEYS).join(" and ");
    if (!this.#cache.get(secret) && !make)
      return `there is no Secret ${namespace}/${secret}; make one with the keys ${keys}, or leave tokens.existingSecret empty`;
    return `the Secret ${namespace}/${secret} lacks a token; it needs the keys ${keys}`;
  }

  /** Makes the Secret, with the tokens in use if there are some. */
  async #make(): Promise<void> {
    const { namespace, secret: name, owner, labels } = this.#options;
    const fresh = () => randomBytes(32).toString("base64url");
    const stringData = {
      [KEYS.api]: this.#tokens?.api ?? fresh(),
      [KEYS.gateway]: this.#tokens?.gateway ?? fresh(),
    };
    const body: V1Secret = {
      metadata: { name, namespace, labels, ...(owner ? { ownerReferences: [owner] } : {}) },
      type: "Opaque",
      stringData,
    };
    try {
      const made = await attempt(`make the Secret ${name}`, () =>
        retrying(() => this.#api.createNamespacedSecret({ namespace, body })),
      );
      this.#cache.put(made);
    } catch (error) {
      // Another controller was quicker.
      if (!isStatus((error as Error).cause, 409)) throw error;
      this.#cache.put(await this.#api.readNamespacedSecret({ namespace, name }));
    }
  }

  #now(): number {
    return this.#options.now?.() ?? performance.now();
  }
}

function tokensIn(secret: V1Secret): Record<TokenOf, string> | undefined {
  const value = (key: string) =>
    Buffer.from(secret.data?.[key] ?? "", "base64")
      .toString("utf8")
      .trim();
  const tokens = { api: value(KEYS.api), gateway: value(KEYS.gateway) };
  return tokens.api === "" || tokens.gateway === "" ? undefined : tokens;
}
