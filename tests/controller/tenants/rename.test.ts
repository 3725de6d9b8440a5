import { afterEach, beforeEach, expect, it } from "vitest";
import { DEFAULT_ROLLOUT, newFleetStatus } from "../../../src/model/fleet.ts";
import type { Tenant } from "../../../src/model/tenant.ts";
import { StoreClusterService } from "../../../src/controller/service/store-cluster-service.ts";
import { UsageRecorder } from "../../../src/controller/usage/usage-recorder.ts";
import { modify } from "../../../src/ports/store.ts";
import type { UserError } from "../../../src/model/errors.ts";
import {
  atEachCall,
  created,
  runController,
  runs,
  tenantWhen,
  throughKill,
  type Run,
} from "../../support/controller-run.ts";
import { until } from "../../support/patience.ts";
import { FakeWorld } from "../../support/fake-world.ts";

let world: FakeWorld;
let run: Run;
beforeEach(() => {
  world = new FakeWorld();
  run = runController(world, { timing: { expiryEvery: 0.02, expiryGrace: 0.01 } });
});
afterEach(() => run.stop());

const renamed = (to: string, where = world) =>
  tenantWhen(where, to, "renamed", (t) => runs(t) && t.status.rename === undefined);
const events = async (name: string) => world.store.listEvents({ object: `Tenant/${name}`, limit: 100 });
const refusal = (work: Promise<unknown>) =>
  work.then(
    () => "accepted",
    (error: unknown) => (error as UserError).message,
  );

it("gives a running tenant its new name with the database, keys and epoch that it has", async () => {
  await created(world, run, ["a"]);
  const before = await run.service.getTenant("a");
  const secrets = await world.store.readSecret("a");
  const asked = await run.service.renameTenant("a", { to: "b" });
  expect(asked.status.rename).toMatchObject({ to: "b", wakes: true });
  const after = await renamed("b");
  expect(await world.store.get("Tenant", "a")).toBeUndefined();
  expect(after.status.storage).toBe("a");
  expect(after.status.formerNames).toEqual([{ name: "a", until: expect.any(String) as string }]);
  expect(after.status.epoch).toBeGreaterThan(before.status.epoch);
  expect(after.metadata.creationTimestamp).toBe(before.metadata.creationTimestamp);
  expect(after.spec).toEqual(before.spec);
  const [shard] = world.ownersOf("b");
  expect(world.ownersOf("a")).toEqual([]);
  expect(world.assignments.get(`${shard}/b`)).toMatchObject({
    base: { database: { args: { dbname: "a" } } },
    signingKey: secrets?.signingKey,
  });
  expect([...world.managed.keys()]).toEqual(["a"]);
  expect(run.process.context.feed.get("a")).toBeUndefined();
  expect(run.process.context.feed.get("b")).toMatchObject({ hosts: ["a.localhost"], state: "serving" });
});

it("has its events under the new name, and says so to who uses the old one", async () => {
  await created(world, run, ["a"]);
  await run.service.renameTenant("a", { to: "b" });
  await renamed("b");
  await expect.poll(async () => (await events("b")).map(({ reason }) => reason)).toContain("Renamed");
  const told = await events("b");
  expect(told.map(({ reason }) => reason)).toContain("Created");
  expect(told.every(({ object }) => object === "Tenant/b")).toBe(true);
  expect(await events("a")).toEqual([]);
  expect(await refusal(run.service.getTenant("a"))).toBe("there is no tenant a; it was renamed to b");
  // Asked again, after it was done.
  expect((await run.service.renameTenant("a", { to: "b" })).metadata.name).toBe("b");
});

it("keeps the database of a renamed tenant from a new one that takes the old name", async () => {
  await created(world, run, ["a"]);
  await run.service.renameTenant("a", { to: "b" });
  const { epoch } = (await renamed("b")).status;
  await run.service.createTenant({ name: "a", serverName: "other.example" });
  const fresh = await tenantWhen(world, "a", "created", runs);
  // What a lost shard still runs under this name is not taken for it.
  expect(fresh.status.epoch).toBeGreaterThan(epoch);
  expect(fresh.status.storage).toMatch(/^a-[0-9a-f]{8}$/);
  const storage = fresh.status.storage ?? "";
  expect((await world.store.readSecret(storage))?.signingKey).not.toBe((await world.store.readSecret("a"))?.signingKey);
  expect([...world.managed.keys()].toSorted()).toEqual(["a", storage].toSorted());
  // The new one goes, with all its data.
  await run.service.deleteTenant("a", { purge: true });
  await expect.poll(() => world.store.get("Tenant", "a")).toBeUndefined();
  await expect.poll(() => [...world.managed.keys()]).toEqual(["a"]);
  expect(await world.store.readSecret("a")).toBeDefined();
  expect(world.ownersOf("b")).toHaveLength(1);
  // Nor can what has no tenant of that name be purged by it.
  expect(await refusal(run.service.purgeTenant("a"))).toBe("nothing is kept of a deleted tenant a");
});

it("removes the right data of a renamed tenant, and leaves those of the one that has its old name", async () => {
  await created(world, run, ["a"]);
  await run.service.renameTenant("a", { to: "b" });
  await renamed("b");
  await run.service.createTenant({ name: "a", serverName: "other.example" });
  const { storage = "" } = (await tenantWhen(world, "a", "created", runs)).status;
  await run.service.deleteTenant("b", { purge: true });
  await expect.poll(() => [...world.managed.keys()]).toEqual([storage]);
  await expect.poll(() => world.store.readSecret("a")).toBeUndefined();
  expect(world.log.filter((line) => line.startsWith("media removed"))).toEqual(["media removed a"]);
  expect(world.ownersOf("a")).toHaveLength(1);
});

it("counts on what a renamed tenant takes, under its new name alone", async () => {
  const { reader, clock, log } = run.process.context;
  const recorder = new UsageRecorder({ history: world.store.usage, reader, clock, log });
  run.process.context.recorder = recorder;
  world.requestsOf = () => 5;
  await created(world, run, ["a"]);
  await expect.poll(async () => (await recorder.months({ tenant: "a" })).at(-1)?.requests).toBe(5);
  await run.service.renameTenant("a", { to: "b" });
  await renamed("b");
  // Of the run that began then.
  await expect.poll(async () => (await recorder.months({ tenant: "b" })).at(-1)?.requests).toBe(10);
  expect(await world.store.usage.list("a")).toEqual([]);
});

it("has a deleted one back with its data, also while another has its old name", async () => {
  await created(world, run, ["a"]);
  await run.service.renameTenant("a", { to: "b" });
  await renamed("b");
  const key = (await world.store.readSecret("a"))?.signingKey;
  await run.service.deleteTenant("b", { purge: false });
  await expect.poll(() => world.store.get("Tenant", "b")).toBeUndefined();
  expect(await run.service.listDeleted()).toMatchObject([{ name: "b", storage: "a" }]);
  await run.service.createTenant({ name: "a", serverName: "other.example" });
  await tenantWhen(world, "a", "created", runs);
  await run.service.undeleteTenant("b");
  const back = await tenantWhen(world, "b", "back", runs);
  expect(back.status.storage).toBe("a");
  expect((await world.store.readSecret("a"))?.signingKey).toBe(key);
  await run.service.deleteTenant("b", { purge: false });
  await expect.poll(() => world.store.get("Tenant", "b")).toBeUndefined();
  const proof = await run.service.purgeTenant("b");
  expect(proof.removed.database?.name).toBe("a");
  expect(world.managed.has("a")).toBe(false);
  expect(world.ownersOf("a")).toHaveLength(1);
});

it("moves the database of a renamed tenant, and restores it, by what they are named by", async () => {
  await created(world, run, ["a"]);
  await run.service.renameTenant("a", { to: "b" });
  await renamed("b");
  await run.service.moveDatabase("b", { to: "db-2" });
  await tenantWhen(world, "b", "moved", (t) => runs(t) && t.status.databaseServer === "db-2");
  expect(world.databasesAt.get("a")).toBe("db-2");
  world.beside.set("a", "of yesterday");
  const restore = { id: "r", backup: "yesterday", requestedAt: new Date().toISOString() };
  await modify(world.store, "Tenant", "b", ({ status }) => void (status.restore = restore));
  await tenantWhen(world, "b", "restored", (t) => runs(t) && t.status.restored?.backup === "yesterday");
  expect(world.contents.get("a")).toBe("of yesterday");
  expect(world.log).toContain("media of a admitted");
});

it("renames back, and then has no trace of it but the hint", async () => {
  await created(world, run, ["a"]);
  await run.service.renameTenant("a", { to: "b" });
  await renamed("b");
  await run.service.renameTenant("b", { to: "a" });
  const back = await renamed("a");
  expect(back.status.storage).toBeUndefined();
  expect(back.status.formerNames?.map(({ name }) => name)).toEqual(["b"]);
  expect(world.ownersOf("a")).toHaveLength(1);
});

it("renames a tenant that sleeps, or is suspended, and leaves it so", async () => {
  await created(world, run, ["a", "c"]);
  await run.service.sleepTenant("a");
  await tenantWhen(world, "a", "asleep", (t) => t.status.phase === "Asleep");
  await run.service.renameTenant("a", { to: "b" });
  const asleep = await tenantWhen(world, "b", "renamed", (t) => t.status.rename === undefined);
  expect(asleep.status).toMatchObject({ phase: "Asleep", storage: "a" });
  expect(run.process.context.feed.get("b")).toMatchObject({ state: "asleep", hosts: ["a.localhost"] });
  await run.service.suspendTenant("c", { lift: false });
  await tenantWhen(world, "c", "suspended", (t) => t.status.phase === "Suspended" && t.status.shard === undefined);
  await run.service.renameTenant("c", { to: "d" });
  const suspended = await tenantWhen(world, "d", "renamed", (t) => t.status.rename === undefined);
  expect(suspended.status.phase).toBe("Suspended");
  await run.service.wakeTenant("b");
  await tenantWhen(world, "b", "woken", runs);
});

it("renames a tenant whatever it is at, as a move would stop it", async () => {
  await created(world, run, ["a"]);
  world.idle.set("a", { inFlight: 3, lastUse: 0, keepsAwake: ["statements run in its database"] });
  await run.service.renameTenant("a", { to: "b" });
  await renamed("b");
  const fellAsleep = (await events("b")).find(({ reason }) => reason === "FellAsleep");
  expect(fellAsleep?.message).toContain("to get another name");
});

it("keeps the name of a tenant that may not be stopped any more, which runs on, and says why", async () => {
  await created(world, run, ["a"]);
  await run.stop();
  await modify(world.store, "Tenant", "a", ({ status }) => {
    status.rename = { id: "n", to: "b", requestedAt: new Date().toISOString(), wakes: true };
    status.quarantine = { since: new Date().toISOString(), message: "it stalled" };
  });
  run = runController(world);
  const kept = await tenantWhen(world, "a", "kept", (t) => runs(t) && t.status.rename === undefined);
  expect(kept.status.formerNames).toBeUndefined();
  await expect
    .poll(async () => (await events("a")).find(({ reason }) => reason === "NotRenamed")?.message)
    .toMatch(/^a is not renamed to b: tenant a is quarantined, .*; suspend it, rename it, and resume it$/);
  expect(await refusal(run.service.getTenant("b"))).toBe("there is no tenant b");
});

it("follows the name where others are kept apart from the tenant", async () => {
  await run.service.createTenant({ name: "c", placement: { spreadFrom: ["a", "z"] } });
  await created(world, run, ["a"]);
  await run.service.renameTenant("a", { to: "b" });
  await renamed("b");
  const other = await tenantWhen(world, "c", "took note", (t) => t.status.observedGeneration === t.metadata.generation);
  expect(other.spec.placement?.spreadFrom).toEqual(["b", "z"]);
});

it("refuses where what people wrote names the tenant, until the new name is there as well", async () => {
  await created(world, run, ["a"]);
  const config: Record<string, string[]> = { a: ["backups.tenants", "tenantPolicy.byTenant"], b: ["backups.tenants"] };
  const settings = { version: "0", release: "1.163.2", baseDomain: "localhost", urlOf: () => "http://x" };
  const { context } = run.process;
  const service = new StoreClusterService(context, { ...settings, configNames: (name) => config[name] ?? [] });
  const rollout = { ...DEFAULT_ROLLOUT, canaries: { count: 0, names: ["a"] } };
  await world.store.create("Fleet", "fleet", { release: "1.163.2", rollout }, newFleetStatus());
  await expect.poll(() => context.reader.get("Fleet", "fleet")).toBeDefined();
  expect(await refusal(service.renameTenant("a", { to: "b" }))).toMatch(
    /^tenant a is named in tenantPolicy.byTenant of the configuration and in the canaries of fleet: name b there as well/,
  );
  config["b"]?.push("tenantPolicy.byTenant");
  await modify(world.store, "Fleet", "fleet", ({ spec }) => void spec.rollout.canaries.names.push("b"));
  await expect.poll(() => refusal(service.renameTenant("a", { to: "b" }))).toBe("accepted");
  await renamed("b");
});

it("takes the rename back where a job began at the same time", async () => {
  await created(world, run, ["a"]);
  const settings = { version: "0", release: "1.163.2", baseDomain: "localhost", urlOf: () => "http://x" };
  let asked = 0;
  const workFor = () => (asked++ < 2 ? undefined : "Backup");
  const service = new StoreClusterService(run.process.context, { ...settings, workFor });
  expect(await refusal(service.renameTenant("a", { to: "b" }))).toBe("tenant a has a job (Backup); try again after it");
  expect((await tenantWhen(world, "a", "serves", runs)).status.rename).toBeUndefined();
});

it("says that it has its new name where it got that before a job could keep it", async () => {
  await created(world, run, ["a"]);
  await run.service.sleepTenant("a");
  await tenantWhen(world, "a", "asleep", (t) => t.status.phase === "Asleep");
  let asked = 0;
  // It is not known to be asked for twice before it has the new name.
  const store = new Proxy(run.process.context.store, {
    get: (target, key) =>
      key !== "get"
        ? (Reflect.get(target, key) as unknown)
        : async (kind: "Tenant", name: string) => {
            if (asked > 2) await until("it has the new name", () => world.store.get("Tenant", "b"));
            return target.get(kind, name);
          },
  });
  const settings = { version: "0", release: "1.163.2", baseDomain: "localhost", urlOf: () => "http://x" };
  const workFor = () => (asked++ < 2 ? undefined : "Backup");
  const service = new StoreClusterService({ ...run.process.context, store }, { ...settings, workFor });
  expect((await service.renameTenant("a", { to: "b" })).metadata.name).toBe("b");
  expect(await world.store.get("Tenant", "a")).toBeUndefined();
});

it("is not taken for another that had the new name, and may still run somewhere", async () => {
  await created(world, run, ["a", "c"]);
  await modify(world.store, "Tenant", "a", ({ status }) => void (status.formerNames = [{ name: "x", until: "2026" }]));
  for (let n = 0; n < 3; n++) {
    await run.service.sleepTenant("a");
    await tenantWhen(world, "a", "asleep", (t) => t.status.phase === "Asleep");
    await run.service.wakeTenant("a");
    await tenantWhen(world, "a", "woken", runs);
  }
  const { epoch } = (await run.service.getTenant("a")).status;
  await run.service.renameTenant("c", { to: "x" });
  expect((await renamed("x")).status.epoch).toBeGreaterThan(epoch);
});

it("goes with its tenant where that is deleted meanwhile, and the name is free", async () => {
  await created(world, run, ["a"]);
  await run.service.suspendTenant("a", { lift: false });
  await tenantWhen(world, "a", "suspended", (t) => t.status.phase === "Suspended" && t.status.shard === undefined);
  await run.stop();
  await modify(world.store, "Tenant", "a", (tenant) => {
    tenant.status.rename = { id: "n", to: "b", requestedAt: new Date().toISOString() };
    tenant.metadata.deletionTimestamp = new Date().toISOString();
  });
  run = runController(world);
  await expect.poll(() => world.store.get("Tenant", "a")).toBeUndefined();
  expect(await world.store.list("Tenant")).toEqual([]);
  await expect.poll(() => refusal(run.service.createTenant({ name: "b" }))).toBe("accepted");
});

it("refuses names that are not free, and tenants that are at something else", async () => {
  await created(world, run, ["a", "c"]);
  const asked = (to: string) => refusal(run.service.renameTenant("a", { to }));
  expect(await asked("c")).toBe("there is a tenant named c already");
  expect(await asked("No")).toContain("is not a DNS label");
  expect(await asked("a")).toBe("accepted");
  expect(await refusal(run.service.renameTenant("x", { to: "y" }))).toBe("there is no tenant x");
  await run.service.deleteTenant("c", { purge: false });
  await expect.poll(() => world.store.get("Tenant", "c")).toBeUndefined();
  expect(await asked("c")).toContain("the name c is reserved until");
  await run.controller.stop();
  const at = new Date().toISOString();
  const busy: [Partial<Tenant["status"]>, string][] = [
    [{ move: { id: "m", from: "s", to: "t", reason: "Requested", step: "Preparing", requestedAt: at } }, "being moved"],
    [{ restore: { id: "r", backup: "x", requestedAt: at } }, "being restored"],
    [{ databaseMove: { id: "d", to: "db-2", requestedAt: at } }, "is on its way to db-2"],
    [{ dedicated: { address: "x:1" } }, "tenant a is dedicated"],
    [{ quarantine: { since: at, message: "it stalled" } }, "is quarantined, and does not sleep"],
    [{ phase: "Starting" }, "tenant a is Starting; it is renamed while it runs, sleeps, or is suspended"],
  ];
  for (const [status, words] of busy) {
    const before = (await world.store.get("Tenant", "a"))!.status;
    await modify(world.store, "Tenant", "a", (tenant) => void Object.assign(tenant.status, status));
    expect(await asked("b")).toContain(words);
    await modify(world.store, "Tenant", "a", (tenant) => void (tenant.status = before));
  }
});

it("says what to do where names cannot be changed, and waits for work that is under way for a tenant", async () => {
  await created(world, run, ["a"]);
  const { context } = run.process;
  const settings = { version: "0", release: "1.163.2", baseDomain: "localhost", urlOf: () => "http://x" };
  const store = new Proxy(context.store, {
    get: (object, key) => (key === "rename" ? undefined : (Reflect.get(object, key) as unknown)),
  });
  const elsewhere = new StoreClusterService({ ...context, store }, settings);
  expect(await refusal(elsewhere.renameTenant("a", { to: "b" }))).toContain("on Kubernetes a tenant's name");
  const workFor = (name: string) => (name === "b" ? "Import: media" : undefined);
  const busy = new StoreClusterService(context, { ...settings, workFor });
  expect(await refusal(busy.renameTenant("a", { to: "b" }))).toBe(
    "tenant b has a job (Import: media); try again after it",
  );
});

it("lets nobody have the name that a tenant is about to get", async () => {
  await created(world, run, ["a"]);
  world.idle.set("a", {});
  await run.service.renameTenant("a", { to: "b" });
  expect(await refusal(run.service.createTenant({ name: "b" }))).toMatch(
    /is being renamed to b|a tenant named b already/,
  );
  await renamed("b");
});

it("ends with one tenant of the new name and one owner of its database, whatever call the controller is killed at", async () => {
  const interrupted = await atEachCall(async (killAtCall) => {
    // Several of them at the same time.
    const here = new FakeWorld();
    const before = runController(here);
    await created(here, before, ["a"]);
    await before.stop();
    const rename = { id: "n", to: "b", requestedAt: new Date().toISOString(), wakes: true };
    await modify(here.store, "Tenant", "a", ({ status }) => void (status.rename = rename));
    const { ended, end, second } = await throughKill(here, killAtCall, () => renamed("b", here));
    expect(ended.status).toMatchObject({ storage: "a", formerNames: [{ name: "a" }] });
    expect((await here.store.list("Tenant")).map(({ metadata }) => metadata.name)).toEqual(["b"]);
    await expect.poll(() => here.ownersOf("b")).toEqual([ended.status.shard]);
    expect(here.ownersOf("a")).toEqual([]);
    expect([...here.managed.keys()]).toEqual(["a"]);
    await expect.poll(() => second.process.context.feed.get("b")?.state).toBe("serving");
    expect(second.process.context.feed.get("a")).toBeUndefined();
    await second.stop();
    return end;
  });
  // The test is worth something only if it really went through all of it.
  expect(interrupted).toBeGreaterThan(20);
}, 120_000);
