import { setTimeout as sleep } from "node:timers/promises";
import { ListWatch, type KubeConfig, type KubernetesListObject, type KubernetesObject } from "@kubernetes/client-node";
import { apiFailure, mayPass, wordsOf } from "./api-error.ts";
import { all, BookmarkedWatch, lean, type ListOfPage } from "./list-and-watch.ts";

/** Between attempts to watch again, where the API server does not let us. */
const AGAIN_MS = 1_000;
const OPEN_TRIES = 30;
/** Objects that were removed are remembered until their watch event has surely come. */
const REMEMBER_REMOVED = 1_000;

export type CacheChange<T> = { type: "Added" | "Modified" | "Deleted"; object: T };

export interface ResourceCacheOptions<T extends KubernetesObject> {
  config: KubeConfig;
  path: string;
  list: ListOfPage<T>;
  labelSelector?: string;
  /** What it holds, for messages. */
  what: string;
  /** By what objects are told apart, where they are of several namespaces. */
  keyOf?: (object: T) => string;
  onChange: (change: CacheChange<T>) => void;
  /** Told in words when the API server does not answer, or refuses; it is tried again. */
  onError: (message: string) => void;
}

/**
 * The objects of one kind as the API server last told, or as it answered our own writes, whichever is newer: a writer sees
 * what it wrote, though the watch tells of it later. Each change is announced once.
 */
export class ResourceCache<T extends KubernetesObject> {
  readonly #options: ResourceCacheOptions<T>;
  readonly #informer: ListWatch<T>;
  readonly #objects = new Map<string, T>();
  readonly #removed = new Set<string>();
  /** Names that are in the middle of a write of several calls, of which only the outcome is announced. */
  readonly #held = new Map<string, number>();
  readonly #removedWhileHeld = new Map<string, T>();
  readonly #toldWhileHeld = new Map<string, T>();
  #timer: NodeJS.Timeout | undefined;
  #closed = false;
  #opened = false;
  #failure: unknown;

  constructor(options: ResourceCacheOptions<T>) {
    this.#options = options;
    const { config, path, list, labelSelector } = options;
    this.#informer = new ListWatch(
      path,
      new BookmarkedWatch(config),
      async () => {
        const found = await all(config, path, list, labelSelector);
        this.#prune(found);
        return found;
      },
      false,
      labelSelector,
    );
    this.#informer.on("add", (object) => this.#hear(object));
    this.#informer.on("update", (object) => this.#hear(object));
    this.#informer.on("delete", (object) => this.#hearRemoval(object));
    this.#informer.on("error", (error: unknown) => this.#failed(error));
  }

  /** Resolves when all that there is has been read once; an API server that is busy or away is waited for. @throws UserError */
  async open(): Promise<void> {
    for (let tries = 1; ; tries++) {
      this.#failure = undefined;
      await this.#informer.start();
      if (this.#failure === undefined) break;
      if (tries === OPEN_TRIES || this.#closed || !mayPass(this.#failure))
        throw apiFailure(`watch ${this.#options.what}`, this.#failure);
      await sleep(AGAIN_MS);
    }
    this.#opened = true;
  }

  get(name: string): T | undefined {
    return this.#objects.get(name);
  }

  values(): Iterable<T> {
    return this.#objects.values();
  }

  /** Takes in what the API server answered. Older than what is known: nothing happens. */
  put(object: T): void {
    const name = this.#keyOf(object);
    if (this.#removed.has(uidOf(object))) return;
    const known = this.#objects.get(name);
    if (known && versionOf(object) <= versionOf(known)) return;
    this.#objects.set(name, lean(object));
    this.#options.onChange({ type: known ? "Modified" : "Added", object });
  }

  /** It is gone, as the API server answered. */
  drop(object: T): void {
    const [name, uid] = [this.#keyOf(object), uidOf(object)];
    this.#remember(uid);
    if (this.#objects.get(name)?.metadata?.uid !== uid) return;
    this.#objects.delete(name);
    this.#options.onChange({ type: "Deleted", object });
  }

  /** Runs a write of several calls: what the watch tells of the object meanwhile is left to the writer, who puts or drops the outcome. */
  async holding<R>(name: string, write: () => Promise<R>): Promise<R> {
    this.#held.set(name, (this.#held.get(name) ?? 0) + 1);
    try {
      return await write();
    } finally {
      const left = (this.#held.get(name) ?? 1) - 1;
      if (left > 0) this.#held.set(name, left);
      else {
        this.#held.delete(name);
        this.#catchUp(name);
      }
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    await this.#informer.stop();
  }

  /** What was told during a write, and was not of that write. */
  #catchUp(name: string): void {
    const removed = this.#removedWhileHeld.get(name);
    this.#removedWhileHeld.delete(name);
    if (removed) this.drop(removed);
    const told = this.#toldWhileHeld.get(name);
    this.#toldWhileHeld.delete(name);
    if (told) this.put(told);
  }

  /**
   * An object that we made and that was deleted while no watch was there is in no list, and the library, which never heard of it, does not tell.
   * @param found all that there was at the version that it has
   */
  #prune(found: KubernetesListObject<T>): void {
    const there = new Set(found.items.map(uidOf));
    const isGone = (object: T) => !there.has(uidOf(object)) && versionOf(object) <= versionOf(found);
    for (const object of [...this.#objects.values()].filter(isGone)) this.#hearRemoval(object);
  }

  #hear(object: T): void {
    lean(object);
    // The library's watch may tell of one thing more after it was stopped.
    if (this.#closed) return;
    const name = this.#keyOf(object);
    if (this.#held.has(name)) this.#toldWhileHeld.set(name, object);
    else this.put(object);
  }

  #hearRemoval(object: T): void {
    if (this.#closed) return;
    const name = this.#keyOf(object);
    if (!this.#held.has(name)) return this.drop(object);
    this.#removedWhileHeld.set(name, object);
    this.#toldWhileHeld.delete(name);
  }

  #keyOf(object: T): string {
    return this.#options.keyOf?.(object) ?? object.metadata?.name ?? "";
  }

  #remember(uid: string): void {
    this.#removed.add(uid);
    if (this.#removed.size <= REMEMBER_REMOVED) return;
    const [oldest] = this.#removed;
    if (oldest !== undefined) this.#removed.delete(oldest);
  }

  #failed(error: unknown): void {
    this.#failure = error;
    if (!this.#opened || this.#closed) return;
    this.#options.onError(`cannot watch ${this.#options.what}, trying again: ${wordsOf(error)}`);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      if (!this.#closed) void this.#informer.start();
    }, AGAIN_MS);
  }
}

function uidOf(object: KubernetesObject): string {
  return object.metadata?.uid ?? "";
}

/** Of one kind, resource versions rise (Kubernetes says so since 1.35, and etcd always did). */
export function versionOf(object: { metadata?: { resourceVersion?: string } }): bigint {
  const text = object.metadata?.resourceVersion ?? "0";
  return /^\d+$/.test(text) ? BigInt(text) : 0n;
}
