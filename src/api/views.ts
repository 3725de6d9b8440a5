import type { ShardOverview } from "../controller/service/cluster-service.ts";
import { changeOf, type Change } from "../model/change.ts";
import type { DeletedTenant } from "../model/deleted-tenant.ts";
import type { Shard } from "../model/shard.ts";
import type { Tenant, TenantSpec, TenantStatus } from "../model/tenant.ts";

/** A tenant as the API shows it. `spec.config` may hold secrets, so it is there only when it was asked for. */
export type TenantView = Omit<Tenant, "spec" | "status"> & {
  spec: Omit<TenantSpec, "config"> & { config?: string };
  /** What it said last is for gateways: anybody can ask them. */
  status: Omit<TenantStatus, "lastWords">;
  /** What a client enters as homeserver. */
  url: string;
  /** Whether the user gave a configuration of their own. */
  hasConfig: boolean;
  /** Whether what `spec` asks for is what runs. */
  change: Change;
};

/** A shard as the API shows it. */
export type ShardView = Shard & {
  /** Names of the tenants assigned to it, sorted. */
  tenants: string[];
  capacity: number;
};

/** A deleted tenant as the API shows it: never with its configuration. */
export type DeletedTenantView = Omit<DeletedTenant, "spec"> & { spec: Omit<TenantSpec, "config">; hasConfig: boolean };

export function viewOfDeleted(deleted: DeletedTenant): DeletedTenantView {
  const { config, ...spec } = deleted.spec;
  return { ...deleted, spec, hasConfig: config.trim() !== "" };
}

export function viewOfTenant(tenant: Tenant, url: string, includeConfig = false): TenantView {
  const { config, ...spec } = tenant.spec;
  const { lastWords: _, ...status } = tenant.status;
  return {
    kind: tenant.kind,
    metadata: tenant.metadata,
    spec: includeConfig ? { ...spec, config } : spec,
    status,
    url,
    hasConfig: config.trim() !== "",
    change: changeOf(tenant),
  };
}

export function viewOfShard({ shard, tenants, capacity }: ShardOverview): ShardView {
  return { ...withDrainShown(shard), tenants, capacity };
}

/** The wish to drain is in the spec; people look for it in the phase. */
export function withDrainShown(shard: Shard): Shard {
  if (shard.spec.drain === undefined || shard.status.phase !== "Ready") return shard;
  return { ...shard, status: { ...shard.status, phase: "Draining" } };
}
