import { UserError } from "../../model/errors.ts";
import { freeStorageName, storageOf } from "../../model/storage-name.ts";
import type { Tenant } from "../../model/tenant.ts";
import type { CachedReader } from "../cached-reader.ts";
import type { ControllerContext } from "../context.ts";

type Context = Pick<ControllerContext, "reader" | "deletions">;

/**
 * What the data of a tenant that is to be made are named by: what is kept of a deleted one of that name and server name, else its name, where nobody
 * else's data is named so. The same as long as nothing changes.
 */
export async function storageFor({ reader, deletions }: Context, name: string, serverName: string): Promise<string> {
  const deleted = (await deletions?.records.list()) ?? [];
  const own = deleted.find((record) => record.name === name && record.spec.serverName === serverName);
  if (own) return own.storage ?? name;
  const taken = new Set(deleted.map((record) => record.storage ?? record.name));
  return freeStorageName(
    name,
    serverName,
    (storage) =>
      taken.has(storage) ||
      reader.withStorage(storage) !== undefined ||
      deletions?.reserved.hasStorage(storage) === true,
  );
}

/** Whether nobody's data are named so, or are about to be. */
export async function isFree(context: Context, storage: string): Promise<boolean> {
  return context.deletions?.reserved.hasStorage(storage) !== true && (await ownerOf(context, storage)) === undefined;
}

/** By which name the data of a tenant, present or deleted, is found. Of one that nobody knows: by its own. */
export async function knownStorageOf({ reader, deletions }: Context, name: string): Promise<string | undefined> {
  const present = reader.get("Tenant", name);
  if (present) return storageOf(present);
  const record = await deletions?.records.get(name);
  return record && (record.storage ?? name);
}

/** The tenant, present or deleted, whose data are named so. */
export async function ownerOf({ reader, deletions }: Context, storage: string): Promise<string | undefined> {
  const present = reader.withStorage(storage);
  if (present) return present.metadata.name;
  return (await deletions?.records.list())?.find((record) => (record.storage ?? record.name) === storage)?.name;
}

/** The tenant that had a name last. */
export function formerly(reader: CachedReader, name: string): Tenant | undefined {
  let found: { tenant: Tenant; until: string } | undefined;
  for (const tenant of reader.values("Tenant"))
    for (const former of tenant.status.formerNames ?? [])
      if (former.name === name && (found === undefined || former.until > found.until))
        found = { tenant, until: former.until };
  return found?.tenant;
}

function renamedTo(reader: CachedReader, name: string): Tenant | undefined {
  for (const tenant of reader.values("Tenant")) if (tenant.status.rename?.to === name) return tenant;
  return undefined;
}

/** @throws UserError Conflict where a tenant is about to have that name */
export function refuseRenamedTo({ reader }: Pick<Context, "reader">, name: string): void {
  const other = renamedTo(reader, name);
  if (other) throw new UserError("Conflict", `tenant ${other.metadata.name} is being renamed to ${name}`);
}

/** Asks by storage names, and answers by tenants' names. */
export async function ofTenants<T>(
  tenants: readonly Tenant[],
  ask: (storages: string[]) => Promise<Map<string, T>>,
): Promise<Map<string, T>> {
  const tenantOf = new Map(tenants.map((tenant) => [storageOf(tenant), tenant.metadata.name]));
  const found = await ask([...tenantOf.keys()]);
  return new Map([...found].map(([storage, value]) => [tenantOf.get(storage) ?? storage, value]));
}
