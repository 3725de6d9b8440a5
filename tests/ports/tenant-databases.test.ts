import { afterAll, beforeAll } from "vitest";
import { withConnection } from "../../src/database/connection.ts";
import { PostgresTenantDatabases } from "../../src/database/postgres-tenant-databases.ts";
import { DatabaseServers } from "../../src/database/servers.ts";
import type { Tenant } from "../../src/model/tenant.ts";
import type { Preparers } from "../../src/ports/preparers.ts";
import { startTestServer, type TestServer } from "../database/postgres-server.ts";
import { fakeDatabases, FakeWorld } from "../support/fake-world.ts";
import { describeTenantDatabasesContract } from "./tenant-databases-contract.ts";

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer();
}, 120_000);
afterAll(() => server?.stop());

/** Makes the smallest schema that has a version. */
const PREPARERS: Preparers = {
  start: async () => ({
    template: async ({ dbname, options, ...login }) => {
      const role = /^-c role=(\S+)$/.exec(options ?? "")?.[1] ?? "";
      await withConnection(login, dbname, async (client) => {
        await client.query(`SET ROLE ${role}`);
        await client.query("CREATE TABLE schema_version (version int); INSERT INTO schema_version VALUES (93)");
      });
      return {};
    },
    migrate: async () => ({}),
    close: async () => {},
  }),
};

describeTenantDatabasesContract("PostgreSQL", async () => {
  const databases = new PostgresTenantDatabases({
    servers: DatabaseServers.single(server.admin),
    preparers: PREPARERS,
  });
  await databases.drop("a");
  return {
    databases,
    claim: async (tenant: Tenant, shard, epoch) => {
      const { name } = databases.address(tenant);
      await withConnection(server.admin, name, async (client) => {
        await client.query(`SET ROLE ${name}`);
        await client.query(`
          CREATE SCHEMA IF NOT EXISTS synapse_shards;
          CREATE TABLE IF NOT EXISTS synapse_shards.fence (epoch bigint, shard text, instance text);
          DELETE FROM synapse_shards.fence; INSERT INTO synapse_shards.fence VALUES (${epoch}, '${shard}', 'i')`);
      });
    },
    close: () => databases.close(),
  };
});

describeTenantDatabasesContract("The fake", async () => {
  const world = new FakeWorld();
  return {
    databases: fakeDatabases(world),
    claim: async ({ metadata }: Tenant, shard, epoch) => void world.fences.set(metadata.name, { epoch, shard }),
    close: async () => {},
  };
});
