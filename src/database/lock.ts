import { setTimeout as sleep } from "node:timers/promises";
import type pg from "pg";
import { UserError } from "../model/errors.ts";

const POLL_MS = 100;

/**
 * Runs `work` while this connection holds the lock of that name: nobody else on this server does the same work. The server
 * frees it when the connection ends, however it ends.
 * @throws UserError Timeout if somebody else holds it for longer than `waitMs`
 */
export async function withLock<T>(
  client: pg.Client,
  name: string,
  waitMs: number,
  work: () => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  const deadline = performance.now() + waitMs;
  // Asked again and again, since a waiting statement would be cut off by the statement timeout.
  while (!(await tryLock(client, name))) {
    signal?.throwIfAborted();
    if (performance.now() > deadline)
      throw new UserError("Timeout", `somebody else has been working on database ${name} for ${waitMs / 1000} seconds`);
    await sleep(POLL_MS);
  }
  try {
    return await work();
  } finally {
    await client
      .query("SELECT pg_advisory_unlock(hashtextextended($1, 0))", [`synapse-shards ${name}`])
      .catch(() => {});
  }
}

async function tryLock(client: pg.Client, name: string): Promise<boolean> {
  const { rows } = await client.query<{ got: boolean }>("SELECT pg_try_advisory_lock(hashtextextended($1, 0)) AS got", [
    `synapse-shards ${name}`,
  ]);
  return rows[0]?.got ?? false;
}
