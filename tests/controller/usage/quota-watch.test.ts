import { afterEach, beforeEach, expect, it } from "vitest";
import { Controller } from "../../../src/controller/controller.ts";
import { StoreClusterService } from "../../../src/controller/service/store-cluster-service.ts";
import { QuotaWatch } from "../../../src/controller/usage/quota-watch.ts";
import type { UsageReading } from "../../../src/model/usage-month.ts";
import { FakeProcess, FakeWorld } from "../../support/fake-world.ts";
import { PATIENCE_MS } from "../../support/patience.ts";

const SETTINGS = { version: "0", release: "1.163.2", baseDomain: "localhost", urlOf: () => "http://x" };

let world: FakeWorld;
let process: FakeProcess;
let controller: Controller;
let service: StoreClusterService;
let watch: QuotaWatch;
let reading: UsageReading;

beforeEach(async () => {
  world = new FakeWorld();
  process = new FakeProcess(world, {
    plans: { small: { users: 10, mediaBytes: 1000, requestsInFlight: 2, cpuShare: 0.1 } },
    timing: { shardPoll: 0.02, loadEvery: 0.02 },
  });
  reading = { users: 3, active: [] };
  world.readingOf = () => reading;
  await begin();
});
afterEach(() => controller.stop());

async function begin(): Promise<void> {
  controller = new Controller(process.context);
  await controller.start();
  service = new StoreClusterService(process.context, SETTINGS);
  watch = new QuotaWatch(process.context);
}

async function settled(name: string): Promise<void> {
  const phase = async () => {
    const { status, metadata } = await service.getTenant(name);
    return status.move || status.observedGeneration !== metadata.generation ? "" : status.phase;
  };
  await expect.poll(phase, { timeout: PATIENCE_MS }).toBe("Running");
  await expect.poll(() => process.context.reader.get("Tenant", name)?.status.phase).toBe("Running");
}

async function told(name: string): Promise<string[]> {
  const events = await world.store.listEvents({ object: `Tenant/${name}`, limit: 100 });
  return events.filter(({ reason }) => reason.startsWith("Quota")).map(({ reason }) => reason);
}

/** A look at its database, however short ago the last one was. */
async function look(): Promise<void> {
  await new QuotaWatch(process.context).turn();
  await expect
    .poll(() => process.context.reader.get("Tenant", "a")?.metadata.resourceVersion)
    .toBe((await world.store.get("Tenant", "a"))?.metadata.resourceVersion);
}

it("warns at the soft limit, says when the hard one is reached and when it is below again, each once", async () => {
  await service.createTenant({ name: "a", plan: "small" });
  await settled("a");
  await look();
  expect(await told("a")).toEqual([]);
  reading = { users: 8, active: [] };
  await look();
  await look();
  expect(await told("a")).toEqual(["QuotaNear"]);
  expect((await service.getTenant("a")).status.quotas).toMatchObject({ users: { state: "Soft" } });
  reading = { users: 10, active: [] };
  await look();
  await look();
  expect(await told("a")).toEqual(["QuotaNear", "QuotaReached"]);
  expect((await service.quotasOf("a")).quotas).toContainEqual({
    quota: "users",
    hard: 10,
    soft: 8,
    used: 10,
    state: "Hard",
  });
  reading = { users: 2, active: [] };
  await look();
  expect(await told("a")).toEqual(["QuotaNear", "QuotaReached", "QuotaKept"]);
  expect((await service.getTenant("a")).status.quotas).toBeUndefined();
});

it("says it when a shard refuses something, though the figure is below the limit", async () => {
  await service.createTenant({ name: "a", plan: "small" });
  await settled("a");
  reading = { mediaBytes: 700, active: [] };
  world.refusedOf = () => ({ mediaBytes: 1 });
  await expect.poll(() => process.context.usage.get("a").refused, { timeout: PATIENCE_MS }).toEqual({ mediaBytes: 1 });
  await watch.turn();
  await watch.turn();
  expect(await told("a")).toEqual(["QuotaReached"]);
});

it("keeps what an earlier controller found, and does not tell it again", async () => {
  await service.createTenant({ name: "a", plan: "small" });
  await settled("a");
  reading = { users: 9, active: [] };
  await look();
  const found = (await service.getTenant("a")).status.quotas;
  await controller.stop();
  process = new FakeProcess(world, { plans: process.context.plans });
  world.readingOf = () => {
    throw new Error("the database is away");
  };
  await begin();
  await look();
  expect((await service.getTenant("a")).status.quotas).toEqual(found);
  world.readingOf = () => reading;
  await look();
  expect(await told("a")).toEqual(["QuotaNear"]);
});

it("starts tenants again with a changed plan, and no others", async () => {
  for (const [name, plan] of [
    ["a", "small"],
    ["b", undefined],
  ] as const)
    await service.createTenant({ name, plan });
  for (const name of ["a", "b"]) await settled(name);
  const epochs = async () => [(await service.getTenant("a")).status.epoch, (await service.getTenant("b")).status.epoch];
  const [a, b] = await epochs();
  process.context.plans = { small: { users: 20, requestsInFlight: 2 } };
  controller.lookAgain();
  await expect.poll(async () => (await epochs())[0], { timeout: PATIENCE_MS }).toBe(a! + 1);
  await settled("a");
  expect((await service.getTenant("a")).status.lastMove).toMatchObject({
    reason: "ConfigChanged",
    outcome: "Succeeded",
  });
  // What shards do not keep holds at once, and nobody is stopped for it.
  process.context.plans = { small: { users: 20, requestsInFlight: 7, soft: { users: 5 } } };
  controller.lookAgain();
  await expect.poll(() => process.context.feed.get("a")?.places, { timeout: PATIENCE_MS }).toBe(7);
  expect(await epochs()).toEqual([a! + 1, b]);
  expect(process.context.feed.get("b")?.places).toBeUndefined();
});

it("takes the processor share of a plan for a tenant's budget", async () => {
  await service.createTenant({ name: "a", plan: "small" });
  await service.createTenant({ name: "b", plan: "small", quotas: { cpuShare: 0.5 } });
  await service.createTenant({ name: "c" });
  expect((await service.tenantUsage("a")).cpuBudget).toBe(0.1);
  expect((await service.tenantUsage("b")).cpuBudget).toBe(0.5);
  expect((await service.tenantUsage("c")).cpuBudget).toBe(0.25);
});

it("refuses a plan that there is not, and says so of one that was taken out of the configuration", async () => {
  await expect(service.createTenant({ name: "a", plan: "medium" })).rejects.toMatchObject({
    code: "InvalidInput",
    message: 'there is no plan "medium": there are small',
  });
  await service.createTenant({ name: "a", plan: "small" });
  await expect(service.updateTenant("a", { plan: "medium" })).rejects.toMatchObject({ code: "InvalidInput" });
  expect(await service.listPlans()).toEqual([{ name: "small", quotas: process.context.plans["small"], tenants: 1 }]);
  process.context.plans = {};
  expect((await service.status()).problems).toContain(
    "tenant a has the plan small, which the configuration does not have: only quotas of its own hold",
  );
  await service.updateTenant("a", { plan: null });
  expect((await service.getTenant("a")).spec.plan).toBeUndefined();
});
