import { identifier, withConnection } from "../../src/database/connection.ts";
import type { PreparerDatabase, Preparers } from "../../src/ports/preparers.ts";

/** Stands for Synapse's schema, with what a restore changes in it. */
export async function smallSchema(database: PreparerDatabase): Promise<void> {
  await withConnection(database, database.dbname, async (client) => {
    await client.query(`SET ROLE ${identifier(/^-c role=(\S+)$/.exec(database.options ?? "")?.[1] ?? "")}`);
    await client.query(`
      CREATE TABLE schema_version (version int); INSERT INTO schema_version VALUES (93);
      CREATE TABLE schema_compat_version (compat_version int); INSERT INTO schema_compat_version VALUES (91);
      CREATE TABLE events (id bigserial PRIMARY KEY, body text);
      CREATE TABLE e2e_one_time_keys_json (key_json text);
      CREATE SCHEMA synapse_shards;
      CREATE TABLE synapse_shards.fence (epoch bigint, shard text, instance text);
      INSERT INTO synapse_shards.fence VALUES (3, '1.163.2-0', 'i')`);
  });
}

/** Preparers that make it, and migrate nothing. */
export const smallPreparers: Preparers = {
  start: async () => ({
    template: async (database) => {
      await smallSchema(database);
      return {};
    },
    migrate: async () => ({}),
    close: async () => {},
  }),
};
