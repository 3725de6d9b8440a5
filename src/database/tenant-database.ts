import type pg from "pg";
import { UserError } from "../model/errors.ts";
import {
  DEFAULT_BOUNDS,
  identifier,
  literal,
  withConnection,
  type AdminLogin,
  type Bounds,
  type Login,
} from "./connection.ts";
import { withLock } from "./lock.ts";
import { templateDatabaseName, tenantDatabaseName, TEMPLATE_ROLE } from "./names.ts";
import { endConnections, ensureRole } from "./roles.ts";
import { scramVerifier } from "./scram.ts";

const LOCK_WAIT_MS = 60_000;

/**
 * Makes a tenant's role and database, a copy of its release's template that belongs to the role alone. May be called again
 * at any time: it completes what a crash left half done, sets the password, and keeps a database that is there.
 * @returns whether the database was there, complete, before
 * @throws UserError; NotFound if the template is missing
 */
export async function provisionTenantDatabase(
  admin: AdminLogin,
  tenant: { name: string; password: string; version: string },
  bounds: Bounds = DEFAULT_BOUNDS,
): Promise<{ kept: boolean }> {
  const name = tenantDatabaseName(tenant.name);
  const template = templateDatabaseName(tenant.version);
  const verifier = scramVerifier(tenant.password);
  const provision = async (client: pg.Client): Promise<{ kept: boolean }> => {
    await ensureRole(client, name);
    await client.query(`ALTER ROLE ${identifier(name)} WITH LOGIN PASSWORD ${literal(verifier)}`);
    const owner = await ownerOf(client, name);
    if (owner === name) return { kept: true };
    if (owner === undefined) await copyTemplate(client, template, name);
    await client.query(`REVOKE ALL ON DATABASE ${identifier(name)} FROM PUBLIC`);
    // Whoever came in before the door was shut.
    await endConnections(client, name);
    await withConnection(admin, name, (inside) => handOver(inside, name), bounds);
    // Last, for it says that all the rest is done.
    await client.query(`ALTER DATABASE ${identifier(name)} OWNER TO ${identifier(name)}`);
    return { kept: false };
  };
  return asAdmin(admin, bounds, (client) => withLock(client, name, LOCK_WAIT_MS, () => provision(client)));
}

/** Gives the template's objects to the tenant's role. What has been given already stays given. */
async function handOver(inside: pg.Client, role: string): Promise<void> {
  // An owner must be allowed to create in the schema, which this role is not yet by owning the database.
  await inside.query(`GRANT CREATE ON SCHEMA public TO ${identifier(role)}`);
  await inside.query(`REASSIGN OWNED BY ${identifier(TEMPLATE_ROLE)} TO ${identifier(role)}`);
}

async function copyTemplate(client: pg.Client, template: string, name: string): Promise<void> {
  const { rowCount } = await client.query("SELECT FROM pg_database WHERE datname = $1 AND datistemplate", [template]);
  if (rowCount === 0) throw new UserError("NotFound", `the template database ${template} has not been made`);
  // By WAL_LOG, which is the default: 0.1 to 0.3 s, where FILE_COPY, which forces checkpoints, took 0.3 to 6 s (PostgreSQL 18).
  await client.query(`CREATE DATABASE ${identifier(name)} TEMPLATE ${identifier(template)}`);
}

async function ownerOf(client: pg.Client, database: string): Promise<string | undefined> {
  const { rows } = await client.query<{ owner: string }>(
    "SELECT pg_get_userbyid(datdba) AS owner FROM pg_database WHERE datname = $1",
    [database],
  );
  return rows[0]?.owner;
}

/** Names of all databases on the server that are tenants', see `tenantDatabaseName`. @throws UserError */
export async function listTenantDatabases(admin: AdminLogin, bounds: Bounds = DEFAULT_BOUNDS): Promise<string[]> {
  const sql = "SELECT datname AS name FROM pg_database WHERE datname ~ '^tenantx?_' AND NOT datistemplate ORDER BY 1";
  return asAdmin(admin, bounds, async (client) =>
    (await client.query<{ name: string }>(sql)).rows.map(({ name }) => name),
  );
}

/** Removes a tenant's database, whoever is connected to it, and its role. What is gone already is no error. @throws UserError */
export async function dropTenantDatabase(
  admin: AdminLogin,
  tenant: string,
  bounds: Bounds = DEFAULT_BOUNDS,
): Promise<void> {
  const name = tenantDatabaseName(tenant);
  const drop = async (client: pg.Client) => {
    await client.query(`DROP DATABASE IF EXISTS ${identifier(name)} WITH (FORCE)`);
    await client.query(`DROP ROLE IF EXISTS ${identifier(name)}`);
  };
  await asAdmin(admin, bounds, (client) => withLock(client, name, LOCK_WAIT_MS, () => drop(client)));
}

/** Ends every connection to a tenant's database. @throws UserError */
export async function terminateBackends(
  admin: AdminLogin,
  tenant: string,
  bounds: Bounds = DEFAULT_BOUNDS,
): Promise<void> {
  await asAdmin(admin, bounds, (client) => endConnections(client, tenantDatabaseName(tenant)));
}

/**
 * Fences off whoever runs a tenant, without a new owner: the epoch rises, and every connection is ended. A database that
 * does not exist, or has no fence yet, has no owner to be fenced off.
 * @returns the new epoch, or undefined
 * @throws UserError
 */
export async function fenceOff(
  admin: AdminLogin,
  tenant: string,
  bounds: Bounds = DEFAULT_BOUNDS,
): Promise<number | undefined> {
  try {
    const epoch = await withConnection(admin, tenantDatabaseName(tenant), raiseEpoch, bounds);
    await terminateBackends(admin, tenant, bounds);
    return epoch;
  } catch (error) {
    if (error instanceof UserError && error.code === "NotFound") return undefined;
    throw error;
  }
}

async function raiseEpoch(client: pg.Client): Promise<number | undefined> {
  if (!(await hasFence(client))) return undefined;
  const { rows } = await client.query<{ epoch: string }>(
    "UPDATE synapse_shards.fence SET epoch = epoch + 1, shard = '', instance = '' RETURNING epoch",
  );
  return rows[0] && Number(rows[0].epoch);
}

export interface DatabaseDescription {
  exists: boolean;
  /** Absent where Synapse's schema has not been made. */
  schemaVersion?: number;
  /** Releases whose schema version is lower cannot read it. */
  schemaCompatVersion?: number;
  /** The last epoch in the fence; 0 where nobody has claimed it yet. */
  epoch: number;
}

/** Reads what is stored about the schema, with the tenant's own login. @throws UserError Unauthorized, Unavailable, … */
export async function describeDatabase(
  connection: Login & { database: string },
  bounds: Bounds = DEFAULT_BOUNDS,
): Promise<DatabaseDescription> {
  try {
    return await withConnection(connection, connection.database, readDescription, bounds);
  } catch (error) {
    if (error instanceof UserError && error.code === "NotFound") return { exists: false, epoch: 0 };
    throw error;
  }
}

/** `SYSTEM_IDENTIFIER/OID`; undefined where the server keeps that from its users. @throws UserError Unauthorized, NotFound, Unavailable, … */
export function identifyDatabase(
  connection: Login & { database: string },
  bounds: Bounds = DEFAULT_BOUNDS,
): Promise<string | undefined> {
  return withConnection(
    connection,
    connection.database,
    async (client) => {
      const { rows: may } = await client.query<{ may: boolean }>(
        "SELECT has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE') AS may",
      );
      if (!may[0]?.may) return undefined;
      const { rows } = await client.query<{ id: string }>(
        `SELECT c.system_identifier::text || '/' || d.oid::text AS id
         FROM pg_catalog.pg_control_system() c, pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()`,
      );
      return rows[0]?.id;
    },
    bounds,
  );
}

async function readDescription(client: pg.Client): Promise<DatabaseDescription> {
  const schemaVersion = await readNumber(client, "schema_version", "version");
  const schemaCompatVersion = await readNumber(client, "schema_compat_version", "compat_version");
  const epoch = (await hasFence(client)) ? await readNumber(client, "synapse_shards.fence", "epoch") : undefined;
  return { exists: true, schemaVersion, schemaCompatVersion, epoch: epoch ?? 0 };
}

async function readNumber(client: pg.Client, table: string, column: string): Promise<number | undefined> {
  const { rows: found } = await client.query<{ there: boolean }>("SELECT to_regclass($1) IS NOT NULL AS there", [
    table,
  ]);
  if (!found[0]?.there) return undefined;
  const { rows } = await client.query<{ value: string }>(`SELECT ${column}::text AS value FROM ${table}`);
  return rows[0] && Number(rows[0].value);
}

async function hasFence(client: pg.Client): Promise<boolean> {
  const { rows } = await client.query<{ there: boolean }>(
    "SELECT to_regclass('synapse_shards.fence') IS NOT NULL AS there",
  );
  return rows[0]?.there ?? false;
}

function asAdmin<T>(admin: AdminLogin, bounds: Bounds, work: (client: pg.Client) => Promise<T>): Promise<T> {
  return withConnection(admin, admin.database ?? "postgres", work, bounds);
}
