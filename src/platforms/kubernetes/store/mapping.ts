import { newTenantStatus, type Tenant, wantedRelease } from "../../../model/tenant.ts";
import { DEFAULT_ROLLOUT, type Fleet, newFleetStatus } from "../../../model/fleet.ts";
import type { Metadata } from "../../../model/resource.ts";
import { newShardStatus, type Shard } from "../../../model/shard.ts";
import { API_GROUP, API_VERSION } from "../client.ts";
import type { Kind, Kinds } from "../../../ports/store.ts";
import { defined } from "../../../model/defined.ts";
import { adminAccessOf, unreadableAdminAccess } from "./admin-access.ts";
import { conditionsOf, type Finding } from "./conditions.ts";
import {
  CUSTOM_KINDS,
  FINALIZER,
  type CustomKinds,
  type Shown,
  type SynapseFleet,
  type SynapseShard,
  type SynapseTenant,
} from "./resources.ts";
import { withPresentNames } from "../../../model/renamed-fields.ts";

/** The model's resources from custom resources and back. Pure. */

/** The fleet's name in the model; its object is named like the cluster. */
const FLEET = "fleet";

/** The Secret that a tenant's configuration and keys are in. */
export function secretNameOf(tenant: Pick<SynapseTenant, "metadata" | "spec">): string {
  return tenant.spec.secretName ?? `${tenant.metadata?.name}-synapse-tenant`;
}

/** @param secretConfig the homeserver.yaml of its Secret, if that has one */
export function tenantOf(custom: SynapseTenant, secretConfig: string | undefined): Tenant {
  const { spec } = custom;
  return {
    kind: "Tenant",
    metadata: metadataOf(custom, custom.metadata?.name ?? ""),
    spec: {
      serverName: spec.serverName,
      release: spec.image?.tag ?? "",
      config: secretConfig ?? spec.config ?? "",
      reclaimPolicy: spec.reclaimPolicy ?? "Retain",
      ...(spec.revision === undefined ? {} : { revision: spec.revision }),
      ...(spec.dedicated ? { dedicated: dedicatedOf(spec.dedicated) } : {}),
      ...(spec.hibernation ? { hibernation: copyOf(spec.hibernation) } : {}),
      ...(spec.suspended ? { suspended: true } : {}),
      ...(spec.placement ? { placement: copyOf(spec.placement) } : {}),
      ...(spec.plan ? { plan: spec.plan } : {}),
      ...(spec.quotas ? { quotas: copyOf(spec.quotas) } : {}),
      ...(spec.metrics?.length ? { metrics: copyOf(spec.metrics) } : {}),
      ...defined({ adminAccess: adminAccessOf(custom) }),
      ...labelsOf(custom),
    },
    status: statusOf(custom, newTenantStatus()),
  };
}

function dedicatedOf({ address, metricsPort }: NonNullable<SynapseTenant["spec"]["dedicated"]>) {
  return { address, ...defined({ metricsPort }) };
}

/** Whoever made the object, such as Helm, has labels of its own there too: they are kept, and can be selected by as well. */
function labelsOf({ metadata }: SynapseTenant): Pick<Tenant["spec"], "labels"> {
  const labels = metadata?.labels ?? {};
  return Object.keys(labels).length === 0 ? {} : { labels: { ...labels } };
}

export function shardOf(custom: SynapseShard): Shard {
  const { name, image, drain } = custom.spec;
  return {
    kind: "Shard",
    metadata: metadataOf(custom, name),
    spec: { release: image.tag, ...(drain ? { drain } : {}) },
    status: statusOf(custom, newShardStatus()),
  };
}

export function fleetOf(custom: SynapseFleet): Fleet {
  const { imageTag, rollout = {} } = custom.spec;
  return {
    kind: "Fleet",
    metadata: metadataOf(custom, FLEET),
    spec: { release: imageTag, rollout: copyOf({ ...DEFAULT_ROLLOUT, ...rollout }) },
    status: statusOf(custom, newFleetStatus()),
  };
}

/** The name of a resource's object. */
export function objectName(kind: Kind, name: string, clusterId: string): string {
  if (kind === "Tenant") return name;
  if (kind === "Fleet") return clusterId;
  return `${clusterId}-${name}`.toLowerCase().replaceAll("_", "-");
}

/** What is to be created. Its status is written by a second call, as the API server ignores it in the first. */
export function newObject<K extends Kind>(
  kind: K,
  name: string,
  spec: Kinds[K]["spec"],
  cluster: { clusterId: string; namespace: string },
): CustomKinds[K] {
  const object = {
    apiVersion: `${API_GROUP}/${API_VERSION}`,
    kind: CUSTOM_KINDS[kind],
    metadata: {
      name: objectName(kind, name, cluster.clusterId),
      namespace: cluster.namespace,
      ...(kind === "Tenant" ? { finalizers: [FINALIZER] } : {}),
    },
    spec: { clusterId: cluster.clusterId },
  } as unknown as CustomKinds[K];
  return withSpec(object, { kind, metadata: { name }, spec } as unknown as Kinds[K]);
}

/**
 * The object with the model's spec; what the model does not know of stays.
 * @param secretConfig the homeserver.yaml of a tenant's Secret: the model takes it for its configuration, and it must not get out of there
 */
export function withSpec<K extends Kind>(
  object: CustomKinds[K],
  resource: Kinds[K],
  secretConfig?: string,
): CustomKinds[K] {
  const written = { ...object, spec: { ...object.spec, ...specOf(resource) } };
  if (resource.kind !== "Tenant") return written;
  return { ...written, metadata: { ...object.metadata, labels: resource.spec.labels } };

  function specOf(of: Tenant | Shard | Fleet): object {
    if (of.kind === "Tenant") {
      const { serverName, release, reclaimPolicy, revision, dedicated } = of.spec;
      const { hibernation, suspended, placement, plan, quotas, metrics } = of.spec;
      const adminAccess = of.spec.adminAccess ?? unreadableAdminAccess(object as SynapseTenant);
      const image = release === "" ? undefined : { tag: release };
      const config = secretConfig === undefined ? { config: of.spec.config } : {};
      const wishes = { hibernation, suspended, placement, plan, quotas, metrics, adminAccess };
      return { serverName, image, ...config, reclaimPolicy, revision, dedicated, ...wishes };
    }
    if (of.kind === "Shard") return { name: of.metadata.name, image: { tag: of.spec.release }, drain: of.spec.drain };
    return { imageTag: of.spec.release, rollout: of.spec.rollout };
  }
}

/** The object with the model's status, and what is shown besides it. */
export function withStatus<K extends Kind>(
  object: CustomKinds[K],
  resource: Kinds[K],
  now: string,
  findings: readonly Finding[] = [],
): CustomKinds[K] {
  const conditions = conditionsOf(resource, object.status?.conditions ?? [], now, findings);
  return { ...object, status: { ...resource.status, ...shownOf(resource), conditions } };

  function shownOf(of: Tenant | Shard | Fleet): Shown {
    if (of.kind === "Tenant") return { imageTag: wantedRelease(of) };
    return of.kind === "Shard" ? { tenants: object.status?.tenants ?? 0 } : {};
  }
}

function metadataOf({ metadata = {} }: SynapseTenant | SynapseShard | SynapseFleet, name: string): Metadata {
  const { resourceVersion = "", generation = 1, creationTimestamp, deletionTimestamp } = metadata;
  return {
    name,
    resourceVersion,
    generation,
    creationTimestamp: isoTime(creationTimestamp),
    ...(deletionTimestamp ? { deletionTimestamp: isoTime(deletionTimestamp) } : {}),
  };
}

/** The client gives times of custom resources as texts, and says that they are dates. */
function isoTime(time: Date | string | undefined): string {
  return new Date(time ?? 0).toISOString();
}

/** Fields that a controller has not written yet are as in a new object. */
function statusOf<S extends object>(custom: { status?: object }, fresh: S): S {
  const given = withPresentNames(custom.status ?? {}) as Shown & { conditions?: unknown };
  const { conditions: _, imageTag: __, tenants: ___, ...status } = given;
  return copyOf({ ...fresh, ...status });
}

/**
 * A copy of plain data; several times as fast as `structuredClone`, and there is one of each tenant in every list. Texts, of which configurations
 * are the longest, are the same in all copies.
 */
export function copyOf<T>(value: T): T {
  if (Array.isArray(value)) return value.map(copyOf) as T;
  if (typeof value !== "object" || value === null) return value;
  const copy: Record<string, unknown> = {};
  for (const [key, part] of Object.entries(value)) copy[key] = copyOf(part);
  return copy as T;
}
