import type pg from "pg";
import { UserError } from "../model/errors.ts";
import { ASIDE_SCHEMA, SYNAPSE_SCHEMA } from "./aside.ts";

const LOCK_TIMEOUT = "55P03";
/** What others have of what is ours. An index goes with its table. */
const HOLDER = `
  SELECT n.nspname || '.' || c.relname AS what, pg_catalog.pg_get_userbyid(a.usesysid) AS role, l.pid
  FROM pg_catalog.pg_locks l
  JOIN pg_catalog.pg_database d ON d.oid = l.database AND d.datname = pg_catalog.current_database()
  JOIN pg_catalog.pg_class c ON c.oid = l.relation AND c.relkind NOT IN ('i', 'I')
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND n.nspname IN ($1, $2)
  LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
  WHERE l.granted AND l.pid <> pg_catalog.pg_backend_pid() AND pg_catalog.pg_get_userbyid(c.relowner) = current_user
  ORDER BY l.pid, what LIMIT 1`;

/** @param error of a transaction, which is over then @returns it, or who has the lock that was waited for in vain */
export async function explainLock(client: pg.Client, error: unknown, waitedMs: number): Promise<unknown> {
  if ((error as { code?: unknown }).code !== LOCK_TIMEOUT) return error;
  await client.query("ROLLBACK");
  const { rows } = await client.query<{ what: string; role: string | null; pid: number }>(HOLDER, [
    SYNAPSE_SCHEMA,
    ASIDE_SCHEMA,
  ]);
  const [held] = rows;
  const what = held ? `table ${held.what}` : "something in its database";
  const by = held ? ` by role ${held.role ?? "(none)"} (process ${held.pid})` : " by another role";
  return new UserError(
    "Conflict",
    `${what} is locked${by}, also after ${waitedMs / 1_000} s; end that session or wait for it, and try again`,
    { cause: error },
  );
}
