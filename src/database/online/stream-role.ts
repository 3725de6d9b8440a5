import type pg from "pg";
import { identifier, literal } from "../connection.ts";
import { STREAM_PATTERN } from "../names.ts";
import { dropRole, unlessForbidden } from "../roles.ts";

const MARK = "streams for ";

/** Several installations may share a server. */
export async function markStream(client: pg.Client, role: string, installation: string): Promise<void> {
  await client.query(`COMMENT ON ROLE ${identifier(role)} IS ${literal(`${MARK}${installation}`)}`);
}

export interface StreamRole {
  role: string;
  /** There may be something of it in a database. */
  may: boolean;
  /** This installation has made it; undefined: nobody has marked it, as in a crash. */
  isOurs: boolean | undefined;
}

/** Roles of streams on a server, nobody's where no stream is under way. */
export async function streamRoles(client: pg.Client, installation: string): Promise<StreamRole[]> {
  const { rows } = await client.query<{ role: string; may: boolean; words: string | null }>(
    `SELECT rolname AS role, rolreplication AS may, shobj_description(oid, 'pg_authid') AS words
     FROM pg_roles WHERE rolname ~ $1 ORDER BY 1`,
    [STREAM_PATTERN],
  );
  return rows.map(({ role, may, words }) => ({
    role,
    may,
    isOurs: words === null ? undefined : words === `${MARK}${installation}`,
  }));
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
