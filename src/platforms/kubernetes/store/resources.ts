import type { AdminAccess } from "../../../model/admin-access.ts";
import type { Placement } from "../../../model/placement.ts";
import type { Quotas } from "../../../model/quota.ts";
import type { TenantHibernation } from "../../../model/sleep.ts";
import type { KubernetesListObject, KubernetesObject } from "@kubernetes/client-node";
import type { FleetStatus, RolloutPolicy } from "../../../model/fleet.ts";
import type { Shard, ShardStatus } from "../../../model/shard.ts";
import type { TenantSpec, TenantStatus } from "../../../model/tenant.ts";
import type { Kind } from "../../../ports/store.ts";

/** The custom resources as the API server has them; charts/synapse-shards/crds/ is where they are defined. */

export interface Condition {
  type: string;
  status: "True" | "False" | "Unknown";
  reason: string;
  message: string;
  lastTransitionTime: string;
  observedGeneration?: number;
}

/** What is in a status for people, and follows from the rest. */
export interface Shown {
  /** Of a tenant: the release it shall run, by its own choice or the fleet's. */
  imageTag?: string;
  /** Of a shard: how many tenants it has, or shall have. */
  tenants?: number;
}

interface Custom<Spec, Status> extends KubernetesObject {
  spec: Spec;
  status?: Partial<Status> & Shown & { conditions?: Condition[] };
}

/** A key of a Secret in the namespace of the tenant's Secret. */
export interface SecretRef {
  /** What it is: a key of a tenant's Secret, or the registration of an application service. */
  for:
    | "homeserver.yaml"
    | "app-service"
    | "signing.key"
    | "macaroon-secret-key"
    | "form-secret"
    | "registration-shared-secret";
  /** Of homeserver.yaml: a JSON pointer to the option; absent: further top-level options. */
  path?: string;
  name: string;
  key: string;
}

export type SynapseTenant = Custom<
  {
    clusterId: string;
    serverName: string;
    image?: { tag?: string };
    secretName?: string;
    secretNamespace?: string;
    secretRefs?: SecretRef[];
    /** Further names that lead to it; the same as `synapse_shards.hosts` in its homeserver.yaml, and added to those. */
    hosts?: string[];
    config?: string;
    revision?: number;
    dedicated?: { address: string; metricsPort?: number };
    hibernation?: TenantHibernation;
    suspended?: boolean;
    placement?: Placement;
    plan?: string;
    quotas?: Quotas;
    metrics?: string[];
    /** As it is written: what the model has of it is checked. */
    adminAccess?: AdminAccess;
    reclaimPolicy?: TenantSpec["reclaimPolicy"];
  },
  TenantStatus
>;

export type SynapseShard = Custom<
  { clusterId: string; name: string; image: { tag: string }; drain?: Shard["spec"]["drain"] },
  ShardStatus
>;

export type SynapseFleet = Custom<
  { clusterId: string; imageTag: string; rollout?: Partial<RolloutPolicy> },
  FleetStatus
>;

export interface CustomKinds {
  Tenant: SynapseTenant;
  Shard: SynapseShard;
  Fleet: SynapseFleet;
}
export type CustomList<K extends Kind> = KubernetesListObject<CustomKinds[K]>;

export const PLURALS: Record<Kind, string> = {
  Tenant: "synapsetenants",
  Shard: "synapseshards",
  Fleet: "synapsefleets",
};
export const CUSTOM_KINDS: Record<Kind, string> = {
  Tenant: "SynapseTenant",
  Shard: "SynapseShard",
  Fleet: "SynapseFleet",
};

/** Keeps a tenant until the controller has stopped it. */
export const FINALIZER = "synapse-shards.io/controller";
