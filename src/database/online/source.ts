import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type pg from "pg";
import { UserError } from "../../model/errors.ts";
import type { DatabaseLogin } from "../../ports/databases.ts";
import { identifier, literal, placeOf, withConnection, type AdminLogin } from "../connection.ts";
import { lockedOn, loginOn, type Patience as Waits } from "../copies.ts";
import { streamName } from "../names.ts";
import { ensureRole } from "../roles.ts";
import { scramVerifier } from "../scram.ts";
import { tablesIn } from "./shape.ts";
import { dropStreamRole, endStream, markStream } from "./stream-role.ts";

/** What a table is locked for is done in no time; who waits for the lock holds up everybody behind it, as behind a pg_dump that reads the table. */
const LOCK_TIMEOUT = "150ms";
const LOCK_TIMEOUT_ALONE = "5s";
/** To be published; what is taken back is tried again later, as a tenant may wait for its start meanwhile. */
const LOCK_MS = 60_000;
const LOCK_BACK_MS = 10_000;
const LOCK_PAUSE_MS = 1_000;
const NOT_AVAILABLE = "55P03";
const DEADLOCK = "40P01";
const MOST_CONNECTIONS = 4;

/**
 * Makes what a stream of changes needs on the server that has the database.
 *
 * A role with REPLICATION can copy the whole server, so it is never the tenant's: it is made for this, with a password that nobody is told, may
 * connect to this one database, and has no right in it. It speaks the replication protocol alone, in which nothing of the tenant's is run. The
 * publication is made by the tenant's own role, which owns the tables.
 * @returns the login of the stream, and the tables whose identity was changed for it
 */
export async function openSource(
  server: AdminLogin,
  { tenant, installation }: { tenant: string; installation: string },
  former: DatabaseLogin,
  signal: AbortSignal,
): Promise<{ login: DatabaseLogin; changed: Changed[] }> {
  await closeSource(server, tenant, former);
  signal.throwIfAborted();
  const name = streamName(tenant);
  const password = randomBytes(32).toString("base64url");
  await lockedOn(server, tenant, async (client) => {
    await ensureRole(client, name);
    await markStream(client, name, installation);
    const rights = `LOGIN REPLICATION CONNECTION LIMIT ${MOST_CONNECTIONS}`;
    await client.query(`ALTER ROLE ${identifier(name)} WITH ${rights} PASSWORD ${literal(scramVerifier(password))}`);
    await client.query(`GRANT CONNECT ON DATABASE ${identifier(former.database)} TO ${identifier(name)}`);
  });
  const changed = await withConnection(former, former.database, (client) => publish(client, name, signal));
  return { login: { ...loginOn(server, name, password), database: former.database }, changed };
}

/** Removes it, or what a crash has left of it. @param former undefined: what is in the database cannot be reached */
export async function closeSource(
  server: AdminLogin,
  tenant: string,
  former: DatabaseLogin | undefined,
  waits?: Waits,
): Promise<void> {
  const name = streamName(tenant);
  const isThere = await lockedOn(server, tenant, (client) => endStream(client, name), waits);
  if (!isThere) return;
  if (former) await withConnection(former, former.database, (client) => unpublish(client, name));
  await lockedOn(server, tenant, (client) => dropStreamRole(client, name), waits);
}

/**
 * Rows of a table without a primary key are told apart by all of their columns: by a unique index it could be as well, but then the database would
 * refuse the tenant's writes as soon as that index is replaced by another one. It is written down before it is done, in the publication's comment:
 * a crash leaves no table changed that nobody knows of.
 */
async function publish(client: pg.Client, name: string, signal: AbortSignal): Promise<Changed[]> {
  await unpublish(client, name);
  const patience = patienceFor(client, LOCK_MS, signal);
  const tables = await tablesIn(client);
  const untold = tables.filter(({ isTold }) => !isTold);
  const publication = identifier(name);
  await client.query(`CREATE PUBLICATION ${publication}`);
  const words = JSON.stringify(untold.map(({ schema, name: table, identity }) => [schema, table, identity]));
  await client.query(`COMMENT ON PUBLICATION ${publication} IS ${literal(words)}`);
  for (const table of untold) await patience(`ALTER TABLE ONLY ${placeOf(table)} REPLICA IDENTITY FULL`);
  if (tables.length === 0) return [];
  const places = tables.map((table) => `ONLY ${placeOf(table)}`).join(", ");
  await patience(`ALTER PUBLICATION ${publication} ADD TABLE ${places}`);
  return changedTables(words);
}

/**
 * Takes back what was made in the database. Nothing where there is nothing.
 * @param options.alone nobody else is there but the server itself, whose work on a table ends a second after that is waited for
 * @throws UserError Unavailable where a table is locked for long
 */
export async function unpublish(
  client: pg.Client,
  name: string,
  { alone = false }: { alone?: boolean } = {},
): Promise<void> {
  const patience = patienceFor(client, LOCK_BACK_MS);
  await client.query("SET search_path TO pg_catalog");
  await client.query(`SET lock_timeout = '${alone ? LOCK_TIMEOUT_ALONE : LOCK_TIMEOUT}'`);
  const { rows } = await client.query<{ words: string | null }>(
    `SELECT pg_catalog.left(pg_catalog.obj_description(oid, 'pg_publication'), 1000000) AS words
     FROM pg_catalog.pg_publication WHERE pubname = $1`,
    [name],
  );
  if (!rows[0]) return;
  const publication = identifier(name);
  const changed = changedTables(rows[0].words);
  const { rows: published } = await client.query<{ schema: string; name: string }>(
    `SELECT n.nspname AS schema, c.relname AS name FROM pg_catalog.pg_publication_rel r
     JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid JOIN pg_catalog.pg_class c ON c.oid = r.prrelid
     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE p.pubname = $1`,
    [name],
  );
  // No table is without an identity while its changes are published: writing to it would fail.
  if (published.length > 0)
    await patience(
      `ALTER PUBLICATION ${publication} DROP TABLE ${published.map((t) => `ONLY ${placeOf(t)}`).join(", ")}`,
    );
  await resetIdentities(patience, changed);
  await client.query(`DROP PUBLICATION ${publication}`);
}

export type Changed = { schema: string; name: string; identity: "d" | "n" };

/** In the copy they are as in the database that it was made of. */
export function resetCopiedIdentities(copy: pg.Client, changed: readonly Changed[]): Promise<void> {
  return resetIdentities(patienceFor(copy, LOCK_MS), changed);
}

async function resetIdentities(patience: Patience, tables: readonly Changed[]): Promise<void> {
  for (const table of tables) {
    const identity = table.identity === "n" ? "NOTHING" : "DEFAULT";
    await patience(`ALTER TABLE IF EXISTS ONLY ${placeOf(table)} REPLICA IDENTITY ${identity}`);
  }
}

/** The tenant's role may write something else there: it is taken for nothing but names. */
function changedTables(words: string | null): Changed[] {
  try {
    const found: unknown = JSON.parse(words ?? "[]");
    if (!Array.isArray(found)) return [];
    return found.flatMap((one: unknown) => {
      if (!Array.isArray(one)) return [];
      const [schema, name, identity] = one as unknown[];
      if (typeof schema !== "string" || typeof name !== "string") return [];
      return [{ schema, name, identity: identity === "n" ? ("n" as const) : ("d" as const) }];
    });
  } catch {
    return [];
  }
}

type Patience = (sql: string) => Promise<void>;

/** Runs statements that lock tables; together they wait for so long, however many tables there are. @throws UserError Unavailable */
function patienceFor(client: pg.Client, forMs: number, signal?: AbortSignal): Patience {
  const deadline = performance.now() + forMs;
  return async (sql) => {
    for (;;)
      try {
        signal?.throwIfAborted();
        return void (await client.query(sql));
      } catch (error) {
        const { code, message } = error as { code?: string; message: string };
        if (code !== NOT_AVAILABLE && code !== DEADLOCK) throw error;
        if (performance.now() > deadline)
          throw new UserError("Unavailable", `its tables are locked by other work: ${message}`, { cause: error });
        await sleep(LOCK_PAUSE_MS);
      }
  };
}
