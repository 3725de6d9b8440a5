import type pg from "pg";
import { StartFailure } from "../model/errors.ts";
import { asAdmin, DEFAULT_BOUNDS, type AdminLogin } from "./connection.ts";
import { besideNames, MOVED_HERE, tenantDatabaseName } from "./names.ts";

/**
 * Databases that may be the only ones that have a tenant's data: its own is missing, and a move or an exchange that was cut off has left them. What a
 * backup was restored into is none: the backup is there.
 */
export async function strandedOf(client: pg.Client, tenant: string): Promise<string[]> {
  const { hasOwn, others } = await databasesOf(client, tenant);
  return hasOwn ? [] : others;
}

/** Those that there are, by name, with what their comments say. */
export async function databasesAmong(
  client: pg.Client,
  names: readonly string[],
): Promise<{ name: string; comment: string }[]> {
  const { rows } = await client.query<{ name: string; comment: string }>(
    `SELECT datname AS name, coalesce(shobj_description(oid, 'pg_database'), '') AS comment
     FROM pg_database WHERE datname = ANY ($1) ORDER BY 1`,
    [names],
  );
  return rows;
}

async function databasesOf(client: pg.Client, tenant: string): Promise<{ hasOwn: boolean; others: string[] }> {
  const own = tenantDatabaseName(tenant);
  const { restored, replaced, moved } = besideNames(tenant);
  const rows = await databasesAmong(client, [own, restored, replaced, moved]);
  const others = rows.filter(
    ({ name, comment }) => name !== own && (name !== restored || comment.startsWith(MOVED_HERE)),
  );
  return { hasOwn: rows.some(({ name }) => name === own), others: others.map(({ name }) => name) };
}

/**
 * An empty database beside or instead of the one that has the data would hide it, and in the end that would be removed.
 * @param options.kept whether its database is there from before @throws StartFailure DatabaseMissing
 */
export async function refuseEmptyOne(admin: AdminLogin, tenant: string, { kept }: { kept: boolean }): Promise<void> {
  const { hasOwn, others } = await asAdmin(admin, DEFAULT_BOUNDS, (client) => databasesOf(client, tenant));
  if (hasOwn) return;
  if (others.length > 0) throw new StartFailure("DatabaseMissing", strandedWords(tenant, others));
  if (kept) throw new StartFailure("DatabaseMissing", keptWords(tenant, `${admin.host}:${admin.port}`));
}

/** @param where which server or servers */
export function keptWords(tenant: string, where: string): string {
  return (
    `the database ${tenantDatabaseName(tenant)} of the deleted tenant was kept, and is not on ${where}: put it back, or the server that has it into ` +
    "databaseServers; or delete the tenant with --purge to begin without that data"
  );
}

export function strandedWords(tenant: string, stranded: readonly string[]): string {
  const own = tenantDatabaseName(tenant);
  return (
    `the database ${own} is missing, and a move or restore that was cut off has left ${stranded.join(" and ")}, which may have the only copy of its ` +
    `data: find out which is the right one, and put it back as the server's administrator (ALTER DATABASE ${stranded[0]} RENAME TO ${own}; ` +
    `ALTER DATABASE ${own} ALLOW_CONNECTIONS true), or remove all of them with --purge`
  );
}
