import type pg from "pg";
import { UserError } from "../model/errors.ts";
import { identifier, literal } from "./connection.ts";

/** What was in a tenant's database before its last restore. No part of backups. */
export const ASIDE_SCHEMA = "synapse_shards_former";
const SWAP_SCHEMA = "synapse_shards_swap";
/** Where Synapse keeps everything. */
export const SYNAPSE_SCHEMA = "public";

/** As statements that move them: what is Synapse's, and its owner's, in a schema. What belongs to a table moves with it; extensions stay. */
const MOVABLE = `
  WITH here AS (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = $1),
  extended AS (SELECT objid FROM pg_catalog.pg_depend WHERE deptype = 'e')
  SELECT CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE'
                        WHEN 'c' THEN 'TYPE' WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END || ' ' || c.oid::regclass AS what
  FROM pg_catalog.pg_class c, here
  WHERE c.relnamespace = here.oid AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'c', 'f') AND pg_catalog.pg_get_userbyid(c.relowner) = current_user
    AND c.oid NOT IN (SELECT objid FROM extended)
    AND NOT (c.relkind = 'S' AND EXISTS (
      SELECT FROM pg_catalog.pg_depend d WHERE d.objid = c.oid AND d.classid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')))
  UNION ALL
  SELECT 'ROUTINE ' || p.oid::regprocedure FROM pg_catalog.pg_proc p, here
  WHERE p.pronamespace = here.oid AND pg_catalog.pg_get_userbyid(p.proowner) = current_user AND p.oid NOT IN (SELECT objid FROM extended)
  UNION ALL
  SELECT 'TYPE ' || t.oid::regtype FROM pg_catalog.pg_type t, here
  WHERE t.typnamespace = here.oid AND t.typtype IN ('d', 'e', 'r') AND pg_catalog.pg_get_userbyid(t.typowner) = current_user
    AND t.oid NOT IN (SELECT objid FROM extended)`;

/** The id of the restore that put something aside; undefined where nothing is. */
export async function asideOf(client: pg.Client): Promise<string | undefined> {
  const { rows } = await client.query<{ comment: string | null }>(
    "SELECT pg_catalog.obj_description(oid, 'pg_namespace') AS comment FROM pg_catalog.pg_namespace WHERE nspname = $1",
    [ASIDE_SCHEMA],
  );
  return rows[0] && (rows[0].comment ?? "");
}

/** Empties the schema that Synapse uses; what was aside before is removed. @param id of the restore */
export async function putAside(client: pg.Client, id: string): Promise<void> {
  await dropAside(client);
  await client.query(`CREATE SCHEMA ${ASIDE_SCHEMA}`);
  await moveAll(client, SYNAPSE_SCHEMA, ASIDE_SCHEMA);
  await note(client, id);
}

/** Exchanges what is aside and what is used. @throws UserError NotFound where nothing is aside */
export async function takeFromAside(client: pg.Client, id: string): Promise<void> {
  if ((await asideOf(client)) === undefined)
    throw new UserError(
      "NotFound",
      "nothing from before a restore is kept in its database: there is no restore to undo",
    );
  await client.query(`CREATE SCHEMA ${SWAP_SCHEMA}`);
  await moveAll(client, SYNAPSE_SCHEMA, SWAP_SCHEMA);
  await moveAll(client, ASIDE_SCHEMA, SYNAPSE_SCHEMA);
  await moveAll(client, SWAP_SCHEMA, ASIDE_SCHEMA);
  await client.query(`DROP SCHEMA ${SWAP_SCHEMA}`);
  await note(client, id);
}

export async function dropAside(client: pg.Client): Promise<void> {
  await client.query(`DROP SCHEMA IF EXISTS ${ASIDE_SCHEMA} CASCADE`);
}

async function note(client: pg.Client, id: string): Promise<void> {
  await client.query(`COMMENT ON SCHEMA ${ASIDE_SCHEMA} IS ${literal(id)}`);
}

async function moveAll(client: pg.Client, from: string, to: string): Promise<void> {
  // So that names come with their schema, whatever that is.
  await client.query("SET LOCAL search_path TO pg_catalog");
  const { rows } = await client.query<{ what: string }>(MOVABLE, [from]);
  const statements = rows.map(({ what }) => `ALTER ${what} SET SCHEMA ${identifier(to)}`);
  if (statements.length > 0) await client.query(statements.join(";"));
}
