import type { ShardView, TenantView } from "../api/views.ts";
import type { Move, MoveResult } from "../model/move.ts";

/** What `-o json` gives of a tenant: part of the CLI's contract, so nothing is added or removed lightly. */
export interface TenantRow {
  name: string;
  serverName: string;
  release: string;
  phase: string;
  reason: string | null;
  shard: string | null;
  /** The server of its database; null: the cluster's own, or its own. */
  databaseServer: string | null;
  url: string;
  epoch: number;
  createdAt: string;
  labels: Record<string, string>;
}

export const TENANT_SORT = ["name", "serverName", "release", "phase", "reason", "shard", "epoch", "createdAt"] as const;

export function tenantRow({ metadata, spec, status, url }: TenantView): TenantRow {
  return {
    name: metadata.name,
    serverName: spec.serverName,
    release: spec.release || (status.fleetRelease ?? ""),
    phase: status.phase,
    reason: status.reason || null,
    shard: status.shard ?? null,
    databaseServer: status.databaseServer ?? null,
    url,
    epoch: status.epoch,
    createdAt: metadata.creationTimestamp,
    labels: { ...spec.labels },
  };
}

export interface TenantDetails extends TenantRow {
  message: string | null;
  address: string | null;
  deletionRequestedAt: string | null;
  generation: number;
  observedGeneration: number;
  failures: number;
  retryAt: string | null;
  hasConfig: boolean;
  /** What in its configuration is probably a mistake. */
  warnings: string[];
  config?: string;
  move: Move | null;
  lastMove: MoveResult | null;
}

export function tenantDetails(tenant: TenantView): TenantDetails {
  const { metadata, spec, status, hasConfig } = tenant;
  return {
    ...tenantRow(tenant),
    message: status.message || null,
    address: status.address ?? null,
    deletionRequestedAt: metadata.deletionTimestamp ?? null,
    generation: metadata.generation,
    observedGeneration: status.observedGeneration,
    failures: status.failures,
    retryAt: status.retryAt ?? null,
    hasConfig,
    warnings: status.inEffect?.warnings ?? [],
    ...(spec.config === undefined ? {} : { config: spec.config }),
    move: status.move ?? null,
    lastMove: status.lastMove ?? null,
  };
}

/** What `-o json` gives of a shard; as much a contract. */
export interface ShardRow {
  name: string;
  release: string;
  phase: string;
  tenants: number;
  capacity: number;
  address: string | null;
  load: number | null;
  createdAt: string;
}

export const SHARD_SORT = ["name", "release", "phase", "tenants", "capacity", "load", "createdAt"] as const;

export function shardRow({ metadata, spec, status, tenants, capacity }: ShardView): ShardRow {
  return {
    name: metadata.name,
    release: spec.release,
    phase: status.phase,
    tenants: tenants.length,
    capacity,
    address: status.address ?? null,
    load: status.load ?? null,
    createdAt: metadata.creationTimestamp,
  };
}

export function shardDetails(shard: ShardView) {
  const { spec, status } = shard;
  return {
    ...shardRow(shard),
    reason: status.reason || null,
    message: status.message || null,
    drain: spec.drain ?? null,
    lastSeen: status.lastSeen ?? null,
    keeps: status.keeps ?? null,
    tenantNames: shard.tenants,
  };
}
