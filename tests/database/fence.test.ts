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

it("prevents an owner that is made up: a database that nobody ever claimed has none", async () => {
  expect(await readFence(tenant, BOUNDS)).toBeUndefined();
  const { client } = await connected("synapse-shards waiting 3");
  expect(await readFence(tenant, BOUNDS)).toEqual({ epoch: 0, owner: "", waiting: true, connected: false });
  await client.end();
});

it("prevents a shard that does not answer from keeping a database: it is released, its connections end, and who waits stays", async () => {
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

it("prevents a leave for a database that somebody has", async () => {
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

it("prevents a database that cannot be read because it has no TLS, or insists on it: as libpq, the controller tries both where it may", async () => {
  for (const sslMode of [undefined, "disable", "allow", "prefer"])
    expect(await readFence({ ...tenant, sslMode }, BOUNDS)).toMatchObject({ owner: "dedicated/a/b" });
  await expect(readFence({ ...tenant, sslMode: "require" }, BOUNDS)).rejects.toThrow(/SSL/);
});
