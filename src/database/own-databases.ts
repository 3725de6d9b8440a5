import type pg from "pg";
import { UserError } from "../model/errors.ts";
import { ownDatabase } from "../model/homeserver-config.ts";
import type { Tenant } from "../model/tenant.ts";
import type { TenantSecretData } from "../model/tenant-secrets.ts";
import type { Bytes, CopyFacts, OwnDatabases, OwnRestore } from "../ports/backups.ts";
import type { DatabaseLogin } from "../ports/databases.ts";
import { asideOf, dropAside, putAside, takeFromAside } from "./aside.ts";
import { DEFAULT_BOUNDS, withConnection } from "./connection.ts";
import { copyIn } from "./copy-in.ts";
import { factsOf, SNAPSHOT_BOUNDS } from "./copies.ts";
import { fenceAgainstAll, hasFence } from "./fence.ts";
import { pgScript, type PgPrograms } from "./pg-programs.ts";
import { scriptParts } from "./restore-script.ts";
import { explainLock } from "./held-locks.ts";
import { makeFitWithin } from "./restored.ts";

/** Any number, of a tenant's own database. */
const RESTORE_LOCK = 7_360_114;
/** Other roles' sessions are not ended, and the tenant is away for as long as one of them has a table: as for pg_dump. */
const LOCK_MS = 30_000;

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
    await this.#exchange(tenant, restore, async (client) => {
      await putAside(client, restore.id);
      for await (const part of scriptParts(pgScript(this.#programs, dump, signal)))
        if ("sql" in part) await client.query(part.sql);
        else await copyIn(client, part.copy, part.rows);
      // The script has set it for itself.
      await client.query("SET LOCAL search_path TO public");
      await this.#boundLocks(client);
      check(await factsOf(client));
      await makeFitWithin(client);
    });
  }

  async takeBack(tenant: Tenant, _secrets: TenantSecretData, restore: OwnRestore): Promise<void> {
    await this.#exchange(tenant, restore, async (client) => {
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
    work: (client: pg.Client) => Promise<void>,
  ): Promise<void> {
    const login = loginOf(tenant);
    await withConnection(login, login.database, (client) => refuseSpent(client, epoch), DEFAULT_BOUNDS);
    await fenceAgainstAll(login, epoch, DEFAULT_BOUNDS);
    await withConnection(
      login,
      login.database,
      async (client) => {
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
      },
      SNAPSHOT_BOUNDS,
    );
  }

  #boundLocks(client: pg.Client): Promise<unknown> {
    return client.query(`SET LOCAL lock_timeout = ${this.#lockMs}`);
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
  const { host, port, user, password, sslMode, name } = own;
  return { host, port, user, password, sslMode, database: name };
}
