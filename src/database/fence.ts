import type pg from "pg";
import type { FenceState } from "../ports/databases.ts";
import { wholeNumber } from "./whole-number.ts";
import { withConnection, type Bounds, type Login } from "./connection.ts";
import { CLIENTS, endAll } from "./ended.ts";

/** So the connections of processes that wait for the database are named; `multi_synapse/dedicated.py` has the same. */
const WAITING = "synapse-shards waiting%";
const OTHERS = `
  FROM pg_stat_activity WHERE datname = current_database() AND usename = current_user
  AND pid <> pg_backend_pid() AND ${CLIENTS}`;

type TenantLogin = Login & { database: string };

/** @returns undefined where no one ever claimed it @throws UserError as `withConnection` */
export function readFence(login: TenantLogin, bounds: Bounds): Promise<FenceState | undefined> {
  return withConnection(
    login,
    login.database,
    async (client) => {
      const row = await fenceRow(client);
      const { rows } = await client.query<{ waiting: boolean; connected: boolean }>(
        `SELECT coalesce(bool_or(application_name LIKE $1), false) AS waiting,
                coalesce(bool_or(application_name NOT LIKE $1), false) AS connected ${OTHERS}`,
        [WAITING],
      );
      const found = rows[0] ?? { waiting: false, connected: false };
      if (!row) return found.waiting ? { epoch: 0, owner: "", ...found } : undefined;
      return { ...row, ...found };
    },
    bounds,
  );
}

/**
 * Releases the database on behalf of an owner that does not answer: raises the epoch, and ends its connections, so that it is shut out.
 * Nothing happens if another has it by now. @returns whether it was released
 */
export function releaseFence(login: TenantLogin, owner: string, epoch: number, bounds: Bounds): Promise<boolean> {
  return withConnection(
    login,
    login.database,
    async (client) => {
      const { rowCount } = await client.query(
        "UPDATE synapse_shards.fence SET epoch = $1, shard = '', instance = '' WHERE shard = $2 AND epoch < $1",
        [epoch, owner],
      );
      if (rowCount !== 1) return false;
      await client.query(`SELECT pg_terminate_backend(pid) ${OTHERS} AND application_name NOT LIKE $1`, [WAITING]);
      return true;
    },
    bounds,
  );
}

/** A statement that is at its commit is done with that first. */
const ENDED_MS = 10_000;

/** Shuts out whoever has it, with an epoch that is higher than all before: nobody writes any more when this returns. */
export async function fenceAgainstAll(login: TenantLogin, epoch: number, bounds: Bounds): Promise<void> {
  await withConnection(
    login,
    login.database,
    async (client) => {
      if (await fenceRow(client)) await raiseEpoch(client, epoch);
      await endAll(client, OTHERS, { database: login.database, withinMs: ENDED_MS });
    },
    bounds,
  );
}

/** Nobody has a database then whose epoch is not higher. */
export async function raiseEpoch(client: pg.Client, epoch: number): Promise<void> {
  await client.query("UPDATE synapse_shards.fence SET epoch = greatest(epoch, $1::bigint), shard = '', instance = ''", [
    epoch,
  ]);
}

/** Lets a process in that waits for a released database, and is of an older revision than its last owner. */
export async function grantFence(login: TenantLogin, bounds: Bounds): Promise<void> {
  const grant = "UPDATE synapse_shards.fence SET instance = 'dedicated' WHERE shard = ''";
  await withConnection(login, login.database, (client) => client.query(grant), bounds);
}

export async function hasFence(client: pg.Client): Promise<boolean> {
  const { rows } = await client.query<{ there: boolean }>(
    "SELECT pg_catalog.to_regclass('synapse_shards.fence') IS NOT NULL AS there",
  );
  return rows[0]?.there ?? false;
}

async function fenceRow(client: pg.Client): Promise<{ epoch: number; owner: string } | undefined> {
  if (!(await hasFence(client))) return undefined;
  const { rows } = await client.query<{ epoch: string; owner: string }>(
    `SELECT pg_catalog.left(epoch::pg_catalog.text, 20) AS epoch, pg_catalog.left(shard::pg_catalog.text, 300) AS owner
     FROM synapse_shards.fence LIMIT 1`,
  );
  return rows[0] && { epoch: wholeNumber(rows[0].epoch, "synapse_shards.fence.epoch"), owner: rows[0].owner };
}
