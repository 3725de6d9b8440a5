import type { FormerDatabase, Tenant, TenantSpec, TenantStatus } from "./tenant.ts";

/** A deleted tenant whose data is kept, with what is needed to have it back. */
export interface DeletedTenant {
  name: string;
  spec: TenantSpec;
  /** The release that last brought its database schema up to date. */
  schemaRelease?: string;
  createdAt: string;
  deletedAt: string;
  /** When its data is removed for good. */
  keptUntil: string;
  /** Whether its database is ours to remove: not one that it brought along. */
  managedDatabase: boolean;
  /** As in its status: the server of ours that has its database, and those that keep it from before it was moved. */
  databaseServer?: string;
  formerDatabases?: FormerDatabase[];
  /** As in its status; absent: since `createdAt`. */
  dataSince?: string;
  /** Set before the first of its data is removed: from then on it cannot be had back. */
  purge?: BegunPurge;
}

export interface BegunPurge {
  since: string;
  reason: PurgeReason;
  removed: RemovedData;
}

export const PURGE_REASONS = {
  Expired: "the time for which deleted tenants are kept was over",
  Requested: "somebody asked for it",
} as const;
export type PurgeReason = keyof typeof PURGE_REASONS;

/** What there was to be removed. */
export interface RemovedData {
  database?: { name: string; bytes?: number };
  /** `sha256` of the names and sizes of all files. */
  media?: { files: number; bytes: number; sha256: string };
  /** `sha256` of the signing key: who has a copy can tell that it was this one. */
  signingKey?: { sha256: string };
}

/** What remains of a tenant whose data was removed. */
export interface PurgeProof {
  name: string;
  serverName: string;
  createdAt: string;
  deletedAt: string;
  purgedAt: string;
  reason: PurgeReason;
  removed: RemovedData;
  /** `sha256` of the proof before this one, empty for the first: none can be changed or left out without all later ones showing it. */
  previous: string;
  /** Of all the other fields, as JSON in the order that they have here. */
  sha256: string;
}

/** Which tenant, in one of its lives, a deletion is about: a repeated one is the same. */
export function deletionId({ name, createdAt, deletedAt }: Pick<DeletedTenant, "name" | "createdAt" | "deletedAt">) {
  return `${name} ${createdAt} ${deletedAt}`;
}

/** @returns a tenant's entry among the deleted ones */
export function deletedTenant(
  { metadata, spec, status }: Tenant,
  { deletedAt, keptUntil, managedDatabase }: Pick<DeletedTenant, "deletedAt" | "keptUntil" | "managedDatabase">,
): DeletedTenant {
  const { databaseServer, formerDatabases, dataSince } = status;
  return {
    name: metadata.name,
    spec,
    ...(status.schemaRelease === undefined ? {} : { schemaRelease: status.schemaRelease }),
    createdAt: metadata.creationTimestamp,
    deletedAt,
    keptUntil,
    managedDatabase,
    ...(databaseServer === undefined ? {} : { databaseServer }),
    ...(formerDatabases === undefined ? {} : { formerDatabases }),
    ...(dataSince === undefined ? {} : { dataSince }),
  };
}

/** What a tenant begins with that takes up what is kept of a deleted one. */
export function keptStatus({
  managedDatabase,
  databaseServer,
  formerDatabases,
  createdAt,
  dataSince = createdAt,
}: DeletedTenant): Pick<TenantStatus, "databaseKept" | "databaseServer" | "formerDatabases" | "dataSince"> {
  return {
    // Not known of all.
    ...(dataSince === "" ? {} : { dataSince }),
    ...(managedDatabase ? { databaseKept: true } : {}),
    ...(databaseServer === undefined ? {} : { databaseServer }),
    ...(formerDatabases === undefined ? {} : { formerDatabases }),
  };
}
