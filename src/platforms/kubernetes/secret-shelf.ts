import { CoreV1Api, type KubeConfig, type V1Secret } from "@kubernetes/client-node";
import { attempt, attemptIfThere, retrying } from "./api-error.ts";
import { apiClient } from "./client.ts";

/** Of up to half a MiB each. */
const LISTED_AT_ONCE = 4;

/** What an object holds, by key. */
export type ObjectData = Readonly<Record<string, Buffer>>;

export interface ShelfObject {
  data: ObjectData;
  /** Changes with each write. */
  version: string;
}

/** Where some objects of the controller are. A write names the version that it is based on, and is refused where there is another. */
export interface Shelf {
  read(name: string): Promise<ShelfObject | undefined>;
  /** @returns its version @throws UserError Conflict where there is one */
  create(name: string, data: ObjectData): Promise<string>;
  /** @returns its new version; undefined: it is not there @throws UserError Conflict where its version is another */
  replace(name: string, data: ObjectData, version: string): Promise<string | undefined>;
  remove(name: string): Promise<void>;
  names(): Promise<string[]>;
}

export interface SecretShelfOptions {
  config: KubeConfig;
  namespace: string;
  clusterId: string;
  /** On each of them, with the cluster as its value. */
  label: string;
}

/** Secrets: ConfigMaps would be a right that the controller has no other use for. None belongs to an object that goes with the chart: they outlive it. */
export class SecretShelf implements Shelf {
  readonly #options: SecretShelfOptions;
  readonly #api: CoreV1Api;

  constructor(options: SecretShelfOptions) {
    this.#options = options;
    this.#api = apiClient(options.config, CoreV1Api);
  }

  async read(name: string): Promise<ShelfObject | undefined> {
    const { namespace } = this.#options;
    const found = await attemptIfThere(`read the Secret ${name}`, () =>
      retrying(() => this.#api.readNamespacedSecret({ namespace, name })),
    );
    if (!found) return undefined;
    const data = Object.entries(found.data ?? {}).map(([key, text]) => [key, Buffer.from(text, "base64")] as const);
    return { data: Object.fromEntries(data), version: versionOf(found) };
  }

  async create(name: string, data: ObjectData): Promise<string> {
    const { namespace } = this.#options;
    const body = this.#body(name, data);
    return versionOf(
      await attempt(`make the Secret ${name}`, () =>
        retrying(() => this.#api.createNamespacedSecret({ namespace, body })),
      ),
    );
  }

  async replace(name: string, data: ObjectData, version: string): Promise<string | undefined> {
    const { namespace } = this.#options;
    const body = this.#body(name, data, version);
    const written = await attemptIfThere(`write the Secret ${name}`, () =>
      retrying(() => this.#api.replaceNamespacedSecret({ namespace, name, body })),
    );
    return written && versionOf(written);
  }

  async remove(name: string): Promise<void> {
    const { namespace } = this.#options;
    await attemptIfThere(`remove the Secret ${name}`, () =>
      retrying(() => this.#api.deleteNamespacedSecret({ namespace, name })),
    );
  }

  async names(): Promise<string[]> {
    const { namespace, clusterId, label } = this.#options;
    const names: string[] = [];
    let next: string | undefined;
    do {
      const labelSelector = `${label}=${clusterId}`;
      const options = { namespace, labelSelector, limit: LISTED_AT_ONCE, ["_continue"]: next };
      const { items, metadata } = await attempt(`list the Secrets with the label ${label}`, () =>
        retrying(() => this.#api.listNamespacedSecret(options)),
      );
      names.push(...items.flatMap((secret) => secret.metadata?.name ?? []));
      next = metadata?.["_continue"];
    } while (next);
    return names;
  }

  #body(name: string, data: ObjectData, resourceVersion?: string): V1Secret {
    const { namespace, clusterId, label } = this.#options;
    return {
      metadata: {
        name,
        namespace,
        labels: { [label]: clusterId, "app.kubernetes.io/managed-by": "synapse-shards-controller" },
        ...(resourceVersion === undefined ? {} : { resourceVersion }),
      },
      type: "Opaque",
      data: Object.fromEntries(Object.entries(data).map(([key, bytes]) => [key, bytes.toString("base64")])),
    };
  }
}

function versionOf({ metadata }: V1Secret): string {
  return metadata?.resourceVersion ?? "";
}
