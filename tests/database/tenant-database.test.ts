import { readFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { identifier, withConnection, type AdminLogin, type Login } from "../../src/database/connection.ts";
import { ensureTemplate } from "../../src/database/template.ts";
import type { PreparerDatabase } from "../../src/ports/preparers.ts";
import {
  describeDatabase,
  dropTenantDatabase,
  identifyDatabase,
  provisionTenantDatabase,
  shutOut,
} from "../../src/database/tenant-database.ts";
import { readKeptData, writeKeepsake } from "../../src/database/keepsakes.ts";
import { newTenantSecrets } from "../../src/model/tenant-secrets.ts";
import { SecretBox } from "../../src/platforms/local/store/secret-box.ts";
import { endOverdue } from "../../src/database/overdue.ts";
import { databaseSeconds, databaseUsage } from "../../src/database/usage.ts";
import { freePort } from "../../src/platforms/local/up/ports.ts";
import { startTestServer, type TestServer } from "./postgres-server.ts";

const VERSION = "1.163.2";
const TEMPLATE = "synapse_template_1_163_2";
const PASSWORD = "pass-of-clinic-a-X7";
const CLINIC = { name: "clinic-a", password: PASSWORD, version: VERSION };
const DATABASE = "tenant_clinic_a";

let server: TestServer;
let admin: AdminLogin;

beforeAll(async () => {
  server = await startTestServer();
  admin = server.admin;
  await ensureTemplate(admin, VERSION, smallSchema);
}, 60_000);
afterAll(() => server?.stop());
beforeEach(async () => {
  for (const name of ["clinic-a", "clinic-b"]) await dropTenantDatabase(admin, name);
});

/** Stands for Synapse's schema: a table, a sequence, a function, and the two version tables. */
async function smallSchema(database: PreparerDatabase): Promise<void> {
  const role = /^-c role=(\S+)$/.exec(database.options ?? "")?.[1] ?? "";
  await withConnection(database, database.dbname, async (client) => {
    await client.query(`SET ROLE ${identifier(role)}`);
    await client.query(`
      CREATE TABLE schema_version (version int); INSERT INTO schema_version VALUES (93);
      CREATE TABLE schema_compat_version (compat_version int); INSERT INTO schema_compat_version VALUES (91);
      CREATE TABLE events (id bigserial PRIMARY KEY, body text);
      CREATE FUNCTION touched() RETURNS int LANGUAGE sql AS 'SELECT 1'`);
  });
}

const as = (name: string, password = PASSWORD): Login => ({
  ...admin,
  user: `tenant_${name.replaceAll("-", "_")}`,
  password,
});
const ask = async (login: Login, database: string, sql: string): Promise<Record<string, unknown>[]> =>
  withConnection(login, database, async (client) => (await client.query(sql)).rows);

async function expectUsable(): Promise<void> {
  const rows = await ask(as("clinic-a"), DATABASE, "INSERT INTO events (body) VALUES ('x') RETURNING id");
  expect(rows).toHaveLength(1);
  // What only an owner may do, as a migration does.
  await ask(
    as("clinic-a"),
    DATABASE,
    "ALTER TABLE events ADD COLUMN more text; CREATE SCHEMA own; DROP FUNCTION touched()",
  );
  const others = await ask(
    admin,
    DATABASE,
    `SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND pg_get_userbyid(relowner) <> '${DATABASE}'`,
  );
  expect(others).toEqual([]);
}

test("clones the template's files where the server's administrator has chosen that, and the database is whole", async () => {
  const set = async (value: string) => {
    const statements = [`ALTER SYSTEM SET file_copy_method = ${value}`, "SELECT pg_reload_conf()"];
    for (const sql of statements) await withConnection(admin, "postgres", (client) => client.query(sql));
    const shown = async () => (await ask(admin, "postgres", "SHOW file_copy_method"))[0]?.["file_copy_method"];
    await expect.poll(shown).toBe(value === "DEFAULT" ? "copy" : value);
  };
  await set("clone");
  try {
    await provisionTenantDatabase(admin, CLINIC);
  } finally {
    await set("DEFAULT");
  }
  expect(await server.log()).toMatch(/CREATE DATABASE "?tenant_clinic_a"? TEMPLATE \S+ STRATEGY FILE_COPY/);
  expect(await ask(as("clinic-a"), DATABASE, "SELECT version FROM schema_version")).toEqual([{ version: 93 }]);
  expect(await ask(as("clinic-a"), DATABASE, "INSERT INTO events (body) VALUES ('x') RETURNING id")).toHaveLength(1);
});

describe("the template", () => {
  test("is the administrator's and allows no connections", async () => {
    const rows = await ask(
      admin,
      "postgres",
      `SELECT pg_get_userbyid(datdba) AS owner, datistemplate, datallowconn, datcollate, pg_encoding_to_char(encoding) AS encoding
       FROM pg_database WHERE datname = '${TEMPLATE}'`,
    );
    expect(rows).toEqual([
      { owner: admin.user, datistemplate: true, datallowconn: false, datcollate: "C", encoding: "UTF8" },
    ]);
    await expect(ask(admin, TEMPLATE, "SELECT 1")).rejects.toMatchObject({ name: "UserError" });
  });

  test("is not used when its making failed, and is made again", async () => {
    const broken = ensureTemplate(admin, "1.157.2", async (database) => {
      await smallSchema(database);
      throw new Error("the machine went down");
    });
    await expect(broken).rejects.toThrow("the machine went down");
    await expect(provisionTenantDatabase(admin, { ...CLINIC, version: "1.157.2" })).rejects.toMatchObject({
      code: "NotFound",
    });
    expect(await ensureTemplate(admin, "1.157.2", smallSchema)).toBe("synapse_template_1_157_2");
    await provisionTenantDatabase(admin, { ...CLINIC, version: "1.157.2" });
    await expectUsable();
  });

  test("is left alone by a tenant that is provisioned while another one is being made", async () => {
    const other = "1.150.0";
    await ensureTemplate(admin, other, async (database) => {
      await provisionTenantDatabase(admin, CLINIC);
      await smallSchema(database);
    });
    await expectUsable();
    await provisionTenantDatabase(admin, { name: "clinic-b", password: PASSWORD, version: other });
    expect(await ask(as("clinic-b"), "tenant_clinic_b", "SELECT version FROM schema_version")).toEqual([
      { version: 93 },
    ]);
    const privileges = "SELECT has_schema_privilege('synapse_template', 'public', 'CREATE') AS may";
    expect(await ask(admin, "tenant_clinic_b", privileges)).toEqual([{ may: false }]);
  });

  test("is made once when several controllers want it", async () => {
    let made = 0;
    const slow = async (database: PreparerDatabase) => {
      made++;
      await new Promise((resolve) => setTimeout(resolve, 300));
      await smallSchema(database);
    };
    const names = await Promise.all([1, 2, 3].map(() => ensureTemplate(admin, "1.160.0", slow)));
    expect(new Set(names)).toEqual(new Set(["synapse_template_1_160_0"]));
    expect(made).toBe(1);
  });
});

describe("a tenant's database", () => {
  test("can be used and migrated by its tenant", async () => {
    expect(await provisionTenantDatabase(admin, CLINIC)).toEqual({ kept: false });
    expect(await describeDatabase({ ...as("clinic-a"), database: DATABASE })).toEqual({
      exists: true,
      schemaVersion: 93,
      schemaCompatVersion: 91,
      epoch: 0,
    });
    await expectUsable();
  });

  test("keeps its data when it is provisioned again, with the new password only", async () => {
    await provisionTenantDatabase(admin, CLINIC);
    await ask(as("clinic-a"), DATABASE, "INSERT INTO events (body) VALUES ('kept')");
    expect(await provisionTenantDatabase(admin, { ...CLINIC, password: "another" })).toEqual({ kept: true });
    await expect(ask(as("clinic-a"), DATABASE, "SELECT 1")).rejects.toMatchObject({ code: "Unauthorized" });
    expect(await ask(as("clinic-a", "another"), DATABASE, "SELECT body FROM events")).toEqual([{ body: "kept" }]);
  });

  test("opens a database again that a move has left closed", async () => {
    await provisionTenantDatabase(admin, CLINIC);
    await ask(admin, "postgres", `ALTER DATABASE ${DATABASE} WITH ALLOW_CONNECTIONS false`);
    await shutOut(admin, "clinic-a");
    expect(await provisionTenantDatabase(admin, CLINIC)).toEqual({ kept: true });
    expect(await ask(as("clinic-a"), DATABASE, "SELECT 1 AS one")).toEqual([{ one: 1 }]);
  });

  test.each([
    ["the role was made", [`CREATE ROLE ${DATABASE}`]],
    ["the database was copied", [`CREATE ROLE ${DATABASE}`, `CREATE DATABASE ${DATABASE} TEMPLATE ${TEMPLATE}`]],
  ])("is completed after a crash when %s", async (_when, statements) => {
    for (const statement of statements) await ask(admin, "postgres", statement);
    expect(await provisionTenantDatabase(admin, CLINIC)).toEqual({ kept: false });
    await expectUsable();
  });

  test("is completed after a crash between giving away the objects and the database", async () => {
    await ask(admin, "postgres", `CREATE ROLE ${DATABASE}`);
    await ask(admin, "postgres", `CREATE DATABASE ${DATABASE} TEMPLATE ${TEMPLATE}`);
    await ask(admin, DATABASE, `ALTER TABLE events OWNER TO ${DATABASE}`);
    expect(await provisionTenantDatabase(admin, CLINIC)).toEqual({ kept: false });
    await expectUsable();
  });

  test("is made once by simultaneous calls", async () => {
    const results = await Promise.all([1, 2, 3].map(() => provisionTenantDatabase(admin, CLINIC)));
    expect(results.filter((result) => result.kept)).toHaveLength(2);
    await expectUsable();
  });

  test("is made while other tenants copy the same template", async () => {
    const names = Array.from({ length: 6 }, (_, i) => `many-${i}`);
    const made = await Promise.all(names.map((name) => provisionTenantDatabase(admin, { ...CLINIC, name })));
    expect(made.every(({ kept }) => !kept)).toBe(true);
    for (const name of names) await dropTenantDatabase(admin, name);
  });

  test("is closed to other tenants' roles, which cannot read passwords either", async () => {
    await provisionTenantDatabase(admin, CLINIC);
    await provisionTenantDatabase(admin, { ...CLINIC, name: "clinic-b", password: "of-b" });
    await expect(ask(as("clinic-b", "of-b"), DATABASE, "SELECT 1")).rejects.toMatchObject({ code: "Unauthorized" });
    await expect(ask(as("clinic-b", "of-b"), "tenant_clinic_b", "SELECT * FROM pg_authid")).rejects.toMatchObject({
      code: "Unauthorized",
    });
    await expect(ask(as("clinic-b", "of-b"), "tenant_clinic_b", "CREATE DATABASE mine")).rejects.toMatchObject({
      code: "Unauthorized",
    });
  });

  test("is dropped while in use, and dropping it again is no error", async () => {
    await provisionTenantDatabase(admin, CLINIC);
    await withConnection(as("clinic-a"), DATABASE, async () => dropTenantDatabase(admin, "clinic-a"));
    await dropTenantDatabase(admin, "clinic-a");
    const left = `SELECT rolname FROM pg_roles WHERE rolname = '${DATABASE}' UNION SELECT datname FROM pg_database WHERE datname = '${DATABASE}'`;
    expect(await ask(admin, "postgres", left)).toEqual([]);
    expect(await describeDatabase({ ...admin, database: DATABASE })).toEqual({ exists: false, epoch: 0 });
  });

  test("is dropped although another tenant granted its role something, and can be made again", async () => {
    await provisionTenantDatabase(admin, CLINIC);
    await provisionTenantDatabase(admin, { ...CLINIC, name: "clinic-b", password: "of-b" });
    await ask(as("clinic-b", "of-b"), "tenant_clinic_b", `GRANT SELECT ON events TO ${DATABASE}`);
    await dropTenantDatabase(admin, "clinic-a");
    await dropTenantDatabase(admin, "clinic-a");
    expect(await describeDatabase({ ...admin, database: DATABASE })).toEqual({ exists: false, epoch: 0 });
    expect(await ask(admin, "postgres", `SELECT rolcanlogin FROM pg_roles WHERE rolname = '${DATABASE}'`)).toEqual([
      { rolcanlogin: false },
    ]);
    await provisionTenantDatabase(admin, CLINIC);
    expect(await ask(as("clinic-a"), DATABASE, "SELECT 1 AS one")).toEqual([{ one: 1 }]);
    // The former grant is of no use in a database that it may not enter.
    await expect(ask(as("clinic-a"), "tenant_clinic_b", "SELECT * FROM events")).rejects.toMatchObject({
      code: "Unauthorized",
    });
  });

  test("shuts out a former owner from outside, and lets its successor in behind a higher epoch", async () => {
    await shutOut(admin, "clinic-a");
    await provisionTenantDatabase(admin, CLINIC);
    await ask(
      as("clinic-a"),
      DATABASE,
      `CREATE SCHEMA synapse_shards; CREATE TABLE synapse_shards.fence (epoch bigint, shard text, instance text);
       INSERT INTO synapse_shards.fence VALUES (4, '1.163.2-0', 'i')`,
    );
    const former = withConnection(as("clinic-a"), DATABASE, async (client) => {
      await shutOut(admin, "clinic-a");
      await client.query("SELECT 1");
    });
    await expect(former).rejects.toMatchObject({ code: "Unavailable" });
    await expect(ask(as("clinic-a"), DATABASE, "SELECT 1")).rejects.toMatchObject({ code: "Unauthorized" });
    expect(await provisionTenantDatabase(admin, CLINIC)).toEqual({ kept: true });
    expect(await describeDatabase({ ...as("clinic-a"), database: DATABASE })).toMatchObject({ epoch: 5 });
    expect(await ask(as("clinic-a"), DATABASE, "SELECT * FROM synapse_shards.fence")).toEqual([
      { epoch: "5", shard: "", instance: "" },
    ]);
    // Nobody is shut out by being provisioned again.
    await provisionTenantDatabase(admin, CLINIC);
    expect(await describeDatabase({ ...as("clinic-a"), database: DATABASE })).toMatchObject({ epoch: 5 });
  });

  test("needs no superuser: a platform role with the rights that docs/postgresql.md names makes, bounds, shuts out and drops", async () => {
    const page = await readFile(join(import.meta.dirname, "../../docs/postgresql.md"), "utf8");
    const statements = /```sql\n([^`]*)```/.exec(page)?.[1]?.replace("'PASSWORD'", "'of-platform'") ?? "";
    // One at a time: CREATE DATABASE is possible outside of transactions only.
    for (const statement of statements.split(";").filter((each) => each.trim() !== ""))
      await ask(admin, "postgres", statement);
    // Roles that were made by another administrator are that one's to give.
    await ask(admin, "postgres", "GRANT synapse_template TO synapse_platform WITH ADMIN OPTION");
    const platform = { ...admin, user: "synapse_platform", password: "of-platform", database: "synapse_platform" };
    await ensureTemplate(platform, "1.150.0", smallSchema);
    const clinic = { ...CLINIC, version: "1.150.0" };
    expect(await provisionTenantDatabase(platform, clinic)).toEqual({ kept: false });
    await expectUsable();
    const limits = await ask(
      as("clinic-a"),
      DATABASE,
      "SELECT rolconnlimit, current_setting('temp_file_limit') AS temp FROM pg_roles WHERE rolname = current_user",
    );
    expect(limits).toEqual([{ rolconnlimit: 20, temp: "2GB" }]);
    for (const other of ["postgres", "template1", "synapse_platform"])
      await expect(ask(as("clinic-a"), other, "SELECT 1")).rejects.toMatchObject({ name: "UserError" });
    // Another installation's tenant on the same server, which is not ours to stop.
    await provisionTenantDatabase(admin, { ...clinic, name: "foreign" });
    const endless = (name: string, database: string) =>
      ask(as(name), database, "SELECT pg_sleep(600)").then(String, String);
    const [own, foreign] = [endless("clinic-a", DATABASE), endless("foreign", "tenant_foreign")];
    const longest = { statementSeconds: 0.1, transactionSeconds: 600 };
    await expect.poll(() => endOverdue(platform, longest)).toEqual([DATABASE]);
    expect(await own).toMatch(/terminating connection/);
    // The server's administrator may: it was there all the time.
    await expect.poll(() => endOverdue(admin, longest)).toEqual(["tenant_foreign"]);
    expect(await foreign).toMatch(/terminating connection/);
    await shutOut(platform, "clinic-a");
    await expect(ask(as("clinic-a"), DATABASE, "SELECT 1")).rejects.toMatchObject({ code: "Unauthorized" });
    expect(await provisionTenantDatabase(platform, clinic)).toEqual({ kept: true });
    expect((await databaseUsage(platform, ["clinic-a"])).get("clinic-a")?.bytes).toBeGreaterThan(1_000_000);
    await dropTenantDatabase(platform, "clinic-a");
  });

  test("keeps a tenant's keys beside its database, where no tenant can read them, until its data is removed", async () => {
    const secrets = newTenantSecrets("a.example");
    const keepsake = { serverName: "a.example", secrets, config: "" };
    expect(await readKeptData(admin, undefined, "clinic-a")).toEqual({ hasDatabase: false });
    await provisionTenantDatabase(admin, CLINIC);
    expect(await readKeptData(admin, undefined, "clinic-a")).toEqual({ hasDatabase: true });
    await writeKeepsake(admin, undefined, "clinic-a", keepsake);
    expect(await readKeptData(admin, undefined, "clinic-a")).toEqual({ hasDatabase: true, keepsake });
    const box = new SecretBox(Buffer.alloc(32, 1));
    await writeKeepsake(admin, box, "clinic-a", keepsake);
    expect(await readKeptData(admin, box, "clinic-a")).toEqual({ hasDatabase: true, keepsake });
    const [row] = await ask(admin, "postgres", "SELECT body FROM synapse_shards.keepsakes");
    expect(JSON.stringify(row)).not.toContain(secrets.signingKey.trim());
    for (const wrong of [undefined, new SecretBox(Buffer.alloc(32, 2))])
      await expect(readKeptData(admin, wrong, "clinic-a")).rejects.toThrow(/put the key file of the store back/);
    await expect(ask(as("clinic-a"), "postgres", "SELECT 1")).rejects.toMatchObject({ name: "UserError" });
    await dropTenantDatabase(admin, "clinic-a");
    await provisionTenantDatabase(admin, CLINIC);
    expect(await readKeptData(admin, box, "clinic-a")).toEqual({ hasDatabase: true });
  });

  test("tells for how long the server ran a tenant's statements, whoever else waits", async () => {
    await provisionTenantDatabase(admin, CLINIC);
    const seconds = async () => (await databaseSeconds(admin, ["clinic-a", "nobody"])).get("clinic-a") ?? 0;
    const before = await seconds();
    await ask(as("clinic-a"), DATABASE, "SELECT pg_sleep(0.3)");
    await expect.poll(seconds).toBeGreaterThanOrEqual(before + 0.29);
    expect(await databaseSeconds(admin, ["nobody"])).toEqual(new Map());
  });

  test("tells how much each tenant takes, without entering its database", async () => {
    await provisionTenantDatabase(admin, CLINIC);
    await ask(as("clinic-a"), DATABASE, "INSERT INTO events (body) SELECT 'x' FROM generate_series(1, 1000)");
    await expect
      .poll(async () => (await databaseUsage(admin, ["clinic-a", "nobody"])).get("clinic-a"))
      .toMatchObject({
        connections: expect.any(Number) as number,
        rowsWritten: expect.toSatisfy((n: number) => n >= 1000) as number,
      });
    expect((await databaseUsage(admin, ["clinic-a", "nobody"])).get("clinic-a")?.bytes).toBeGreaterThan(1_000_000);
  });

  test("is one database by the server's identification, whatever name leads to it, and another one when it is made again", async () => {
    await provisionTenantDatabase(admin, CLINIC);
    const login = { ...as("clinic-a"), database: DATABASE };
    const id = await identifyDatabase(login);
    expect(id).toMatch(/^\d{15,20}\/\d+$/);
    expect(await identifyDatabase({ ...login, host: "localhost" })).toBe(id);
    expect(await identifyDatabase({ ...admin, database: "postgres" })).not.toBe(id);
    await dropTenantDatabase(admin, "clinic-a");
    await provisionTenantDatabase(admin, CLINIC);
    expect(await identifyDatabase(login)).not.toBe(id);
  });

  test("has no identification where the server keeps that from its users", async () => {
    await provisionTenantDatabase(admin, CLINIC);
    await ask(admin, DATABASE, "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC");
    expect(await identifyDatabase({ ...as("clinic-a"), database: DATABASE })).toBeUndefined();
  });

  test("keeps passwords out of the server's log", async () => {
    await provisionTenantDatabase(admin, CLINIC);
    const log = await server.log();
    expect(log).toContain("ALTER ROLE");
    expect(log).not.toContain(PASSWORD);
  });
});

describe("a server that is not well", () => {
  test("is called unavailable, without its password, when nothing listens", async () => {
    const away = { ...admin, port: await freePort("127.0.0.1") };
    const failure = await provisionTenantDatabase(away, CLINIC).catch((error: unknown) => error);
    expect(failure).toMatchObject({ name: "UserError", code: "Unavailable" });
    expect((failure as Error).message).not.toContain(admin.password);
  });

  test("is given up when it accepts and never answers", async () => {
    const silent = createServer((socket) => socket.on("error", () => {}));
    await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
    const address = silent.address();
    const port = typeof address === "object" && address ? address.port : 0;
    const bounds = { connectMs: 200, statementMs: 1000 };
    await expect(dropTenantDatabase({ ...admin, port }, "clinic-a", bounds)).rejects.toMatchObject({
      code: "Unavailable",
    });
    silent.close();
  });

  test("ends a statement that takes too long", async () => {
    const slow = withConnection(admin, "postgres", (client) => client.query("SELECT pg_sleep(60)"), {
      connectMs: 2000,
      statementMs: 200,
    });
    await expect(slow).rejects.toMatchObject({ code: "Timeout" });
  });

  test("says what it lacks, whoever asks", async () => {
    await provisionTenantDatabase(admin, CLINIC);
    const raising = (state: string) => `DO $$ BEGIN RAISE EXCEPTION 'it cannot' USING ERRCODE = '${state}'; END $$`;
    for (const [state, reason] of [
      ["53100", "DatabaseFull"],
      ["53200", "DatabaseOverloaded"],
      ["53400", "DatabaseOverloaded"],
    ] as const)
      await expect(ask(admin, "postgres", raising(state)), state).rejects.toMatchObject({
        code: "Unavailable",
        reason,
      });
    await expect(ask(admin, "postgres", raising("57P03"))).rejects.toMatchObject({
      code: "Unavailable",
      message: expect.stringContaining("does not answer"),
    });
    await ask(admin, "postgres", `ALTER ROLE ${DATABASE} CONNECTION LIMIT 0`);
    const crowded = describeDatabase({ ...as("clinic-a"), database: DATABASE });
    await expect(crowded).rejects.toMatchObject({
      reason: "DatabaseOverloaded",
      message: expect.stringMatching(/too many connections/),
    });
    await ask(
      admin,
      "postgres",
      `ALTER ROLE ${DATABASE} CONNECTION LIMIT -1; ALTER DATABASE ${DATABASE} SET default_transaction_read_only = on`,
    );
    await expect(ask(as("clinic-a"), DATABASE, "CREATE TABLE x ()")).rejects.toMatchObject({
      code: "Unavailable",
      reason: "DatabaseReadOnly",
    });
  });

  test("is told apart from one that refuses a password", async () => {
    const wrong = { ...admin, password: "secret-but-wrong" };
    const failure = await describeDatabase({ ...wrong, database: "postgres" }).catch((error: unknown) => error);
    expect(failure).toMatchObject({ code: "Unauthorized" });
    expect(String(failure)).not.toContain("secret-but-wrong");
  });
});
