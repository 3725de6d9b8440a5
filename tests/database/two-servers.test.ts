import { spawn } from "node:child_process";
import { join } from "node:path";
import { Client } from "pg";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { withConnection, type AdminLogin } from "../../src/database/connection.ts";
import { PostgresMoves, type MoveStage } from "../../src/database/moves.ts";
import { besideNames, tenantDatabaseName } from "../../src/database/names.ts";
import type { PgPrograms } from "../../src/database/pg-programs.ts";
import { PostgresTenantDatabases } from "../../src/database/postgres-tenant-databases.ts";
import { DatabaseServers } from "../../src/database/servers.ts";
import { listTenantDatabases } from "../../src/database/tenant-database.ts";
import { HalfMoved } from "../../src/ports/database-moves.ts";
import { newTenantSecrets } from "../../src/model/tenant-secrets.ts";
import type { Tenant } from "../../src/model/tenant.ts";
import { systemEnvironment } from "../../src/platforms/local/environment.ts";
import { ensurePostgres } from "../../src/platforms/local/toolchain/toolchain.ts";
import { STATUS, SPEC } from "../ports/store-contract.ts";
import { startTestServer, type TestServer } from "./postgres-server.ts";
import { smallPreparers } from "./small-schema.ts";
import { TLS_BIN_DIR } from "./tls-server.ts";

let first: TestServer;
let second: TestServer;
const records = new Map<string, Tenant>();

beforeAll(async () => {
  [first, second] = await Promise.all([startTestServer(), startTestServer()]);
}, 120_000);
afterAll(() => Promise.all([first?.stop(), second?.stop()]));
afterEach(async () => {
  const { databases } = cluster();
  for (const name of records.keys()) await databases.drop(name);
  records.clear();
});

function cluster({
  weights = [1, 1],
  most = undefined as number | undefined,
  away = undefined as AdminLogin | undefined,
} = {}) {
  const servers = new DatabaseServers(
    [
      { name: "main", weight: weights[0]!, maxDatabases: most, login: first.admin },
      { name: "db-2", weight: weights[1]!, maxDatabases: most, login: away ?? second.admin },
    ],
    (name) => records.get(name),
  );
  return { servers, databases: new PostgresTenantDatabases({ servers, preparers: smallPreparers }) };
}

const secrets = newTenantSecrets("a.example");
const secretsOf = (name: string) => ({ ...secrets, serverName: `${name}.example` });

function tenantOf(name: string, databaseServer?: string): Tenant {
  const tenant: Tenant = {
    kind: "Tenant",
    metadata: { name, creationTimestamp: "2026-01-01T00:00:00Z", resourceVersion: "1", generation: 1 },
    spec: { ...SPEC, serverName: `${name}.example`, release: "1.163.2" },
    status: { ...STATUS, provisioned: false, ...(databaseServer === undefined ? {} : { databaseServer }) },
  };
  records.set(name, tenant);
  return tenant;
}

/** As the controller does: the record first. */
async function provisioned(
  { databases }: Pick<ReturnType<typeof cluster>, "databases">,
  name: string,
): Promise<Tenant> {
  const tenant = tenantOf(name, await databases.placeFor(name));
  await databases.provision(tenant, secretsOf(name));
  return tenant;
}

it("shares new databases by weight, and everything that looks for one finds it where it is", async () => {
  const here = cluster({ weights: [1, 2] });
  const names = ["a", "b", "c", "d", "e", "f"];
  const tenants = [];
  for (const name of names) tenants.push(await provisioned(here, name));
  expect(
    [await listTenantDatabases(first.admin), await listTenantDatabases(second.admin)].map((l) => l.length),
  ).toEqual([2, 4]);
  const onSecond = tenants.find(({ status }) => status.databaseServer === "db-2")!;
  const { name } = onSecond.metadata;
  const { databases } = here;
  expect(databases.address(onSecond)).toMatchObject({ port: second.admin.port, name: `tenant_${name}` });
  expect(await databases.keptData(name)).toMatchObject({
    hasDatabase: true,
    keepsake: { serverName: `${name}.example` },
  });
  expect([...(await databases.usage(names)).keys()].toSorted()).toEqual(names);
  expect((await databases.activeSeconds(names)).size).toBe(6);
  await databases.fenceOff(onSecond);
  await withConnection(second.admin, "postgres", async (client) => {
    const { rows } = await client.query("SELECT rolcanlogin AS may FROM pg_roles WHERE rolname = $1", [
      `tenant_${name}`,
    ]);
    expect(rows).toEqual([{ may: false }]);
  });
  await databases.drop(name);
  expect(await databases.keptData(name)).toEqual({ hasDatabase: false });
});

it("places many at once without giving a server more than its most, and says it where all are full", async () => {
  const { databases } = cluster({ most: 2 });
  const names = ["a", "b", "c", "d"];
  const places = await Promise.all(names.map((name) => databases.placeFor(name)));
  expect(places.map(String).toSorted()).toEqual(["db-2", "db-2", "main", "main"]);
  expect(await databases.placeFor("a")).toBe(places[0]);
  await expect(databases.placeFor("e")).rejects.toMatchObject({
    reason: "DatabaseServersFull",
    message: expect.stringContaining("main has 2 of 2, db-2 has 2 of 2"),
  });
});

it("finds the database of one that was deleted, or whose record was lost, instead of making another", async () => {
  const here = cluster({ weights: [0, 1] });
  await provisioned(here, "a");
  records.delete("a");
  expect(await cluster({ weights: [1, 0] }).databases.placeFor("a")).toBe("db-2");
  tenantOf("a");
  expect(await cluster({ weights: [1, 0] }).databases.placeFor("a")).toBe("db-2");
});

it("makes no database while a server is away that may have one, and serves those of the others", async () => {
  const a = await provisioned(cluster({ weights: [1, 0] }), "a");
  const { databases } = cluster({ away: { ...second.admin, port: 1 } });
  await expect(databases.placeFor("b")).rejects.toMatchObject({ code: "Unavailable" });
  a.status.provisioned = true;
  expect(await databases.placeFor("a")).toBe("main");
  expect([...(await databases.usage(["a"])).keys()]).toEqual(["a"]);
  expect(await databases.describe(a, secretsOf("a"))).toMatchObject({ schemaVersion: 93 });
});

it("makes no empty database for a tenant whose database was kept, on the server that had it or on another", async () => {
  const here = cluster({ weights: [0, 1] });
  await provisioned(here, "a");
  // Without the server, as it was deleted before its record named one; and with its name.
  const alone = new DatabaseServers([{ name: "main", weight: 1, login: first.admin }], (name) => records.get(name));
  const away = new PostgresTenantDatabases({ servers: alone, preparers: smallPreparers });
  const unnamed = tenantOf("a");
  unnamed.status.databaseKept = true;
  await expect(away.provision(unnamed, secretsOf("a"))).rejects.toMatchObject({
    reason: "DatabaseMissing",
    message: expect.stringContaining("tenant_a of the deleted tenant was kept"),
  });
  const others = new DatabaseServers(
    ["main", "db-3"].map((name) => ({ name, weight: 1, login: first.admin })),
    (name) => records.get(name),
  );
  await expect(others.placeFor("a")).rejects.toMatchObject({ reason: "DatabaseMissing" });
  const named = tenantOf("a", "db-2");
  await expect(away.provision(named, secretsOf("a"))).rejects.toMatchObject({ reason: "DatabaseServerUnknown" });
  expect(await listTenantDatabases(first.admin)).toEqual([]);
  named.status.databaseKept = true;
  expect(await here.databases.placeFor("a")).toBe("db-2");
  await here.databases.provision(named, secretsOf("a"));
  expect(await listTenantDatabases(second.admin)).toEqual(["tenant_a"]);
});

it("names a server that is not in the configuration any more, and touches no other", async () => {
  const lost = tenantOf("a", "db-9");
  const { databases } = cluster();
  await expect(databases.provision(lost, secretsOf("a"))).rejects.toMatchObject({
    reason: "DatabaseServerUnknown",
    message: expect.stringContaining("there are: main, db-2"),
  });
  expect(await listTenantDatabases(first.admin)).toEqual([]);
});

describe("a database that is moved to another server", () => {
  const names = besideNames("a");
  const own = tenantDatabaseName("a");
  const STAGES: MoveStage[] = ["fenced", "copied", "ready", "aside", "exchanged"];
  let programs: PgPrograms;
  let here: ReturnType<typeof cluster>;
  let tenant: Tenant;

  beforeEach(async () => {
    programs = { binDir: (await ensurePostgres()).binDir, environment: systemEnvironment() };
    here = cluster({ weights: [1, 0] });
    tenant = await provisioned(here, "a");
    tenant.status.provisioned = true;
    await inside(first, "INSERT INTO events (body) SELECT 'event ' || n FROM generate_series(1, 500) n");
    await inside(first, "INSERT INTO e2e_one_time_keys_json VALUES ('key')");
  });

  const inside = (server: TestServer, sql: string, database = own) =>
    withConnection(
      { ...server.admin, user: own, password: secrets.databasePassword },
      database,
      async (client) => (await client.query<Record<string, unknown>>(sql)).rows,
    );
  const databasesOf = (server: TestServer) =>
    withConnection(server.admin, "postgres", async (client) => {
      const { rows } = await client.query<{ name: string }>(
        "SELECT datname AS name FROM pg_database WHERE datname ~ 'tenant_a$' ORDER BY 1",
      );
      return rows.map(({ name }) => name);
    });
  const movesThat = (reached: (stage: MoveStage) => void) => new PostgresMoves(here.servers, programs, reached);
  const move = (moves = movesThat(() => {}), epoch = 7) => moves.move(tenant, secrets, { to: "db-2", epoch });

  async function expectMoved(): Promise<void> {
    expect(await databasesOf(second)).toEqual([own]);
    expect(await databasesOf(first)).toEqual([names.moved]);
    expect(await inside(second, "SELECT count(*)::int AS n, max(id)::int AS last FROM events")).toEqual([
      { n: 500, last: 500 },
    ]);
    // Nobody gives a key out twice who was not set back in time: it stays.
    expect(await inside(second, "SELECT key_json FROM e2e_one_time_keys_json")).toEqual([{ key_json: "key" }]);
    expect(await inside(second, "SELECT epoch::int, shard FROM synapse_shards.fence")).toEqual([
      { epoch: 7, shard: "" },
    ]);
    expect(await inside(second, "INSERT INTO events (body) VALUES ('next') RETURNING id::int")).toEqual([{ id: 501 }]);
    await inside(second, "DELETE FROM events WHERE id = 501");
    await inside(second, "SELECT setval('events_id_seq', 500)");
  }

  it("has all rows and sequences there; who had the former one is shut out, which is kept, closed", async () => {
    const stale = new Client({ ...first.admin, user: own, password: secrets.databasePassword, database: own });
    stale.on("error", () => {});
    await stale.connect();
    expect(await move()).toMatchObject({ tables: 5, rows: 504 });
    await expect(stale.query("INSERT INTO events (body) VALUES ('too late')")).rejects.toThrow(
      /terminat|not queryable/,
    );
    await expect(inside(first, "SELECT 1")).rejects.toMatchObject({ code: "NotFound" });
    await expect(inside(first, "SELECT 1", names.moved)).rejects.toMatchObject({ code: "Unavailable" });
    await expectMoved();
    await movesThat(() => {}).forget("a", "main");
    expect(await databasesOf(first)).toEqual([]);
  });

  it.skipIf(!TLS_BIN_DIR)("goes to a server of another version, and back (needs one, such as Debian's)", async () => {
    const older = await startTestServer(TLS_BIN_DIR);
    try {
      here = cluster({ weights: [1, 0], away: older.admin });
      const there = async (to: string, epoch: number) => {
        const moved = await movesThat(() => {}).move(tenant, secrets, { to, epoch });
        tenant.status.databaseServer = to;
        return moved;
      };
      expect(await there("db-2", 7)).toMatchObject({ tables: 5, rows: 504 });
      expect(await inside(older, "INSERT INTO events (body) VALUES ('next') RETURNING id::int")).toEqual([{ id: 501 }]);
      expect(await there("main", 8)).toMatchObject({ tables: 5, rows: 505 });
      expect(await inside(first, "SELECT count(*)::int AS n FROM events")).toEqual([{ n: 501 }]);
      await here.databases.drop("a");
    } finally {
      records.clear();
      await older.stop();
    }
  });

  it("is complete and one, wherever the work was cut off, once it is repeated", async () => {
    for (const stage of STAGES) {
      const cut = movesThat((reached) => {
        if (reached === stage) throw new Error(`killed when ${stage}`);
      });
      await expect(move(cut)).rejects.toThrow(`killed when ${stage}`);
      // Whatever happened, one of the two is whole, and never are there two that could be taken for it.
      const all = [...(await databasesOf(first)), ...(await databasesOf(second))];
      expect(all.filter((name) => name === own).length, stage).toBeLessThanOrEqual(1);
      await move();
      await expectMoved();
      // And back, with what is there now.
      tenant.status.databaseServer = "db-2";
      await movesThat(() => {}).move(tenant, secrets, { to: "main", epoch: 7 });
      tenant.status.databaseServer = "main";
      expect(await databasesOf(first), stage).toEqual([own]);
      await movesThat(() => {}).forget("a", "db-2");
    }
  });

  it("survives the death of the process that copies it", async () => {
    await inside(first, "INSERT INTO events (body) SELECT repeat('x', 1000) FROM generate_series(1, 40000)");
    const login = (server: TestServer) => ({ ...server.admin });
    const input = { first: login(first), second: login(second), binDir: programs.binDir, tenant, secrets, epoch: 5 };
    const child = spawn(process.execPath, [join(import.meta.dirname, "move-process.ts"), JSON.stringify(input)]);
    const ended = new Promise((done) => child.once("close", done));
    await expect.poll(() => databasesOf(second)).not.toEqual([]);
    child.kill("SIGKILL");
    await ended;
    expect(await inside(first, "SELECT count(*)::int AS n FROM events")).toEqual([{ n: 40_500 }]);
    expect(await move()).toMatchObject({ rows: 40_504 });
    expect(await databasesOf(second)).toEqual([own]);
    expect(await inside(second, "SELECT count(*)::int AS n FROM events")).toEqual([{ n: 40_500 }]);
  });

  it("stays where it is, whole, where the other server is away, or has another database of the name", async () => {
    const away = cluster({ away: { ...second.admin, port: 1 } });
    const elsewhere = new PostgresMoves(away.servers, programs);
    await expect(elsewhere.move(tenant, secrets, { to: "db-2", epoch: 7 })).rejects.toMatchObject({
      code: "Unavailable",
    });
    await withConnection(second.admin, "postgres", (client) => client.query(`CREATE DATABASE ${own}`));
    await expect(move()).rejects.toMatchObject({ code: "Conflict" });
    await withConnection(second.admin, "postgres", (client) => client.query(`DROP DATABASE ${own}`));
    expect(await databasesOf(first)).toEqual([own]);
    expect(await inside(first, "SELECT count(*)::int AS n FROM events")).toEqual([{ n: 500 }]);
  });

  it("keeps going where it was cut off half-way and a server is away or unknown at first, and makes no other in its place", async () => {
    const cut = movesThat((reached) => {
      if (reached === "aside") throw new Error("killed");
    });
    await expect(move(cut)).rejects.toThrow("killed");
    const { port } = first.admin;
    here.servers.all[0]!.login.port = 1;
    await expect(move()).rejects.toBeInstanceOf(HalfMoved);
    here.servers.all[0]!.login.port = port;
    const alone = new DatabaseServers([here.servers.all[0]!], (name) => records.get(name));
    await expect(move(new PostgresMoves(alone, programs))).rejects.toBeInstanceOf(HalfMoved);
    for (const servers of [alone, here.servers]) {
      const databases = new PostgresTenantDatabases({ servers, preparers: smallPreparers });
      await expect(databases.provision(tenant, newTenantSecrets("a.example"))).rejects.toMatchObject({
        reason: "DatabaseMissing",
        message: expect.stringContaining(names.moved),
      });
      expect(await databases.keptData("a")).toMatchObject({
        hasDatabase: false,
        stranded: expect.arrayContaining([names.moved]),
        keepsake: { secrets: { databasePassword: secrets.databasePassword } },
      });
    }
    expect(await databasesOf(first)).toEqual([names.moved]);
    await move();
    await expectMoved();
  });

  it("is put back where the copy cannot take its place, and the copy's remains are in nobody's way", async () => {
    const broken = movesThat((stage) => {
      // At once: the exchange on the other server begins after this.
      if (stage === "aside") here.servers.all[1]!.login.port = 1;
    });
    const { port } = second.admin;
    await expect(move(broken)).rejects.toMatchObject({ code: "Unavailable" });
    here.servers.all[1]!.login.port = port;
    expect(await databasesOf(first)).toEqual([own]);
    expect(await databasesOf(second)).toEqual([names.restored]);
    await move();
    await expectMoved();
  });
});
