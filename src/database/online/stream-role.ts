import type pg from "pg";
import { identifier } from "../connection.ts";
import { STREAM_PATTERN } from "../names.ts";

/** Roles of streams on a server: nobody's, where no stream is under way. */
export async function streamRoles(client: pg.Client): Promise<string[]> {
  const sql = "SELECT rolname AS name FROM pg_roles WHERE rolname ~ $1 ORDER BY 1";
  return (await client.query<{ name: string }>(sql, [STREAM_PATTERN])).rows.map(({ name }) => name);
}

/** Its slot ends with its connection. @returns whether there is such a role */
export async function endStream(client: pg.Client, role: string): Promise<boolean> {
  const { rowCount } = await client.query("SELECT FROM pg_roles WHERE rolname = $1", [role]);
  if (rowCount === 0) return false;
  await client.query(`ALTER ROLE ${identifier(role)} WITH NOLOGIN`);
  await client.query("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = $1", [role]);
  return true;
}

/** Nothing where there is none. */
export async function dropStreamRole(client: pg.Client, role: string): Promise<void> {
  if (!(await endStream(client, role))) return;
  const { rows } = await client.query<{ name: string }>(
    `SELECT datname AS name FROM pg_database, aclexplode(datacl) AS granted, pg_roles
     WHERE granted.grantee = pg_roles.oid AND rolname = $1`,
    [role],
  );
  for (const { name } of rows)
    await client.query(`REVOKE ALL ON DATABASE ${identifier(name)} FROM ${identifier(role)}`);
  await client.query(`DROP ROLE ${identifier(role)}`);
}
