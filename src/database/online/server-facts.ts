import type pg from "pg";
import { lsnValue } from "../../model/point-in-time.ts";
import { identifier } from "../connection.ts";
import { CLIENTS, endAll } from "../ended.ts";

/** What a server may keep of its log for us: more would fill its disk. */
const MOST_LOG_BYTES = 8 * 1024 ** 3;
const ENDED_MS = 10_000;

/** How far the log is on the disk, before which nothing is streamed. */
export async function endOfLog(client: pg.Client): Promise<bigint> {
  const sql = "SELECT pg_catalog.pg_current_wal_flush_lsn()::pg_catalog.text AS position";
  return lsnValue((await client.query<{ position: string }>(sql)).rows[0]?.position ?? "0/0");
}

/**
 * The position behind everything that was committed when it was asked for. Who does not wait for the disk (`synchronous_commit`, which a role may set)
 * was told of commits that are not there yet: a commit that waits takes with it what came before.
 */
export async function flushedEnd(client: pg.Client): Promise<bigint> {
  await client.query("SET synchronous_commit = local");
  await client.query("SELECT pg_catalog.pg_logical_emit_message(true, 'synapse-shards', '')");
  return endOfLog(client);
}

export async function logOf(client: pg.Client, slot: string, database: string) {
  const { rows } = await client.query<{ kept: string | null; most: string; total: string | null; end: string }>(
    `SELECT (SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint::text FROM pg_replication_slots WHERE slot_name = $1) AS kept,
            (SELECT setting::bigint * 1048576 FROM pg_settings WHERE name = 'max_slot_wal_keep_size')::text AS most,
            (SELECT pg_database_size(oid)::text FROM pg_database WHERE datname = $2) AS total,
            pg_current_wal_flush_lsn()::text AS "end"`,
    [slot, database],
  );
  const [row] = rows;
  const own = Number(row?.most ?? -1);
  const mostBytes = own > 0 ? Math.min(own, MOST_LOG_BYTES) : MOST_LOG_BYTES;
  return {
    keptBytes: Number(row?.kept ?? 0),
    mostBytes,
    totalBytes: Number(row?.total ?? 0),
    end: lsnValue(row?.end ?? "0/0"),
  };
}

export async function sizeOf(client: pg.Client, database: string): Promise<number> {
  const sql = "SELECT pg_database_size(oid)::text AS bytes FROM pg_database WHERE datname = $1";
  return Number((await client.query<{ bytes: string }>(sql, [database])).rows[0]?.bytes ?? 0);
}

/** The database of the transaction that has been open for the longest, of those that write. */
export async function oldestTransaction(client: pg.Client): Promise<string | undefined> {
  const { rows } = await client.query<{ name: string | null }>(
    "SELECT datname AS name FROM pg_stat_activity WHERE backend_xid IS NOT NULL ORDER BY xact_start LIMIT 1",
  );
  return rows[0]?.name ?? undefined;
}

/** Nobody gets in any more, and who is there is not: but for one connection, and those of streams. @throws UserError Unavailable */
export async function closeToOthers(client: pg.Client, database: string, pid: number): Promise<void> {
  await client.query(`ALTER DATABASE ${identifier(database)} WITH ALLOW_CONNECTIONS false`);
  await endOthers(client, database, pid);
}

/** @returns how many there were: a login that was under way when the database was closed still gets in @throws UserError Unavailable */
export function endOthers(client: pg.Client, database: string, pid: number): Promise<number> {
  const others = `FROM pg_stat_activity WHERE datname = $1 AND pid NOT IN ($2, pg_backend_pid()) AND ${CLIENTS}`;
  return endAll(client, others, { values: [database, pid], database, withinMs: ENDED_MS });
}

export async function pidOf(client: pg.Client): Promise<number> {
  const { rows } = await client.query<{ pid: number }>("SELECT pg_catalog.pg_backend_pid() AS pid");
  return rows[0]?.pid ?? 0;
}
