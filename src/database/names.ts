import { createHash } from "node:crypto";
import { UserError } from "../model/errors.ts";
import { tenantNameProblem } from "../model/names.ts";

/** PostgreSQL cuts longer identifiers off, silently. */
const MOST_BYTES = 63;
const HASH_DIGITS = 16;

/** Owns the schema objects of templates, so that they can be handed over to a tenant in one statement. Cannot log in. */
export const TEMPLATE_ROLE = "synapse_template";

/** What names of tenants' databases begin with: as they are, and shortened. */
export const TENANT_PREFIXES = ["tenant_", "tenantx_"] as const;

/**
 * The name of a tenant's database and of its role. No two tenants share one: labels have no "_", so putting it for "-" loses
 * nothing, and names shortened with a hash have a prefix of their own.
 * @throws UserError InvalidInput for what is not a DNS label
 */
export function tenantDatabaseName(tenant: string): string {
  const problem = tenantNameProblem(tenant);
  if (problem !== undefined) throw new UserError("InvalidInput", problem);
  const name = `${TENANT_PREFIXES[0]}${tenant.replaceAll("-", "_")}`;
  if (name.length <= MOST_BYTES) return name;
  const hash = createHash("sha256").update(tenant).digest("hex").slice(0, HASH_DIGITS);
  const begin = `${TENANT_PREFIXES[1]}${tenant.replaceAll("-", "_")}`.slice(0, MOST_BYTES - HASH_DIGITS - 1);
  return `${begin}_${hash}`;
}

/** The template database of a Synapse release. @throws UserError InvalidInput */
export function templateDatabaseName(version: string): string {
  if (!/^\d{1,4}(\.\d{1,4}){1,3}(rc\d{1,3})?$/.test(version))
    throw new UserError("InvalidInput", `${JSON.stringify(version)} is not a Synapse release such as 1.163.2`);
  return `synapse_template_${version.replaceAll(".", "_")}`;
}

const BESIDE = ["filling", "restored", "replaced", "moved"] as const;
const INSPECTED = "inspected";

/**
 * Databases beside a tenant's own: one that a copy is read into, one that is complete, the one that was there before, and the one that was moved to
 * another server.
 */
export function besideNames(tenant: string): Record<(typeof BESIDE)[number], string> {
  const names = BESIDE.map((kind) => [kind, nameBeside(kind, tenant)]);
  return Object.fromEntries(names) as Record<(typeof BESIDE)[number], string>;
}

/** What the comment on a database begins with that came from another server. */
export const MOVED_HERE = "moved here from ";

/** @param installation whose copy it is: several may share a server */
export function movedHere(host: string, installation: string): string {
  return `${MOVED_HERE}${host} by ${installation}`;
}

export function isMovedBy(comment: string, installation: string): boolean {
  return comment.startsWith(MOVED_HERE) && comment.endsWith(` by ${installation}`);
}

/** The database in which an earlier state of a tenant is looked at, and its role. */
export function inspectionName(tenant: string): string {
  return nameBeside(INSPECTED, tenant);
}

/** What such names match. */
export const INSPECTION_PATTERN = `^${INSPECTED}_(${TENANT_PREFIXES.join("|")})`;

const STREAM = "stream";

/** What streams a tenant's changes to another server has this name: a role, its slot, and the publication in the tenant's database. */
export function streamName(tenant: string): string {
  return nameBeside(STREAM, tenant);
}

/** What such names match. */
export const STREAM_PATTERN = `^${STREAM}_(${TENANT_PREFIXES.join("|")})`;

function nameBeside(kind: string, tenant: string): string {
  const name = `${kind}_${tenantDatabaseName(tenant)}`;
  if (name.length <= MOST_BYTES) return name;
  const hash = createHash("sha256").update(tenant).digest("hex").slice(0, HASH_DIGITS);
  return `${name.slice(0, MOST_BYTES - HASH_DIGITS - 1)}_${hash}`;
}

/** Databases that a backup is only tried in, and their roles. */
export const SCRATCH_PREFIX = "scratch_";

/** Numbers of the databases that are other tenants', as far as names tell: what is nobody's, such as templates, is not among them. */
export function othersDatabases(databases: readonly { oid: number; name: string }[], tenant: string): Set<number> {
  const own = new Set([tenantDatabaseName(tenant), ...Object.values(besideNames(tenant))]);
  const ofTenants = new RegExp(
    `^((${[...BESIDE, INSPECTED].join("|")})_)?(${TENANT_PREFIXES.join("|")})|^${SCRATCH_PREFIX}`,
  );
  return new Set(databases.filter(({ name }) => ofTenants.test(name) && !own.has(name)).map(({ oid }) => oid));
}
