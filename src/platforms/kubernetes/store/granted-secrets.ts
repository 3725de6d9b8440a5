import { CoreV1Api, type KubeConfig, type V1Secret } from "@kubernetes/client-node";
import { isStatus, retrying, wordsOf } from "../api-error.ts";
import { apiClient } from "../client.ts";

/** What is known of a Secret of another namespace. */
export type GrantedSecret =
  | { state: "found"; secret: V1Secret }
  | { state: "missing" }
  /** The namespace does not grant the controller to read it. */
  | { state: "forbidden" }
  | { state: "unknown"; why: string };

export interface GrantedSecretsOptions {
  config: KubeConfig;
  onChange: (namespace: string, name: string) => void;
  onError: (message: string) => void;
  /** Shortest time between two looks at one Secret. */
  pollMs?: number;
}

const POLL_MS = 30_000;
/** Looks at Secrets, of all tenants together; beyond it each is looked at less often. */
const LOOKS_PER_SECOND = 10;
const CONCURRENT = 16;

/**
 * Secrets in tenants' own namespaces, each of which grants the controller to read the ones named. They are polled: a watch of each would
 * take a connection, and one of all Secrets there more rights than a tenant should grant. A changed SynapseTenant is read at once.
 */
export class GrantedSecrets {
  readonly #options: GrantedSecretsOptions;
  readonly #api: CoreV1Api;
  readonly #known = new Map<string, GrantedSecret>();
  #wanted: () => Iterable<{ namespace: string; name: string }> = () => [];
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(options: GrantedSecretsOptions) {
    this.#options = options;
    this.#api = apiClient(options.config, CoreV1Api);
  }

  /** Reads all that are wanted, and looks at them again from time to time. */
  async open(wanted: () => Iterable<{ namespace: string; name: string }>): Promise<void> {
    this.#wanted = wanted;
    await this.#readAll();
    this.#schedule();
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
  }

  get(namespace: string, name: string): GrantedSecret {
    return this.#known.get(keyOf(namespace, name)) ?? { state: "unknown", why: "it has not been read yet" };
  }

  /** The same; undefined where it has not been read yet. */
  known(namespace: string, name: string): GrantedSecret | undefined {
    return this.#known.get(keyOf(namespace, name));
  }

  /** Reads one now. A failure of the API server leaves what is known. */
  async read(namespace: string, name: string): Promise<GrantedSecret> {
    const key = keyOf(namespace, name);
    const before = this.#known.get(key);
    let found: GrantedSecret;
    try {
      found = { state: "found", secret: await retrying(() => this.#api.readNamespacedSecret({ namespace, name })) };
    } catch (error) {
      if (isStatus(error, 404)) found = { state: "missing" };
      else if (isStatus(error, 403)) found = { state: "forbidden" };
      else {
        this.#options.onError(`cannot read the Secret ${namespace}/${name}: ${wordsOf(error)}`);
        found = before ?? { state: "unknown", why: wordsOf(error) };
      }
    }
    if (before && !isOther(before, found)) return before;
    this.#known.set(key, found);
    if (!this.#closed) this.#options.onChange(namespace, name);
    return found;
  }

  async #readAll(): Promise<void> {
    const wanted = new Map([...this.#wanted()].map((place) => [keyOf(place.namespace, place.name), place]));
    for (const key of this.#known.keys()) if (!wanted.has(key)) this.#known.delete(key);
    const left = [...wanted.values()];
    const worker = async () => {
      for (let place = left.pop(); place && !this.#closed; place = left.pop())
        await this.read(place.namespace, place.name);
    };
    await Promise.all(Array.from({ length: CONCURRENT }, worker));
  }

  #schedule(): void {
    if (this.#closed) return;
    const { pollMs = POLL_MS } = this.#options;
    const delay = Math.max(pollMs, (this.#known.size / LOOKS_PER_SECOND) * 1000);
    this.#timer = setTimeout(() => void this.#readAll().finally(() => this.#schedule()), delay);
    this.#timer.unref();
  }
}

function keyOf(namespace: string, name: string): string {
  return `${namespace}/${name}`;
}

function isOther(before: GrantedSecret | undefined, now: GrantedSecret): boolean {
  if (before?.state !== now.state) return true;
  if (before.state !== "found" || now.state !== "found") return false;
  return before.secret.metadata?.resourceVersion !== now.secret.metadata?.resourceVersion;
}
