import type { Socket } from "node:net";
import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import { ASIDE_SCHEMA } from "../../src/database/aside.ts";
import { withConnection } from "../../src/database/connection.ts";
import { copyIn } from "../../src/database/copy-in.ts";
import { PostgresCopies } from "../../src/database/copies.ts";
import { PostgresOwnDatabases } from "../../src/database/own-databases.ts";
import { DatabaseServers } from "../../src/database/servers.ts";
import { UserError } from "../../src/model/errors.ts";
import { newTenantSecrets } from "../../src/model/tenant-secrets.ts";
import { newTenantStatus, type Tenant } from "../../src/model/tenant.ts";
import { systemEnvironment } from "../../src/platforms/local/environment.ts";
import { ensurePostgres } from "../../src/platforms/local/toolchain/toolchain.ts";
import type { Bytes, CopyFacts } from "../../src/ports/backups.ts";
import { startTestServer, type TestServer } from "./postgres-server.ts";

const ROLE = "clinic_a";
const secrets = newTenantSecrets("clinic-a.example");
const never = new AbortController().signal;

let server: TestServer;
let copies: PostgresCopies;
let own: PostgresOwnDatabases;
let tenant: Tenant;

beforeAll(async () => {
  server = await startTestServer();
  const { binDir } = await ensurePostgres();
  const programs = { binDir, environment: systemEnvironment() };
  copies = new PostgresCopies(DatabaseServers.single(server.admin), programs);
  own = new PostgresOwnDatabases(programs);
  await asAdmin(`CREATE ROLE ${ROLE} LOGIN PASSWORD 'pw'`);
  const { host, port } = server.admin;
  const args = { host, port, user: ROLE, password: "pw", dbname: ROLE, sslmode: "disable" };
  tenant = {
    kind: "Tenant",
    metadata: { name: "clinic-a", creationTimestamp: "2026-01-01T00:00:00Z", resourceVersion: "1", generation: 1 },
    spec: {
      serverName: "clinic-a.example",
      release: "1.163.2",
      config: JSON.stringify({ database: { name: "psycopg2", args } }),
      reclaimPolicy: "Retain",
    },
    status: newTenantStatus(),
  };
}, 60_000);
afterAll(() => server?.stop());

beforeEach(async () => {
  await asAdmin(`DROP DATABASE IF EXISTS ${ROLE} WITH (FORCE)`);
  await asAdmin(`CREATE DATABASE ${ROLE} OWNER ${ROLE} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'`);
  await inside(`
    CREATE TABLE schema_version (version int); INSERT INTO schema_version VALUES (93);
    CREATE TABLE events (id bigserial PRIMARY KEY, body text);
    CREATE TABLE empty (nothing text);
    CREATE TABLE users (name text UNIQUE, kind text);
    CREATE TABLE "Odd ""name""" (a int REFERENCES events, b text[]);
    CREATE TABLE e2e_one_time_keys_json (key_json text); INSERT INTO e2e_one_time_keys_json VALUES ('key');
    CREATE SEQUENCE apart; SELECT setval('apart', 42);
    CREATE VIEW bodies AS SELECT body FROM events;
    CREATE TYPE mood AS ENUM ('well', 'ill');
    CREATE FUNCTION said() RETURNS trigger AS $$ BEGIN NEW.body = NEW.body || '
COPY nothing FROM stdin'; RETURN NEW; END $$ LANGUAGE plpgsql;
    CREATE SCHEMA synapse_shards;
    CREATE TABLE synapse_shards.fence (epoch bigint, shard text, instance text);
    INSERT INTO synapse_shards.fence VALUES (3, '1.163.2-0', 'i');
    INSERT INTO users VALUES ('@ada:clinic-a.example', NULL);
    INSERT INTO events (body) VALUES ('before'), (E'tab\\tline\\nback\\\\slash \\\\. ✓'), (E'\\\\.'), (NULL)`);
});

function asAdmin(sql: string): Promise<unknown> {
  return withConnection(server.admin, "postgres", (client) => client.query(sql));
}

function inside(sql: string): Promise<Record<string, unknown>[]> {
  const login = { ...server.admin, user: ROLE, password: "pw" };
  return withConnection(login, ROLE, async (client) => {
    const result = (await client.query(sql)) as unknown as { rows: Record<string, unknown>[] };
    return result.rows;
  });
}

const bodies = async () => (await inside("SELECT body FROM events ORDER BY id")).map(({ body }) => body);
const BEFORE = ["before", "tab\tline\nback\\slash \\. ✓", "\\.", null];

async function dumped(): Promise<{ dump: Buffer; facts: CopyFacts }> {
  return copies.dump(
    tenant,
    secrets,
    async (dump, facts) => {
      const chunks: Uint8Array[] = [];
      for await (const chunk of dump) chunks.push(chunk);
      return { dump: Buffer.concat(chunks), facts };
    },
    never,
  );
}

/** In pieces, as they come from a bucket. */
async function* bytes(content: Buffer, piece = 1000): Bytes {
  for (let at = 0; at < content.length; at += piece) yield content.subarray(at, at + piece);
}

it("puts a backup in the place of what is there, all of it, and keeps what was there", async () => {
  const { dump, facts } = await dumped();
  await inside("INSERT INTO events (body) VALUES ('after'); CREATE TABLE of_a_newer_schema (a int); DROP VIEW bodies");
  let found: CopyFacts | undefined;
  await own.replace(tenant, secrets, { id: "r", epoch: 7 }, bytes(dump), (facts) => void (found = facts));
  expect(found).toEqual(facts);
  expect(await bodies()).toEqual(BEFORE);
  expect(await inside("SELECT body FROM bodies LIMIT 1")).toEqual([{ body: "before" }]);
  expect(await inside("SELECT to_regclass('of_a_newer_schema') AS there")).toEqual([{ there: null }]);
  expect(await inside("SELECT nextval('apart')::int AS next, 'ill'::mood AS mood")).toEqual([
    { next: 43, mood: "ill" },
  ]);
  expect(await inside("INSERT INTO events (body) VALUES ('more') RETURNING id::int")).toEqual([{ id: 5 }]);
  expect(await inside("SELECT * FROM e2e_one_time_keys_json")).toEqual([]);
  expect(await inside("SELECT epoch::int, shard FROM synapse_shards.fence")).toEqual([{ epoch: 7, shard: "" }]);
  expect(await own.last(tenant)).toBe("r");
  expect((await inside(`SELECT body FROM ${ASIDE_SCHEMA}.events ORDER BY id`)).at(-1)).toEqual({ body: "after" });
});

it("does what was done already no second time, and leaves what came after it", async () => {
  const { dump } = await dumped();
  await own.replace(tenant, secrets, { id: "r", epoch: 7 }, bytes(dump), () => {});
  await inside("INSERT INTO events (body) VALUES ('after the restore')");
  await own.replace(tenant, secrets, { id: "r", epoch: 8 }, bytes(dump), () => {});
  expect((await bodies()).at(-1)).toBe("after the restore");
});

it("is taken back, and that too, any number of times", async () => {
  const { dump } = await dumped();
  await inside("INSERT INTO events (body) VALUES ('after')");
  await own.replace(tenant, secrets, { id: "r", epoch: 7 }, bytes(dump), () => {});
  await own.takeBack(tenant, secrets, { id: "u", epoch: 8 });
  expect((await bodies()).at(-1)).toBe("after");
  expect(await inside("SELECT body FROM bodies LIMIT 1")).toEqual([{ body: "before" }]);
  await own.takeBack(tenant, secrets, { id: "u", epoch: 9 });
  expect((await bodies()).at(-1)).toBe("after");
  await own.takeBack(tenant, secrets, { id: "v", epoch: 10 });
  expect(await bodies()).toEqual(BEFORE);
  await own.forget(tenant);
  expect(await own.last(tenant)).toBeUndefined();
  await expect(own.takeBack(tenant, secrets, { id: "w", epoch: 11 })).rejects.toMatchObject({ code: "NotFound" });
  expect(await bodies()).toEqual(BEFORE);
});

it("has nothing of what was put aside in the next backup, and replaces it at the next restore", async () => {
  const { dump } = await dumped();
  await inside("INSERT INTO events (body) VALUES ('after')");
  await own.replace(tenant, secrets, { id: "r", epoch: 7 }, bytes(dump), () => {});
  const second = await dumped();
  await asAdmin(`DROP DATABASE ${ROLE} WITH (FORCE)`);
  await asAdmin(`CREATE DATABASE ${ROLE} OWNER ${ROLE} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'`);
  await own.replace(tenant, secrets, { id: "s", epoch: 8 }, bytes(second.dump), () => {});
  expect(await bodies()).toEqual(BEFORE);
  expect(await inside(`SELECT to_regclass('${ASIDE_SCHEMA}.events') AS there`)).toEqual([{ there: null }]);
  await own.replace(tenant, secrets, { id: "t", epoch: 9 }, bytes(dump), () => {});
  expect(await bodies()).toEqual(BEFORE);
  expect(await inside(`SELECT count(*)::int AS n FROM ${ASIDE_SCHEMA}.events`)).toEqual([{ n: 4 }]);
});

it.each([
  ["a dump that is cut off", (dump: Buffer) => bytes(dump.subarray(0, dump.length - 200))],
  ["a dump that is none", () => bytes(Buffer.from("no dump"))],
  [
    "a target that breaks off",
    async function* (dump: Buffer): Bytes {
      yield dump.subarray(0, 2000);
      throw new UserError("Unavailable", "the backup target broke off");
    },
  ],
])("changes nothing of %s", async (_what, source) => {
  const { dump } = await dumped();
  await inside("INSERT INTO events (body) VALUES ('after')");
  const replaced = own.replace(tenant, secrets, { id: "r", epoch: 7 }, source(dump), () => {});
  await expect(replaced).rejects.toBeInstanceOf(UserError);
  expect((await bodies()).at(-1)).toBe("after");
  expect(await own.last(tenant)).toBeUndefined();
});

it("changes nothing where what was restored is not what is to be kept", async () => {
  const { dump } = await dumped();
  await inside("INSERT INTO events (body) VALUES ('after')");
  const check = () => {
    throw new UserError("InvalidInput", "3 events instead of 4");
  };
  const replaced = own.replace(tenant, secrets, { id: "r", epoch: 7 }, bytes(dump), check);
  await expect(replaced).rejects.toThrow("3 events instead of 4");
  expect((await bodies()).at(-1)).toBe("after");
});

it("does nothing for a controller that was overtaken", async () => {
  const { dump } = await dumped();
  await inside("UPDATE synapse_shards.fence SET epoch = 9; INSERT INTO events (body) VALUES ('of its next owner')");
  const late = own.replace(tenant, secrets, { id: "r", epoch: 8 }, bytes(dump), () => {});
  await expect(late).rejects.toThrow("started elsewhere");
  expect((await bodies()).at(-1)).toBe("of its next owner");
  expect(await inside("SELECT epoch::int, shard FROM synapse_shards.fence")).toEqual([
    { epoch: 9, shard: "1.163.2-0" },
  ]);
});

it("ends whoever still has the database, and says where the server forbids it to make a schema", async () => {
  const { dump } = await dumped();
  const login = { ...server.admin, user: ROLE, password: "pw" };
  const stranger = withConnection(login, ROLE, async (client) => {
    await client.query("BEGIN; INSERT INTO events (body) VALUES ('of somebody who was shut out')");
    await own.replace(tenant, secrets, { id: "r", epoch: 7 }, bytes(dump), () => {});
    await client.query("COMMIT");
  });
  await expect(stranger).rejects.toMatchObject({ code: "Unavailable" });
  expect(await bodies()).toEqual(BEFORE);

  await own.forget(tenant);
  await asAdmin(`ALTER DATABASE ${ROLE} OWNER TO ${server.admin.user}; GRANT CONNECT ON DATABASE ${ROLE} TO ${ROLE}`);
  const refused = own.replace(tenant, secrets, { id: "s", epoch: 8 }, bytes(dump), () => {});
  await expect(refused).rejects.toMatchObject({ code: "Unauthorized" });
  expect(await bodies()).toEqual(BEFORE);
});

it.each([
  [
    "a restore",
    (patient: PostgresOwnDatabases, dump: Buffer) =>
      patient.replace(tenant, secrets, { id: "s", epoch: 8 }, bytes(dump), () => {}),
  ],
  ["its undoing", (patient: PostgresOwnDatabases) => patient.takeBack(tenant, secrets, { id: "s", epoch: 8 })],
])("does not keep a tenant away because another role has a lock: %s says who has it", async (_what, attempt) => {
  const { dump } = await dumped();
  await own.replace(tenant, secrets, { id: "r", epoch: 7 }, bytes(dump), () => {});
  const { binDir } = await ensurePostgres();
  const patient = new PostgresOwnDatabases({ binDir, environment: systemEnvironment() }, { lockMs: 200 });
  const reader = withConnection(server.admin, ROLE, async (client) => {
    await client.query("BEGIN; LOCK TABLE users IN ACCESS SHARE MODE");
    const words = `table public.users is locked by role ${server.admin.user} `;
    await expect(attempt(patient, dump)).rejects.toMatchObject({
      code: "Conflict",
      message: expect.stringContaining(words),
    });
    await client.query("COMMIT");
  });
  await reader;
  expect(await own.last(tenant)).toBe("r");
  expect(await bodies()).toEqual(BEFORE);
});

it("leaves what is not Synapse's as it is, whoever owns it", async () => {
  await inside("ALTER TABLE events REPLICA IDENTITY FULL");
  const { dump } = await dumped();
  await inside("CREATE SCHEMA theirs; CREATE TABLE theirs.own (a int); ALTER TABLE theirs.own REPLICA IDENTITY FULL");
  await withConnection(server.admin, ROLE, (client) =>
    client.query(`
      CREATE SCHEMA others; CREATE TABLE others.apart (a int); CREATE TABLE public.beside (a int);
      ALTER TABLE others.apart REPLICA IDENTITY FULL; ALTER TABLE public.beside REPLICA IDENTITY FULL`),
  );
  await own.replace(tenant, secrets, { id: "r", epoch: 7 }, bytes(dump), () => {});
  await own.takeBack(tenant, secrets, { id: "u", epoch: 8 });
  await own.takeBack(tenant, secrets, { id: "v", epoch: 9 });
  const full = await inside(
    "SELECT oid::regclass::text AS name FROM pg_class WHERE relreplident = 'f' AND relkind = 'r' ORDER BY 1",
  );
  expect(full.map(({ name }) => name)).toEqual(["beside", "others.apart", "theirs.own"]);
});

it("copies any number of rows in with as many listeners as for one", async () => {
  const row = Buffer.from(`${"x".repeat(1024 ** 2)}\n`);
  async function* rows(): Bytes {
    for (let n = 0; n < 40; n++) yield row;
  }
  await withConnection(server.admin, ROLE, async (client) => {
    const { stream } = (client as unknown as { connection: { stream: Socket } }).connection;
    const before = stream.listenerCount("close");
    let drains = 0;
    stream.on("drain", () => (drains += 1));
    await client.query("CREATE TEMPORARY TABLE large (a text)");
    await copyIn(client, "COPY large FROM stdin", rows());
    expect(drains).toBeGreaterThan(5);
    expect(stream.listenerCount("close")).toBe(before);
  });
}, 30_000);

it("ends at once when it is told to, also in the midst of a statement, and leaves nothing locked", async () => {
  const { dump } = await dumped();
  await withConnection(server.admin, ROLE, async (client) => {
    await client.query("BEGIN; LOCK TABLE users IN ACCESS SHARE MODE");
    const ending = new AbortController();
    const replaced = own.replace(tenant, secrets, { id: "r", epoch: 7 }, bytes(dump), () => {}, ending.signal);
    const waits = "SELECT FROM pg_locks WHERE NOT granted";
    await expect.poll(async () => (await client.query(waits)).rowCount).toBe(1);
    ending.abort(new UserError("Timeout", "too long"));
    await expect(replaced).rejects.toThrow("too long");
    expect((await client.query(waits)).rowCount).toBe(0);
    await client.query("COMMIT");
  });
  expect(await bodies()).toEqual(BEFORE);
}, 60_000);
