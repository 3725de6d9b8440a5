import type pg from "pg";
import { wholeNumber } from "./whole-number.ts";

/** What hands out numbers, and where they are used; Synapse does not start where a number would come twice. */
const SEQUENCES: readonly [sequence: string, table: string, column: string][] = [
  ["events_stream_seq", "events", "stream_ordering"],
  ["state_group_id_seq", "state_groups", "id"],
  ["event_auth_chain_id", "event_auth_chains", "chain_id"],
  ["device_inbox_sequence", "device_inbox", "stream_id"],
  ["device_lists_sequence", "device_lists_stream", "stream_id"],
  ["receipts_sequence", "receipts_linearized", "stream_id"],
  ["presence_stream_sequence", "presence_stream", "stream_id"],
  ["account_data_sequence", "account_data", "stream_id"],
  ["account_data_sequence", "room_account_data", "stream_id"],
  ["account_data_sequence", "room_tags_revisions", "stream_id"],
  ["push_rules_stream_sequence", "push_rules_stream", "stream_id"],
  ["pushers_sequence", "pushers", "id"],
  ["e2e_cross_signing_keys_sequence", "e2e_cross_signing_keys", "stream_id"],
  ["application_services_txn_id_seq", "application_services_txns", "txn_id"],
];

/**
 * Looks through a database that another server has written, before it is taken into use.
 * @param client logged in as its owner @returns what is worth knowing, a sentence each; undefined where it is no homeserver's
 */
export async function lookThrough(client: pg.Client): Promise<string[] | undefined> {
  for (const table of ["schema_version", "events", "users", "rooms"]) if (!(await has(client, table))) return undefined;
  const remarks: string[] = [];
  for (const [sequence, table, column] of SEQUENCES) {
    if (!(await has(client, sequence)) || !(await hasColumn(client, table, column))) continue;
    const { rows } = await client.query<{ next: string; used: string }>(
      `SELECT (SELECT last_value + is_called::int FROM ${sequence})::text AS next,
              (SELECT coalesce(greatest(max(${column}), 0), 0) FROM ${table})::text AS used`,
    );
    const used = wholeNumber(rows[0]?.used, table);
    if (used < wholeNumber(rows[0]?.next, sequence)) continue;
    await client.query(`SELECT pg_catalog.setval('${sequence}', $1::bigint)`, [used]);
    remarks.push(`the sequence ${sequence} was behind ${table}, and is set to ${used}`);
  }
  if (await has(client, "background_updates")) {
    const { rows } = await client.query<{ left: string }>("SELECT count(*)::text AS left FROM background_updates");
    if (rows[0] && rows[0].left !== "0")
      remarks.push(`${rows[0].left} background updates are not finished; Synapse goes on with them`);
  }
  return remarks;
}

async function has(client: pg.Client, relation: string): Promise<boolean> {
  const { rows } = await client.query<{ there: boolean }>("SELECT pg_catalog.to_regclass($1) IS NOT NULL AS there", [
    relation,
  ]);
  return rows[0]?.there ?? false;
}

async function hasColumn(client: pg.Client, table: string, column: string): Promise<boolean> {
  const { rowCount } = await client.query(
    "SELECT FROM pg_catalog.pg_attribute WHERE attrelid = pg_catalog.to_regclass($1) AND attname = $2 AND NOT attisdropped",
    [table, column],
  );
  return rowCount === 1;
}
