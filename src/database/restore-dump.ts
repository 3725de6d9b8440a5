import { DatabaseError, Query, type Client, type Submittable } from "pg";
import { messageOf, UserError } from "../model/errors.ts";
import type { Bytes } from "../ports/backups.ts";
import type { DatabaseLogin } from "../ports/databases.ts";
import { connectedUntil, type Bounds } from "./connection.ts";
import { copyIn } from "./copy-in.ts";
import { pgScript, type PgPrograms } from "./pg-programs.ts";
import { scriptParts } from "./restore-script.ts";

/** One table may be most of a database. Its caller bounds the whole, and this is beyond that. */
export const RESTORE_BOUNDS: Bounds = { connectMs: 5_000, statementMs: 24 * 3_600_000 };
const SHOWN = 120;

/**
 * Brings a dump of any server into an empty database of any server that Synapse runs with: pg_restore says what it is made of, and what this server
 * cannot know is left out of it. Given to the server by pg_restore itself, the first such word would end it.
 * @throws UserError InvalidInput where pg_restore does not take the dump, or the server what is in it
 */
export function restoreDump(
  programs: PgPrograms,
  into: DatabaseLogin,
  dump: Bytes,
  signal: AbortSignal,
): Promise<void> {
  return connectedUntil(signal, into, (client) => runScript(client, pgScript(programs, dump, signal)), RESTORE_BOUNDS);
}

/** Runs what pg_restore has written. @throws UserError InvalidInput where the server does not take it */
export async function runScript(client: Client, script: Bytes): Promise<void> {
  for await (const part of scriptParts(script)) {
    const statement = "sql" in part ? part.sql : part.copy;
    try {
      if ("sql" in part) await run(client, part.sql);
      else await copyIn(client, part.copy, part.rows);
    } catch (error) {
      throw refusedByServer(error, statement);
    }
  }
}

/** What statements answer is of no use, and may have no end. */
function run(client: Client, sql: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const query = new Query(sql, (error: Error | null | undefined) => (error ? reject(error) : resolve()));
    Object.assign(query, { handleDataRow: () => {} });
    client.query(query as unknown as Submittable);
  });
}

/** A connection, a right, a lock, a server's time and space: what is missing of these has words of its own, and is no fault of the dump's. */
const NOT_OF_DUMP = /^(08|25006|28|3D|40|42501|53|55|57|58|XX)/;

function refusedByServer(error: unknown, statement: string): unknown {
  if (!(error instanceof DatabaseError) || NOT_OF_DUMP.test(error.code ?? "XX")) return error;
  const [first = ""] = statement.split("\n", 1);
  const shown = first.length > SHOWN ? `${first.slice(0, SHOWN)} …` : first;
  return new UserError(
    "InvalidInput",
    `the server does not take what the dump has: ${messageOf(error)}, at: ${shown}`,
    {
      cause: error,
    },
  );
}
