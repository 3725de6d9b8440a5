import { setTimeout as sleep } from "node:timers/promises";
import { Client } from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { withConnection, type AdminLogin, type Login } from "../../src/database/connection.ts";
import { readFence } from "../../src/database/fence.ts";
import { endOverdue } from "../../src/database/overdue.ts";
import { ensureTemplate } from "../../src/database/template.ts";
import {
  describeDatabase,
  dropTenantDatabase,
  provisionTenantDatabase,
  shutOut,
} from "../../src/database/tenant-database.ts";
import { startTestServer, type TestServer } from "../database/postgres-server.ts";

const VERSION = "1.163.2";
const PASSWORD = "of-mallory";
const MALLORY = { name: "mallory", password: PASSWORD, version: VERSION };
const DATABASE = "tenant_mallory";
const BOUNDS = { connectMs: 5_000, statementMs: 5_000 };

let server: TestServer;
let admin: AdminLogin;
let mallory: Login & { database: string };

beforeAll(async () => {
  server = await startTestServer();
  admin = server.admin;
  await ensureTemplate(admin, VERSION, async (database) => {
    await withConnection(database, database.dbname, async (client) => {
      await client.query("SET ROLE synapse_template");
      await client.query("CREATE TABLE schema_version (version int); INSERT INTO schema_version VALUES (93)");
    });
  });
  mallory = { host: admin.host, port: admin.port, user: DATABASE, password: PASSWORD, database: DATABASE };
}, 120_000);
afterAll(() => server?.stop());
beforeEach(async () => {
  await dropTenantDatabase(admin, "mallory");
  await provisionTenantDatabase(admin, MALLORY);
});

async function ask(login: Login, database: string, sql: string): Promise<Record<string, unknown>[]> {
  return withConnection(login, database, async (client) => (await client.query(sql)).rows as Record<string, unknown>[]);
}
const asMallory = (sql: string) => ask(mallory, DATABASE, sql);

async function isSuperuser(): Promise<boolean> {
  const [row] = await ask(admin, "postgres", `SELECT rolsuper FROM pg_roles WHERE rolname = '${DATABASE}'`);
  return row?.["rolsuper"] === true;
}

/** Takes the rights of the role that runs it, if it has any. */
const PAYLOAD = `CREATE FUNCTION public.payload() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN
    BEGIN EXECUTE 'ALTER ROLE ${DATABASE} SUPERUSER'; EXCEPTION WHEN OTHERS THEN NULL; END;
    RETURN NEW;
  END $$`;

describe("a tenant's role that is hostile gets nothing of the administrator's", () => {
  test("by a trigger on the fence, whatever the controller does with its database", async () => {
    await asMallory(`
      CREATE SCHEMA synapse_shards; CREATE TABLE synapse_shards.fence (epoch bigint, shard text, instance text);
      INSERT INTO synapse_shards.fence VALUES (4, '1.163.2-0', 'i'); ${PAYLOAD};
      CREATE TRIGGER t BEFORE UPDATE ON synapse_shards.fence FOR EACH ROW EXECUTE FUNCTION public.payload()`);
    await shutOut(admin, "mallory");
    await provisionTenantDatabase(admin, MALLORY);
    expect(await isSuperuser()).toBe(false);
    expect((await readFence(mallory, BOUNDS))?.epoch).toBe(5);
  });

  test("by functions, operators and a search path of its own: the administrator is never in its database again", async () => {
    await asMallory(`
      CREATE FUNCTION public.to_regclass(text) RETURNS regclass LANGUAGE plpgsql AS $$
        BEGIN EXECUTE 'ALTER ROLE ${DATABASE} SUPERUSER'; RETURN NULL; END $$;
      ALTER DATABASE ${DATABASE} SET search_path = public, pg_catalog;
      ALTER ROLE ${DATABASE} SET search_path = public, pg_catalog`);
    const marker = `entered-${process.pid}`;
    await ask(admin, "postgres", `SELECT '${marker}'`);
    await shutOut(admin, "mallory");
    await provisionTenantDatabase(admin, MALLORY);
    expect(await describeDatabase(mallory)).toMatchObject({ schemaVersion: 93 });
    expect(await isSuperuser()).toBe(false);
    const since = (await server.log()).split(marker).at(-1) ?? "";
    expect(since).not.toMatch(new RegExp(`connection authorized: user=${admin.user} database=${DATABASE}`));
  });

  test("by an event trigger, which it may not make", async () => {
    await expect(
      asMallory(`CREATE FUNCTION f() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN END $$;
        CREATE EVENT TRIGGER e ON ddl_command_start EXECUTE FUNCTION f()`),
    ).rejects.toMatchObject({ code: "Unauthorized" });
  });

  test("by numbers and texts that the controller reads: they are bounded, and must be numbers", async () => {
    await asMallory(`
      DROP TABLE schema_version;
      CREATE VIEW schema_version AS SELECT repeat('9', 200000000) AS version FROM generate_series(1, 1000000)`);
    await expect(describeDatabase(mallory)).rejects.toThrow(
      /schema_version.version in the database is not a whole number/,
    );
    await asMallory(`
      CREATE SCHEMA synapse_shards;
      CREATE VIEW synapse_shards.fence AS
        SELECT 9223372036854775807 AS epoch, repeat('x', 100000) AS shard, '' AS instance FROM generate_series(1, 1000)`);
    await expect(readFence(mallory, BOUNDS)).rejects.toThrow(/epoch in the database is not a whole number/);
  });

  test("by a fence that does not let its epoch be raised: it stays shut out, and nobody else waits", async () => {
    await asMallory(`
      CREATE SCHEMA synapse_shards; CREATE TABLE synapse_shards.fence (epoch bigint, shard text, instance text);
      INSERT INTO synapse_shards.fence VALUES (4, 's', 'i');
      CREATE FUNCTION stuck() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN NEW; END $$;
      CREATE TRIGGER t BEFORE UPDATE ON synapse_shards.fence FOR EACH ROW EXECUTE FUNCTION stuck()`);
    await shutOut(admin, "mallory");
    const bounds = { connectMs: 2_000, statementMs: 1_000 };
    await expect(provisionTenantDatabase(admin, MALLORY, bounds)).rejects.toMatchObject({ code: "Timeout" });
    await expect(asMallory("SELECT 1")).rejects.toMatchObject({ code: "Unauthorized" });
    await provisionTenantDatabase(admin, { ...MALLORY, name: "neighbour" });
    await dropTenantDatabase(admin, "neighbour");
  });
});

describe("a tenant's role that is hostile takes little of the server", () => {
  test.each(["postgres", "template1", "synapse_template_1_163_2"])("and does not get into %s", async (database) => {
    await expect(ask(mallory, database, "SELECT 1")).rejects.toMatchObject({ name: "UserError" });
  });

  test("and holds no lock that the administrator waits for", async () => {
    const client = new Client({ ...mallory });
    await client.connect();
    for (const name of [DATABASE, "tenant_neighbour", "synapse_template", "synapse_template_1_163_2"])
      await client.query("SELECT pg_advisory_lock(hashtextextended($1, 0))", [`synapse-shards ${name}`]);
    const begin = performance.now();
    await provisionTenantDatabase(admin, MALLORY);
    await provisionTenantDatabase(admin, { ...MALLORY, name: "neighbour" });
    expect(performance.now() - begin).toBeLessThan(20_000);
    await client.end();
    await dropTenantDatabase(admin, "neighbour");
  });

  test("and has twenty connections at the most, so that others find one", async () => {
    const clients: Client[] = [];
    const open = async () => {
      const client = new Client({ ...mallory });
      client.on("error", () => {});
      await client.connect();
      clients.push(client);
    };
    try {
      for (let n = 0; n < 20; n++) await open();
      await expect(open()).rejects.toThrow(/too many connections for role/);
    } finally {
      await Promise.all(clients.map((client) => client.end()));
    }
  });

  test("and can lift neither its connections nor its temporary files", async () => {
    await expect(asMallory(`ALTER ROLE ${DATABASE} CONNECTION LIMIT -1`)).rejects.toMatchObject({
      code: "Unauthorized",
    });
    await expect(asMallory("SET temp_file_limit = -1")).rejects.toMatchObject({ code: "Unauthorized" });
    await asMallory(`ALTER ROLE ${DATABASE} RESET ALL`);
    expect(await asMallory("SHOW temp_file_limit")).toEqual([{ temp_file_limit: "2GB" }]);
  });

  test("and is stopped where it fills the disk with temporary files", async () => {
    await ask(admin, "postgres", `ALTER ROLE ${DATABASE} SET temp_file_limit = '8MB'`);
    await expect(
      asMallory(
        "SELECT count(*) FROM (SELECT repeat('x', 100) || n AS t FROM generate_series(1, 400000) n ORDER BY 1) s",
      ),
    ).rejects.toThrow(/temp_file_limit/);
  });

  test("and has a bound on each statement, unless it asks for another", async () => {
    const client = new Client({ ...mallory });
    await client.connect();
    expect((await client.query("SHOW statement_timeout")).rows).toEqual([{ statement_timeout: "1h" }]);
    await client.end();
  });

  test("and is ended from outside where it lifted that bound, or leaves a transaction open", async () => {
    const open = async (...statements: string[]) => {
      const client = new Client({ ...mallory });
      const gone = new Promise<string>((resolve) => client.on("error", (error) => resolve(error.message)));
      await client.connect();
      for (const statement of statements) await client.query(statement);
      return { client, gone };
    };
    const [busy, idle, honest] = [
      await open("SET statement_timeout = 0"),
      await open("BEGIN", "SELECT 1"),
      await open(),
    ];
    const endless = busy.client.query("SELECT pg_sleep(600)").then(String, String);
    await sleep(300);
    expect(await endOverdue(admin)).toEqual([]);
    const longest = { statementSeconds: 0.2, transactionSeconds: 600 };
    expect(await endOverdue(admin, longest)).toEqual([DATABASE]);
    expect(await endless).toMatch(/terminating connection/);
    expect(await endOverdue(admin, { statementSeconds: 600, transactionSeconds: 0.2 })).toEqual([DATABASE]);
    expect(await idle.gone).toMatch(/terminat/);
    expect(await endOverdue(admin, { statementSeconds: 0, transactionSeconds: 0 })).toEqual([]);
    expect((await honest.client.query("SELECT 1 AS one")).rows).toEqual([{ one: 1 }]);
    await honest.client.end();
  });
});
