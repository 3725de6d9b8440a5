import { createHash } from "node:crypto";
import type pg from "pg";
import { literal } from "../connection.ts";
import { tablesIn } from "./source.ts";
import { placeOf, type RowCounts } from "./statements.ts";

/** Counted while nobody is served: some milliseconds each. */
const COUNTED_AT_ONCE_BYTES = 32 * 1024 ** 2;
/** Of them in one statement. */
const AT_ONCE = 100;

/** Rows of tables, as of the transaction where there is one. */
export async function countRows(client: pg.Client, places: readonly string[]): Promise<RowCounts> {
  const counts: RowCounts = new Map();
  for (let from = 0; from < places.length; from += AT_ONCE) {
    const some = places.slice(from, from + AT_ONCE);
    const reads = some.map(
      (place, at) => `SELECT ${at} AS at, pg_catalog.count(*)::pg_catalog.text AS count FROM ONLY ${place}`,
    );
    const { rows } = await client.query<{ at: number; count: string }>(reads.join(" UNION ALL "));
    for (const { at, count } of rows) counts.set(some[at] ?? "", BigInt(count));
  }
  return counts;
}

/** Those whose changes are streamed. */
export async function placesIn(client: pg.Client): Promise<string[]> {
  return (await tablesIn(client)).map(placeOf);
}

/** Of them those that are counted quickly. */
export async function smallPlacesIn(client: pg.Client): Promise<string[]> {
  return (await tablesIn(client)).filter(({ bytes }) => Number(bytes) <= COUNTED_AT_ONCE_BYTES).map(placeOf);
}

/** Where they are not the same, in words. @param found may lack some */
export function otherCounts(expected: RowCounts, found: RowCounts): string[] {
  return [...found]
    .filter(([place, count]) => expected.get(place) !== count)
    .map(([place, count]) => `${place} has ${count} rows instead of ${expected.get(place) ?? "none"}`);
}

/** Puts the sequences of a copy to where those of the database are: no log has them. @returns how many there are */
export async function copySequences(former: pg.Client, copy: pg.Client): Promise<number> {
  const { rows: found } = await former.query<{ schema: string; name: string }>(
    `SELECT n.nspname AS schema, c.relname AS name
     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'S' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' ORDER BY 1, 2`,
  );
  if (found.length === 0) return 0;
  const places = found.map(placeOf);
  const reads = places.map(
    (place, at) => `SELECT ${at} AS at, last_value::pg_catalog.text AS last, is_called AS called FROM ${place}`,
  );
  const { rows: stands } = await former.query<{ at: number; last: string; called: boolean }>(reads.join(" UNION ALL "));
  const sets = stands.map(
    ({ at, last, called }) =>
      `pg_catalog.setval(${literal(places[at] ?? "")}, ${BigInt(last)}, ${called ? "true" : "false"})`,
  );
  // Some hundred at a time: a row has at most 1,664 columns.
  for (let at = 0; at < sets.length; at += 500) await copy.query(`SELECT ${sets.slice(at, at + 500).join(", ")}`);
  return found.length;
}

/** Tables that are lost in a crash are not in the log; the others of that kind are no tables whose rows change. */
const CATALOGUE = `
  SELECT 'relation', n.nspname, c.relname, c.relkind::text, c.relpersistence::text, a.attname, format_type(a.atttypid, a.atttypmod),
    a.attnotnull::text, a.attidentity::text, a.attgenerated::text, pg_get_expr(d.adbin, d.adrelid)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
  WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c') AND OURS
  UNION ALL
  SELECT 'index', n.nspname, c.relname, pg_get_indexdef(i.indexrelid), i.indisvalid::text, i.indisprimary::text, NULL, NULL, NULL, NULL, NULL
  FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE OURS
  UNION ALL
  SELECT 'constraint', n.nspname, conrelid::regclass::text, conname, pg_get_constraintdef(k.oid), convalidated::text, NULL, NULL, NULL, NULL, NULL
  FROM pg_constraint k JOIN pg_namespace n ON n.oid = k.connamespace WHERE OURS
  UNION ALL
  SELECT 'trigger', n.nspname, c.relname, tgname, pg_get_triggerdef(t.oid), tgenabled::text, NULL, NULL, NULL, NULL, NULL
  FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE NOT tgisinternal AND OURS
  UNION ALL
  SELECT 'function', n.nspname, proname, pg_get_function_identity_arguments(p.oid), md5(prosrc), prokind::text, NULL, NULL, NULL, NULL, NULL
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE OURS
  UNION ALL
  SELECT 'type', n.nspname, typname, typtype::text, enumlabel, enumsortorder::text, NULL, NULL, NULL, NULL, NULL
  FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_enum e ON e.enumtypid = t.oid
  WHERE typtype IN ('e', 'd', 'r') AND OURS
`.replaceAll("OURS", "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'");

/** A hash of what a schema is: another one, and the copy lacks something. */
export async function schemaHash(client: pg.Client): Promise<string> {
  await client.query("SET search_path TO pg_catalog");
  const { rows } = await client.query<unknown[]>({ text: CATALOGUE, rowMode: "array" });
  const lines = rows.map((row) => JSON.stringify(row)).toSorted();
  return createHash("sha256").update(lines.join("\n")).digest("hex");
}

/** Why changes of this database cannot be followed, in words; undefined where they can. */
export async function whyNotFollowed(client: pg.Client): Promise<string | undefined> {
  await client.query("SET search_path TO pg_catalog");
  const { rows } = await client.query<{ views: string; objects: string }>(
    `SELECT (SELECT count(*) FROM pg_class WHERE relkind = 'm')::text AS views,
            (SELECT count(*) FROM pg_largeobject_metadata)::text AS objects`,
  );
  if (rows[0]?.views !== "0") return "it has materialized views, which a server's log does not have";
  if (rows[0]?.objects !== "0") return "it has large objects, which a server's log does not have";
  return undefined;
}

/** Background updates of Synapse's that are under way: they make indexes and tables, which no log has. */
export async function backgroundUpdates(client: pg.Client): Promise<string[]> {
  const { rows: found } = await client.query<{ there: boolean }>(
    "SELECT pg_catalog.to_regclass('public.background_updates') IS NOT NULL AS there",
  );
  if (!found[0]?.there) return [];
  const { rows } = await client.query<{ name: string }>(
    `SELECT pg_catalog.left(update_name::pg_catalog.text, 100) AS name FROM public.background_updates
     ORDER BY 1 LIMIT 10`,
  );
  return rows.map(({ name }) => name);
}
