/** Two servers of PostgreSQL, the first with the database of a tenant, for each test of the file that imports this. */
import { Client } from "pg";
import { afterAll, afterEach, beforeAll, beforeEach, expect } from "vitest";
import { withConnection } from "../../../src/database/connection.ts";
import { PostgresMoves, type MoveStage } from "../../../src/database/moves.ts";
import { besideNames, tenantDatabaseName } from "../../../src/database/names.ts";
import type { PgPrograms } from "../../../src/database/pg-programs.ts";
import { PostgresTenantDatabases } from "../../../src/database/postgres-tenant-databases.ts";
import { DatabaseServers } from "../../../src/database/servers.ts";
import type { Tenant } from "../../../src/model/tenant.ts";
import { newTenantSecrets } from "../../../src/model/tenant-secrets.ts";
import { systemEnvironment } from "../../../src/platforms/local/environment.ts";
import { ensurePostgres } from "../../../src/platforms/local/toolchain/toolchain.ts";
import type { CopyProgress } from "../../../src/ports/database-moves.ts";
import { SPEC, STATUS } from "../../ports/store-contract.ts";
import { startTestServer, type TestServer } from "../postgres-server.ts";
import { smallPreparers } from "../small-schema.ts";

export const own = tenantDatabaseName("a");
export const names = besideNames("a");
export const secrets = newTenantSecrets("a.example");

/** Of each kind that a log has to be followed with care for. */
export const TABLES = `
  CREATE TYPE mood AS ENUM ('calm', 'busy');
  CREATE TABLE accounts (
    name text PRIMARY KEY, data jsonb, at timestamptz, raw bytea, tags text[], amount double precision, large text, mood mood,
    twice int GENERATED ALWAYS AS (length(name) * 2) STORED
  );
  ALTER TABLE accounts ALTER COLUMN large SET STORAGE EXTERNAL;
  CREATE TABLE loose (a int, b text, c json);
  CREATE TABLE totals (n bigint NOT NULL); INSERT INTO totals VALUES (0);
  CREATE FUNCTION count_up() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN UPDATE totals SET n = n + 1; RETURN NULL; END';
  CREATE TRIGGER counted AFTER INSERT ON accounts FOR EACH ROW EXECUTE FUNCTION count_up();
  CREATE TABLE children (id bigserial PRIMARY KEY, name text REFERENCES accounts ON DELETE CASCADE ON UPDATE CASCADE);
  CREATE TABLE "Odd ""name""" ("a ""b""" int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "select" text);
  CREATE UNLOGGED TABLE worker_locks (name text);
  CREATE TABLE parent (a int, b text); CREATE TABLE child () INHERITS (parent);
  CREATE TABLE exact (n char(6), d numeric, r boolean, at inet, f real, t timestamptz, i interval, money money);
  INSERT INTO exact VALUES ('a', 1.0, true, '10.0.0.1/24', 0.1, now(), '1 mon 2 days', 12.5), ('a', 1.00, true, '10.0.0.1/24', 0.1, now(), '1 mon 2 days', 12.5);
  INSERT INTO accounts SELECT 'old' || n, '{"n": 1}', now(), '\\x00ff', '{a,"b c"}', random(), repeat('x', 5000), 'calm'
    FROM generate_series(1, 300) n;
  INSERT INTO loose SELECT n % 7, NULL, '{"a":  1}' FROM generate_series(1, 100) n;
  INSERT INTO worker_locks VALUES ('held');
`;

/** What a homeserver may write, the n-th time. */
export function writeOf(n: number): string {
  const one = `new${n}`;
  const writes = [
    `INSERT INTO accounts VALUES ('${one}', '{"it''s": "\\\\"}', clock_timestamp(), '\\x0102', '{}', 1e-300, repeat('y', 9000), NULL)`,
    `INSERT INTO children (name) SELECT name FROM accounts OFFSET ${n % 50} LIMIT 2; UPDATE accounts SET amount = 0.1 + ${n} WHERE name = 'old${(n % 300) + 1}'`,
    `DELETE FROM accounts WHERE name = 'old${(n % 300) + 1}'`,
    `DELETE FROM loose WHERE ctid = (SELECT ctid FROM loose LIMIT 1); INSERT INTO loose VALUES (${n}, 'b', '[1,  2]'), (${n}, 'b', '[1,  2]')`,
    `UPDATE loose SET b = 'c${n}' WHERE a = ${n % 7} AND ctid = (SELECT max(ctid) FROM loose WHERE a = ${n % 7})`,
    `INSERT INTO "Odd ""name""" ("select") VALUES ('${one}'); UPDATE "Odd ""name""" SET "select" = E'tab\\t' WHERE "a ""b""" % 3 = 0`,
    `UPDATE accounts SET name = name || 'x', data = NULL WHERE name = 'old${(n % 300) + 1}'`,
    "UPDATE totals SET n = n",
    `UPDATE exact SET n = 'b${n % 9}', d = d + 1.50, r = NOT r, at = '192.168.0.0/${(n % 8) + 16}' WHERE r = ${n % 2 === 0}`,
    "BEGIN; INSERT INTO loose SELECT 9, 'gone', NULL FROM generate_series(1, 50); ROLLBACK",
  ];
  return writes[n % writes.length] ?? "";
}

export let first: TestServer;
export let second: TestServer;
export let programs: PgPrograms;
export const records = new Map<string, Tenant>();
export let servers: DatabaseServers;
export let tenant: Tenant;
export let databases: PostgresTenantDatabases;

beforeAll(async () => {
  [first, second] = await Promise.all([startTestServer(), startTestServer()]);
  programs = { binDir: (await ensurePostgres()).binDir, environment: systemEnvironment() };
  await withConnection(first.admin, "postgres", async (client) => {
    await client.query("ALTER SYSTEM SET log_line_prefix = '%p %u@%d '");
    await client.query("SELECT pg_reload_conf()");
  });
});
afterAll(() => Promise.all([first?.stop(), second?.stop()]));

beforeEach(async () => {
  servers = new DatabaseServers(
    [
      { name: "main", weight: 1, login: { ...first.admin } },
      { name: "db-2", weight: 0, login: { ...second.admin } },
    ],
    (name) => records.get(name),
  );
  databases = new PostgresTenantDatabases({ servers, preparers: smallPreparers });
  tenant = {
    kind: "Tenant",
    metadata: { name: "a", creationTimestamp: "2026-01-01T00:00:00Z", resourceVersion: "1", generation: 1 },
    spec: { ...SPEC, serverName: "a.example", release: "1.163.2" },
    status: { ...STATUS, provisioned: false },
  };
  records.set("a", tenant);
  await databases.provision(tenant, secrets);
  tenant.status.provisioned = true;
  await inside(first, TABLES);
});
afterEach(() => databases.drop("a"));

export const loginOf = (server: TestServer, database = own) => ({
  ...server.admin,
  user: own,
  password: secrets.databasePassword,
  database,
});
export const inside = (server: TestServer, sql: string, database = own) =>
  withConnection(loginOf(server, database), database, async (client) => {
    const answer = await client.query<Record<string, unknown>>(sql);
    return answer.rows ?? [];
  });
export const asAdministrator = (server: TestServer, sql: string) =>
  withConnection(server.admin, "postgres", async (client) => (await client.query<Record<string, unknown>>(sql)).rows);
export const movesThat = (reached: (stage: MoveStage) => void = () => {}) =>
  new PostgresMoves(servers, programs, reached);
export const follow = (
  moves: PostgresMoves,
  onProgress: (progress: CopyProgress) => void = () => {},
  { signal } = new AbortController(),
) => moves.follow(tenant, secrets, { to: "db-2", onProgress, signal });
export const move = (moves: PostgresMoves, epoch = 7) =>
  moves.move(tenant, secrets, { to: "db-2", epoch, online: true });
export const secretsOf = async () => secrets;

/** All rows of all tables that are not lost in a crash, where sequences stand, and what the schema is. */
export async function contents(server: TestServer, database = own): Promise<Record<string, unknown>> {
  const tables = await inside(
    server,
    `SELECT c.oid::regclass::text AS name FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
     WHERE relkind = 'r' AND relpersistence = 'p' AND n.nspname IN ('public', 'synapse_shards') ORDER BY 1`,
    database,
  );
  const found: Record<string, unknown> = {};
  for (const { name } of tables as { name: string }[]) {
    const sql = `SELECT count(*)::int AS n, md5(string_agg(t::text, E'\\n' ORDER BY t::text)) AS hash FROM ${name} t`;
    found[name] = (await inside(server, sql, database))[0];
  }
  const all = [
    "SELECT sequencename, last_value::text FROM pg_sequences ORDER BY 1",
    "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1",
    "SELECT tgname, tgenabled FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1",
    "SELECT relname, relreplident FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1",
    "SELECT pubname FROM pg_publication",
  ];
  for (const sql of all) found[sql] = await inside(server, sql, database);
  return found;
}

/** Writes as a homeserver does until it is cut off. @returns how many writes were acknowledged */
export function writing(): { written: () => number; ended: Promise<string>; stop: () => void } {
  let count = 0;
  let isStopped = false;
  const ended = (async () => {
    const client = new Client(loginOf(first));
    client.on("error", () => {});
    await client.connect();
    try {
      while (!isStopped) {
        await client.query(writeOf(count));
        await client.query(`INSERT INTO events (body) VALUES ('write ${count}')`);
        count += 1;
      }
      return "stopped";
    } catch (error) {
      return (error as Error).message;
    } finally {
      await client.end().catch(() => {});
    }
  })();
  return { written: () => count, ended, stop: () => (isStopped = true) };
}

/** Nothing of a stream is left that costs the server anything, once what is being removed has been. */
export async function expectNothingLeft(moves?: PostgresMoves): Promise<void> {
  await moves?.leave("a");
  expect(await asAdministrator(first, "SELECT slot_name FROM pg_replication_slots")).toEqual([]);
  expect(await asAdministrator(first, "SELECT rolname FROM pg_roles WHERE rolname ~ '^stream_'")).toEqual([]);
  const databasesThere = await asAdministrator(first, "SELECT datname FROM pg_database WHERE datname ~ 'tenant_a$'");
  for (const { datname } of databasesThere as { datname: string }[]) {
    await asAdministrator(first, `ALTER DATABASE ${datname} ALLOW_CONNECTIONS true`);
    expect(await inside(first, "SELECT pubname FROM pg_publication", datname)).toEqual([]);
    const changed =
      "SELECT relname FROM pg_class WHERE relreplident <> 'd' AND relkind = 'r' AND relnamespace = 'public'::regnamespace";
    expect(await inside(first, changed, datname)).toEqual([]);
    if (datname !== own) await asAdministrator(first, `ALTER DATABASE ${datname} ALLOW_CONNECTIONS false`);
  }
}

export const databasesOf = async (server: TestServer) =>
  (await asAdministrator(server, "SELECT datname FROM pg_database WHERE datname ~ 'tenant_a$' ORDER BY 1")).map(
    ({ datname }) => datname,
  );

export async function expectMoved(): Promise<void> {
  expect(await databasesOf(second)).toEqual([own]);
  expect(await databasesOf(first)).toEqual([names.moved]);
  await expectNothingLeft();
  await asAdministrator(first, `ALTER DATABASE ${names.moved} ALLOW_CONNECTIONS true`);
  expect(await contents(second)).toEqual(await contents(first, names.moved));
  expect(await inside(second, "SELECT epoch::int, shard FROM synapse_shards.fence")).toEqual([{ epoch: 7, shard: "" }]);
}
