import type pg from "pg";
import { asAdmin, DEFAULT_BOUNDS, identifier, withConnection, type AdminLogin, type Bounds } from "./connection.ts";
import type { PreparerDatabase } from "../ports/preparers.ts";
import { withLock } from "./lock.ts";
import { templateDatabaseName, TEMPLATE_ROLE } from "./names.ts";
import { closeCommonDatabases, endConnections, ensureRole } from "./roles.ts";

/** Making a schema takes seconds on an idle machine, and much longer on a busy one. */
const LOCK_WAIT_MS = 300_000;

/**
 * Makes the template database of a Synapse release, if it is not there. It is made under another name and renamed when it
 * is complete: a database of the template's name is complete. Others that want the same one wait for it.
 * @param makeSchema fills the empty database (preparer.ts)
 * @returns the template's name
 * @throws UserError; whatever makeSchema throws
 */
export async function ensureTemplate(
  admin: AdminLogin,
  release: string,
  makeSchema: (database: PreparerDatabase) => Promise<void>,
  options: { bounds?: Bounds; signal?: AbortSignal } = {},
): Promise<string> {
  const name = templateDatabaseName(release);
  const bounds = options.bounds ?? DEFAULT_BOUNDS;
  const work = async (client: pg.Client) => {
    await closeCommonDatabases(client);
    if (await isComplete(client, name)) return name;
    const make = async () => {
      if (!(await isComplete(client, name))) await makeTemplate(client, admin, name, makeSchema, bounds);
    };
    await withLock(client, name, LOCK_WAIT_MS, make, options.signal);
    return name;
  };
  return asAdmin(admin, bounds, work);
}

async function isComplete(client: pg.Client, name: string): Promise<boolean> {
  const { rowCount } = await client.query("SELECT FROM pg_database WHERE datname = $1 AND datistemplate", [name]);
  return rowCount === 1;
}

async function makeTemplate(
  client: pg.Client,
  admin: AdminLogin,
  name: string,
  makeSchema: (database: PreparerDatabase) => Promise<void>,
  bounds: Bounds,
): Promise<void> {
  const unfinished = `${name}_unfinished`;
  // Templates of several releases are made at once, and share the role.
  await withLock(client, TEMPLATE_ROLE, LOCK_WAIT_MS, () => ensureRole(client, TEMPLATE_ROLE));
  await client.query(`DROP DATABASE IF EXISTS ${identifier(unfinished)} WITH (FORCE)`);
  // The administrator's, not the template role's: `REASSIGN OWNED`, which hands objects over to a tenant that is provisioned
  // meanwhile, gives away the databases of that role too, wherever it is run.
  // Synapse insists on UTF8 and on the C locale, by which its indexes sort.
  await client.query(
    `CREATE DATABASE ${identifier(unfinished)} TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'
     ALLOW_CONNECTIONS false`,
  );
  await client.query(`REVOKE CONNECT, TEMPORARY ON DATABASE ${identifier(unfinished)} FROM PUBLIC`);
  await client.query(`ALTER DATABASE ${identifier(unfinished)} WITH ALLOW_CONNECTIONS true`);
  await client.query(`GRANT CREATE, TEMPORARY ON DATABASE ${identifier(unfinished)} TO ${identifier(TEMPLATE_ROLE)}`);
  const inside = (statement: string) => withConnection(admin, unfinished, (c) => c.query(statement), bounds);
  await inside(`GRANT CREATE ON SCHEMA public TO ${identifier(TEMPLATE_ROLE)}`);
  const { host, port, user, password, sslMode } = admin;
  const tls = sslMode === undefined ? {} : { sslmode: sslMode };
  await makeSchema({ host, port, user, password, ...tls, dbname: unfinished, options: `-c role=${TEMPLATE_ROLE}` });
  // Not for the copies.
  await inside(`REVOKE CREATE ON SCHEMA public FROM ${identifier(TEMPLATE_ROLE)}`);
  await client.query(`ALTER DATABASE ${identifier(unfinished)} WITH IS_TEMPLATE true ALLOW_CONNECTIONS false`);
  await endConnections(client, unfinished);
  await client.query(`ALTER DATABASE ${identifier(unfinished)} RENAME TO ${identifier(name)}`);
}
