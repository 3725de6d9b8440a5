import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { type ClusterUnderTest, startClusterUnderTest } from "./cli-under-test.ts";

let cluster: ClusterUnderTest;
beforeEach(async () => {
  cluster = await startClusterUnderTest({ here: true });
  for (const shard of ["1.163.2-0", "1.163.2-1"]) cluster.service.addShard(shard);
  for (const name of ["a", "b", "c"]) {
    const tenant = cluster.service.addTenant(name);
    tenant.spec.labels = { plan: name === "c" ? "large" : "small" };
    cluster.service.run(tenant, "1.163.2-0");
  }
});
afterEach(async () => {
  vi.restoreAllMocks();
  await cluster.close();
});

async function tenant(verb: string, ...args: string[]) {
  const { code, stdout: out, stderr: err } = await cluster.cli(["tenant", verb, ...args]);
  return { code, out, err };
}

const SELECTED = ["-l", "plan=small"];
const phaseOf = (name: string) => cluster.service.tenants.get(name)?.status.phase;

test.each([
  ["move", []],
  ["move-database", ["--to", "db-2"]],
  ["sleep", []],
  ["wake", []],
  ["update", ["--label", "region=eu"]],
  ["backup", []],
  ["quarantine", []],
  ["quarantine", ["--lift"]],
  ["suspend", []],
  ["resume", []],
  ["delete", []],
  ["delete", ["--purge"]],
] as const)(
  "%s %s shows what is selected, and does nothing to several without a terminal or --yes",
  async (verb, more) => {
    const before = structuredClone([...cluster.service.tenants]);
    const { code, out, err } = await tenant(verb, ...SELECTED, ...more);
    expect([code, out]).toEqual([2, ""]);
    expect(err).toMatch(/^selected: a, b\nerror: nothing was (done|deleted): .* --yes\n$/);
    expect([...cluster.service.tenants]).toEqual(before);
  },
);

test("acts on each that is selected, with a line for each, and on no other", async () => {
  expect(await tenant("sleep", ...SELECTED, "--yes", "--wait")).toEqual({
    code: 0,
    out: "tenant a is asleep\ntenant b is asleep\n",
    err: "selected: a, b\n",
  });
  expect(["a", "b", "c"].map(phaseOf)).toEqual(["Asleep", "Asleep", "Running"]);
  expect(await tenant("wake", "a", "b", "--wait")).toMatchObject({ out: "tenant a is awake\ntenant b is awake\n" });
  expect(await tenant("update", ...SELECTED, "-y", "--label", "region=eu")).toMatchObject({
    out: "tenant a updated\ntenant b updated\n",
  });
  expect(cluster.service.tenants.get("c")?.spec.labels).toEqual({ plan: "large" });
  const moved = await tenant("move", ...SELECTED, "-y", "-o", "json");
  expect(JSON.parse(moved.out)).toMatchObject([{ name: "a", to: "1.163.2-1" }, { name: "b" }]);
});

test("asks about none where one is selected, and says where none is", async () => {
  expect(await tenant("quarantine", "-l", "plan=large")).toMatchObject({
    code: 0,
    out: "tenant c is quarantined: it gets a shard of its own\n",
  });
  expect(await tenant("quarantine", "-l", "plan=none")).toMatchObject({
    code: 0,
    err: "no tenant has the labels plan=none\n",
  });
});

test("one that fails is told, fails the command, and keeps the others from nothing", async () => {
  cluster.service.onMove = (one, move) =>
    cluster.service.endMove(one, move, one.metadata.name === "a" ? "Refused" : "Succeeded", "no place");
  const { code, out, err } = await tenant("move", ...SELECTED, "--yes");
  expect(code).toBe(1);
  expect(out).toMatch(/^moved tenant b from .*\n$/);
  expect(err).toContain("error: the move of a from 1.163.2-0 to 1.163.2-1 was refused: no place");
});

test("moves databases one after the other, says where the former ones are kept, and what stays", async () => {
  expect(await tenant("move-database", ...SELECTED, "--to", "db-2")).toMatchObject({ code: 2, out: "" });
  expect((await tenant("move-database", ...SELECTED, "--to", "db-2", "--yes")).out).toMatch(
    /^the database of a was moved from main to db-2: 504 rows of 5 tables in 0.8 s; the former one is kept on main until 2026-12-23\S+\nthe database of b .*\n$/,
  );
  expect(cluster.service.tenants.get("c")?.status.databaseServer).toBeUndefined();
  expect(await tenant("move-database", "c")).toMatchObject({
    code: 2,
    err: expect.stringContaining("--to SERVER") as string,
  });
  expect(await tenant("move-database", "c", "--to", "db-2", "--online", "--parked")).toMatchObject({ code: 2 });
  expect(await tenant("move-database", "c", "--cancel", "--to", "db-2")).toMatchObject({ code: 2 });
  expect(await tenant("move-database", "c", "--cancel")).toMatchObject({
    code: 0,
    out: "the database of c stays where it is\n",
  });
  expect(await tenant("move-database", "c", "--to", "db-away")).toMatchObject({
    code: 1,
    err: "error: the database of c stays on main: PostgreSQL at db-away:5432 does not answer\n",
  });
  const { stdout } = await cluster.cli(["database-server", "list"]);
  expect(stdout).toBe(
    "NAME   DATABASES   AT MOST   WEIGHT\nmain   3           -         1\ndb-2   0           10        2\n",
  );
  expect((await tenant("describe", "a")).out).toMatch(
    /Database server: +db-2\n[^]*Former database: +kept on main until/,
  );
});

test("renames one, says its new name, and why one keeps its name", async () => {
  expect(await tenant("rename", "a", "d")).toEqual({
    code: 0,
    out: "tenant a is d now; its server name is a.localhost\n",
    err: "",
  });
  expect([...cluster.service.tenants.keys()].toSorted()).toEqual(["b", "c", "d"]);
  expect((await tenant("rename", "b", "c")).err).toContain("there is a tenant named c already");
  const message = "b is not renamed to refused-b: it does not sleep";
  cluster.service.addEvent({ type: "Warning", reason: "NotRenamed", object: "Tenant/b", message });
  expect(await tenant("rename", "b", "refused-b")).toMatchObject({
    code: 1,
    err: `error: ${message}\n`,
  });
});

test("asks an API about thousands in portions", async () => {
  const { service } = cluster;
  for (let n = 0; n < 100; n++) service.addTenant(`many-${n}`).spec.labels = { many: "" };
  let now = 0;
  let most = 0;
  const { quarantineTenant } = service;
  vi.spyOn(service, "quarantineTenant").mockImplementation(async (...args) => {
    most = Math.max(most, ++now);
    await new Promise((done) => setImmediate(done));
    now -= 1;
    return quarantineTenant.apply(service, args);
  });
  const { out } = await tenant("quarantine", "-l", "many", "--yes");
  expect(out.split("\n")).toHaveLength(101);
  expect(most).toBeLessThanOrEqual(32);
});
