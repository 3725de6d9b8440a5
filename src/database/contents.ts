import type pg from "pg";
import { placeOf } from "./connection.ts";

/** Rows of each table, and where each sequence stands. */
export interface Contents {
  rows: ReadonlyMap<string, string>;
  sequences: ReadonlyMap<string, string>;
}

/** What is in a database, as of the transaction where there is one. Indexes and constraints follow from pg_restore's success. */
export async function contentsOf(client: pg.Client): Promise<Contents> {
  const { rows: found } = await client.query<{ schema: string; name: string; kind: string }>(
    `SELECT n.nspname AS schema, c.relname AS name, c.relkind AS kind
     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'm', 'S') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
     ORDER BY 1, 2`,
  );
  const rows = new Map<string, string>();
  const sequences = new Map<string, string>();
  for (const { schema, name, kind } of found) {
    const place = placeOf({ schema, name });
    const what = kind === "S" ? "last_value::text || ' ' || is_called::text" : "count(*)::text";
    const result = await client.query<{ value: string }>(`SELECT ${what} AS value FROM ${place}`);
    (kind === "S" ? sequences : rows).set(place, result.rows[0]?.value ?? "");
  }
  return { rows, sequences };
}

/** Where the second is not as the first, in words. */
export function differences(expected: Contents, found: Contents): string[] {
  return [
    ...unlike(expected.rows, found.rows, (value) => `${value} rows`),
    ...unlike(expected.sequences, found.sequences, (value) => `stands at ${value}`),
  ];
}

function unlike(
  expected: ReadonlyMap<string, string>,
  found: ReadonlyMap<string, string>,
  words: (value: string) => string,
): string[] {
  const names = new Set([...expected.keys(), ...found.keys()]);
  return [...names]
    .filter((name) => expected.get(name) !== found.get(name))
    .map((name) => {
      const [was, is] = [expected.get(name), found.get(name)];
      if (was === undefined) return `${name} is new`;
      return is === undefined ? `${name} is missing` : `${name} ${words(is)} instead of ${was}`;
    });
}

export function totalOf({ rows }: Contents): { tables: number; rows: number } {
  return { tables: rows.size, rows: [...rows.values()].reduce((sum, count) => sum + Number(count), 0) };
}
