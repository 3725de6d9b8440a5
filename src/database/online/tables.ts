import type pg from "pg";
import { literal, placeOf } from "../connection.ts";
import { tablesIn } from "./shape.ts";
import type { RowCounts } from "./statements.ts";

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

/** Those that are counted quickly. */
export async function smallPlacesIn(client: pg.Client): Promise<string[]> {
  return (await tablesIn(client)).filter(({ bytes }) => Number(bytes) <= COUNTED_AT_ONCE_BYTES).map(placeOf);
}

/** Where they are not the same, in words. @param found may lack some */
export function otherCounts(expected: RowCounts, found: RowCounts): string[] {
  return [...found]
    .filter(([place, count]) => expected.get(place) !== count)
    .map(([place, count]) => `${place} has ${count} rows instead of ${expected.get(place) ?? "none"}`);
}

/** Puts the sequences of a copy to where those of the database are: no log has them. */
export async function copySequences(former: pg.Client, copy: pg.Client): Promise<void> {
  const { rows: found } = await former.query<{ schema: string; name: string }>(
    `SELECT n.nspname AS schema, c.relname AS name
     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'S' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' ORDER BY 1, 2`,
  );
  const places = found.map(placeOf);
  for (let from = 0; from < places.length; from += AT_ONCE) {
    const some = places.slice(from, from + AT_ONCE);
    const reads = some.map(
      (place, at) => `SELECT ${at} AS at, last_value::pg_catalog.text AS last, is_called AS called FROM ${place}`,
    );
    const { rows } = await former.query<{ at: number; last: string; called: boolean }>(reads.join(" UNION ALL "));
    const sets = rows.map(
      ({ at, last, called }) =>
        `pg_catalog.setval(${literal(some[at] ?? "")}, ${BigInt(last)}, ${called ? "true" : "false"})`,
    );
    await copy.query(`SELECT ${sets.join(", ")}`);
  }
}

/** Columns whose values only the server may make. Names, with the table's. */
export async function alwaysGenerated(client: pg.Client): Promise<{ place: string; column: string }[]> {
  const { rows } = await client.query<{ schema: string; name: string; column: string }>(
    `SELECT n.nspname AS schema, c.relname AS name, a.attname AS column
     FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE a.attidentity = 'a' AND a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p')
       AND NOT c.relispartition AND n.nspname !~ '^pg_' ORDER BY 1, 2, 3`,
  );
  return rows.map((row) => ({ place: placeOf(row), column: row.column }));
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
