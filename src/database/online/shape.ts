import { createHash } from "node:crypto";
import type pg from "pg";
import { UserError } from "../../model/errors.ts";
import type { DatabaseLogin } from "../../ports/databases.ts";
import { placeOf } from "../connection.ts";
import { startProgram, type PgPrograms } from "../pg-programs.ts";

/** A table whose rows are written to the log. */
export interface Table {
  oid: number;
  schema: string;
  name: string;
  /** `d`: by its primary key, `n`: none, `f`: by all columns, `i`: by an index. */
  identity: string;
  /** Whether the log tells its rows apart. A deferrable key does not. */
  isTold: boolean;
  bytes: string;
  /** Another one when all of its rows were written again, which no log has. Of the catalogue, as of its snapshot: a function says what is now. */
  file: number;
  /** As the log names them: without generated ones, in their order. */
  columns: string[];
  /** A column that was dropped and made again has another number. */
  numbers: string;
}

/** Synapse has some 200 tables. What there is of them is kept in the controller's memory. */
const MOST_TABLES = 5_000;
const MOST_COLUMNS = 100_000;

/** @throws UserError Conflict where there are too many */
export async function tablesIn(client: pg.Client): Promise<Table[]> {
  const { rows: counts } = await client.query<{ tables: string; columns: string }>(
    `SELECT pg_catalog.count(DISTINCT c.oid)::pg_catalog.text AS tables, pg_catalog.count(*)::pg_catalog.text AS columns
     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
     WHERE c.relkind IN ('r', 'S') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'`,
  );
  if (Number(counts[0]?.tables) > MOST_TABLES || Number(counts[0]?.columns) > MOST_COLUMNS)
    throw new UserError("Conflict", `it has more than ${MOST_TABLES} tables, or ${MOST_COLUMNS} columns`);
  const { rows } = await client.query<Table>(
    `SELECT c.oid AS oid, n.nspname AS schema, c.relname AS name, c.relreplident AS identity,
            pg_catalog.pg_relation_size(c.oid)::pg_catalog.text AS bytes,
            c.relfilenode AS file,
            CASE c.relreplident WHEN 'f' THEN true WHEN 'n' THEN false ELSE EXISTS (
              SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate
              AND CASE c.relreplident WHEN 'd' THEN i.indisprimary ELSE i.indisreplident END) END AS "isTold",
            ARRAY(SELECT a.attname::pg_catalog.text FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0
              AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum) AS columns,
            (SELECT pg_catalog.string_agg(a.attnum::pg_catalog.text, ' ' ORDER BY a.attnum) FROM pg_catalog.pg_attribute a
              WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS numbers
     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
     ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C"`,
  );
  return rows;
}

/** Those that a crash empties: no log has what is in them. */
async function unloggedIn(client: pg.Client): Promise<{ schema: string; name: string }[]> {
  const { rows } = await client.query<{ schema: string; name: string }>(
    `SELECT n.nspname AS schema, c.relname AS name
     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'r' AND c.relpersistence = 'u' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' ORDER BY 1, 2`,
  );
  return rows;
}

/** Synapse's locks, which are taken again: it counts on nothing in them. */
const TAKEN_AGAIN = new Set(["worker_locks", "worker_read_write_locks", "worker_read_write_locks_mode"]);

/** Why changes of this database cannot be followed, in words; undefined where they can. */
export async function whyNotFollowed(client: pg.Client): Promise<string | undefined> {
  await client.query("SET search_path TO pg_catalog");
  const { rows } = await client.query<{ views: string; objects: string; prepared: string; always: string }>(
    `SELECT (SELECT count(*) FROM pg_class WHERE relkind = 'm')::text AS views,
            (SELECT count(*) FROM pg_largeobject_metadata)::text AS objects,
            (SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database())::text AS prepared,
            ((SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal AND tgenabled IN ('A', 'R'))
              + (SELECT count(*) FROM pg_rewrite WHERE ev_enabled IN ('A', 'R')))::text AS always`,
  );
  const found = rows[0];
  const lacks = "which a server's log does not have";
  if (found?.views !== "0") return `it has materialized views, ${lacks}`;
  if (found.objects !== "0") return `it has large objects, ${lacks}`;
  if (found.prepared !== "0") return "it has prepared transactions, which may still be committed when it has moved";
  if (found.always !== "0")
    return "it has triggers or rules that also change what is copied (ENABLE ALWAYS or REPLICA)";
  for (const table of await unloggedIn(client)) {
    if (TAKEN_AGAIN.has(table.name)) continue;
    const { rowCount } = await client.query(`SELECT FROM ONLY ${placeOf(table)} LIMIT 1`);
    if (rowCount !== 0) return `its unlogged table ${placeOf(table)} has rows, ${lacks}`;
  }
  return undefined;
}

/** What a log does not tell of a database: where it is another one later, the copy may lack something. */
export interface Shape {
  tables: Table[];
  /** Also of what has become as it was again. */
  marks: string;
}

/** @param publication whose tables are streamed: also one that was made again, or changed and changed back, is another one */
export async function shapeOf(client: pg.Client, publication: string): Promise<Shape> {
  const why = await whyNotFollowed(client);
  if (why !== undefined) throw new UserError("Conflict", why);
  const tables = await tablesIn(client);
  const { rows } = await client.query<{ oid: string; version: string; relation: string | null; part: string | null }>(
    `SELECT p.oid::pg_catalog.text AS oid, p.xmin::pg_catalog.text AS version,
            r.prrelid::pg_catalog.int8::pg_catalog.text AS relation, r.xmin::pg_catalog.text AS part
     FROM pg_catalog.pg_publication p LEFT JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid
     WHERE p.pubname = $1 ORDER BY r.prrelid`,
    [publication],
  );
  const published = new Set(rows.map(({ relation }) => relation));
  const left = tables.find(({ oid }) => !published.has(String(oid)));
  if (left) throw changedSchema(`${placeOf(left)} is not published`);
  const facts = tables.map(({ oid, schema, name, file, columns, numbers }) => [
    oid,
    schema,
    name,
    file,
    columns,
    numbers,
  ]);
  return {
    tables,
    marks: createHash("sha256")
      .update(JSON.stringify([facts, rows]))
      .digest("hex"),
  };
}

/** So many bytes of definitions are none of a homeserver's. */
const MOST_SCHEMA_BYTES = 64 * 1024 ** 2;

/** A hash of all that a copy is made of but rows: what pg_dump says, which also knows what later versions of PostgreSQL have. */
export async function schemaHash(
  programs: PgPrograms,
  login: DatabaseLogin,
  signal: AbortSignal,
  snapshot?: string,
): Promise<string> {
  const args = ["--schema-only", "--no-owner", "--no-privileges", "--no-publications", "--no-subscriptions"];
  // A word of chance would be in each otherwise.
  args.push("--restrict-key=shards", "--lock-wait-timeout=30s");
  if (snapshot !== undefined) args.push(`--snapshot=${snapshot}`);
  const program = await startProgram(programs, "pg_dump", args, login, signal);
  try {
    program.stdin.end();
    const hash = createHash("sha256");
    let bytes = 0;
    for await (const chunk of program.stdout as AsyncIterable<Buffer>) {
      bytes += chunk.length;
      if (bytes > MOST_SCHEMA_BYTES) throw new UserError("Conflict", "its schema is too large to be compared");
      hash.update(chunk);
    }
    await program.succeeded();
    return hash.digest("hex");
  } finally {
    program.kill();
  }
}

export function changedSchema(what: string): UserError {
  return new UserError(
    "Unavailable",
    `its tables or indexes were changed while it was copied, which a log does not have: ${what}`,
  );
}
