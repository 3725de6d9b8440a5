import { copyFileSync, existsSync, readdirSync, renameSync, rmSync, statSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { messageOf, UserError } from "../../../model/errors.ts";
import { newTenantStatus, type TenantStatus } from "../../../model/tenant.ts";

/** What the file of a store holds, seen from outside: before a controller opens it. */
export interface StoreFile {
  /** What the data are named by of the tenants that it has, and of deleted ones whose data is kept. */
  tenants: string[];
  /** Whether secrets in it are sealed with a key. */
  sealed: boolean;
}

/** Of a store that has never been. */
const NOTHING: StoreFile = { tenants: [], sealed: false };

/** @throws UserError Environment that names a damaged file, and how it is restored */
export function inspectStore(file: string): StoreFile {
  if (!existsSync(file)) return NOTHING;
  let db: DatabaseSync | undefined;
  try {
    db = new DatabaseSync(file);
    const check = db.prepare("PRAGMA quick_check(1)").get() as { quick_check: string };
    if (check.quick_check !== "ok") throw new Error(check.quick_check.split("\n", 1)[0]);
    const tables = new Set(
      db
        .prepare("SELECT name FROM sqlite_schema")
        .all()
        .map((row) => String(row["name"])),
    );
    if (!tables.has("resources")) return NOTHING;
    const rows = db
      .prepare(
        `SELECT coalesce(json_extract(body, '$.status.storage'), name) AS name FROM resources WHERE kind = 'Tenant'
         UNION SELECT tenant AS name FROM secrets`,
      )
      .all();
    const sealed = tables.has("meta") && db.prepare("SELECT 1 FROM meta WHERE name = 'key'").get() !== undefined;
    return { tenants: rows.map((row) => String(row["name"])), sealed };
  } catch (error) {
    throw damaged(file, messageOf(error));
  } finally {
    if (db?.isOpen) db.close();
  }
}

function damaged(file: string, why: string): UserError {
  const backup = backupOf(file);
  const way = existsSync(backup)
    ? `\`synapse-shards up --recover\` restores the copy of ${dateOf(backup)} (${backup})`
    : "restore it from a backup of yours; there is no copy beside it";
  return new UserError("Environment", `${file} is damaged (${why}): ${way}`);
}

export function backupOf(file: string): string {
  return `${file}.backup`;
}

function dateOf(file: string): string {
  return `${statSync(file).mtime.toISOString().slice(0, 16).replace("T", " ")} UTC`;
}

/**
 * Refuses to go on with a store that lacks tenants whose databases are there: created again, they would get new keys over old data.
 * @param databases names of the tenants' databases that the server has
 * @param databaseNameOf the name of a tenant's database
 * @throws UserError Environment that says what to do
 */
export function checkAgainstDatabases(
  file: string,
  databases: readonly string[],
  databaseNameOf: (tenant: string) => string,
): void {
  const known = new Set(inspectStore(file).tenants.map(databaseNameOf));
  const lost = databases.filter((name) => !known.has(name));
  if (lost.length === 0) return;
  const shown = `${lost.slice(0, 5).join(", ")}${lost.length > 5 ? ` and ${lost.length - 5} more` : ""}`;
  const backup = backupOf(file);
  const inBackup = existsSync(backup) ? new Set(inspectStore(backup).tenants.map(databaseNameOf)) : new Set<string>();
  const way = lost.some((name) => inBackup.has(name))
    ? `\`synapse-shards up --recover\` restores the copy of ${dateOf(backup)}, which knows ${lost.filter((name) => inBackup.has(name)).length} of them`
    : `restore ${file} and the file with its key from a backup`;
  throw new UserError(
    "Environment",
    `PostgreSQL has databases of tenants that ${file} does not know: ${shown}. Their signing keys are in the store that was lost, and a tenant created again would get others: ${way}. To give up a tenant's data instead, drop its database`,
  );
}

/**
 * Puts the copy in the place of a store that is lost or damaged, which is kept beside it.
 * @returns where the former store is now, if there was one @throws UserError Environment when there is no copy
 */
export function restoreStore(file: string, now = new Date()): { from: string; formerStore?: string } {
  const backup = backupOf(file);
  if (!existsSync(backup))
    throw new UserError("Environment", `there is no ${backup} to recover from: restore ${file} from a backup of yours`);
  const { tenants } = inspectStore(backup);
  const formerStore = existsSync(file) ? `${file}.before-${now.toISOString().replaceAll(":", "")}` : undefined;
  if (formerStore) renameSync(file, formerStore);
  // A log of the former file would be played into the new one.
  for (const suffix of ["-wal", "-shm"]) {
    if (formerStore && existsSync(file + suffix)) renameSync(file + suffix, formerStore + suffix);
    rmSync(file + suffix, { force: true });
  }
  copyFileSync(backup, file);
  forgetPlaces(file);
  return { from: `${backup} of ${dateOf(backup)} with ${tenants.length} tenants`, formerStore };
}

/**
 * A copy is old: what it says of shards and epochs is not true any more. Without either, tenants are provisioned again, which finds
 * their databases and the epochs in them.
 */
function forgetPlaces(file: string): void {
  const db = new DatabaseSync(file);
  try {
    db.exec("BEGIN; DELETE FROM resources WHERE kind = 'Shard'");
    const write = db.prepare("UPDATE resources SET body = ? WHERE kind = 'Tenant' AND name = ?");
    for (const row of db.prepare("SELECT name, body FROM resources WHERE kind = 'Tenant'").all()) {
      const tenant = JSON.parse(String(row["body"])) as { status: TenantStatus };
      const { epoch, schemaRelease, inEffect, fleetRelease, fleetReleaseSince, storage, formerNames } = tenant.status;
      const kept = { epoch, schemaRelease, inEffect, fleetRelease, fleetReleaseSince, storage, formerNames };
      write.run(JSON.stringify({ ...tenant, status: { ...newTenantStatus(), ...kept } }), String(row["name"]));
    }
    db.exec("COMMIT");
  } finally {
    db.close();
  }
}

/** Former stores are kept, but not without end. */
export function removeOldStores(directory: string, name = "store.db", keep = 5): void {
  const old = readdirSync(directory).filter((file) => file.startsWith(`${name}.before-`) && !/-(wal|shm)$/.test(file));
  for (const file of old.toSorted().slice(0, -keep))
    for (const suffix of ["", "-wal", "-shm"]) rmSync(`${directory}/${file}${suffix}`, { force: true });
}
