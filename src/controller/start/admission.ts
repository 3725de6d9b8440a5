import { disagreement, readConfig } from "../../model/config-reading.ts";
import { StartFailure } from "../../model/errors.ts";
import type { Tenant } from "../../model/tenant.ts";
import type { TenantSecretData } from "../../model/tenant-secrets.ts";
import type { Assignment, ShardControl, TenantCheck } from "../../ports/shard-control.ts";
import type { ControllerContext } from "../context.ts";

type Admitting = Pick<ControllerContext, "claims" | "databases" | "mediaNeedBuckets">;

const NO_BUCKET =
  "media_storage_providers: name a bucket for media, which would be lost with the shard's disk by the next move; or set enable_media_repo: false";

export interface AdmissionRequest {
  /** With the configuration that is to be admitted. */
  tenant: Tenant;
  secrets: TenantSecretData;
  /** Of that configuration, as `status.configHash`. */
  hash: string;
  assignment: Assignment;
  /** Asks the shard even if another one has just admitted it: another release may judge otherwise. */
  isForMove?: boolean;
}

/**
 * Whether a tenant may run with a configuration: a shard reads it, and what that says must be the tenant's own, under whatever name. Starts
 * nothing and stops nothing. What it asks for is kept for it for a minute, so that two that ask for the same are not both admitted.
 * @returns its database as the server identifies it, where the tenant brings one along
 * @throws StartFailure, UserError InvalidConfig, ShardRefusal, ShardUnreachable
 */
export async function admit(
  context: Admitting,
  client: ShardControl,
  { tenant, secrets, hash, assignment, isForMove = false }: AdmissionRequest,
): Promise<string | undefined> {
  const { claims } = context;
  const { name } = tenant.metadata;
  const reserved = claims.reservation(name, hash);
  if (reserved && !isForMove && !claims.conflictOf(tenant)) return reserved.databaseId;
  const { meaning, databaseId } = await examine(context, client, { tenant, secrets, assignment });
  // A shard of an earlier version says only whether it could be started.
  if (!meaning) return undefined;
  const conflict = claims.reserve(tenant, { hash, meaning, databaseId });
  if (conflict) throw new StartFailure(conflict.reason, conflict.message);
  return databaseId;
}

/**
 * What `admit` asks, keeping nothing for anybody.
 * @returns with what is probably a mistake in it @throws as `admit`
 */
export async function examine(
  { claims, databases, mediaNeedBuckets = false }: Admitting,
  client: ShardControl,
  { tenant, secrets, assignment }: Pick<AdmissionRequest, "tenant" | "secrets" | "assignment">,
): Promise<TenantCheck & { databaseId?: string }> {
  const { name } = tenant.metadata;
  const reading = readConfig(tenant.spec.config);
  // A check claims nothing, and a tenant has no epoch before its first start; a shard takes none below 1.
  const check = await client.checkTenant(name, { ...assignment, epoch: Math.max(1, assignment.epoch) });
  const { meaning } = check;
  if (!meaning) return check;
  const twofold = disagreement(reading, meaning);
  if (twofold !== undefined) throw new StartFailure("InvalidConfig", twofold);
  // One that runs without a bucket goes on: whoever keeps it so may have no media.
  const isNewWithout = meaning.bucket === null && tenant.status.inEffect?.meaning.bucket !== null;
  if (mediaNeedBuckets && isNewWithout && !reading.keepsNoMedia) throw new StartFailure("InvalidConfig", NO_BUCKET);
  // What is taken by its name needs no connection to be found out.
  const rival = claims.conflictWith(tenant, meaning);
  if (rival) throw new StartFailure(rival.reason, rival.message);
  const databaseId = meaning.database ? await databases.identify(tenant, secrets) : undefined;
  return { ...check, ...(databaseId === undefined ? {} : { databaseId }) };
}
