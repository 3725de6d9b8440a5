import { createHash } from "node:crypto";
import type { Tenant } from "./tenant.ts";

/**
 * What a tenant's database, role, media, keys and backups are named by. It stays when the tenant is renamed, and is never another tenant's, whatever
 * that one is called.
 */
export function storageOf({
  metadata,
  status,
}: {
  metadata: Pick<Tenant["metadata"], "name">;
  status: Pick<Tenant["status"], "storage">;
}): string {
  return status.storage ?? metadata.name;
}

/** As a field of a status, where it is not the tenant's name. */
export function storageField(storage: string, name: string): { storage?: string } {
  return storage === name ? {} : { storage };
}

/** A DNS label has no more. */
const MOST_CHARACTERS = 63;
const HASH_DIGITS = 8;

/**
 * The storage name of a tenant that is to be made: its name, unless another tenant's data is named so. The same each time, so that what was interrupted
 * finds what it left.
 */
export function freeStorageName(name: string, serverName: string, isTaken: (storage: string) => boolean): string {
  if (!isTaken(name)) return name;
  const begin = name.slice(0, MOST_CHARACTERS - HASH_DIGITS - 1);
  for (let attempt = 0; ; attempt++) {
    const hash = createHash("sha256").update(`${name}\0${serverName}\0${attempt}`).digest("hex");
    const storage = `${begin}-${hash.slice(0, HASH_DIGITS)}`;
    if (!isTaken(storage)) return storage;
  }
}
