import { afterAll, afterEach, beforeAll, expect, it } from "vitest";
import { withConnection, type AdminLogin } from "../../src/database/connection.ts";
import { PostgresTenantDatabases } from "../../src/database/postgres-tenant-databases.ts";
import { DatabaseServers } from "../../src/database/servers.ts";
import { listTenantDatabases } from "../../src/database/tenant-database.ts";
import { newTenantSecrets } from "../../src/model/tenant-secrets.ts";
import type { Tenant } from "../../src/model/tenant.ts";
import { STATUS, SPEC } from "../ports/store-contract.ts";
import { startTestServer, type TestServer } from "./postgres-server.ts";
import { smallPreparers } from "./small-schema.ts";

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

const secretsOf = (name: string) => newTenantSecrets(`${name}.example`);

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
  expect(await databases.describe(a, secretsOf("a")).catch(() => "asked")).toBe("asked");
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
