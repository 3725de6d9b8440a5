import type pg from "pg";
import { asAdmin, DEFAULT_BOUNDS, type AdminLogin, type Bounds } from "./connection.ts";
import { tenantDatabaseName } from "./names.ts";
import { strandedOf } from "./stranded.ts";
import { messageOf, UserError } from "../model/errors.ts";
import type { Keepsake, KeptData } from "../ports/databases.ts";

/** Seals texts with a key that is not on the database server; the same as that of the store. */
export interface Seal {
  seal(place: string, text: string): string;
  open(place: string, text: string): string;
}

/**
 * In the administrator's own database, which no tenant's role can enter: in the tenant's database its owner could read and change
 * it, and so could anyone who gets at its Synapse.
 */
const TABLE = "synapse_shards.keepsakes";

/** Keeps what is needed to bring a tenant back, beside its data or, where it brings its database along, on our server. @throws UserError */
export async function writeKeepsake(
  admin: AdminLogin,
  seal: Seal | undefined,
  tenant: string,
  keepsake: Keepsake,
  bounds: Bounds = DEFAULT_BOUNDS,
): Promise<void> {
  const text = JSON.stringify(keepsake);
  const body = seal ? seal.seal(placeOf(tenant), text) : text;
  await asAdmin(admin, bounds, async (client) => {
    await makeTable(client);
    await client.query(
      `INSERT INTO ${TABLE} (tenant, sealed, body) VALUES ($1, $2, $3)
       ON CONFLICT (tenant) DO UPDATE SET sealed = excluded.sealed, body = excluded.body`,
      [tenant, seal !== undefined, body],
    );
  });
}

/** What is there of a tenant from before. @throws UserError Environment where the keepsake cannot be opened */
export function readKeptData(
  admin: AdminLogin,
  seal: Seal | undefined,
  tenant: string,
  bounds: Bounds = DEFAULT_BOUNDS,
): Promise<KeptData> {
  return asAdmin(admin, bounds, async (client) => {
    const name = tenantDatabaseName(tenant);
    const { rowCount } = await client.query(
      "SELECT FROM pg_database WHERE datname = $1 AND pg_get_userbyid(datdba) = $1",
      [name],
    );
    const { rows: tables } = await client.query<{ there: boolean }>("SELECT to_regclass($1) IS NOT NULL AS there", [
      TABLE,
    ]);
    const stranded = await strandedOf(client, tenant);
    const data = { hasDatabase: rowCount === 1, ...(stranded.length > 0 ? { stranded } : {}) };
    if (!tables[0]?.there) return data;
    const { rows } = await client.query<{ sealed: boolean; body: string }>(
      `SELECT sealed, body FROM ${TABLE} WHERE tenant = $1`,
      [tenant],
    );
    const row = rows[0];
    return row ? { ...data, keepsake: opened(seal, tenant, row) } : data;
  });
}

/** Forgets a tenant whose data is removed. */
export async function removeKeepsake(client: pg.Client, tenant: string): Promise<void> {
  const { rows } = await client.query<{ there: boolean }>("SELECT to_regclass($1) IS NOT NULL AS there", [TABLE]);
  if (rows[0]?.there) await client.query(`DELETE FROM ${TABLE} WHERE tenant = $1`, [tenant]);
}

async function makeTable(client: pg.Client): Promise<void> {
  await client.query("CREATE SCHEMA IF NOT EXISTS synapse_shards");
  await client.query(
    `CREATE TABLE IF NOT EXISTS ${TABLE} (tenant text PRIMARY KEY, sealed boolean NOT NULL, body text NOT NULL)`,
  );
  await client.query(`REVOKE ALL ON SCHEMA synapse_shards FROM PUBLIC`);
}

function opened(seal: Seal | undefined, tenant: string, { sealed, body }: { sealed: boolean; body: string }): Keepsake {
  try {
    if (sealed && !seal) throw new Error("there is no key for it");
    return JSON.parse(sealed && seal ? seal.open(placeOf(tenant), body) : body) as Keepsake;
  } catch (error) {
    throw new UserError(
      "Environment",
      `the keys of tenant ${tenant} are kept beside its database, and cannot be opened: put the key file of the store back (${messageOf(error)})`,
      { cause: error },
    );
  }
}

function placeOf(tenant: string): string {
  return `keepsakes/${tenant}`;
}
