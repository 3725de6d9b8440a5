import type { ConfigInEffect } from "../model/config-meaning.ts";
import type { ClusterEvent } from "../model/event.ts";
import type { Fleet } from "../model/fleet.ts";
import type { Shard } from "../model/shard.ts";
import type { Tenant } from "../model/tenant.ts";
import type { TenantSecretData } from "../model/tenant-secrets.ts";

export interface Kinds {
  Tenant: Tenant;
  Shard: Shard;
  Fleet: Fleet;
}
export type Kind = keyof Kinds;
export type AnyResource = Kinds[Kind];

export type Change =
  | { type: "Added" | "Modified" | "Deleted"; kind: "Tenant"; resource: Tenant }
  | { type: "Added" | "Modified" | "Deleted"; kind: "Shard"; resource: Shard }
  | { type: "Added" | "Modified" | "Deleted"; kind: "Fleet"; resource: Fleet };

/** The object changed since it was read. Not an error of anybody's: read again and decide again. */
export class ConflictError extends Error {
  constructor(kind: Kind, name: string) {
    super(`${kind}/${name} was changed by somebody else meanwhile`);
    this.name = "ConflictError";
  }
}

/**
 * Where the truth is. The model is Kubernetes' own: named objects with a version, optimistic concurrency, watches.
 *
 * The contract, which every adapter passes (tests/ports/store-contract.ts):
 * - What `create`, `update` and `remove` have answered survives a crash of process and machine.
 * - `update` writes only if `resourceVersion` is the stored one, else throws `ConflictError`. It raises `resourceVersion`,
 *   and `generation` if the spec differs.
 * - Resources handed out are the caller's: changing one changes nothing in the store.
 * - A listener of `watch` hears each change once, in order, after it is durable; it never runs inside the writer's call.
 */
export interface Store {
  list<K extends Kind>(kind: K): Promise<Kinds[K][]>;
  get<K extends Kind>(kind: K, name: string): Promise<Kinds[K] | undefined>;
  /** @throws UserError AlreadyExists */
  create<K extends Kind>(kind: K, name: string, spec: Kinds[K]["spec"], status: Kinds[K]["status"]): Promise<Kinds[K]>;
  /** Writes spec, status and deletionTimestamp. @throws ConflictError, also when it is gone */
  update<K extends Kind>(resource: Kinds[K]): Promise<Kinds[K]>;
  /**
   * Writes a tenant under another name, in one step with its events and what was counted of it; it keeps its generation and its age. A watcher hears
   * that the new name was added, and then that the former one is gone. Secrets stay: they are not kept by the tenant's name. Absent where names
   * cannot be changed. @param tenant as for `update` @param others tenants that name it, written in the same step; the tenant itself is left out
   * @throws ConflictError; UserError AlreadyExists
   */
  rename?(tenant: Tenant, to: string, others?: readonly Tenant[]): Promise<Tenant>;
  /** Removes it; nothing happens if it is not there. */
  remove(kind: Kind, name: string): Promise<void>;
  watch(listener: (change: Change) => void): () => void;

  /** Secrets, and configurations in effect, are kept by what a tenant's data are named by (`storageOf`). */
  readSecret(storage: string): Promise<TenantSecretData | undefined>;
  writeSecret(storage: string, data: TenantSecretData): Promise<void>;
  /** Removes its configuration in effect as well. */
  removeSecret(storage: string): Promise<void>;
  /** The configuration the tenant last ran with; undefined where it never ran. */
  readConfigInEffect(storage: string): Promise<ConfigInEffect | undefined>;
  writeConfigInEffect(storage: string, config: ConfigInEffect): Promise<void>;

  /** Adds an event; the oldest are forgotten beyond a bound of the adapter's. */
  appendEvent(event: Omit<ClusterEvent, "id" | "time">): Promise<ClusterEvent>;
  /** Events with an id above `after`, oldest first, at most `limit`, the newest ones if there are more. */
  listEvents(options: { after?: number; object?: string; limit: number }): Promise<ClusterEvent[]>;
  watchEvents(listener: (event: ClusterEvent) => void): () => void;

  close(): Promise<void>;
}

/**
 * Reads, changes and writes an object, again on conflict. `change` may run several times; it returns false to leave
 * the object as it is. @returns the object as it is now, or undefined if there is none
 */
export async function modify<K extends Kind>(
  store: Store,
  kind: K,
  name: string,
  change: (resource: Kinds[K]) => void | boolean,
): Promise<Kinds[K] | undefined> {
  for (;;) {
    const resource = await store.get(kind, name);
    if (!resource) return undefined;
    if (change(resource) === false) return resource;
    try {
      return await store.update<K>(resource);
    } catch (error) {
      if (!(error instanceof ConflictError)) throw error;
    }
  }
}
