import { asAdmin, DEFAULT_BOUNDS, type AdminLogin, type Bounds } from "./connection.ts";
import { tenantDatabaseName } from "./names.ts";
import type { DatabaseUsage } from "../model/tenant-usage.ts";

/**
 * What tenants' databases take of the server, by tenant; without those that have none. Read from outside: nothing is run in a database that is
 * a tenant's, and nothing is taken from it that its owner could have written.
 * @throws UserError
 */
export function databaseUsage(
  admin: AdminLogin,
  tenants: readonly string[],
  bounds: Bounds = DEFAULT_BOUNDS,
): Promise<Map<string, DatabaseUsage>> {
  const tenantOf = new Map(tenants.map((tenant) => [tenantDatabaseName(tenant), tenant]));
  return asAdmin(admin, bounds, async (client) => {
    const { rows } = await client.query<Record<"name" | "bytes" | "connections" | "written" | "temp", string>>(
      `SELECT d.datname AS name, pg_database_size(d.oid)::text AS bytes, s.numbackends::text AS connections,
              s.temp_bytes::text AS temp, (s.tup_inserted + s.tup_updated + s.tup_deleted)::text AS written
       FROM pg_database d JOIN pg_stat_database s ON s.datid = d.oid WHERE d.datname = ANY ($1)`,
      [[...tenantOf.keys()]],
    );
    return new Map(
      rows.map(({ name, bytes, connections, written, temp }) => [
        tenantOf.get(name) ?? name,
        {
          bytes: Number(bytes),
          connections: Number(connections),
          rowsWritten: Number(written),
          tempBytes: Number(temp),
        },
      ]),
    );
  });
}

/**
 * For how long the server has run statements of tenants, in seconds since its statistics began: exact, whoever waits for what else. A statement
 * counts when it has ended. PostgreSQL 14 and later.
 * @throws UserError
 */
export function databaseSeconds(
  admin: AdminLogin,
  tenants: readonly string[],
  bounds: Bounds = DEFAULT_BOUNDS,
): Promise<Map<string, number>> {
  const tenantOf = new Map(tenants.map((tenant) => [tenantDatabaseName(tenant), tenant]));
  return asAdmin(admin, bounds, async (client) => {
    const { rows } = await client.query<{ name: string; active: string }>(
      `SELECT datname AS name, active_time::text AS active FROM pg_stat_database WHERE datname = ANY ($1)`,
      [[...tenantOf.keys()]],
    );
    return new Map(rows.map(({ name, active }) => [tenantOf.get(name) ?? name, Number(active) / 1000]));
  });
}
