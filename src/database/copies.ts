import { storageOf } from "../model/storage-name.ts";
import { randomBytes } from "node:crypto";
import type pg from "pg";
import { UserError } from "../model/errors.ts";
import { ownDatabase } from "../model/homeserver-config.ts";
import type { TenantCounts } from "../model/backup.ts";
import type { Tenant } from "../model/tenant.ts";
import type { TenantSecretData } from "../model/tenant-secrets.ts";
import { FORMER, NoCopy, type Bytes, type CopyFacts, type DatabaseCopies } from "../ports/backups.ts";
import { loginTo, type DatabaseLogin } from "../ports/databases.ts";
import {
  asAdmin,
  DEFAULT_BOUNDS,
  identifier,
  literal,
  withConnection,
  type AdminLogin,
  type Bounds,
  type Login,
} from "./connection.ts";
import { withLock } from "./lock.ts";
import { besideNames, SCRATCH_PREFIX, tenantDatabaseName } from "./names.ts";
import { restoreDump } from "./restore-dump.ts";
import { pgDump, type PgPrograms } from "./pg-programs.ts";
import { CLIENTS } from "./ended.ts";
import { raiseEpoch } from "./fence.ts";
import { makeFit } from "./restored.ts";
import { lookThrough } from "./imported.ts";
import { dropRole, endConnections, ensureRole, limitRole, unlessForbidden } from "./roles.ts";
import type { DatabaseServers } from "./servers.ts";
import { scramVerifier } from "./scram.ts";
import { databasesAmong } from "./stranded.ts";
import { describeDatabase } from "./tenant-database.ts";
import { wholeNumber } from "./whole-number.ts";

const PATIENT: Patience = { waitMs: 60_000, bounds: DEFAULT_BOUNDS };
/** Counting the events of a large homeserver reads an index of all of them; a snapshot is held for as long as its dump takes. */
export const SNAPSHOT_BOUNDS: Bounds = { connectMs: 5_000, statementMs: 3_600_000 };

/** For where no shard is. */
const WITHOUT_FENCE = "--exclude-schema=synapse_shards";

const COUNTED: Record<keyof TenantCounts, { table: string; where?: string }> = {
  users: { table: "users" },
  devices: { table: "devices", where: "NOT hidden" },
  rooms: { table: "rooms" },
  events: { table: "events" },
  media: { table: "local_media_repository" },
};

/** Copies by pg_dump and pg_restore, on the servers that are ours. Databases that tenants bring along are dumped only. */
export class PostgresCopies implements DatabaseCopies {
  readonly #servers: DatabaseServers;
  readonly #programs: PgPrograms;

  constructor(servers: DatabaseServers, programs: PgPrograms) {
    this.#servers = servers;
    this.#programs = programs;
  }

  dump<T>(
    tenant: Tenant,
    secrets: TenantSecretData,
    consume: (dump: Bytes, facts: CopyFacts) => Promise<T>,
    signal: AbortSignal,
    { withoutFence = false }: { withoutFence?: boolean } = {},
  ): Promise<T> {
    const login = this.#loginOf(tenant, secrets);
    const left = withoutFence ? [WITHOUT_FENCE] : [];
    return this.#dump(login, async (client) => factsOf(client), consume, signal, left);
  }

  dumpOf<T>(
    from: DatabaseLogin,
    consume: (dump: Bytes, facts: CopyFacts & { others: number }) => Promise<T>,
    signal: AbortSignal,
    { withFence = false }: { withFence?: boolean } = {},
  ): Promise<T> {
    const facts = async (client: pg.Client) => ({ ...(await factsOf(client)), others: await othersOf(client) });
    return this.#dump(from, facts, consume, signal, withFence ? [] : [WITHOUT_FENCE]);
  }

  #dump<T, F>(
    login: DatabaseLogin,
    factsIn: (client: pg.Client) => Promise<F>,
    consume: (dump: Bytes, facts: F) => Promise<T>,
    signal: AbortSignal,
    left: readonly string[],
  ): Promise<T> {
    return withConnection(
      login,
      login.database,
      async (client) => {
        await client.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
        const { rows } = await client.query<{ id: string }>("SELECT pg_catalog.pg_export_snapshot() AS id");
        const facts = await factsIn(client);
        return consume(pgDump(this.#programs, login, rows[0]?.id ?? "", signal, left), facts);
      },
      SNAPSHOT_BOUNDS,
    );
  }

  async rehearse(dump: Bytes, signal: AbortSignal): Promise<CopyFacts> {
    const name = `${SCRATCH_PREFIX}${randomBytes(8).toString("hex")}`;
    const password = randomBytes(32).toString("base64url");
    const server = this.#servers.main;
    try {
      await asAdmin(server, DEFAULT_BOUNDS, async (client) => {
        await ensureRole(client, name);
        await client.query(`ALTER ROLE ${identifier(name)} WITH LOGIN PASSWORD ${literal(scramVerifier(password))}`);
        await createEmpty(client, name, name);
      });
      const login = { ...loginOn(server, name, password), database: name };
      await restoreDump(this.#programs, login, dump, signal);
      return await withConnection(login, name, factsOf, SNAPSHOT_BOUNDS);
    } finally {
      await dropWithRole(server, name);
    }
  }

  async restoreBeside(
    tenant: string,
    { password, backup }: { password: string; backup: string },
    dump: Bytes,
    signal: AbortSignal,
  ): Promise<CopyFacts> {
    const fill = (login: DatabaseLogin) => restoreDump(this.#programs, login, dump, signal);
    const { facts } = await this.#fill(tenant, { password, backup }, fill, async () => []);
    return facts;
  }

  async fillBeside(
    tenant: string,
    options: { password: string; backup: string },
    fill: (into: DatabaseLogin) => Promise<void>,
  ): Promise<CopyFacts & { remarks: string[] }> {
    const { facts, remarks } = await this.#fill(tenant, options, fill, async (client) => {
      const found = await lookThrough(client);
      if (found) return found;
      throw new UserError("InvalidInput", "the database is not of a Synapse: tables are missing that each has");
    });
    return { ...facts, remarks };
  }

  restore(into: DatabaseLogin, dump: Bytes, signal: AbortSignal): Promise<void> {
    return restoreDump(this.#programs, into, dump, signal);
  }

  async #fill(
    tenant: string,
    { password, backup }: { password: string; backup: string },
    fill: (into: DatabaseLogin) => Promise<void>,
    look: (client: pg.Client) => Promise<string[]>,
  ): Promise<{ facts: CopyFacts; remarks: string[] }> {
    const server = await this.#servers.forTenant(tenant);
    const login = await lockedOn(server, tenant, (client) => emptyBeside(client, server, tenant, password));
    await fill(login);
    const found = await withConnection(
      login,
      login.database,
      async (client) => {
        const remarks = await look(client);
        const facts = await factsOf(client);
        await makeFit(client);
        return { facts, remarks };
      },
      SNAPSHOT_BOUNDS,
    );
    await lockedOn(server, tenant, (client) => readyBeside(client, tenant, `${MARK}${backup}`));
    return found;
  }

  async beside(tenant: string): Promise<string | undefined> {
    const { restored } = besideNames(tenant);
    return asAdmin(await this.#servers.forTenant(tenant), DEFAULT_BOUNDS, async (client) =>
      (await exists(client, restored)) ? ((await markOf(client, restored)) ?? "") : undefined,
    );
  }

  async exchange(
    tenant: string,
    { password, epoch, backup }: { password: string; epoch: number; backup: string },
  ): Promise<void> {
    const own = tenantDatabaseName(tenant);
    const { restored, replaced } = besideNames(tenant);
    const server = await this.#servers.forTenant(tenant);
    await lockedOn(server, tenant, async (client) => {
      if (await exists(client, restored)) {
        // A crash in the midst of its renaming left it closed.
        await open(client, restored);
        // Whoever had the former one has an epoch that is spent.
        await raiseEpochIn({ ...loginOn(server, own, password), database: restored }, epoch);
        if (await exists(client, own)) {
          await drop(client, replaced);
          await rename(client, own, replaced);
        }
        await rename(client, restored, own);
      } else if ((await markOf(client, own)) !== backup)
        throw new NoCopy(`there is no database ${restored} on ${server.host}:${server.port}`);
      if (await exists(client, own)) await open(client, own);
    });
  }

  async inPlace(tenant: string): Promise<string | undefined> {
    const own = tenantDatabaseName(tenant);
    const server = await this.#servers.holderOf(tenant);
    return server && asAdmin(server, DEFAULT_BOUNDS, (client) => markOf(client, own));
  }

  async settle(tenant: string): Promise<void> {
    const own = tenantDatabaseName(tenant);
    await asAdmin(await this.#servers.forTenant(tenant), DEFAULT_BOUNDS, async (client) => {
      if (await exists(client, own)) await mark(client, own, null);
    });
  }

  async takeBack(tenant: string): Promise<void> {
    const { restored, replaced } = besideNames(tenant);
    await lockedOn(await this.#servers.forTenant(tenant), tenant, async (client) => {
      if (!(await exists(client, replaced)))
        throw new UserError("NotFound", `no former database of ${tenant} is kept: there is no restore to undo`);
      await drop(client, restored);
      await mark(client, replaced, `${MARK}${FORMER}`);
      await rename(client, replaced, restored);
    });
  }

  async hasFormer(tenant: string): Promise<boolean> {
    const { replaced } = besideNames(tenant);
    return asAdmin(await this.#servers.forTenant(tenant), DEFAULT_BOUNDS, (client) => exists(client, replaced));
  }

  async forget(tenant: string): Promise<void> {
    const server = await this.#servers.holderOf(tenant);
    if (!server) return;
    await lockedOn(server, tenant, async (client) => {
      const { filling, restored, replaced } = besideNames(tenant);
      for (const name of [filling, restored, replaced]) await drop(client, name);
    });
  }

  async clean(): Promise<void> {
    await this.#servers.fromAll(async (server) => {
      const names = await asAdmin(server, DEFAULT_BOUNDS, async (client) => {
        const sql = "SELECT rolname AS name FROM pg_roles WHERE rolname ~ $1";
        const { rows } = await client.query<{ name: string }>(sql, [`^${SCRATCH_PREFIX}[0-9a-f]{16}$`]);
        return rows.map(({ name }) => name);
      });
      for (const name of names) await dropWithRole(server, name);
    });
  }

  #loginOf(tenant: Tenant, secrets: TenantSecretData): Login & { database: string } {
    const own = ownDatabase(tenant.spec.config);
    const name = tenantDatabaseName(storageOf(tenant));
    if (!own) return { ...loginOn(this.#servers.of(tenant), name, secrets.databasePassword), database: name };
    return loginTo(own);
  }
}

/** A database of nobody's but its role, which has the same name. */
export async function dropWithRole(server: AdminLogin, name: string): Promise<void> {
  await asAdmin(server, DEFAULT_BOUNDS, async (client) => {
    await drop(client, name);
    await dropRole(client, name);
  });
}

/** As the administrator, alone with what is a tenant's on that server. */
export function lockedOn<T>(
  server: AdminLogin,
  tenant: string,
  work: (client: pg.Client) => Promise<T>,
  { waitMs, bounds }: Patience = PATIENT,
): Promise<T> {
  const lock = tenantDatabaseName(tenant);
  return asAdmin(server, bounds, (client) => withLock(client, lock, waitMs, () => work(client)));
}

/** How long is waited for others, and for a statement. */
export interface Patience {
  waitMs: number;
  bounds: Bounds;
}

async function raiseEpochIn(login: DatabaseLogin, epoch: number): Promise<void> {
  const found = await describeDatabase(login);
  if (found.epoch > 0) await withConnection(login, login.database, (client) => raiseEpoch(client, epoch));
}

export function loginOn({ host, port, sslMode }: AdminLogin, user: string, password: string): Login {
  return { host, port, user, password, ...(sslMode === undefined ? {} : { sslMode }) };
}

/** Who else is connected to this database. */
async function othersOf(client: pg.Client): Promise<number> {
  const { rows } = await client.query<{ others: string }>(
    `SELECT count(*)::text AS others FROM pg_catalog.pg_stat_activity
     WHERE datname = current_database() AND pid <> pg_backend_pid() AND ${CLIENTS}`,
  );
  return wholeNumber(rows[0]?.others, "pg_stat_activity");
}

/** As of the transaction, where there is one. */
export async function factsOf(client: pg.Client): Promise<CopyFacts> {
  const counts: Partial<TenantCounts> = {};
  for (const [what, { table, where = "true" }] of Object.entries(COUNTED)) {
    counts[what as keyof TenantCounts] = (await number(client, table, `count(*) FROM ${table} WHERE ${where}`)) ?? 0;
  }
  const version = (table: string, column: string) => number(client, table, `max(${column}) FROM ${table}`);
  return {
    counts: counts as TenantCounts,
    schemaVersion: await version("schema_version", "version"),
    schemaCompatVersion: await version("schema_compat_version", "compat_version"),
  };
}

/** Undefined where there is no such table. */
async function number(client: pg.Client, table: string, what: string): Promise<number | undefined> {
  const { rows: found } = await client.query<{ there: boolean }>(
    "SELECT pg_catalog.to_regclass($1) IS NOT NULL AS there",
    [table],
  );
  if (!found[0]?.there) return undefined;
  const { rows } = await client.query<{ value: unknown }>(`SELECT ${what.replace(" FROM", "::text AS value FROM")}`);
  return wholeNumber(rows[0]?.value, table);
}

/** Makes an empty database beside the tenant's own, and its role. @returns as whom it is filled */
export async function emptyBeside(
  client: pg.Client,
  server: AdminLogin,
  tenant: string,
  password: string,
): Promise<DatabaseLogin> {
  const role = tenantDatabaseName(tenant);
  const { filling } = besideNames(tenant);
  await ensureRole(client, role);
  await limitRole(client, role);
  await client.query(`ALTER ROLE ${identifier(role)} WITH LOGIN PASSWORD ${literal(scramVerifier(password))}`);
  await drop(client, filling);
  await createEmpty(client, filling, role);
  // Indexes of large tables are sorted on disk, and take as long as they take.
  for (const setting of ["temp_file_limit = -1", "statement_timeout = 0"])
    await client
      .query(`ALTER ROLE ${identifier(role)} IN DATABASE ${identifier(filling)} SET ${setting}`)
      .catch(unlessForbidden);
  return { ...loginOn(server, role, password), database: filling };
}

/** What was filled is complete, and takes the place of an earlier one beside. */
export async function readyBeside(client: pg.Client, tenant: string, comment: string): Promise<void> {
  const role = tenantDatabaseName(tenant);
  const { filling, restored } = besideNames(tenant);
  await client.query(`ALTER ROLE ${identifier(role)} IN DATABASE ${identifier(filling)} RESET ALL`);
  await drop(client, restored);
  await mark(client, filling, comment);
  await rename(client, filling, restored);
}

/** Synapse insists on UTF8 and on the C locale. Nobody but its owner gets in. */
export async function createEmpty(client: pg.Client, name: string, owner: string): Promise<void> {
  await client.query(
    `CREATE DATABASE ${identifier(name)} TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' ALLOW_CONNECTIONS false`,
  );
  await client.query(`REVOKE ALL ON DATABASE ${identifier(name)} FROM PUBLIC`);
  await client.query(`ALTER DATABASE ${identifier(name)} OWNER TO ${identifier(owner)}`);
  await client.query(`ALTER DATABASE ${identifier(name)} WITH ALLOW_CONNECTIONS true`);
}

export async function drop(client: pg.Client, name: string): Promise<void> {
  await client.query(`DROP DATABASE IF EXISTS ${identifier(name)} WITH (FORCE)`);
}

/** Nobody can be connected meanwhile: who was is cut off. Repeated after a crash, it finds the database closed under its old name. */
export async function rename(client: pg.Client, from: string, to: string, { closed = false } = {}): Promise<void> {
  await client.query(`ALTER DATABASE ${identifier(from)} WITH ALLOW_CONNECTIONS false`);
  await endConnections(client, from);
  await client.query(`ALTER DATABASE ${identifier(from)} RENAME TO ${identifier(to)}`);
  if (!closed) await open(client, to);
}

export async function open(client: pg.Client, name: string): Promise<void> {
  await client.query(`ALTER DATABASE ${identifier(name)} WITH ALLOW_CONNECTIONS true`);
}

export async function exists(client: pg.Client, name: string): Promise<boolean> {
  const { rowCount } = await client.query("SELECT FROM pg_database WHERE datname = $1", [name]);
  return rowCount === 1;
}

/** Where a database comes from; a comment goes with it when it is renamed. */
export async function mark(client: pg.Client, name: string, comment: string | null): Promise<void> {
  const words = comment === null ? "NULL" : literal(comment);
  await client.query(`COMMENT ON DATABASE ${identifier(name)} IS ${words}`);
}

const MARK = "restored from backup ";

export async function commentOf(client: pg.Client, name: string): Promise<string> {
  const [found] = await databasesAmong(client, [name]);
  return found?.comment ?? "";
}

/** The backup that a database was made of. */
async function markOf(client: pg.Client, name: string): Promise<string | undefined> {
  const comment = await commentOf(client, name);
  return comment.startsWith(MARK) ? comment.slice(MARK.length) : undefined;
}
