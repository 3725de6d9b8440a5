import { spawn } from "node:child_process";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Client } from "pg";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { withConnection, type AdminLogin } from "../../../src/database/connection.ts";
import { PostgresMoves, type MoveStage } from "../../../src/database/moves.ts";
import { besideNames, streamName, tenantDatabaseName } from "../../../src/database/names.ts";
import { streamProblem } from "../../../src/database/online/copies-online.ts";
import type { PgPrograms } from "../../../src/database/pg-programs.ts";
import { PostgresTenantDatabases } from "../../../src/database/postgres-tenant-databases.ts";
import { DatabaseServers } from "../../../src/database/servers.ts";
import type { Tenant } from "../../../src/model/tenant.ts";
import { newTenantSecrets } from "../../../src/model/tenant-secrets.ts";
import { systemEnvironment } from "../../../src/platforms/local/environment.ts";
import { ensurePostgres } from "../../../src/platforms/local/toolchain/toolchain.ts";
import { HalfMoved, NotFollowed, type CopyProgress } from "../../../src/ports/database-moves.ts";
import { SPEC, STATUS } from "../../ports/store-contract.ts";
import { startTestServer, type TestServer } from "../postgres-server.ts";
import { smallPreparers } from "../small-schema.ts";

const own = tenantDatabaseName("a");
const names = besideNames("a");
const secrets = newTenantSecrets("a.example");

/** Of each kind that a log has to be followed with care for. */
const TABLES = `
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
  CREATE UNLOGGED TABLE locks (name text);
  INSERT INTO accounts SELECT 'old' || n, '{"n": 1}', now(), '\\x00ff', '{a,"b c"}', random(), repeat('x', 5000), 'calm'
    FROM generate_series(1, 300) n;
  INSERT INTO loose SELECT n % 7, NULL, '{"a":  1}' FROM generate_series(1, 100) n;
  INSERT INTO locks VALUES ('held');
`;

/** What a homeserver may write, the n-th time. */
function writeOf(n: number): string {
  const one = `new${n}`;
  const writes = [
    `INSERT INTO accounts VALUES ('${one}', '{"it''s": "\\\\"}', clock_timestamp(), '\\x0102', '{}', 1e-300, repeat('y', 9000), NULL)`,
    `INSERT INTO children (name) SELECT name FROM accounts OFFSET ${n % 50} LIMIT 2; UPDATE accounts SET amount = 0.1 + ${n} WHERE name = 'old${(n % 300) + 1}'`,
    `DELETE FROM accounts WHERE name = 'old${(n % 300) + 1}'`,
    `DELETE FROM loose WHERE ctid = (SELECT ctid FROM loose LIMIT 1); INSERT INTO loose VALUES (${n}, 'b', '[1,  2]'), (${n}, 'b', '[1,  2]')`,
    `UPDATE loose SET b = 'c${n}' WHERE a = ${n % 7} AND ctid = (SELECT max(ctid) FROM loose WHERE a = ${n % 7})`,
    `INSERT INTO "Odd ""name""" ("select") VALUES ('${one}'); UPDATE "Odd ""name""" SET "select" = E'tab\\t' WHERE "a ""b""" % 3 = 0`,
    `UPDATE accounts SET name = name || 'x', data = NULL WHERE name = 'old${(n % 300) + 1}'`,
    n % 63 === 7
      ? "TRUNCATE children; INSERT INTO children (name) SELECT name FROM accounts LIMIT 3"
      : "UPDATE totals SET n = n",
    "BEGIN; INSERT INTO loose SELECT 9, 'gone', NULL FROM generate_series(1, 50); ROLLBACK",
  ];
  return writes[n % writes.length] ?? "";
}

let first: TestServer;
let second: TestServer;
let programs: PgPrograms;
const records = new Map<string, Tenant>();
let servers: DatabaseServers;
let tenant: Tenant;
let databases: PostgresTenantDatabases;

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

const loginOf = (server: TestServer, database = own) => ({
  ...server.admin,
  user: own,
  password: secrets.databasePassword,
  database,
});
const inside = (server: TestServer, sql: string, database = own) =>
  withConnection(loginOf(server, database), database, async (client) => {
    const answer = await client.query<Record<string, unknown>>(sql);
    return answer.rows ?? [];
  });
const asAdministrator = (server: TestServer, sql: string) =>
  withConnection(server.admin, "postgres", async (client) => (await client.query<Record<string, unknown>>(sql)).rows);
const movesThat = (reached: (stage: MoveStage) => void = () => {}) => new PostgresMoves(servers, programs, reached);
const follow = (moves: PostgresMoves, onProgress: (progress: CopyProgress) => void = () => {}) =>
  moves.follow(tenant, secrets, { to: "db-2", onProgress });
const move = (moves: PostgresMoves, epoch = 7) => moves.move(tenant, secrets, { to: "db-2", epoch, online: true });
const secretsOf = async () => secrets;

/** All rows of all tables that are not lost in a crash, where sequences stand, and what the schema is. */
async function contents(server: TestServer, database = own): Promise<Record<string, unknown>> {
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
function writing(): { written: () => number; ended: Promise<string>; stop: () => void } {
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

/** Nothing of a stream is left that costs the server anything. */
async function expectNothingLeft(): Promise<void> {
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

const databasesOf = async (server: TestServer) =>
  (await asAdministrator(server, "SELECT datname FROM pg_database WHERE datname ~ 'tenant_a$' ORDER BY 1")).map(
    ({ datname }) => datname,
  );

async function expectMoved(): Promise<void> {
  expect(await databasesOf(second)).toEqual([own]);
  expect(await databasesOf(first)).toEqual([names.moved]);
  await expectNothingLeft();
  await asAdministrator(first, `ALTER DATABASE ${names.moved} ALLOW_CONNECTIONS true`);
  expect(await contents(second)).toEqual(await contents(first, names.moved));
  expect(await inside(second, "SELECT epoch::int, shard FROM synapse_shards.fence")).toEqual([{ epoch: 7, shard: "" }]);
}

it("has every acknowledged write, once, and no other, while somebody writes until he is shut out", async () => {
  const writer = writing();
  const moves = movesThat();
  const progress: CopyProgress[] = [];
  await follow(moves, (now) => progress.push(now));
  const before = writer.written();
  await expect.poll(() => writer.written()).toBeGreaterThan(before + 130);
  await expect.poll(() => progress.at(-1)?.step).toBe("Following");
  const moved = await move(moves);
  expect(await writer.ended).not.toBe("stopped");
  await expectMoved();
  const events = await inside(second, "SELECT count(*)::int AS n, count(DISTINCT body)::int AS different FROM events");
  // The last one may have been on its way.
  const written = writer.written();
  expect([written, written + 1]).toContain(events[0]?.["n"]);
  expect(events[0]?.["different"]).toBe(events[0]?.["n"]);
  // Its triggers and constraints are as they were.
  await inside(second, "INSERT INTO accounts (name) VALUES ('after'); INSERT INTO children (name) VALUES ('after')");
  await expect(inside(second, "INSERT INTO children (name) VALUES ('nobody')")).rejects.toThrow(/foreign key/);
  expect(await inside(second, "SELECT current_setting('session_replication_role') AS role")).toEqual([
    { role: "origin" },
  ]);
  expect(await inside(second, "SELECT count(*)::int AS n FROM locks")).toEqual([{ n: 0 }]);
  expect(moved.rows).toBeGreaterThan(500);
});

describe("wherever the process is killed", () => {
  const STAGES: MoveStage[] = ["slot", "copied", "following", "fenced", "caughtUp", "closed"];
  const killedAt = async (stage: MoveStage) => {
    const input = { first: first.admin, second: second.admin, binDir: programs.binDir, tenant, secrets, stage };
    const child = spawn(process.execPath, [join(import.meta.dirname, "follow-process.ts"), JSON.stringify(input)], {
      stdio: ["ignore", "inherit", "inherit"],
    });
    return new Promise<string | null>((done) => child.once("close", (_code, signal) => done(signal)));
  };

  it.each(STAGES)("%s: the tenant has its database, nothing keeps the log, and it is copied again", async (stage) => {
    expect(await killedAt(stage)).toBe("SIGKILL");
    // As the next controller does, before anything else.
    const moves = movesThat();
    await moves.cleanCopies([tenant], secretsOf);
    await expectNothingLeft();
    await inside(first, "INSERT INTO events (body) VALUES ('meanwhile')");
    await expect(move(moves)).rejects.toBeInstanceOf(NotFollowed);
    expect(await databasesOf(first)).toEqual([own]);
    await follow(moves);
    await move(moves);
    await expectMoved();
    expect(await inside(second, "SELECT body FROM events")).toEqual([{ body: "meanwhile" }]);
  });

  it("aside: the move is finished with the copy that is there", async () => {
    expect(await killedAt("aside")).toBe("SIGKILL");
    const moves = movesThat();
    await moves.cleanCopies([tenant], secretsOf);
    await expectNothingLeft();
    await move(moves);
    await expectMoved();
  });
});

it("ends with a reason, and leaves nothing, where the target or the stream goes away; the database is as it was", async () => {
  const moves = movesThat();
  await follow(moves);
  await asAdministrator(
    second,
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '${names.filling}'`,
  );
  await inside(first, "INSERT INTO events (body) VALUES ('one')");
  await expect.poll(() => move(moves).catch((error: unknown) => error)).toBeInstanceOf(NotFollowed);
  await expectNothingLeft();
  expect(await databasesOf(second)).toEqual([]);

  await follow(moves);
  await asAdministrator(
    first,
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '${streamName("a")}'`,
  );
  await expect.poll(() => move(moves).catch((error: unknown) => error)).toBeInstanceOf(NotFollowed);
  await expectNothingLeft();

  await follow(moves);
  servers.all[1]!.login.port = 1;
  await expect(move(moves)).rejects.toMatchObject({ code: "Unavailable" });
  servers.all[1]!.login.port = second.admin.port;
  await expectNothingLeft();
  expect(await databasesOf(first)).toEqual([own]);
  await inside(first, "INSERT INTO events (body) VALUES ('two')");
  await follow(moves);
  await move(moves);
  await expectMoved();
});

it("is asked twice without harm, and can be left at any time", async () => {
  const moves = movesThat();
  const [one, other] = await Promise.allSettled([follow(moves), sleep(50).then(() => follow(moves))]);
  expect([one?.status, other?.status]).toContain("fulfilled");
  await moves.leave("a");
  await moves.leave("a");
  await expectNothingLeft();
  expect(await databasesOf(second)).toEqual([]);
  expect(await asAdministrator(second, `SELECT FROM pg_roles WHERE rolname = '${own}'`)).toEqual([]);
});

it("stays where it is where its schema changes meanwhile, and where the copy is not what it is", async () => {
  const moves = movesThat();
  await follow(moves);
  await inside(first, "CREATE INDEX late ON loose (a)");
  await expect(move(moves)).rejects.toThrow(/tables or indexes were changed/);
  await expectNothingLeft();
  await follow(moves);
  await withConnection(loginOf(second, names.filling), names.filling, (client) =>
    client.query("DELETE FROM loose WHERE a = 3"),
  );
  await expect(move(moves)).rejects.toThrow(/not what the database is: "public"."loose"/);
  await expectNothingLeft();
  expect(await databasesOf(first)).toEqual([own]);
  expect(await databasesOf(second)).toEqual([]);
  await inside(first, "INSERT INTO events (body) VALUES ('on')");
});

it("gives up before the log that the server keeps for it fills the disk", async () => {
  await asAdministrator(first, "ALTER SYSTEM SET max_slot_wal_keep_size = '16MB'");
  await asAdministrator(first, "SELECT pg_reload_conf()");
  try {
    const moves = movesThat();
    await follow(moves);
    // No server forgets its log as quickly as this.
    for (let n = 0; n < 40; n++)
      await asAdministrator(first, "SELECT pg_logical_emit_message(false, 'x', repeat('x', 1000000))");
    const nothing = () => asAdministrator(first, "SELECT FROM pg_replication_slots");
    await expect.poll(nothing).toEqual([]);
    await expect(move(moves)).rejects.toThrow(/keeps \d+\.\d MiB of its log for the copy, and may keep 16.0 MiB/);
    await expectNothingLeft();
  } finally {
    await asAdministrator(first, "ALTER SYSTEM RESET max_slot_wal_keep_size");
    await asAdministrator(first, "SELECT pg_reload_conf()");
  }
});

it("runs nothing of the tenant's as anybody but the tenant, and nothing as the administrator in its database", async () => {
  await inside(
    first,
    `CREATE TABLE ran (who text);
     CREATE FUNCTION note() RETURNS boolean LANGUAGE plpgsql SECURITY INVOKER AS
       'BEGIN INSERT INTO ran VALUES (current_user); RETURN true; EXCEPTION WHEN OTHERS THEN RETURN true; END';
     CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM note(); RETURN NEW; END';
     ALTER TABLE loose ENABLE ROW LEVEL SECURITY; ALTER TABLE loose FORCE ROW LEVEL SECURITY;
     CREATE POLICY all_of_it ON accounts USING (note());
     CREATE TRIGGER always BEFORE INSERT ON accounts FOR EACH ROW EXECUTE FUNCTION noted();
     ALTER TABLE accounts ENABLE ALWAYS TRIGGER always;
     ALTER TABLE loose NO FORCE ROW LEVEL SECURITY; ALTER TABLE loose DISABLE ROW LEVEL SECURITY`,
  );
  const from = (await first.log()).length;
  const moves = movesThat();
  await follow(moves);
  // What it writes into the comment on the publication is taken for names of tables, and nothing else.
  const evil = `COMMENT ON PUBLICATION ${streamName("a")} IS '[["public", "loose\\"; DROP TABLE events; --", "n"], 7, ["x"], null]'`;
  await inside(first, `${evil}; ALTER TABLE loose REPLICA IDENTITY DEFAULT`);
  await moves.leave("a");
  const log = (await first.log()).slice(from);
  const inTenants = log.split("\n").filter((line) => new RegExp(`^\\d+ (\\S+)@${own} `).test(line));
  const users = new Set(inTenants.map((line) => /^\d+ (\S+)@/.exec(line)?.[1] ?? ""));
  expect(users).toEqual(new Set([streamName("a"), own]));
  // The stream's role speaks the replication protocol alone.
  const ofStream = inTenants.filter((line) => line.includes(` ${streamName("a")}@`) && line.includes("statement:"));
  expect(ofStream).toEqual([]);
  expect(await inside(first, "SELECT count(*)::int AS n FROM events")).toEqual([{ n: 0 }]);
  const others = await inside(first, `SELECT DISTINCT who FROM ran WHERE who <> '${own}'`);
  expect(others).toEqual([]);
  const role = `SELECT rolname FROM pg_roles WHERE rolreplication AND rolname ~ 'tenant_'`;
  expect(await asAdministrator(first, role)).toEqual([]);
});

describe("why it cannot be copied while its tenant runs", () => {
  const why = () => movesThat().whyNotOnline(tenant, secrets, "db-2");

  it("is nothing where all is as it should be", async () => {
    expect(await why()).toBeUndefined();
  });

  it("is said of background updates, which pass, and of what no log has", async () => {
    await inside(
      first,
      "CREATE TABLE background_updates (update_name text); INSERT INTO background_updates VALUES ('re-index')",
    );
    expect(await why()).toEqual({ words: expect.stringContaining("re-index") as string, isPassing: true });
    await inside(first, "DELETE FROM background_updates; CREATE MATERIALIZED VIEW v AS SELECT 1 AS one");
    expect(await why()).toEqual({ words: expect.stringContaining("materialized views") as string, isPassing: false });
    await inside(first, "DROP MATERIALIZED VIEW v; SELECT lo_create(0)");
    expect(await why()).toEqual({ words: expect.stringContaining("large objects") as string, isPassing: false });
  });

  it("is said of administrators that lack a right, with what to grant", async () => {
    for (const server of [first, second])
      await asAdministrator(server, "CREATE ROLE platform LOGIN CREATEDB CREATEROLE PASSWORD 'secret'");
    const logins = [servers.all[0]!.login, servers.all[1]!.login] as AdminLogin[];
    try {
      Object.assign(logins[0]!, { user: "platform", password: "secret", database: "template1" });
      for (const server of [first, second])
        await asAdministrator(server, "GRANT CONNECT ON DATABASE template1 TO platform");
      expect((await why())?.words).toContain("ALTER ROLE platform REPLICATION");
      await asAdministrator(first, "ALTER ROLE platform REPLICATION");
      Object.assign(logins[1]!, { user: "platform", password: "secret", database: "template1" });
      expect((await why())?.words).toContain("GRANT SET ON PARAMETER session_replication_role TO platform");
      await asAdministrator(second, "GRANT SET ON PARAMETER session_replication_role TO platform");
      expect(await why()).toBeUndefined();
    } finally {
      Object.assign(logins[0]!, { ...first.admin, database: undefined });
      Object.assign(logins[1]!, { ...second.admin, database: undefined });
      await asAdministrator(second, "REVOKE ALL ON PARAMETER session_replication_role FROM platform");
      for (const server of [first, second]) {
        await asAdministrator(server, "REVOKE ALL ON DATABASE template1 FROM platform");
        await asAdministrator(server, "DROP ROLE platform");
      }
    }
  });

  it("is said of a server that streams no changes", () => {
    const good = {
      level: "logical",
      version: 180_000,
      may: true,
      slots: true,
      senders: true,
      user: "p",
      where: "db:5432",
    };
    expect(streamProblem(good)).toBeUndefined();
    expect(streamProblem({ ...good, level: "replica" })).toContain("has wal_level replica: set it to logical");
    expect(streamProblem({ ...good, may: false, version: 150_000 })).toContain("before 16");
    expect(streamProblem({ ...good, slots: false })).toContain("max_replication_slots");
    expect(streamProblem({ ...good, senders: false })).toContain("max_wal_senders");
  });
});

it("finishes a move that was cut off between the two servers, whatever became of its copy", async () => {
  const cut = movesThat((stage) => {
    if (stage === "aside") throw new Error("killed");
  });
  await follow(cut);
  await expect(move(cut)).rejects.toThrow("killed");
  servers.all[0]!.login.port = 1;
  await expect(move(movesThat())).rejects.toBeInstanceOf(HalfMoved);
  servers.all[0]!.login.port = first.admin.port;
  await move(movesThat());
  await expectMoved();
});
