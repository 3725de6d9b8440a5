import type pg from "pg";
import { identifier } from "./connection.ts";

/** Creates a role if there is none of that name. Call it under a lock. @returns whether it was made */
export async function ensureRole(client: pg.Client, role: string): Promise<boolean> {
  const { rowCount } = await client.query("SELECT FROM pg_roles WHERE rolname = $1", [role]);
  if (rowCount === 0) await client.query(`CREATE ROLE ${identifier(role)}`);
  await becomeMember(client, role);
  return rowCount === 0;
}

/** Who is no superuser must be a member of a role to hand objects over to it, or from it. */
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
     WHERE datname = $1 AND pid <> pg_backend_pid() AND coalesce(backend_type, 'client backend') = 'client backend'`,
    [database],
  );
}
