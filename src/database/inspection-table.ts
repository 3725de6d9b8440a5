import type pg from "pg";
import { InspectionSchema, type Inspection } from "../model/inspection.ts";
import { inspectionName } from "./names.ts";

/**
 * What is known of them, which outlives the store. In the administrator's own database: who may write into a copy, as whatever was restored into it
 * does when it is read, must have no say in which role gets a password and which database is removed.
 */
const TABLE = "synapse_shards.inspections";

/** What is there, without what cannot be read; each with the name that its tenant gives to it. */
export async function knownInspections(client: pg.Client): Promise<Inspection[]> {
  if (!(await hasTable(client))) return [];
  const { rows } = await client.query<{ tenant: string; body: string }>(`SELECT tenant, body FROM ${TABLE}`);
  return rows.flatMap(({ tenant, body }) => {
    try {
      return [{ ...InspectionSchema.parse(JSON.parse(body)), tenant, database: inspectionName(tenant) }];
    } catch {
      return [];
    }
  });
}

/** Says that one is complete. */
export async function noteInspection(client: pg.Client, about: Inspection): Promise<void> {
  await makeTable(client);
  await client.query(`INSERT INTO ${TABLE} (tenant, body) VALUES ($1, $2)`, [about.tenant, JSON.stringify(about)]);
}

/** Of a tenant whose copy is removed. */
export async function forgetInspection(client: pg.Client, tenant: string): Promise<void> {
  if (await hasTable(client)) await client.query(`DELETE FROM ${TABLE} WHERE tenant = $1`, [tenant]);
}

async function hasTable(client: pg.Client): Promise<boolean> {
  const { rows } = await client.query<{ there: boolean }>("SELECT to_regclass($1) IS NOT NULL AS there", [TABLE]);
  return rows[0]?.there ?? false;
}

async function makeTable(client: pg.Client): Promise<void> {
  await client.query("CREATE SCHEMA IF NOT EXISTS synapse_shards");
  await client.query(`CREATE TABLE IF NOT EXISTS ${TABLE} (tenant text PRIMARY KEY, body text NOT NULL)`);
  await client.query(`REVOKE ALL ON SCHEMA synapse_shards FROM PUBLIC`);
}
