import { randomBytes } from "node:crypto";
import { EventsV1Api, V1MicroTime, type EventsV1Event, type KubeConfig } from "@kubernetes/client-node";
import { API_GROUP, API_VERSION, apiClient } from "../client.ts";
import { attempt, retrying } from "../api-error.ts";
import type { ClusterEvent } from "../../../model/event.ts";
import type { Kind } from "../../../ports/store.ts";
import { ResourceCache } from "../resource-cache.ts";
import { CUSTOM_KINDS } from "./resources.ts";

const CLUSTER_LABEL = "synapse-shards.io/cluster";
const CONTROLLER = "synapse-shards.io/controller";
/** The model's name of the object, which may differ from the custom resource's. */
const OBJECT_ANNOTATION = "synapse-shards.io/object";
/** The API server refuses longer ones. */
const LONGEST_NOTE = 1024;

export interface ClusterEventsOptions {
  config: KubeConfig;
  namespace: string;
  clusterId: string;
  /** Names this controller, e.g. its pod. */
  instance: string;
  /** The custom resource's name and uid; the uid is absent where the object is gone. */
  refer: (kind: Kind, name: string) => { name: string; uid?: string };
  onError: (message: string) => void;
}

/** Events as Kubernetes has them, on the custom resources: `kubectl describe` shows them; the API server forgets them after an hour. */
export class ClusterEvents {
  readonly #options: ClusterEventsOptions;
  readonly #api: EventsV1Api;
  readonly #cache: ResourceCache<EventsV1Event>;
  readonly #listeners = new Set<(event: ClusterEvent) => void>();

  constructor(options: ClusterEventsOptions) {
    const { config, namespace, clusterId, onError } = options;
    const labelSelector = `${CLUSTER_LABEL}=${clusterId}`;
    this.#options = options;
    this.#api = apiClient(config, EventsV1Api);
    this.#cache = new ResourceCache<EventsV1Event>({
      config,
      path: `/apis/events.k8s.io/v1/namespaces/${namespace}/events`,
      list: (page) => this.#api.listNamespacedEvent({ namespace, labelSelector, ...page }),
      labelSelector,
      what: "events",
      onChange: ({ type, object }) => {
        if (type === "Added") queueMicrotask(() => this.#listeners.forEach((listener) => listener(eventOf(object))));
      },
      onError,
    });
  }

  open(): Promise<void> {
    return this.#cache.open();
  }

  close(): Promise<void> {
    this.#listeners.clear();
    return this.#cache.close();
  }

  async append(event: Omit<ClusterEvent, "id" | "time">): Promise<ClusterEvent> {
    const { namespace, clusterId, instance, refer } = this.#options;
    const [kind, name = ""] = event.object.split("/") as [Kind, string?];
    const reference = refer(kind, name);
    const body: EventsV1Event = {
      metadata: {
        name: `${reference.name.slice(0, 200)}.${randomBytes(8).toString("hex")}`,
        namespace,
        labels: { [CLUSTER_LABEL]: clusterId },
        annotations: { [OBJECT_ANNOTATION]: event.object },
      },
      eventTime: new V1MicroTime(),
      reportingController: CONTROLLER,
      reportingInstance: instance,
      action: event.reason,
      reason: event.reason,
      type: event.type,
      note: event.message.slice(0, LONGEST_NOTE),
      regarding: { apiVersion: `${API_GROUP}/${API_VERSION}`, kind: CUSTOM_KINDS[kind], namespace, ...reference },
    };
    const written = await attempt("record an event", () =>
      retrying(() => this.#api.createNamespacedEvent({ namespace, body })),
    );
    this.#cache.put(written);
    return eventOf(written);
  }

  list(options: { after?: number; object?: string; limit: number }): ClusterEvent[] {
    return [...this.#cache.values()]
      .map(eventOf)
      .filter(
        ({ id, object }) => id > (options.after ?? 0) && (options.object === undefined || object === options.object),
      )
      .toSorted((a, b) => a.id - b.id)
      .slice(-options.limit);
  }

  watch(listener: (event: ClusterEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}

function eventOf({ metadata, eventTime, type, reason = "", note = "" }: EventsV1Event): ClusterEvent {
  return {
    // An event is never changed, so its version is that of its creation.
    id: Number(metadata?.resourceVersion ?? 0),
    time: new Date(eventTime ?? metadata?.creationTimestamp ?? 0).toISOString(),
    type: type === "Warning" ? "Warning" : "Normal",
    reason,
    object: metadata?.annotations?.[OBJECT_ANNOTATION] ?? "",
    message: note,
  };
}
