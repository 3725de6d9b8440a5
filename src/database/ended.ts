import { setTimeout as sleep } from "node:timers/promises";
import type pg from "pg";
import { UserError } from "../model/errors.ts";

const LOOK_MS = 50;

/**
 * Of pg_stat_activity: connections of somebody's. What the server does itself has no user; its kind is not shown to everybody, and nobody but a superuser
 * may end it.
 */
export const CLIENTS = "usesysid IS NOT NULL AND coalesce(backend_type, 'client backend') = 'client backend'";

/**
 * Ends connections and waits until they are gone, also where they go on their own meanwhile.
 * @param which of pg_stat_activity: what comes after FROM @returns how many there were @throws UserError Unavailable
 */
export async function endAll(
  client: pg.Client,
  which: string,
  { values = [], database, withinMs }: { values?: unknown[]; database: string; withinMs: number },
): Promise<number> {
  const deadline = performance.now() + withinMs;
  // A number may be another one's soon after.
  const one = "pg_catalog.concat(pid, ' ', backend_start)";
  const { rows } = await client.query<{ one: string }>(
    `SELECT ${one} AS one, pg_catalog.pg_terminate_backend(pid) ${which}`,
    values,
  );
  const ended = rows.map((row) => row.one);
  const left = async () =>
    (await client.query(`SELECT ${which} AND ${one} = ANY ($${values.length + 1})`, [...values, ended])).rowCount;
  while (ended.length > 0 && (await left())) {
    if (performance.now() > deadline) throw new UserError("Unavailable", `a connection to ${database} does not end`);
    await sleep(LOOK_MS);
  }
  return ended.length;
}
