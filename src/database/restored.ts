import type pg from "pg";
import { placeOf } from "./connection.ts";

/**
 * What a homeserver must not take up again from an earlier time, as its own role. Encryption breaks where a key that was given to
 * one device is given to another one as well, or where other servers go on with device lists that are newer than ours.
 */
const STATEMENTS: readonly { needs: string; sql: string }[] = [
  // Clients see that none are left, and upload others.
  { needs: "e2e_one_time_keys_json", sql: "DELETE FROM e2e_one_time_keys_json" },
  // They stay, since clients may have no other; being marked as used, they are replaced by clients that have.
  { needs: "e2e_fallback_keys_json", sql: "UPDATE e2e_fallback_keys_json SET used = true" },
  // An update without a predecessor makes the other server ask for the whole list.
  { needs: "device_lists_outbound_last_success", sql: "DELETE FROM device_lists_outbound_last_success" },
  { needs: "device_lists_outbound_pokes", sql: "DELETE FROM device_lists_outbound_pokes WHERE sent" },
];

/** A change of one device of each local user, in each of their rooms: Synapse itself tells the servers that are in them. */
const TELL_AGAIN = `
  WITH chosen AS (
    SELECT d.user_id, min(d.device_id) AS device_id, nextval('device_lists_sequence') AS stream_id
    FROM devices d WHERE NOT d.hidden AND EXISTS (SELECT FROM users u WHERE u.name = d.user_id AND u.deactivated = 0)
    GROUP BY d.user_id
  ), streamed AS (
    INSERT INTO device_lists_stream (stream_id, user_id, device_id, instance_name)
    SELECT stream_id, user_id, device_id, 'master' FROM chosen
  )
  INSERT INTO device_lists_changes_in_room
    (user_id, device_id, room_id, stream_id, instance_name, converted_to_destinations, opentracing_context)
  SELECT c.user_id, c.device_id, m.room_id, c.stream_id, 'master', false, '{}'
  FROM chosen c JOIN local_current_membership m ON m.user_id = c.user_id AND m.membership = 'join'`;

/** Makes a restored database fit to be taken into use. @param client logged in as the tenant's own role */
export async function makeFit(client: pg.Client): Promise<void> {
  await client.query("BEGIN");
  await fit(client, "n.nspname !~ '^pg_'");
  await client.query("COMMIT");
}

/** The same in a transaction that is under way, in a database in which a restore has brought `public` alone: the rest is not its business. */
export function makeFitWithin(client: pg.Client): Promise<void> {
  return fit(client, "n.nspname = 'public' AND pg_catalog.pg_get_userbyid(c.relowner) = current_user");
}

async function fit(client: pg.Client, restored: string): Promise<void> {
  for (const { needs, sql } of STATEMENTS) if (await has(client, needs)) await client.query(sql);
  // Schemas from before streams had names of their writers, and sequences, are not told again: clients do that when they next log in.
  const { rows } = await client.query<{ columns: string }>(
    `SELECT count(*) AS columns FROM pg_catalog.pg_attribute
     WHERE attrelid IN (to_regclass('device_lists_stream'), to_regclass('device_lists_changes_in_room'))
       AND attname = 'instance_name'`,
  );
  if (Number(rows[0]?.columns) === 2 && (await has(client, "device_lists_sequence"))) await client.query(TELL_AGAIN);
  await resetIdentities(client, restored);
  if (await has(client, "synapse_shards.fence"))
    await client.query("UPDATE synapse_shards.fence SET shard = '', instance = ''");
}

/** Made while the database was copied to another server, it has tables whose rows were told apart by all columns for that time (`online/source.ts`). */
async function resetIdentities(client: pg.Client, restored: string): Promise<void> {
  const { rows } = await client.query<{ schema: string; name: string }>(
    `SELECT n.nspname AS schema, c.relname AS name
     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'r' AND c.relreplident = 'f' AND ${restored}`,
  );
  for (const table of rows) await client.query(`ALTER TABLE ONLY ${placeOf(table)} REPLICA IDENTITY DEFAULT`);
}

async function has(client: pg.Client, table: string): Promise<boolean> {
  const { rows } = await client.query<{ there: boolean }>("SELECT pg_catalog.to_regclass($1) IS NOT NULL AS there", [
    table,
  ]);
  return rows[0]?.there ?? false;
}
