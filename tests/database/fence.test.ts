import { afterAll, beforeAll, expect, it } from "vitest";
import { type AdminLogin, withConnection } from "../../src/database/connection.ts";
import { grantFence, readFence, releaseFence } from "../../src/database/fence.ts";
import { Client } from "pg";
import { startTestServer, type TestServer } from "./postgres-server.ts";

const BOUNDS = { connectMs: 5_000, statementMs: 5_000 };
const NAME = "clinic_a";
let server: TestServer;
let tenant: AdminLogin & { database: string };

async function sql(text: string): Promise<void> {
  await withConnection(tenant, NAME, (client) => client.query(text), BOUNDS);
}

/** A connection as a shard, or a process that waits, keeps one. */
async function connected(applicationName: string): Promise<{ client: Client; ended: Promise<void> }> {
  const client = new Client({ ...tenant, application_name: applicationName });
  await client.connect();
  client.on("error", () => {});
  return { client, ended: new Promise((done) => client.once("end", () => done())) };
}

beforeAll(async () => {
  server = await startTestServer();
  await withConnection(server.admin, "postgres", async (client) => {
    await client.query(`CREATE ROLE ${NAME} LOGIN PASSWORD 'pw'`);
    await client.query(`CREATE DATABASE ${NAME} OWNER ${NAME}`);
  });
  const { host, port } = server.admin;
  tenant = { host, port, user: NAME, password: "pw", database: NAME };
}, 120_000);
afterAll(() => server?.stop());

it("reports no owner for a database that was never claimed", async () => {
  expect(await readFence(tenant, BOUNDS)).toBeUndefined();
  const { client } = await connected("synapse-shards waiting 3");
  expect(await readFence(tenant, BOUNDS)).toEqual({ epoch: 0, owner: "", waiting: true, connected: false });
  await client.end();
});

it("releases the database of a shard that does not answer: its connections end, and waiting ones stay", async () => {
  await sql("CREATE SCHEMA synapse_shards");
  await sql("CREATE TABLE synapse_shards.fence (epoch bigint, shard text, instance text)");
  await sql("INSERT INTO synapse_shards.fence VALUES (8589934593, '1.163.2-0', 'abc')");
  const shard = await connected("");
  const waiting = await connected("synapse-shards waiting 2");
  expect(await readFence(tenant, BOUNDS)).toEqual({
    epoch: 2 * 2 ** 32 + 1,
    owner: "1.163.2-0",
    waiting: true,
    connected: true,
  });
  // Not with a lower epoch, nor on behalf of somebody else.
  expect(await releaseFence(tenant, "1.163.2-0", 2 * 2 ** 32 + 1, BOUNDS)).toBe(false);
  expect(await releaseFence(tenant, "1.163.2-1", 2 * 2 ** 32 + 2, BOUNDS)).toBe(false);
  expect(await releaseFence(tenant, "1.163.2-0", 2 * 2 ** 32 + 2, BOUNDS)).toBe(true);
  await shard.ended;
  expect(await readFence(tenant, BOUNDS)).toEqual({
    epoch: 2 * 2 ** 32 + 2,
    owner: "",
    waiting: true,
    connected: false,
  });
  await waiting.client.end();
});

it("grants a released database only", async () => {
  const heir = async () =>
    withConnection(
      tenant,
      NAME,
      async (client) => (await client.query("SELECT instance FROM synapse_shards.fence")).rows[0],
    );
  await grantFence(tenant, BOUNDS);
  expect(await heir()).toEqual({ instance: "dedicated" });
  await sql("UPDATE synapse_shards.fence SET shard = 'dedicated/a/b', instance = 'def'");
  await grantFence(tenant, BOUNDS);
  expect(await heir()).toEqual({ instance: "def" });
});

it("tries with and without TLS where sslmode allows both, as libpq does", async () => {
  for (const sslMode of [undefined, "disable", "allow", "prefer"])
    expect(await readFence({ ...tenant, sslMode }, BOUNDS)).toMatchObject({ owner: "dedicated/a/b" });
  await expect(readFence({ ...tenant, sslMode: "require" }, BOUNDS)).rejects.toThrow(/has no TLS, which sslmode/);
});
