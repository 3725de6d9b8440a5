import { mergedOrder } from "../model/kept-order.ts";
import { storageOf } from "../model/storage-name.ts";
import type { Tenant } from "../model/tenant.ts";
import type { Change, Kind, Kinds, Store } from "../ports/store.ts";

interface Sorted<T> {
  names: string[];
  all: T[];
  /** Where each name is. */
  places: Map<string, number>;
  added: Set<string>;
  isShorter: boolean;
}

/**
 * What is in a store, kept in memory by its watch: for those who look at everything often. Nothing is copied, so that what it gives
 * must not be changed. As watchers hear of a write before its writer goes on, a reader never misses what its own controller did;
 * of others' writes it is as old as a watch is. Before it acts, a caller reads the object once more from the store, by `modify`.
 */
export class CachedReader {
  readonly #store: Store;
  readonly #objects: { [K in Kind]: Map<string, Kinds[K]> } = { Tenant: new Map(), Shard: new Map(), Fleet: new Map() };
  /** By name, once somebody has asked; `added` and `isShorter` say what came and went since then. */
  readonly #sorted: { [K in Kind]?: Sorted<Kinds[K]> } = {};
  readonly #changes: Record<Kind, number> = { Tenant: 0, Shard: 0, Fleet: 0 };
  readonly #onShard = new Map<string, Set<string>>();
  /** Names of tenants by what their data is named by, where that is not their name. */
  readonly #byStorage = new Map<string, string>();
  readonly #listeners = new Set<(kind: Kind, name: string) => void>();
  #unwatch: () => void = () => {};

  constructor(store: Store) {
    this.#store = store;
  }

  /** Reads everything once. Listeners hear of each object. */
  async open(): Promise<void> {
    /** What changed while the lists were read: those may be older. */
    const heard = new Set<string>();
    let isOpening = true;
    const key = ({ kind, resource }: Change) => `${kind}/${resource.metadata.name}`;
    // First of all, so that nothing is missed between the lists and the watch.
    this.#unwatch = this.#store.watch((change) => {
      if (isOpening) heard.add(key(change));
      this.#hear(change);
    });
    const take = (change: Change) => {
      if (!heard.has(key(change))) this.#hear(change);
    };
    for (const resource of await this.#store.list("Shard")) take({ type: "Added", kind: "Shard", resource });
    for (const resource of await this.#store.list("Tenant")) take({ type: "Added", kind: "Tenant", resource });
    for (const resource of await this.#store.list("Fleet")) take({ type: "Added", kind: "Fleet", resource });
    isOpening = false;
  }

  close(): void {
    this.#unwatch();
  }

  values<K extends Kind>(kind: K): Iterable<Kinds[K]> {
    return this.#map(kind).values();
  }

  /** By name. All are sorted once; what comes later is put in, and what changes takes its place. */
  sorted<K extends Kind>(kind: K): Kinds[K][] {
    const objects = this.#map(kind);
    const { names: before, added, isShorter } = this.#sorted[kind] ?? noneOf(objects);
    if (added.size > 0 || isShorter) {
      const stay = before.filter((name) => objects.has(name) && !added.has(name));
      const come = [...added].filter((name) => objects.has(name)).toSorted((a, b) => (a < b ? -1 : 1));
      const names = mergedOrder(stay, come, (a, b) => a < b);
      const places = new Map(names.map((name, place) => [name, place]));
      const all = names.map((name) => objects.get(name)!);
      this.#sorted[kind] = { names, all, places, added: new Set(), isShorter: false } as never;
    }
    return [...(this.#sorted[kind]?.all ?? [])];
  }

  get<K extends Kind>(kind: K, name: string): Kinds[K] | undefined {
    return this.#map(kind).get(name);
  }

  /** The tenant whose data is named so (`storageOf`). */
  withStorage(storage: string): Tenant | undefined {
    const found = this.get("Tenant", this.#byStorage.get(storage) ?? storage);
    return found && storageOf(found) === storage ? found : undefined;
  }

  /** Names of the tenants that are on a shard, on their way to it, or away from it. */
  tenantsOf(shard: string): Iterable<string> {
    return this.#onShard.get(shard) ?? [];
  }

  /** Rises with each change of an object of the kind. */
  changesOf(kind: Kind): number {
    return this.#changes[kind];
  }

  /** @param listener called after each change, with an object that may be gone @returns what ends this */
  onChange(listener: (kind: Kind, name: string) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  #map<K extends Kind>(kind: K): Map<string, Kinds[K]> {
    return this.#objects[kind];
  }

  #hear({ type, kind, resource }: Change): void {
    const { name } = resource.metadata;
    const objects = this.#map<Kind>(kind);
    if (kind === "Tenant") this.#enter(name, this.get("Tenant", name), type === "Deleted" ? undefined : resource);
    const sorted = this.#sorted[kind] as Sorted<Kinds[Kind]> | undefined;
    const place = sorted?.places.get(name);
    if (sorted && type === "Deleted") sorted.isShorter = true;
    else if (sorted && place !== undefined && !sorted.added.has(name) && objects.has(name))
      sorted.all[place] = resource;
    else sorted?.added.add(name);
    if (type === "Deleted") objects.delete(name);
    else objects.set(name, resource);
    this.#changes[kind] += 1;
    for (const listener of this.#listeners) listener(kind, name);
  }

  #enter(name: string, before: Tenant | undefined, after: Tenant | undefined): void {
    // Of a renamed tenant the new name is heard before the end of the former one.
    const former = before?.status.storage;
    if (former !== undefined && this.#byStorage.get(former) === name) this.#byStorage.delete(former);
    if (after?.status.storage !== undefined) this.#byStorage.set(after.status.storage, name);
    for (const shard of shardsOf(before)) {
      const own = this.#onShard.get(shard);
      own?.delete(name);
      if (own?.size === 0) this.#onShard.delete(shard);
    }
    for (const shard of shardsOf(after)) {
      const own = this.#onShard.get(shard);
      if (own) own.add(name);
      else this.#onShard.set(shard, new Set([name]));
    }
  }
}

/** Before anybody asked. */
function noneOf(objects: ReadonlyMap<string, unknown>): Pick<Sorted<unknown>, "names" | "added" | "isShorter"> {
  return { names: [], added: new Set(objects.keys()), isShorter: false };
}

/** The shards on which a tenant may run. */
export function shardsOf(tenant: Tenant | undefined): string[] {
  if (!tenant) return [];
  const { shard, move } = tenant.status;
  return [shard, move?.from, move?.to].filter((name) => name !== undefined);
}
