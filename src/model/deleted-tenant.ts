import { isExchanging } from "./database-move.ts";
import { createHash } from "node:crypto";
import { hostOf } from "./names.ts";
import type { FormerDatabase, Tenant, TenantSpec, TenantStatus } from "./tenant.ts";

/** A deleted tenant whose data is kept, with what is needed to have it back. */
export interface DeletedTenant {
  name: string;
  /** As `status.storage`. */
  storage?: string;
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
  /** As in its status: a move that was not finished, which goes on when the tenant is back. */
  databaseMove?: TenantStatus["databaseMove"];
  /** The last epoch handed out; where it cannot be read in its database, as that is on its way. */
  epoch?: number;
  /** What it brought along, which is its owner's: `database HOST:PORT/NAME`, `bucket NAME`. */
  brought?: string[];
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
  /** What was left alone, as the tenant brought it along and it is its owner's: `database HOST:PORT/NAME`, `bucket NAME`. */
  left?: string[];
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

/** @param previous the hash of the proof before it */
export function proofAfter(
  previous: string,
  { name, serverName, createdAt, deletedAt, purgedAt, reason, removed }: Omit<PurgeProof, "previous" | "sha256">,
): PurgeProof {
  const content = { name, serverName, createdAt, deletedAt, purgedAt, reason, removed, previous };
  return { ...content, sha256: createHash("sha256").update(JSON.stringify(content)).digest("hex") };
}

/**
 * Why a tenant of these names cannot be there yet, in words.
 * @returns undefined where a deleted one has neither name, or both: then it is continued
 */
export function reservation(
  record: DeletedTenant,
  { name, serverName }: { name: string; serverName: string },
): string | undefined {
  const { name: other, spec } = record;
  const isOwn = other === name && spec.serverName === serverName;
  if (isOwn || (other !== name && hostOf(spec.serverName) !== hostOf(serverName))) return undefined;
  return isReservedFor(record, other === name ? `name ${name}` : `server name ${serverName}`);
}

/** The same in words for what of it another wants. */
export function isReservedFor({ name, spec, keptUntil }: DeletedTenant, what: string): string {
  return (
    `the ${what} is reserved until ${keptUntil} for the deleted tenant ${name} (${spec.serverName}), whose database and media are kept; ` +
    "undelete or purge that one, or choose another name"
  );
}

/** @returns a tenant's entry among the deleted ones */
export function deletedTenant(
  { metadata, spec, status }: Tenant,
  { deletedAt, keptUntil, managedDatabase }: Pick<DeletedTenant, "deletedAt" | "keptUntil" | "managedDatabase">,
): DeletedTenant {
  const { databaseServer, formerDatabases, dataSince } = status;
  // A copy that was still being made is nobody's any more.
  const databaseMove = status.databaseMove && isExchanging(status.databaseMove) ? status.databaseMove : undefined;
  const brought = broughtBy(status);
  return {
    name: metadata.name,
    ...(status.storage === undefined ? {} : { storage: status.storage }),
    spec,
    ...(status.schemaRelease === undefined ? {} : { schemaRelease: status.schemaRelease }),
    createdAt: metadata.creationTimestamp,
    deletedAt,
    keptUntil,
    managedDatabase,
    ...(databaseServer === undefined ? {} : { databaseServer }),
    ...(formerDatabases === undefined ? {} : { formerDatabases }),
    ...(databaseMove === undefined ? {} : { databaseMove, epoch: status.epoch }),
    ...(brought.length === 0 ? {} : { brought }),
    ...(dataSince === undefined ? {} : { dataSince }),
  };
}

function broughtBy({ inEffect }: TenantStatus): string[] {
  const { database, bucket } = inEffect?.meaning ?? {};
  return [
    ...(database ? [`database ${database.host}:${database.port}/${database.name}`] : []),
    ...(bucket ? [`bucket ${bucket}`] : []),
  ];
}

type KeptStatus = Partial<
  Pick<TenantStatus, "databaseKept" | "databaseServer" | "formerDatabases" | "databaseMove" | "epoch" | "dataSince">
>;

/** What a tenant begins with that takes up what is kept of a deleted one. */
export function keptStatus({
  managedDatabase,
  databaseServer,
  formerDatabases,
  databaseMove,
  epoch,
  createdAt,
  dataSince = createdAt,
}: DeletedTenant): KeptStatus {
  return {
    // Not known of all.
    ...(dataSince === "" ? {} : { dataSince }),
    ...(managedDatabase ? { databaseKept: true } : {}),
    ...(databaseServer === undefined ? {} : { databaseServer }),
    ...(formerDatabases === undefined ? {} : { formerDatabases }),
    ...(databaseMove === undefined ? {} : { databaseMove }),
    ...(epoch === undefined ? {} : { epoch }),
  };
}
