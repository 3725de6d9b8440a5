import type pg from "pg";
import { UserError } from "../model/errors.ts";
import { ownDatabase } from "../model/homeserver-config.ts";
import type { Tenant } from "../model/tenant.ts";
import type { TenantSecretData } from "../model/tenant-secrets.ts";
import type { Bytes, CopyFacts, OwnDatabases, OwnRestore } from "../ports/backups.ts";
import { loginTo, type DatabaseLogin } from "../ports/databases.ts";
import { asideOf, dropAside, putAside, takeFromAside } from "./aside.ts";
import { DEFAULT_BOUNDS, withConnection } from "./connection.ts";
import { factsOf } from "./copies.ts";
import { fenceAgainstAll, hasFence } from "./fence.ts";
import { OF_SYNAPSE, pgScript, type PgPrograms } from "./pg-programs.ts";
import { RESTORE_BOUNDS, runScript } from "./restore-dump.ts";
import { endAll } from "./ended.ts";
import { explainLock } from "./held-locks.ts";
import { makeFitWithin } from "./restored.ts";

/** Any number, of a tenant's own database. */
const RESTORE_LOCK = 7_360_114;
/** Other roles' sessions are not ended, and the tenant is away for as long as one of them has a table: as for pg_dump. */
const LOCK_MS = 30_000;
/** A statement that is at its commit is done with that first. */
const ENDED_MS = 10_000;

/** Restores into databases that tenants bring along, as the tenant's own role. */
export class PostgresOwnDatabases implements OwnDatabases {
  readonly #programs: PgPrograms;
  readonly #lockMs: number;

  constructor(programs: PgPrograms, { lockMs = LOCK_MS }: { lockMs?: number } = {}) {
    this.#programs = programs;
    this.#lockMs = lockMs;
  }

  async replace(
    tenant: Tenant,
    _secrets: TenantSecretData,
    restore: OwnRestore,
    dump: Bytes,
    check: (facts: CopyFacts) => void,
    signal: AbortSignal = new AbortController().signal,
  ): Promise<void> {
    await this.#exchange(tenant, restore, signal, async (client) => {
      await putAside(client, restore.id);
      await runScript(client, pgScript(this.#programs, dump, signal, OF_SYNAPSE));
      // The script has set it for itself.
      await client.query("SET LOCAL search_path TO public");
      await this.#boundLocks(client);
      check(await factsOf(client));
      await makeFitWithin(client);
    });
  }

  async takeBack(
    tenant: Tenant,
    _secrets: TenantSecretData,
    restore: OwnRestore,
    signal: AbortSignal = new AbortController().signal,
  ): Promise<void> {
    await this.#exchange(tenant, restore, signal, async (client) => {
      await takeFromAside(client, restore.id);
      await client.query("SET LOCAL search_path TO public");
      await makeFitWithin(client);
    });
  }

  last(tenant: Tenant): Promise<string | undefined> {
    const login = loginOf(tenant);
    return withConnection(login, login.database, asideOf, DEFAULT_BOUNDS);
  }

  async forget(tenant: Tenant): Promise<void> {
    const login = loginOf(tenant);
    await withConnection(login, login.database, dropAside, DEFAULT_BOUNDS);
  }

  /** One that was done is not done again. */
  async #exchange(
    tenant: Tenant,
    { id, epoch }: OwnRestore,
    signal: AbortSignal,
    work: (client: pg.Client) => Promise<void>,
  ): Promise<void> {
    const login = loginOf(tenant);
    await withConnection(login, login.database, (client) => refuseSpent(client, epoch), DEFAULT_BOUNDS);
    await fenceAgainstAll(login, epoch, DEFAULT_BOUNDS);
    let pid: number | undefined;
    const exchanged = withConnection(
      login,
      login.database,
      (client) =>
        unlessAborted(signal, async () => {
          pid = await pidOf(client);
          await client.query("BEGIN");
          await this.#boundLocks(client);
          try {
            // A controller that leads no longer may still be at it: one of the two comes first, and the other finds it done.
            await client.query("SELECT pg_catalog.pg_advisory_xact_lock($1)", [RESTORE_LOCK]);
            if ((await asideOf(client)) === id) return;
            await refuseSpent(client, epoch);
            await work(client);
            await client.query("COMMIT");
          } catch (error) {
            throw await explainLock(client, error, this.#lockMs);
          }
        }),
      RESTORE_BOUNDS,
    );
    try {
      await exchanged;
    } catch (error) {
      // The server may be at it still, and has everything locked until it sees that nobody listens; or it is about to commit.
      if (pid !== undefined) await endSession(login, pid).catch(() => {});
      throw error;
    }
  }

  #boundLocks(client: pg.Client): Promise<unknown> {
    return client.query(`SET LOCAL lock_timeout = ${this.#lockMs}`);
  }
}

async function pidOf(client: pg.Client): Promise<number | undefined> {
  return (await client.query<{ pid: number }>("SELECT pg_catalog.pg_backend_pid() AS pid")).rows[0]?.pid;
}

/** Whoever has the database by now keeps it. */
async function endSession(login: DatabaseLogin, pid: number): Promise<void> {
  const one = "FROM pg_catalog.pg_stat_activity WHERE pid = $1 AND usename = current_user";
  const options = { values: [pid], database: login.database, withinMs: ENDED_MS };
  await withConnection(login, login.database, (client) => endAll(client, one, options), DEFAULT_BOUNDS);
}

/** Its connection is closed then, which ends the work. @throws the signal's reason */
async function unlessAborted<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  signal.throwIfAborted();
  const aborted = Promise.withResolvers<never>();
  const abort = () => aborted.reject(signal.reason);
  signal.addEventListener("abort", abort);
  try {
    return await Promise.race([work(), aborted.promise]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

/** @throws UserError where somebody has the database with a higher epoch by now */
async function refuseSpent(client: pg.Client, epoch: number): Promise<void> {
  if (!(await hasFence(client))) return;
  const sql = "SELECT FROM synapse_shards.fence WHERE epoch > $1";
  if ((await client.query(sql, [epoch])).rowCount)
    throw new UserError("Unavailable", "the tenant was started elsewhere meanwhile; nothing was restored");
}

function loginOf({ metadata, spec }: Tenant): DatabaseLogin {
  const own = ownDatabase(spec.config);
  if (!own) throw new UserError("Conflict", `tenant ${metadata.name} brings no database along`);
  return loginTo(own);
}
