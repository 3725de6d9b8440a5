import { afterEach, describe, expect, it } from "vitest";
import { atEachCall, created, runController, runs, tenantWhen, type Run } from "../../support/controller-run.ts";
import { newTenantStatus, type Tenant } from "../../../src/model/tenant.ts";
import { RecordTooLarge } from "../../../src/ports/deleted-tenants.ts";
import { HalfMoved } from "../../../src/ports/database-moves.ts";
import { modify } from "../../../src/ports/store.ts";
import { FakeWorld } from "../../support/fake-world.ts";

const DAY_MS = 86_400_000;
const OFTEN = { expiryEvery: 0.05, expiryGrace: 0.1 };
let running: Run | undefined;
afterEach(() => running?.stop());

async function deleted(world: FakeWorld, { service }: Run, name = "a", purge = false): Promise<void> {
  await service.deleteTenant(name, { purge });
  await expect.poll(() => world.store.get("Tenant", name)).toBeUndefined();
}

async function start(names = ["a"]): Promise<{ world: FakeWorld; run: Run }> {
  const world = new FakeWorld();
  const run = (running = runController(world, { timing: OFTEN }));
  await created(world, run, names);
  return { world, run };
}

describe("a deleted tenant", () => {
  it("is kept with its date, is back as it was by undelete, and then is no deleted tenant any more", async () => {
    const { world, run } = await start([]);
    await run.service.createTenant({ name: "a", config: "enable_registration: true", hibernation: { mode: "Never" } });
    await tenantWhen(world, "a", "created", runs);
    const keys = await world.store.readSecret("a");
    await deleted(world, run);
    const [record] = await run.service.listDeleted();
    expect(record).toMatchObject({ name: "a", spec: { serverName: "a.localhost" }, schemaRelease: "1.163.2" });
    expect(Date.parse(record!.keptUntil) - Date.parse(record!.deletedAt)).toBe(30 * DAY_MS);
    await run.service.undeleteTenant("a");
    const back = await tenantWhen(world, "a", "back", runs);
    expect(back.spec).toMatchObject({ config: "enable_registration: true", hibernation: { mode: "Never" } });
    expect(await world.store.readSecret("a")).toEqual(keys);
    expect(await run.service.listDeleted()).toEqual([]);
    await expect(run.service.undeleteTenant("a")).rejects.toMatchObject({ code: "Conflict" });
  });

  it("goes on with its database on its server, and is never given an empty one", async () => {
    for (const back of ["undelete", "create"]) {
      const { world, run } = await start([]);
      world.databasePlaces.set("a", "db-2");
      await created(world, run, ["a"]);
      await deleted(world, run);
      expect((await run.service.listDeleted())[0]).toMatchObject({ databaseServer: "db-2", managedDatabase: true });
      world.databasePlaces.clear();
      const kept = world.managed.get("a")!;
      world.managed.delete("a");
      await (back === "undelete" ? run.service.undeleteTenant("a") : run.service.createTenant({ name: "a" }));
      const failed = await tenantWhen(world, "a", "failed", ({ status }) => status.reason === "DatabaseMissing");
      expect(failed.status).toMatchObject({ databaseServer: "db-2", provisioned: false, databaseKept: true });
      world.managed.set("a", kept);
      const { status } = await tenantWhen(world, "a", "back", runs);
      expect(status).toMatchObject({ databaseServer: "db-2" });
      expect(status.databaseKept).toBeUndefined();
      await run.stop();
    }
  });

  it("stays with all of its data where its record does not fit, says so once, and goes when it is changed", async () => {
    const { world, run } = await start();
    let puts = 0;
    world.fault = (call) => (call === "put" ? (puts++, new RecordTooLarge("too large: shorten it")) : undefined);
    await run.service.deleteTenant("a", { purge: false });
    const isToo = ({ status }: Tenant) => status.phase === "Deleting" && status.reason === "RecordTooLarge";
    expect((await tenantWhen(world, "a", "kept", isToo)).status.message).toBe("too large: shorten it");
    expect([world.managed.has("a"), await run.service.listDeleted()]).toEqual([true, []]);
    const tries = puts;
    const said = async () =>
      (await world.store.listEvents({ object: "Tenant/a", limit: 100 })).filter((e) => e.reason === "RecordTooLarge");
    await expect.poll(async () => (await said()).length).toBe(1);
    world.fault = () => undefined;
    await modify(world.store, "Tenant", "a", ({ spec }) => void (spec.config = "short: true"));
    await expect.poll(() => world.store.get("Tenant", "a")).toBeUndefined();
    expect(tries).toBeLessThanOrEqual(5);
    expect(await said()).toHaveLength(1);
    expect(await run.service.listDeleted()).toMatchObject([{ name: "a", spec: { config: "short: true" } }]);
  });

  it("goes on with a move of its database that was cut off, and asks a purge for both servers", async () => {
    const { world, run } = await start();
    const half = (call: string) => (call === "move" ? new HalfMoved("it is half on its way") : undefined);
    world.fault = half;
    await run.service.moveDatabase("a", { to: "db-2" });
    const isHalf = ({ status }: Tenant) => status.databaseMove !== undefined && !status.move && status.failures > 0;
    await tenantWhen(world, "a", "half on its way", isHalf);
    await deleted(world, run);
    expect((await run.service.listDeleted())[0]).toMatchObject({ databaseMove: { to: "db-2" } });
    world.unknownServers.add("db-2");
    await expect(run.service.purgeTenant("a")).rejects.toMatchObject({ code: "Conflict" });
    world.unknownServers.clear();
    world.fault = () => undefined;
    // Set aside on the one, and not in its place on the other.
    world.managed.set("a", { ...world.managed.get("a"), hasDatabase: false });
    const epoch = world.fences.get("a")?.epoch ?? 0;
    await run.service.undeleteTenant("a");
    const back = await tenantWhen(world, "a", "back", (t) => runs(t) && t.status.databaseServer === "db-2");
    expect(back.status.lastDatabaseMove).toMatchObject({ to: "db-2", outcome: "Succeeded" });
    expect(back.status.epoch).toBeGreaterThan(epoch);
    expect(world.databasesAt.get("a")).toBe("db-2");
  });

  it("keeps its names also from objects that somebody makes in the store, which are let in when it is gone", async () => {
    const { world, run } = await start();
    const keys = await world.store.readSecret("a");
    await deleted(world, run);
    const spec = { release: "1.163.2", config: "", reclaimPolicy: "Retain" as const };
    await world.store.create("Tenant", "b", { ...spec, serverName: "a.localhost" }, newTenantStatus());
    await world.store.create("Tenant", "a", { ...spec, serverName: "other.localhost" }, newTenantStatus());
    const isTurnedAway = ({ status }: Tenant) => status.reason === "NameReserved" && status.shard === undefined;
    for (const name of ["a", "b"]) {
      const { status } = await tenantWhen(world, name, "turned away", isTurnedAway);
      expect(status.message).toMatch(/is reserved until .* for the deleted tenant a/);
    }
    expect(await world.store.readSecret("b")).toBeUndefined();
    // Also where it was to be removed with its data: it has none.
    await deleted(world, run, "a", true);
    expect([world.managed.has("a"), await run.service.listPurges(10)]).toEqual([true, []]);
    expect(await world.store.readSecret("a")).toEqual(keys);
    const [record] = await run.service.listDeleted();
    await world.store.deleted.remove(record!.name);
    await run.stop();
    const next = (running = runController(world, { timing: OFTEN }));
    await tenantWhen(world, "b", "let in", runs);
    expect((await next.service.listDeleted()).length).toBe(0);
  });

  it("is continued by an object of its name and server name that somebody makes in the store", async () => {
    const { world, run } = await start();
    const keys = await world.store.readSecret("a");
    await deleted(world, run);
    const spec = { serverName: "a.localhost", release: "1.163.2", config: "", reclaimPolicy: "Retain" as const };
    await world.store.create("Tenant", "a", spec, newTenantStatus());
    await tenantWhen(world, "a", "continued", runs);
    expect(await world.store.readSecret("a")).toEqual(keys);
    await expect.poll(() => run.service.listDeleted()).toEqual([]);
    expect(await run.service.listPurges(10)).toEqual([]);
  });

  it("says in its proof what was left to its owner, as it was brought along", async () => {
    const { world, run } = await start();
    await modify(world.store, "Tenant", "a", ({ status }) => {
      const database = { host: "db.example", port: 5432, name: "clinic", user: "u" };
      status.inEffect!.meaning = { ...status.inEffect!.meaning, database, bucket: "media" };
    });
    await deleted(world, run);
    const { removed } = await run.service.purgeTenant("a");
    expect(removed.left).toEqual(["database db.example:5432/clinic", "bucket media"]);
  });

  it("is not proved to be removed while a server that may have its data is not in the configuration", async () => {
    const { world, run } = await start([]);
    world.databasePlaces.set("a", "db-2");
    await created(world, run, ["a"]);
    world.unknownServers.add("db-2");
    const refusal = { code: "Conflict", message: expect.stringContaining("db-2") as string };
    await expect(run.service.deleteTenant("a", { purge: true })).rejects.toMatchObject(refusal);
    await deleted(world, run);
    await expect(run.service.purgeTenant("a")).rejects.toMatchObject(refusal);
    expect(await run.service.listDeleted()).toEqual([expect.not.objectContaining({ purge: expect.anything() })]);
    expect(world.managed.has("a")).toBe(true);
    world.unknownServers.clear();
    expect((await run.service.purgeTenant("a")).removed).toHaveProperty("database");
  });

  it("keeps its name and its server name to itself", async () => {
    const { world, run } = await start();
    await deleted(world, run);
    const create = (name: string, serverName: string) => run.service.createTenant({ name, serverName });
    await expect(create("b", "a.localhost")).rejects.toThrow(
      /server name a.localhost is reserved until .* deleted tenant a/,
    );
    await expect(create("b", "a.localhost:8448")).rejects.toMatchObject({ code: "AlreadyExists" });
    await expect(create("a", "other.localhost")).rejects.toMatchObject({ code: "AlreadyExists" });
    await run.service.purgeTenant("a");
    await create("b", "a.localhost");
    await tenantWhen(world, "b", "created", runs);
  });

  it("is continued by a new tenant of the same name and server name", async () => {
    const { world, run } = await start();
    const keys = await world.store.readSecret("a");
    await deleted(world, run);
    await created(world, run, ["a"]);
    expect(await world.store.readSecret("a")).toEqual(keys);
    expect(await run.service.listDeleted()).toEqual([]);
  });

  it("leaves nothing but a proof when it is purged, each linked to the one before", async () => {
    const { world, run } = await start(["a", "b"]);
    await deleted(world, run, "a");
    const first = await run.service.purgeTenant("a");
    expect(first).toMatchObject({ name: "a", serverName: "a.localhost", reason: "Requested", previous: "" });
    expect(first.removed).toMatchObject({
      database: { name: "a" },
      media: { files: 3, bytes: 300 },
      signingKey: { sha256: expect.stringMatching(/^[0-9a-f]{64}$/) },
    });
    expect([world.managed.has("a"), await world.store.readSecret("a")]).toEqual([false, undefined]);
    await expect(run.service.purgeTenant("a")).rejects.toMatchObject({ code: "NotFound" });
    await expect(run.service.undeleteTenant("a")).rejects.toMatchObject({ code: "NotFound" });
    const keys = await world.store.readSecret("b");
    // At once with its deletion.
    await deleted(world, run, "b", true);
    const proofs = await run.service.listPurges(10);
    expect(proofs.map(({ name, previous }) => [name, previous])).toEqual([
      ["a", ""],
      ["b", first.sha256],
    ]);
    expect(JSON.stringify(proofs)).not.toContain(keys!.signingKey);
  });

  it("cannot be purged while it is there", async () => {
    const { world, run } = await start();
    await expect(run.service.purgeTenant("a")).rejects.toMatchObject({ code: "Conflict" });
    expect(world.managed.has("a")).toBe(true);
  });

  it("stays where the date until which it is kept cannot be read", async () => {
    const { world, run } = await start(["a", "b"]);
    await deleted(world, run, "a");
    await deleted(world, run, "b");
    const [record] = await run.service.listDeleted();
    await world.store.deleted.put({ ...record!, keptUntil: "soon" });
    world.clockSetBy = 31 * DAY_MS;
    // The other one's end shows that they were looked at.
    await expect.poll(async () => (await run.service.listPurges(10)).map(({ name }) => name)).toEqual(["b"]);
    expect((await run.service.listDeleted()).map(({ name }) => name)).toEqual(["a"]);
    expect(world.managed.has("a")).toBe(true);
  });

  it("goes when its time is over and not before, by a clock that was right for a while", async () => {
    const { world, run } = await start(["a", "b"]);
    await deleted(world, run, "a");
    world.clockSetBy = 29 * DAY_MS;
    await new Promise((done) => setTimeout(done, 300));
    expect(await run.service.listDeleted()).toHaveLength(1);
    world.clockSetBy = 31 * DAY_MS;
    await expect.poll(async () => (await run.service.listPurges(1))[0]?.reason).toBe("Expired");
    expect(world.managed.has("a")).toBe(false);
    expect(world.managed.has("b")).toBe(true);
    const events = (await world.store.listEvents({ object: "Tenant/a", limit: 100 })).map(({ reason }) => reason);
    expect(events).toEqual(expect.arrayContaining(["PurgeDue", "Purged"]));
  });

  it("is never expired where it came back and a record of it was left behind", async () => {
    const { world, run } = await start();
    await deleted(world, run);
    const [record] = await run.service.listDeleted();
    await run.service.undeleteTenant("a");
    await tenantWhen(world, "a", "back", runs);
    // As by a crash between the two writes.
    await world.store.deleted.put({ ...record!, keptUntil: record!.deletedAt });
    await expect.poll(() => run.service.listDeleted()).toEqual([]);
    expect(world.managed.has("a")).toBe(true);
    expect(await run.service.listPurges(10)).toEqual([]);
  });
});

it("is purged with one proof, or had back with all of its data, whatever call the controller is killed at", async () => {
  const ended = { back: 0, gone: 0 };
  const killed = await atEachCall(async (call) => {
    const world = new FakeWorld();
    const before = runController(world, { timing: OFTEN });
    await created(world, before, ["a"]);
    await deleted(world, before);
    await before.stop();
    const first = runController(world, { killAtCall: call, timing: OFTEN });
    const asked = first.service.purgeTenant("a").then(
      () => true,
      () => false,
    );
    const survived = await Promise.race([asked, first.process.whenKilled.then(() => false)]);
    first.process.kill();
    const second = runController(world, { timing: OFTEN });
    // Either it had not begun, or it comes to its end.
    const isBack = await second.service.undeleteTenant("a").then(
      () => true,
      () => false,
    );
    if (isBack) await tenantWhen(world, "a", "back", runs);
    await expect.poll(() => second.service.listDeleted()).toEqual([]);
    expect(world.managed.has("a")).toBe(isBack);
    const proofs = await second.service.listPurges(10);
    expect(proofs.map(({ removed }) => removed.database?.name)).toEqual(isBack ? [] : ["a"]);
    ended[isBack ? "back" : "gone"] += 1;
    await second.stop();
    return survived ? "done" : "interrupted";
  });
  expect(killed).toBeGreaterThan(10);
  expect(ended.back).toBeGreaterThan(2);
  expect(ended.gone).toBeGreaterThan(2);
}, 120_000);
