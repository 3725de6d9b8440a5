import type pg from "pg";
import { identifier } from "./connection.ts";
import { CLIENTS } from "./ended.ts";

/** Creates a role if there is none of that name. Call it under a lock. @returns whether it was made */
export async function ensureRole(client: pg.Client, role: string): Promise<boolean> {
  const { rowCount } = await client.query("SELECT FROM pg_roles WHERE rolname = $1", [role]);
  if (rowCount === 0) await client.query(`CREATE ROLE ${identifier(role)}`);
  await becomeMember(client, role);
  return rowCount === 0;
}

/** An administrator without superuser rights must be a member of a role to give objects to it, or take them from it. */
async function becomeMember(client: pg.Client, role: string): Promise<void> {
  const { rows } = await client.query<{ superuser: boolean; member: boolean; version: number }>(
    `SELECT rolsuper AS superuser, pg_has_role(current_user, $1, 'USAGE') AS member,
            current_setting('server_version_num')::int AS version
     FROM pg_roles WHERE rolname = current_user`,
    [role],
  );
  const me = rows[0];
  if (!me || me.superuser || me.member) return;
  const options = me.version >= 160_000 ? " WITH INHERIT TRUE, SET TRUE" : "";
  await client.query(`GRANT ${identifier(role)} TO CURRENT_USER${options}`);
}

/** Ends every other connection to a database that we may end. */
export async function endConnections(client: pg.Client, database: string): Promise<void> {
  await client.query(
    `SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
     WHERE datname = $1 AND pid <> pg_backend_pid() AND ${CLIENTS}`,
    [database],
  );
}

/** A shard's pool has 5; a move has two shards, a migration and the controller on it. */
const MOST_CONNECTIONS = 20;
/** What Synapse itself allows a statement; background work on large tables takes minutes. */
const LONGEST_STATEMENT = "1h";
/** Sorting a tenant of some GiB takes less. */
const MOST_TEMP_FILES = "2GB";
const NOT_ALLOWED = "42501";

/**
 * Bounds what a tenant's role can take of the server. It cannot lift the number of connections and the space for temporary files; the time of
 * statements is a default, which a role can change for itself.
 */
export async function limitRole(client: pg.Client, role: string): Promise<void> {
  await client.query(`ALTER ROLE ${identifier(role)} CONNECTION LIMIT ${MOST_CONNECTIONS}`);
  await client.query(`ALTER ROLE ${identifier(role)} SET statement_timeout = '${LONGEST_STATEMENT}'`);
  // An administrator without superuser rights needs a grant for it (docs/postgresql.md).
  await client
    .query(`ALTER ROLE ${identifier(role)} SET temp_file_limit = '${MOST_TEMP_FILES}'`)
    .catch(unlessForbidden);
}

export function unlessForbidden(error: unknown): void {
  if ((error as { code?: unknown }).code !== NOT_ALLOWED) throw error;
}

/**
 * Tenants' roles are to connect to their own databases alone: in a database that everyone may enter they could hold the administrator's
 * advisory locks, and leave things behind for it. Of databases that are not the administrator's the owner decides.
 */
export async function closeCommonDatabases(client: pg.Client): Promise<void> {
  const { rows } = await client.query<{ name: string }>(
    `SELECT datname AS name FROM pg_database
     WHERE datname IN ('postgres', 'template1', current_database())
       AND has_database_privilege('public', oid, 'CONNECT') AND pg_has_role(current_user, datdba, 'USAGE')`,
  );
  for (const { name } of rows)
    await client.query(`REVOKE CONNECT, TEMPORARY ON DATABASE ${identifier(name)} FROM PUBLIC`);
}

const DEPENDENT_OBJECTS = "2BP01";

/**
 * Removes a role. Anybody may grant it something in a database of their own, which keeps it from being removed; it then stays, cannot log in, and is
 * taken up again by whoever gets its name.
 */
export async function dropRole(client: pg.Client, role: string): Promise<void> {
  try {
    await client.query(`DROP ROLE IF EXISTS ${identifier(role)}`);
  } catch (error) {
    if ((error as { code?: string }).code !== DEPENDENT_OBJECTS) throw error;
    await client.query(`ALTER ROLE ${identifier(role)} WITH NOLOGIN PASSWORD NULL`);
  }
}
