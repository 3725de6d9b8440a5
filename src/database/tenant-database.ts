import { randomBytes } from "node:crypto";
import type pg from "pg";
import { UserError } from "../model/errors.ts";
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
import { hasFence } from "./fence.ts";
import { forgetInspection } from "./inspection-table.ts";
import { removeKeepsake } from "./keepsakes.ts";
import { withLock } from "./lock.ts";
import {
  besideNames,
  inspectionName,
  templateDatabaseName,
  tenantDatabaseName,
  TEMPLATE_ROLE,
  streamName,
} from "./names.ts";
import { dropStreamRole, endStream } from "./online/stream-role.ts";
import { dropRole, endConnections, ensureRole, limitRole } from "./roles.ts";
import { wholeNumber } from "./whole-number.ts";
import { scramVerifier } from "./scram.ts";

const LOCK_WAIT_MS = 60_000;

/**
 * Makes a tenant's role and database, a copy of its release's template that belongs to the role alone. May be called again
 * at any time: it completes what a crash left half done, sets the password, and keeps a database that is there.
 *
 * Until the database is the tenant's, nobody but the administrator gets in; from then on the administrator never does: a trigger or a
 * function that is planted there would run with its rights.
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
  const provision = async (client: pg.Client): Promise<{ kept: boolean }> => {
    await ensureRole(client, name);
    const owner = await ownerOf(client, name);
    const kept = owner === name;
    if (owner === undefined) await copyTemplate(client, template, name);
    if (!kept) await handOver(client, admin, name, bounds);
    await limitRole(client, name);
    // A move whose switch failed, and could not open it again, leaves it closed; of a tenant that is had back nobody else does it.
    if (kept) await letIn(client, name);
    if (kept && (await isShutOut(client, name))) await raiseEpoch(client, admin, name, bounds);
    await setPassword(client, name, tenant.password);
    return { kept };
  };
  return asAdmin(admin, bounds, (client) => withLock(client, name, LOCK_WAIT_MS, () => provision(client)));
}

/** Gives database and objects to the tenant's role. What has been given already stays given. */
async function handOver(client: pg.Client, admin: AdminLogin, name: string, bounds: Bounds): Promise<void> {
  const role = identifier(name);
  await client.query(`REVOKE ALL ON DATABASE ${role} FROM PUBLIC`);
  await client.query(`ALTER DATABASE ${role} WITH ALLOW_CONNECTIONS true`);
  await withConnection(
    admin,
    name,
    async (inside) => {
      // An owner must be allowed to create in the schema, which this role is not yet by owning the database.
      await inside.query(`GRANT CREATE ON SCHEMA public TO ${role}`);
      await inside.query(`REASSIGN OWNED BY ${identifier(TEMPLATE_ROLE)} TO ${role}`);
    },
    bounds,
  );
  // Last, for it says that all the rest is done.
  await client.query(`ALTER DATABASE ${role} OWNER TO ${role}`);
}

async function copyTemplate(client: pg.Client, template: string, name: string): Promise<void> {
  const { rowCount } = await client.query("SELECT FROM pg_database WHERE datname = $1 AND datistemplate", [template]);
  if (rowCount === 0) throw new UserError("NotFound", `the template database ${template} has not been made`);
  // By WAL_LOG, which is the default: FILE_COPY forces checkpoints, 0.3 to 6 s on a busy server (PostgreSQL 18). Where its administrator has chosen
  // to have files cloned, a copy takes hardly any disk (docs/scale.md).
  const { rows } = await client.query<{ method: string | null }>(
    "SELECT current_setting('file_copy_method', true) AS method",
  );
  const strategy = rows[0]?.method === "clone" ? " STRATEGY FILE_COPY" : "";
  // Closed: PUBLIC may connect to a new database, and other tenants are PUBLIC.
  await client.query(
    `CREATE DATABASE ${identifier(name)} TEMPLATE ${identifier(template)}${strategy} ALLOW_CONNECTIONS false`,
  );
}

async function setPassword(client: pg.Client, role: string, password: string): Promise<void> {
  await client.query(`ALTER ROLE ${identifier(role)} WITH LOGIN PASSWORD ${literal(scramVerifier(password))}`);
}

async function letIn(client: pg.Client, database: string): Promise<void> {
  const closed = "SELECT FROM pg_database WHERE datname = $1 AND NOT datallowconn";
  if ((await client.query(closed, [database])).rowCount === 1)
    await client.query(`ALTER DATABASE ${identifier(database)} WITH ALLOW_CONNECTIONS true`);
}

async function isShutOut(client: pg.Client, role: string): Promise<boolean> {
  const { rowCount } = await client.query("SELECT FROM pg_roles WHERE rolname = $1 AND NOT rolcanlogin", [role]);
  return rowCount === 1;
}

/**
 * Makes sure that a process that was shut out stays so once its role can log in again: as the tenant itself, under a password that nobody
 * else has.
 */
async function raiseEpoch(client: pg.Client, admin: AdminLogin, name: string, bounds: Bounds): Promise<void> {
  const password = randomBytes(32).toString("base64url");
  await setPassword(client, name, password);
  try {
    await withConnection(
      { ...admin, user: name, password },
      name,
      async (inside) => {
        if (!(await hasFence(inside))) return;
        await inside.query("UPDATE synapse_shards.fence SET epoch = epoch + 1, shard = '', instance = ''");
      },
      bounds,
    );
  } catch (error) {
    await client.query(`ALTER ROLE ${identifier(name)} WITH NOLOGIN`);
    throw error;
  }
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

/** Removes a tenant's database, also while it is in use, and its role. What is gone already is no error. @throws UserError */
export async function dropTenantDatabase(
  admin: AdminLogin,
  tenant: string,
  bounds: Bounds = DEFAULT_BOUNDS,
): Promise<void> {
  const name = tenantDatabaseName(tenant);
  const drop = async (client: pg.Client) => {
    const inspected = inspectionName(tenant);
    await forgetInspection(client, tenant);
    // A database whose changes are streamed cannot be dropped, nor a role that was granted something in it.
    await endStream(client, streamName(tenant));
    for (const database of [name, inspected, ...Object.values(besideNames(tenant))])
      await client.query(`DROP DATABASE IF EXISTS ${identifier(database)} WITH (FORCE)`);
    await dropStreamRole(client, streamName(tenant));
    for (const role of [name, inspected]) await dropRole(client, role);
    await removeKeepsake(client, tenant);
  };
  await asAdmin(admin, bounds, (client) => withLock(client, name, LOCK_WAIT_MS, () => drop(client)));
}

/**
 * Shuts out the processes that run a tenant, from outside its database: its role cannot log in any more, and its connections end. Provisioning lets
 * it in again, behind a higher epoch. What is not there needs no shutting out.
 * @throws UserError
 */
export async function shutOut(admin: AdminLogin, tenant: string, bounds: Bounds = DEFAULT_BOUNDS): Promise<void> {
  const name = tenantDatabaseName(tenant);
  const shut = async (client: pg.Client) => {
    const { rowCount } = await client.query("SELECT FROM pg_roles WHERE rolname = $1", [name]);
    if (rowCount === 0) return;
    await client.query(`ALTER ROLE ${identifier(name)} WITH NOLOGIN`);
    await endConnections(client, name);
  };
  await asAdmin(admin, bounds, (client) => withLock(client, name, LOCK_WAIT_MS, () => shut(client)));
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

/** Whatever stands in the table's place is the tenant's: one short value is read, and it must be a number. */
async function readNumber(client: pg.Client, table: string, column: string): Promise<number | undefined> {
  const { rows: found } = await client.query<{ there: boolean }>(
    "SELECT pg_catalog.to_regclass($1) IS NOT NULL AS there",
    [table],
  );
  if (!found[0]?.there) return undefined;
  const { rows } = await client.query<{ value: string }>(
    `SELECT pg_catalog.left(${column}::pg_catalog.text, 20) AS value FROM ${table} LIMIT 1`,
  );
  return rows[0] && wholeNumber(rows[0].value, `${table}.${column}`);
}
