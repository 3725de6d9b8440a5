/**
 * The resources of the system, shaped like Kubernetes objects (metadata, spec, status) so that both stores hold the
 * same thing. `spec` is what a user wants, `status` is where things stand; only the controller writes a status.
 * Times are ISO 8601 strings in UTC.
 */

export interface Metadata {
  /** Unique within the kind. A tenant's is a DNS label, a shard's is `<version>-<index>`, the fleet's is `fleet`. */
  name: string;
  /** Opaque. Changes with every write; an update that names an older one is refused (optimistic concurrency). */
  resourceVersion: string;
  /** Counts the changes of `spec`. */
  generation: number;
  creationTimestamp: string;
  /** Set when deletion was asked for; the controller removes the object when its clean-up is done. */
  deletionTimestamp?: string;
}

export interface Resource<Kind extends string, Spec, Status> {
  kind: Kind;
  metadata: Metadata;
  spec: Spec;
  status: Status;
}
