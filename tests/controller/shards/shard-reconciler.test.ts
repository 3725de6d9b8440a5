import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, expect, it } from "vitest";
import { StoreClusterService } from "../../../src/controller/service/store-cluster-service.ts";
import { Controller } from "../../../src/controller/controller.ts";
import type { StartProblem } from "../../../src/ports/launcher.ts";
import type { Shard } from "../../../src/model/shard.ts";
import type { Tenant } from "../../../src/model/tenant.ts";
import { FakeProcess, FakeWorld } from "../../support/fake-world.ts";
import { until } from "../../support/patience.ts";

const SETTINGS = { version: "0", release: "1.163.2", baseDomain: "localhost", urlOf: () => "http://x" };
const [A, B] = ["1.163.2-0", "1.163.2-1"];

let world: FakeWorld;
let process: FakeProcess;
let controller: Controller;
let service: StoreClusterService;

beforeEach(async () => {
  world = new FakeWorld();
  process = new FakeProcess(world, { policy: { maxTenantsPerShard: 1, maxShardsPerSynapseImageTag: 3 } });
  controller = new Controller(process.context);
  await controller.start();
  service = new StoreClusterService(process.context, SETTINGS);
});
afterEach(() => controller.stop());

async function when<T>(what: string, look: () => Promise<T | undefined>, is: (found: T) => boolean): Promise<T> {
  let seen: T | undefined;
  const check = async () => {
    seen = await look();
    return seen !== undefined && is(seen) && seen;
  };
  return until(what, check, undefined, () => JSON.stringify(seen));
}
const shardWhen = (name: string, what: string, is: (shard: Shard) => boolean) =>
  when(`shard ${name} ${what}`, () => world.store.get("Shard", name), is);
const tenantWhen = (name: string, what: string, is: (tenant: Tenant) => boolean) =>
  when(`tenant ${name} ${what}`, () => world.store.get("Tenant", name), is);
const runs = ({ status }: Tenant) => status.phase === "Running" && !status.move;

function hold(name: string, message: string, reason?: StartProblem["reason"]): void {
  world.waiting.set(name, { message, ...(reason ? { problem: { reason, message } } : {}) });
}

it("says what a shard waits for", async () => {
  hold("*", "its node fetches the image");
  await service.createTenant({ name: "a" });
  const waiting = await shardWhen(A, "says why", ({ status }) => status.message === "its node fetches the image");
  expect(waiting.status.phase).toBe("Starting");
  world.waiting.clear();
  await tenantWhen("a", "runs", runs);
  expect((await world.store.get("Shard", A))?.status).toMatchObject({ phase: "Ready", message: "" });
});

it("makes no further shard of a release whose image is missing, and tells the tenant why it waits", async () => {
  hold("*", "its image cannot be had", "ImageUnavailable");
  await service.createTenant({ name: "a" });
  await shardWhen(A, "failed", ({ status }) => status.phase === "Failed");
  await service.createTenant({ name: "b" });
  const waits = await tenantWhen("b", "knows", ({ status }) => status.reason === "ShardFailed");
  expect(waits.status).toMatchObject({ phase: "Pending", message: expect.stringContaining(A) });
  // Over several attempts, in each of which the shard is on its way again.
  await shardWhen(A, "tried again", ({ status }) => status.failures >= 3);
  expect((await world.store.list("Shard")).map(({ metadata }) => metadata.name)).toEqual([A]);
  expect((await world.store.get("Shard", A))?.status).toMatchObject({
    reason: "ImageUnavailable",
    message: "its image cannot be had",
  });
  world.waiting.clear();
  await tenantWhen("a", "runs", runs);
  await tenantWhen("b", "runs", runs);
});

it("does not kill a shard that served before while the platform makes its process again", async () => {
  await service.createTenant({ name: "a" });
  await tenantWhen("a", "runs", runs);
  process.context.timing.shardStartWithin = 0.5;
  await sleep(600);
  const before = world.shards.get(A);
  hold(A, "its pod is being made");
  const starting = await tenantWhen("a", "waits", ({ status }) => status.phase === "Starting");
  expect(starting.status, "gateways go on holding its requests").toMatchObject({ shard: A, address: `${A}:1` });
  await sleep(200);
  world.waiting.clear();
  await tenantWhen("a", "runs", runs);
  expect(world.shards.get(A)).toBe(before);
  expect((await world.store.get("Shard", A))?.status.failures).toBe(0);
});

it("starts tenants elsewhere when no node takes their shard", async () => {
  await service.createTenant({ name: "a" });
  await tenantWhen("a", "runs", runs);
  hold(A, "no node takes its pod", "Unschedulable");
  const moved = await tenantWhen("a", "is elsewhere", (tenant) => runs(tenant) && tenant.status.shard === B);
  expect(moved.status.lastMove).toMatchObject({ reason: "ShardLost", outcome: "Succeeded" });
  expect((await world.store.get("Shard", A))?.status).toMatchObject({ phase: "Lost", reason: "Unschedulable" });
});

it("does not carry a tenant that crashes its shard from shard to shard", async () => {
  await service.createTenant({ name: "a" });
  await tenantWhen("a", "runs", runs);
  hold(A, "its process ended with exit code 1, again and again", "Crashed");
  await shardWhen(A, "failed", ({ status }) => status.phase === "Failed" && status.failures >= 3);
  const tenant = await world.store.get("Tenant", "a");
  expect(tenant?.status).toMatchObject({ shard: A });
  expect(tenant?.status.move).toBeUndefined();
});

it("kills a shard that never comes up", async () => {
  process.context.timing.shardStartWithin = 0.3;
  hold("*", "its process comes up");
  await service.createTenant({ name: "a" });
  const failed = await shardWhen(A, "failed", ({ status }) => status.phase === "Failed");
  expect(failed.status).toMatchObject({
    reason: "NotStarted",
    message: "it did not come up within 0.3 s: its process comes up",
  });
});

it("has tenants that were away for minutes tell other servers that they are back", async () => {
  await service.createTenant({ name: "a" });
  await tenantWhen("a", "runs", runs);
  hold(A, "its process is on its way");
  await shardWhen(A, "starts", ({ status }) => status.phase === "Starting");
  world.clockSetBy += 120_000;
  const shard = world.shards.get(A)!;
  shard.instance = "another";
  world.waiting.clear();
  await until("it greets", async () => world.log.includes(`greet a ${A}`));
  const said = await until("it is said", async () => {
    for await (const event of service.events({ object: "Tenant/a" })) if (event.reason === "WasAway") return event;
    return undefined;
  });
  expect(said).toMatchObject({
    object: "Tenant/a",
    message: expect.stringMatching(/a was away for up to 12\d s, and tells 2 other servers that it is back/),
  });
});

it("starts a shard again as soon as its process ends, however rarely it is asked", async () => {
  await controller.stop();
  process = new FakeProcess(world, { timing: { shardPoll: 3600 } });
  controller = new Controller(process.context);
  await controller.start();
  service = new StoreClusterService(process.context, SETTINGS);
  await service.createTenant({ name: "a" });
  await tenantWhen("a", "runs", runs);
  const before = world.shards.get(A)?.instance;
  world.endShard(A);
  await until("another process runs", async () => {
    const instance = world.shards.get(A)?.instance;
    return instance !== undefined && instance !== before;
  });
});
