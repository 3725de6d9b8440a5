import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import { withConnection } from "../../src/database/connection.ts";
import { PostgresCopies } from "../../src/database/copies.ts";
import { PostgresInspections } from "../../src/database/inspections.ts";
import { besideNames, tenantDatabaseName } from "../../src/database/names.ts";
import { DatabaseServers } from "../../src/database/servers.ts";
import { ensureTemplate } from "../../src/database/template.ts";
import { dropTenantDatabase, provisionTenantDatabase } from "../../src/database/tenant-database.ts";
import { newTenantSecrets } from "../../src/model/tenant-secrets.ts";
import { newTenantStatus, type Tenant } from "../../src/model/tenant.ts";
import { systemEnvironment } from "../../src/platforms/local/environment.ts";
import { ensurePostgres } from "../../src/platforms/local/toolchain/toolchain.ts";
import { FORMER, NoCopy, type Bytes } from "../../src/ports/backups.ts";
import type { DatabaseLogin } from "../../src/ports/databases.ts";
import { startTestServer, type TestServer } from "./postgres-server.ts";
import { smallSchema } from "./small-schema.ts";

const RELEASE = "1.163.2";
const OWN = tenantDatabaseName("clinic-a");
const { restored, replaced, filling } = besideNames("clinic-a");
const secrets = newTenantSecrets("clinic-a.example");
const password = secrets.databasePassword;
const tenant: Tenant = {
  kind: "Tenant",
  metadata: { name: "clinic-a", creationTimestamp: "2026-01-01T00:00:00Z", resourceVersion: "1", generation: 1 },
  spec: { serverName: "clinic-a.example", release: RELEASE, config: "", reclaimPolicy: "Retain" },
  status: newTenantStatus(),
};
const never = new AbortController().signal;

let server: TestServer;
let copies: PostgresCopies;

beforeAll(async () => {
  server = await startTestServer();
  const { binDir } = await ensurePostgres();
  copies = new PostgresCopies(DatabaseServers.single(server.admin), { binDir, environment: systemEnvironment() });
  await ensureTemplate(server.admin, RELEASE, smallSchema);
}, 60_000);
afterAll(() => server?.stop());
beforeEach(async () => {
  await dropTenantDatabase(server.admin, "clinic-a");
  await provisionTenantDatabase(server.admin, { name: "clinic-a", password, version: RELEASE });
  await inside(
    "INSERT INTO events (body) VALUES ('before the backup'); INSERT INTO e2e_one_time_keys_json VALUES ('key')",
  );
});

async function inside(sql: string, database = OWN): Promise<Record<string, unknown>[]> {
  const login = { ...server.admin, user: OWN, password };
  return withConnection(login, database, async (client) => {
    const result = (await client.query(sql)) as unknown as { rows: Record<string, unknown>[] };
    return result.rows;
  });
}

async function databases(): Promise<string[]> {
  return withConnection(server.admin, "postgres", async (client) => {
    const { rows } = await client.query<{ name: string }>(
      "SELECT datname AS name FROM pg_database WHERE datname ~ 'tenant_clinic_a|scratch' ORDER BY 1",
    );
    return rows.map(({ name }) => name);
  });
}

async function dumped(): Promise<Buffer> {
  return copies.dump(
    tenant,
    secrets,
    async (dump) => {
      const chunks: Uint8Array[] = [];
      for await (const chunk of dump) chunks.push(chunk);
      return Buffer.concat(chunks);
    },
    never,
  );
}

async function* bytes(content: Buffer): Bytes {
  yield content;
}

const restoreBeside = async (dump: Buffer) =>
  copies.restoreBeside("clinic-a", { password, backup: "b1" }, bytes(dump), never);
const bodies = async (database = OWN) => (await inside("SELECT body FROM events", database)).map(({ body }) => body);

it("dumps one moment, whatever is written meanwhile, and counts what is in it", async () => {
  const { dump, facts } = await copies.dump(
    tenant,
    secrets,
    async (stream, found) => {
      await inside("INSERT INTO events (body) VALUES ('while it was dumped')");
      const chunks: Uint8Array[] = [];
      for await (const chunk of stream) chunks.push(chunk);
      return { dump: Buffer.concat(chunks), facts: found };
    },
    never,
  );
  expect(facts).toMatchObject({ counts: { events: 1, users: 0 }, schemaVersion: 93, schemaCompatVersion: 91 });
  expect(await copies.rehearse(bytes(dump), never)).toEqual(facts);
  expect(await databases()).toEqual([OWN]);
});

it("fails where the dump is cut short or is none, and leaves the tenant and nothing else", async () => {
  const dump = await dumped();
  for (const damaged of [dump.subarray(0, dump.length - 200), Buffer.from("no dump at all"), Buffer.alloc(0)]) {
    await expect(copies.rehearse(bytes(damaged), never)).rejects.toMatchObject({ code: "InvalidInput" });
    await expect(restoreBeside(damaged)).rejects.toMatchObject({ code: "InvalidInput" });
    expect(await copies.beside("clinic-a")).toBeUndefined();
  }
  expect(await bodies()).toEqual(["before the backup"]);
  await copies.forget("clinic-a");
  expect(await databases()).toEqual([OWN]);
});

it("passes the failure of where the dump comes from on", async () => {
  async function* broken(): Bytes {
    yield (await dumped()).subarray(0, 100);
    throw new Error("the bucket is away");
  }
  await expect(copies.rehearse(broken(), never)).rejects.toThrow("the bucket is away");
  expect(await databases()).toEqual([OWN]);
});

it("exchanges databases behind a higher epoch, without keys that were given out, and takes that back", async () => {
  const dump = await dumped();
  await inside("INSERT INTO events (body) VALUES ('after the backup')");
  await restoreBeside(dump);
  expect(await copies.beside("clinic-a")).toBe("b1");
  expect(await bodies()).toHaveLength(2);
  await copies.exchange("clinic-a", { password, epoch: 7, backup: "b1" });
  await copies.exchange("clinic-a", { password, epoch: 7, backup: "b1" });
  await expect(copies.exchange("clinic-a", { password, epoch: 7, backup: "b2" })).rejects.toBeInstanceOf(NoCopy);
  expect(await copies.hasFormer("clinic-a")).toBe(true);
  expect(await copies.inPlace("clinic-a")).toBe("b1");
  expect(await bodies()).toEqual(["before the backup"]);
  expect(await inside("SELECT * FROM e2e_one_time_keys_json")).toEqual([]);
  expect(await inside("SELECT epoch::int, shard, instance FROM synapse_shards.fence")).toEqual([
    { epoch: 7, shard: "", instance: "" },
  ]);
  await copies.settle("clinic-a");
  expect(await copies.inPlace("clinic-a")).toBeUndefined();
  await expect(copies.exchange("clinic-a", { password, epoch: 7, backup: "b1" })).rejects.toBeInstanceOf(NoCopy);
  await copies.takeBack("clinic-a");
  await copies.exchange("clinic-a", { password, epoch: 9, backup: FORMER });
  await copies.exchange("clinic-a", { password, epoch: 9, backup: FORMER });
  expect(await bodies()).toEqual(["before the backup", "after the backup"]);
  await copies.forget("clinic-a");
  expect(await databases()).toEqual([OWN]);
  await expect(copies.takeBack("clinic-a")).rejects.toMatchObject({ code: "NotFound" });
});

it("ends an exchange that was interrupted at any of its steps", async () => {
  const dump = await dumped();
  const admin = (sql: string) => withConnection(server.admin, "postgres", (client) => client.query(sql));
  const close = (name: string) => admin(`ALTER DATABASE ${name} WITH ALLOW_CONNECTIONS false`);
  const rename = (from: string, to: string) => admin(`ALTER DATABASE ${from} RENAME TO ${to}`);
  const steps = [() => close(OWN), () => rename(OWN, replaced), () => close(restored), () => rename(restored, OWN)];
  for (let interrupted = 0; interrupted <= steps.length; interrupted++) {
    await restoreBeside(dump);
    await inside(`INSERT INTO events (body) VALUES ('after the backup')`);
    await copies.forget("clinic-a");
    await restoreBeside(dump);
    for (const step of steps.slice(0, interrupted)) await step();
    await copies.exchange("clinic-a", { password, epoch: 7, backup: "b1" });
    expect(await bodies()).toEqual(["before the backup"]);
    expect(await databases()).toEqual([replaced, OWN].toSorted());
  }
});

it("shuts out who is connected to the former database", async () => {
  await restoreBeside(await dumped());
  const sleeping = inside("SELECT pg_sleep(600)").catch((error: unknown) => error);
  await expect
    .poll(async () => (await inside("SELECT FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%'")).length)
    .toBeGreaterThan(1);
  await copies.exchange("clinic-a", { password, epoch: 7, backup: "b1" });
  expect(await sleeping).toMatchObject({ code: "Unavailable" });
});

it("removes what interrupted work left", async () => {
  await withConnection(server.admin, "postgres", async (client) => {
    await client.query("CREATE ROLE scratch_0123456789abcdef");
    await client.query("CREATE DATABASE scratch_0123456789abcdef OWNER scratch_0123456789abcdef");
    await client.query(`CREATE DATABASE ${filling} OWNER ${OWN}`);
  });
  await copies.clean();
  expect(await databases()).toEqual([filling, OWN].toSorted());
  // Half filled, it is begun again.
  await restoreBeside(await dumped());
  await dropTenantDatabase(server.admin, "clinic-a");
  expect(await databases()).toEqual([]);
});

it("looks through what another server has written, and sets sequences that are behind", async () => {
  const fill = (sql: string) => (into: DatabaseLogin) =>
    withConnection(into, into.database, async (client) => void (await client.query(sql)));
  const options = { password, backup: "an import" };
  await expect(copies.fillBeside("clinic-a", options, fill("CREATE TABLE events ()"))).rejects.toMatchObject({
    code: "InvalidInput",
  });
  const { counts, remarks } = await copies.fillBeside(
    "clinic-a",
    options,
    fill(`
      CREATE TABLE schema_version (version int); INSERT INTO schema_version VALUES (83);
      CREATE TABLE users (name text); CREATE TABLE rooms (room_id text);
      CREATE TABLE events (stream_ordering bigint); INSERT INTO events VALUES (41), (-3);
      CREATE SEQUENCE events_stream_seq;
      CREATE TABLE state_groups (id bigint); CREATE SEQUENCE state_group_id_seq;
      CREATE TABLE background_updates (update_name text); INSERT INTO background_updates VALUES ('a')`),
  );
  expect(counts).toMatchObject({ events: 2, users: 0 });
  expect(remarks).toEqual([
    "the sequence events_stream_seq was behind events, and is set to 41",
    "1 background updates are not finished; Synapse goes on with them",
  ]);
  expect(await inside("SELECT nextval('events_stream_seq')::int AS next", restored)).toEqual([{ next: 42 }]);
  await copies.forget("clinic-a");
});

it("shows an earlier state beside the tenant with a login of its own, and removes it with the tenant's data", async () => {
  const inspections = new PostgresInspections(server.admin);
  const about = {
    tenant: "clinic-a",
    of: "backup b1",
    madeAt: "2026-01-01T00:00:00.000Z",
    until: "2026-01-02T00:00:00.000Z",
  };
  const make = (sql: string) =>
    inspections.make(about, (into) =>
      withConnection(into, into.database, async (client) => void (await client.query(sql))),
    );
  await expect(make("CREATE TABLE half (n int); SELECT 1 / 0")).rejects.toThrow("division by zero");
  expect(await inspections.list()).toEqual([]);
  const { counts } = await make(`
    CREATE TABLE users (name text, admin smallint, deactivated smallint); INSERT INTO users VALUES ('@a:x', 1, 0), ('@b:x', 0, 1);
    CREATE TABLE user_ips (user_id text, last_seen bigint); INSERT INTO user_ips VALUES ('@a:x', 1767225600000);
    CREATE TABLE events (stream_ordering int, origin_server_ts bigint, type text, sender text, room_id text);
    INSERT INTO events VALUES (1, 1767225600000, 'm.room.create', '@a:x', '!r:x'), (2, 1767225601000, 'm.room.message', '@a:x', '!r:x')`);
  expect(counts).toMatchObject({ users: 2, events: 2 });
  expect(await inspections.list()).toEqual([{ ...about, database: "inspected_tenant_clinic_a" }]);
  const { users, lastEvents } = await inspections.facts("clinic-a");
  expect(users).toEqual([
    { name: "@a:x", admin: true, deactivated: false, lastSeenAt: "2026-01-01T00:00:00.000Z" },
    { name: "@b:x", admin: false, deactivated: true },
  ]);
  expect(lastEvents[0]).toEqual({
    at: "2026-01-01T00:00:01.000Z",
    type: "m.room.message",
    sender: "@a:x",
    room: "!r:x",
  });
  // Neither gets at the other's, and a controller that was started again has a login, too.
  const login = await new PostgresInspections(server.admin).login("clinic-a");
  await expect(withConnection(login, OWN, async () => {})).rejects.toThrow("permission denied");
  await expect(inside("SELECT 1", login.database)).rejects.toThrow("permission denied");
  await dropTenantDatabase(server.admin, "clinic-a");
  expect(await inspections.list()).toEqual([]);
  await expect(inspections.facts("clinic-a")).rejects.toMatchObject({ code: "NotFound" });
});

it("lets an earlier state say nothing of itself, and ends its logins when the controller is started again", async () => {
  const first = new PostgresInspections(server.admin);
  const about = { tenant: "clinic-a", of: "b1", madeAt: "2026-01-01T00:00:00.000Z", until: "2026-01-02T00:00:00.000Z" };
  const empty = async () => {};
  await first.make(about, empty);
  const login = await first.login("clinic-a");
  const claim = JSON.stringify({ ...about, tenant: "clinic-b", database: OWN, until: "9999-01-01T00:00:00.000Z" });
  await withConnection(login, login.database, (client) =>
    client.query(`COMMENT ON DATABASE ${login.database} IS 'inspection ${claim}'`),
  );
  const again = new PostgresInspections(server.admin);
  expect(await again.list()).toEqual([{ ...about, database: login.database }]);
  expect(await again.login("clinic-a")).toMatchObject({ user: login.database, database: login.database });
  expect(await inside("SELECT 1 AS one")).toEqual([{ one: 1 }]);
  const third = new PostgresInspections(server.admin);
  const { password: stale } = await again.login("clinic-a");
  await third.clean();
  await expect(withConnection({ ...login, password: stale }, login.database, empty)).rejects.toMatchObject({
    code: "Unauthorized",
  });
  const fresh = await third.login("clinic-a");
  await third.clean();
  await withConnection(fresh, fresh.database, empty);
  // What is being made is not what was interrupted.
  await third.make(about, () => third.clean());
  await third.remove("clinic-a");
  expect(await databases()).toEqual([OWN]);
});

it("removes an earlier state that was never complete", async () => {
  const inspections = new PostgresInspections(server.admin);
  await withConnection(server.admin, "postgres", async (client) => {
    await client.query("CREATE DATABASE inspected_tenant_clinic_a");
  });
  await inspections.clean();
  expect(await databases()).toEqual([OWN]);
});
