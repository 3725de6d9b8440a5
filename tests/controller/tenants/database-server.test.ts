import { afterEach, beforeEach, expect, it } from "vitest";
import { whyNotRestored } from "../../../src/controller/backups/restore.ts";
import { StoreClusterService } from "../../../src/controller/service/store-cluster-service.ts";
import type { Tenant } from "../../../src/model/tenant.ts";
import { modify } from "../../../src/ports/store.ts";
import { HalfMoved } from "../../../src/ports/database-moves.ts";
import { UserError } from "../../../src/model/errors.ts";
import type { Assignment } from "../../../src/ports/shard-control.ts";
import {
  atEachCall,
  created,
  runController,
  runs,
  tenantWhen,
  throughKill,
  type Run,
} from "../../support/controller-run.ts";
import { FakeWorld } from "../../support/fake-world.ts";

let world: FakeWorld;
let run: Run;
beforeEach(() => {
  world = new FakeWorld();
  run = runController(world, { timing: { expiryEvery: 0.02, expiryGrace: 0.01 } });
});
afterEach(() => run.stop());

const moved = (name: string, to: string, where = world) =>
  tenantWhen(where, name, "moved", (t) => runs(t) && t.status.databaseServer === to && !t.status.databaseMove);
const messages = async () => (await world.store.listEvents({ object: "Tenant/a", limit: 100 })).map((e) => e.message);

it("writes the database's server down before the database is made, and starts the tenant with its address", async () => {
  world.databasePlaces.set("a", "db-2");
  const provisions: unknown[] = [];
  world.fault = (call, [first]) => {
    if (call === "provision") provisions.push(structuredClone((first as Tenant).status));
    return undefined;
  };
  await created(world, run, ["a", "b"]);
  expect((await tenantWhen(world, "a", "runs", runs)).status.databaseServer).toBe("db-2");
  expect((await tenantWhen(world, "b", "runs", runs)).status.databaseServer).toBeUndefined();
  expect(provisions).toContainEqual(expect.objectContaining({ databaseServer: "db-2", provisioned: false }));
  const assigned = [...world.shards.values()].flatMap((shard) => [...shard.tenants.entries()]);
  expect(assigned.map(([name]) => name).toSorted()).toEqual(["a", "b"]);
});

it("moves a database while the tenant is parked, starts the tenant with its new address, and keeps the former one for its time", async () => {
  await created(world, run, ["a"]);
  const hosts: unknown[] = [];
  world.fault = (call, args) => {
    if (call === "startTenant")
      hosts.push(((args[1] as Assignment).base as { database: { args: object } }).database.args);
    return undefined;
  };
  const asked = await run.service.moveDatabase("a", { to: "db-2" });
  expect(asked.status.databaseMove).toMatchObject({ to: "db-2" });
  const { status } = await moved("a", "db-2");
  expect(status.lastDatabaseMove).toMatchObject({
    id: asked.status.databaseMove?.id ?? "",
    from: "main",
    to: "db-2",
    outcome: "Succeeded",
    message: "500 rows of 5 tables in 0.5 s",
  });
  expect(status.lastMove).toMatchObject({ reason: "DatabaseMoved", outcome: "Succeeded" });
  expect(hosts).toEqual([expect.objectContaining({ host: "db-2" })]);
  expect(status.formerDatabases).toEqual([{ server: "main", keptUntil: expect.any(String) as string }]);
  expect((await messages()).join()).toContain("was restarted on 1.163.2-0 with its database on another server");
  expect(world.log).not.toContain("former database of a on main removed");
  world.clockSetBy = 31 * 86_400_000;
  await tenantWhen(world, "a", "without a former database", (t) => t.status.formerDatabases === undefined);
  expect(world.log).toContain("former database of a on main removed");
});

it("ends with one database and one owner, whatever call the controller is killed at", async () => {
  const interrupted = await atEachCall(async (killAtCall) => {
    // Several of them at the same time.
    const here = new FakeWorld();
    const before = runController(here);
    await created(here, before, ["a"]);
    await before.stop();
    const asked = { id: "d", to: "db-2", requestedAt: new Date().toISOString() };
    await modify(here.store, "Tenant", "a", ({ status }) => void (status.databaseMove = asked));
    const { ended, end, second } = await throughKill(here, killAtCall, () => moved("a", "db-2", here));
    expect(ended.status.lastDatabaseMove).toMatchObject({ id: "d", outcome: "Succeeded" });
    expect(here.databasesAt.get("a")).toBe("db-2");
    await expect.poll(() => here.ownersOf("a")).toEqual([ended.status.shard]);
    await second.stop();
    return end;
  });
  // The test is worth something only if it really went through all of it.
  expect(interrupted).toBeGreaterThan(20);
}, 120_000);

it("goes on with the database that it has where that cannot be moved, and says why", async () => {
  await created(world, run, ["a"]);
  world.fault = (call) =>
    call === "move" ? new UserError("Unavailable", "PostgreSQL at db-2:5432 has a full disk") : undefined;
  const { status } = await run.service.moveDatabase("a", { to: "db-2" });
  const ended = await tenantWhen(world, "a", "runs on", (t) => runs(t) && t.status.lastDatabaseMove !== undefined);
  expect(ended.status).toMatchObject({
    lastDatabaseMove: {
      id: status.databaseMove?.id,
      outcome: "Failed",
      message: "PostgreSQL at db-2:5432 has a full disk",
    },
  });
  expect(ended.status.databaseServer).toBeUndefined();
  expect(ended.status.databaseMove).toBeUndefined();
  expect(world.databasesAt.get("a")).toBeUndefined();
});

it("does not start a tenant whose database is half on its way before that is finished", async () => {
  await created(world, run, ["a"]);
  let isHalf = true;
  let attempts = 0;
  world.fault = (call) => {
    if (call !== "move") return undefined;
    attempts += 1;
    return isHalf ? new HalfMoved("it is half on its way") : undefined;
  };
  await run.service.moveDatabase("a", { to: "db-2" });
  await expect.poll(() => attempts).toBeGreaterThan(2);
  expect(world.ownersOf("a")).toEqual([]);
  isHalf = false;
  await moved("a", "db-2");
});

it("refuses what cannot be moved, or should not be without a word, and is asked twice without harm", async () => {
  await created(world, run, ["a"]);
  const refused = async (to: string, more = {}) =>
    run.service.moveDatabase("a", { to, ...more }).then(
      () => "accepted",
      (error: unknown) => (error as UserError).message,
    );
  world.former.add("a");
  expect(await refused("db-2")).toContain("tenant restore a --forget");
  world.former.clear();
  const settings = { version: "0", release: "1.163.2", baseDomain: "localhost", urlOf: () => "http://x" };
  const busy = new StoreClusterService(run.process.context, { ...settings, workFor: () => "Restore" });
  await expect(busy.moveDatabase("a", { to: "db-2" })).rejects.toThrow("a job (Restore) that needs its database");
  const { status } = (await world.store.get("Tenant", "a"))!;
  const moving = { ...status, databaseMove: { id: "d", to: "db-2", requestedAt: "" } };
  expect(whyNotRestored({ ...(await world.store.get("Tenant", "a"))!, status: moving })).toContain(
    "on its way to db-2",
  );
  expect(await refused("db-9")).toBe("there is no database server db-9; databaseServers has: main, db-2");
  expect(await refused("main")).toBe("the database of a is on main already");
  world.servers[1]!.databases = 10;
  expect(await refused("db-2", { way: "parked" })).toContain("may have 10");
  world.servers[1]!.databases = 0;
  await run.service.suspendTenant("a", { lift: false });
  expect(await refused("db-2", { way: "parked" })).toContain("suspended");
  await run.service.suspendTenant("a", { lift: true });
  await tenantWhen(world, "a", "runs", runs);
  const first = await run.service.moveDatabase("a", { to: "db-2", way: "parked" });
  const again = await run.service.moveDatabase("a", { to: "db-2", way: "parked" }).catch(() => first);
  expect(again.status.databaseMove?.id ?? first.status.databaseMove?.id).toBe(first.status.databaseMove?.id);
  await moved("a", "db-2");
});
