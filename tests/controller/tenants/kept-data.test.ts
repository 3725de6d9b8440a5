import { afterEach, beforeEach, expect, it } from "vitest";
import { Controller } from "../../../src/controller/controller.ts";
import type { Tenant } from "../../../src/model/tenant.ts";
import { newTenantSecrets } from "../../../src/model/tenant-secrets.ts";
import { modify } from "../../../src/ports/store.ts";
import { SPEC, STATUS } from "../../ports/store-contract.ts";
import { FakeProcess, FakeWorld } from "../../support/fake-world.ts";

const OWN = "database: {name: psycopg2, args: {host: db.example, user: u, dbname: d}}";

let world: FakeWorld;
let process: FakeProcess;
let controller: Controller;
beforeEach(async () => {
  world = new FakeWorld();
  process = new FakeProcess(world);
  controller = new Controller(process.context);
  await controller.start();
});
afterEach(async () => {
  await controller.stop();
  process.kill();
});

async function make(config = "", serverName = "a.example"): Promise<void> {
  const status: Tenant["status"] = { ...STATUS, phase: "Pending" };
  await world.store.create("Tenant", "a", { ...SPEC, serverName, config, release: "1.163.2" }, status);
}
const status = async () => (await world.store.get("Tenant", "a"))?.status;
const runs = () => expect.poll(status).toMatchObject({ phase: "Running", reason: "" });

async function remove(reclaimPolicy: "Retain" | "Delete"): Promise<void> {
  await modify(world.store, "Tenant", "a", ({ metadata, spec }) => {
    spec.reclaimPolicy = reclaimPolicy;
    metadata.deletionTimestamp = new Date().toISOString();
  });
  await expect.poll(() => world.store.get("Tenant", "a")).toBeUndefined();
}

it("takes up the keys beside a database that was kept, where the store has lost them", async () => {
  await make();
  await runs();
  const keys = await world.store.readSecret("a");
  await remove("Retain");
  await world.store.removeSecret("a");
  await make();
  await runs();
  expect(await world.store.readSecret("a")).toEqual(keys);
  const events = await world.store.listEvents({ object: "Tenant/a", limit: 100 });
  expect(events.map(({ reason }) => reason)).toContain("KeysRestored");
});

it.each([
  ["the same server name has the keys again", "a.example", true],
  ["another server name gets new ones", "b.example", false],
])("where the store has lost the keys of a tenant with a database of its own, %s", async (_, serverName, again) => {
  await make(OWN);
  await runs();
  const keys = await world.store.readSecret("a");
  await remove("Retain");
  await world.store.removeSecret("a");
  await world.store.deleted.remove("a");
  await make(OWN, serverName);
  await runs();
  expect((await world.store.readSecret("a"))?.signingKey === keys?.signingKey).toBe(again);
});

it("makes no new signing key for a database that was kept without its keys: it says what to do, and begins again after a purge", async () => {
  world.managed.set("a", { hasDatabase: true });
  await make();
  await expect.poll(status).toMatchObject({ phase: "Failed", reason: "KeysMissing" });
  expect((await status())?.message).toMatch(/restore the store from a backup, or delete a with --purge/);
  expect(await world.store.readSecret("a")).toBeUndefined();
  await remove("Delete");
  expect(world.managed.has("a")).toBe(false);
  await make();
  await runs();
});

it("keeps a database from another server name than the one it was made for", async () => {
  const secrets = newTenantSecrets("other.example");
  world.managed.set("a", { hasDatabase: true, keepsake: { serverName: "other.example", secrets, config: "" } });
  await make();
  await expect.poll(status).toMatchObject({ phase: "Failed", reason: "KeysMissing" });
  expect((await status())?.message).toContain("whose server name is other.example");
});

it("removes by a purge also the database that a tenant had from us before it brought its own", async () => {
  await make();
  await runs();
  await modify(world.store, "Tenant", "a", ({ spec }) => void (spec.config = OWN));
  await expect.poll(status).toMatchObject({ phase: "Running", inEffect: { meaning: { database: { name: "d" } } } });
  expect(world.managed.has("a")).toBe(true);
  await remove("Delete");
  expect(world.managed.has("a")).toBe(false);
});

it("calls a configuration that is no YAML by its name, not a missing database", async () => {
  await make("[1,2");
  await expect.poll(status).toMatchObject({ phase: "Failed", reason: "InvalidConfig" });
  expect((await status())?.message).toMatch(/line 1, column \d+: not YAML/);
});
