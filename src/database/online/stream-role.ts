import type pg from "pg";
import { identifier } from "../connection.ts";
import { STREAM_PATTERN } from "../names.ts";
import { dropRole, unlessForbidden } from "../roles.ts";

/** Roles of streams on a server, nobody's where no stream is under way; and whether there may be something of them in a database. */
export async function streamRoles(client: pg.Client): Promise<{ role: string; may: boolean }[]> {
  const sql = "SELECT rolname AS role, rolreplication AS may FROM pg_roles WHERE rolname ~ $1 ORDER BY 1";
  return (await client.query<{ role: string; may: boolean }>(sql, [STREAM_PATTERN])).rows;
}

/**
 * Ends a stream; its slot ends with its connection.
 * @returns whether there may be something of it in the database: the role has REPLICATION until that was looked for
 */
export async function endStream(client: pg.Client, role: string): Promise<boolean> {
  const { rows } = await client.query<{ may: boolean }>(
    "SELECT rolreplication AS may FROM pg_roles WHERE rolname = $1",
    [role],
  );
  if (!rows[0]) return false;
  await client.query(`ALTER ROLE ${identifier(role)} WITH NOLOGIN PASSWORD NULL`);
  await client.query("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = $1", [role]);
  return rows[0].may;
}

/**
 * Nothing where there is none. Whom a tenant has granted something in its own database cannot be removed; what is left then is a role that may do
 * nothing, for which nothing else waits.
 */
export async function dropStreamRole(client: pg.Client, role: string): Promise<void> {
  const { rowCount } = await client.query("SELECT FROM pg_roles WHERE rolname = $1", [role]);
  if (rowCount === 0) return;
  if (await endStream(client, role))
    await client.query(`ALTER ROLE ${identifier(role)} WITH NOREPLICATION`).catch(unlessForbidden);
  const { rows } = await client.query<{ name: string }>(
    `SELECT DISTINCT datname AS name FROM pg_database, aclexplode(datacl) AS granted, pg_roles
     WHERE granted.grantee = pg_roles.oid AND rolname = $1`,
    [role],
  );
  for (const { name } of rows)
    await client.query(`REVOKE ALL ON DATABASE ${identifier(name)} FROM ${identifier(role)}`);
  await dropRole(client, role);
}
