import { setTimeout as sleep } from "node:timers/promises";
import { expect, it } from "vitest";
import { StoreClusterService } from "../../../src/controller/service/store-cluster-service.ts";
import { Controller } from "../../../src/controller/controller.ts";
import { DedicatedUsageLoop } from "../../../src/controller/usage/dedicated-usage.ts";
import { UsageReadingLoop } from "../../../src/controller/usage/usage-reading.ts";
import { UsageRecorder } from "../../../src/controller/usage/usage-recorder.ts";
import type { Tenant } from "../../../src/model/tenant.ts";
import { modify } from "../../../src/ports/store.ts";
import { tenantWhen as tenantIn } from "../../support/controller-run.ts";
import { FakeDedicated, FakeProcess, FakeWorld } from "../../support/fake-world.ts";

const SETTINGS = { version: "0", release: "1.163.2", baseDomain: "localhost", urlOf: () => "http://x" };
const ADDRESS = "a-synapse.a.svc:8008";
const REVISION = 2 ** 32;

interface Run {
  process: FakeProcess;
  controller: Controller;
}

function run(world: FakeWorld, options: { killAtCall?: number } = {}): Run {
  const process = new FakeProcess(world, options);
  const controller = new Controller(process.context);
  void controller.start();
  return { process, controller };
}

async function end({ process, controller }: Run): Promise<void> {
  await controller.stop();
  process.kill();
}

const tenantWhen = (world: FakeWorld, what: string, is: (tenant: Tenant) => boolean) => tenantIn(world, "a", what, is);

const isOnShard = ({ status }: Tenant) =>
  status.phase === "Running" && status.shard !== undefined && !status.transition && !status.move && !status.dedicated;
const isDedicated = ({ status }: Tenant) =>
  status.phase === "Running" && status.address === ADDRESS && !status.transition && status.shard === undefined;

async function onShard(): Promise<FakeWorld> {
  const world = new FakeWorld();
  const first = run(world);
  await new StoreClusterService(first.process.context, SETTINGS).createTenant({ name: "a" });
  await tenantWhen(world, "on a shard", isOnShard);
  await end(first);
  return world;
}

/** As a new revision of the release writes it. */
const want = (world: FakeWorld, revision: number, where: "dedicated" | "shard") =>
  modify(world.store, "Tenant", "a", ({ spec }) => {
    spec.revision = revision;
    if (where === "dedicated") spec.dedicated = { address: ADDRESS };
    else delete spec.dedicated;
  });

async function onItsOwn(): Promise<{ world: FakeWorld; dedicated: FakeDedicated }> {
  const world = await onShard();
  const first = run(world);
  await want(world, 2, "dedicated");
  const dedicated = new FakeDedicated(world, "a", ADDRESS, 2);
  dedicated.arrive();
  await tenantWhen(world, "on its own", isDedicated);
  await end(first);
  return { world, dedicated };
}

it("completes the way to a dedicated process after the controller is killed at any call", async () => {
  let interrupted = 0;
  let last = 0;
  for (let call = 0.5, survived = false; !survived; call += 0.5) {
    const world = await onShard();
    await want(world, 2, "dedicated");
    const dedicated = new FakeDedicated(world, "a", ADDRESS, 2);
    dedicated.arrive();
    const first = run(world, { killAtCall: call });
    survived = await Promise.race([
      first.process.whenKilled.then(() => false),
      tenantWhen(world, `killed at ${call}`, isDedicated).then(
        () => true,
        () => false,
      ),
    ]);
    first.process.kill();
    if ((await world.store.get("Tenant", "a"))?.status.transition) interrupted += 1;
    const second = run(world);
    const after = await tenantWhen(world, `on its own, killed at ${call}`, isDedicated);
    expect(world.ownersOf("a")).toEqual([ADDRESS]);
    expect(after.status).toMatchObject({ reason: "", dedicated: { address: ADDRESS } });
    expect(after.status.schemaRelease).toBeUndefined();
    await expect.poll(() => second.process.context.feed.get("a")).toMatchObject({ state: "serving", address: ADDRESS });
    await end(second);
    last = call;
  }
  expect(last).toBeGreaterThan(8);
  expect(interrupted).toBeGreaterThan(6);
}, 120_000);

it("completes the way back to a shard after the controller is killed at any call", async () => {
  let interrupted = 0;
  for (let call = 0.5, survived = false; !survived; call += 1.5) {
    const { world, dedicated } = await onItsOwn();
    await want(world, 3, "shard");
    const first = run(world, { killAtCall: call });
    const leaving = tenantWhen(world, "parked", ({ status }) => status.transition?.to === "shard").then(
      () => dedicated.leave(),
      () => {},
    );
    survived = await Promise.race([
      first.process.whenKilled.then(() => false),
      tenantWhen(world, `killed at ${call}`, isOnShard).then(
        () => true,
        () => false,
      ),
    ]);
    first.process.kill();
    if ((await world.store.get("Tenant", "a"))?.status.transition) interrupted += 1;
    const second = run(world);
    const after = await tenantWhen(world, `on a shard, killed at ${call}`, isOnShard);
    await leaving;
    expect(world.ownersOf("a")).toEqual([after.status.shard]);
    expect(after.status.epoch).toBeGreaterThan(3 * REVISION);
    expect(world.fences.get("a")).toEqual({ epoch: after.status.epoch, shard: after.status.shard });
    await expect
      .poll(() => second.process.context.feed.get("a"))
      .toMatchObject({ state: "serving", address: after.status.address });
    await end(second);
  }
  expect(interrupted).toBeGreaterThan(5);
}, 180_000);

it("serves from the shard until the dedicated process is ready, and forever if it never is", async () => {
  const world = await onShard();
  const { process, controller } = run(world);
  const before = (await world.store.get("Tenant", "a"))!;
  await want(world, 2, "dedicated");
  const told = await tenantWhen(world, "waiting", ({ status }) => status.reason === "DedicatedNotReady");
  expect(told.status).toMatchObject({ phase: "Running", shard: before.status.shard, address: before.status.address });
  await sleep(1_500);
  expect(process.context.feed.get("a")).toMatchObject({ state: "serving", address: before.status.address });
  expect(world.ownersOf("a")).toEqual([before.status.shard]);
  // Its owner thinks better of it.
  await want(world, 3, "shard");
  const after = await tenantWhen(world, "on a shard", (t) => isOnShard(t) && t.status.reason === "");
  expect(after.status.epoch).toBe(before.status.epoch);
  expect(world.log.filter((line) => line.startsWith("stop"))).toEqual([]);
  await controller.stop();
});

it("shuts out a shard that does not answer, and lets the dedicated process have the database", async () => {
  const world = await onShard();
  const { controller } = run(world);
  const { shard } = (await world.store.get("Tenant", "a"))!.status;
  world.shards.get(shard!)!.paused = true;
  await want(world, 2, "dedicated");
  new FakeDedicated(world, "a", ADDRESS, 2).arrive();
  await tenantWhen(world, "on its own", isDedicated);
  expect(world.ownersOf("a")).toEqual([ADDRESS]);
  expect(world.fences.get("a")!.epoch).toBeGreaterThan(2 * REVISION + 1);
  // When it comes back, what it still runs is stopped.
  const silent = world.shards.get(shard!);
  if (silent) silent.paused = false;
  await expect.poll(() => world.shards.get(shard!)?.tenants.has("a") ?? false).toBe(false);
  expect(world.ownersOf("a")).toEqual([ADDRESS]);
  await controller.stop();
});

it("starts on a shard when the dedicated process died silently, or comes back out of date", async () => {
  const { world, dedicated } = await onItsOwn();
  const { controller } = run(world);
  dedicated.leave(false);
  await want(world, 3, "shard");
  const after = await tenantWhen(world, "on a shard", isOnShard);
  dedicated.arrive();
  expect(dedicated.state).toBe("refused");
  expect(world.ownersOf("a")).toEqual([after.status.shard]);
  await controller.stop();
});

it("lets a process of an older revision in after a rollback", async () => {
  const world = await onShard();
  const { controller } = run(world);
  world.fences.get("a")!.epoch += 7 * REVISION;
  await want(world, 2, "dedicated");
  const dedicated = new FakeDedicated(world, "a", ADDRESS, 2);
  dedicated.isPatient = true;
  dedicated.arrive();
  await tenantWhen(world, "on its own", isDedicated);
  expect(world.ownersOf("a")).toEqual([ADDRESS]);
  await controller.stop();
});

it("turns round on its way, in either direction, when it is wanted elsewhere again", async () => {
  const { world, dedicated } = await onItsOwn();
  const { controller } = run(world);
  await want(world, 3, "shard");
  await tenantWhen(world, "leaving", ({ status }) => status.transition?.to === "shard");
  await want(world, 4, "dedicated");
  const back = new FakeDedicated(world, "a", ADDRESS, 4);
  dedicated.leave();
  back.arrive();
  await tenantWhen(world, "on its own again", isDedicated);
  expect(world.ownersOf("a")).toEqual([ADDRESS]);
  await controller.stop();
});

it("is Failed while the dedicated process is silent, and Running when it is back", async () => {
  const { world, dedicated } = await onItsOwn();
  const { process, controller } = run(world);
  await sleep(100);
  dedicated.leave(false);
  await modify(world.store, "Tenant", "a", ({ spec }) => void (spec.revision = 9)); // so that it is looked at now
  const silent = await tenantWhen(world, "silent", ({ status }) => status.phase === "Starting");
  expect(silent.status.reason).toBe("DedicatedNotReady");
  // Requests go where it was: gateways hold what is refused, for it may only be restarting.
  expect(process.context.feed.get("a")).toMatchObject({ state: "serving", address: ADDRESS });
  world.fences.get("a")!.shard = "";
  dedicated.arrive();
  await tenantWhen(world, "back", isDedicated);
  await controller.stop();
});

it("does not start a database that the release of the shard cannot read, and says what to do", async () => {
  const { world, dedicated } = await onItsOwn();
  const { process, controller } = run(world);
  world.schemaCompatVersion = 99;
  await want(world, 3, "shard");
  dedicated.leave();
  const failed = await tenantWhen(world, "refused", ({ status }) => status.phase === "Failed");
  expect(failed.status.reason).toBe("SchemaTooNew");
  expect(failed.status.message).toMatch(/choose a newer release/);
  expect(world.ownersOf("a")).toEqual([]);
  expect(process.context.feed.get("a")).toMatchObject({ state: "unavailable" });
  world.schemaCompatVersion = 84;
  await tenantWhen(world, "on a shard", isOnShard);
  await controller.stop();
});

it("refuses to move a tenant that is on no shard, and says why", async () => {
  const { world } = await onItsOwn();
  const { process, controller } = run(world);
  const service = new StoreClusterService(process.context, SETTINGS);
  await expect(service.moveTenant("a")).rejects.toThrow("tenant a is dedicated; moves are between shards");
  await controller.stop();
});

it("removes only the route when a dedicated tenant is deleted", async () => {
  const { world, dedicated } = await onItsOwn();
  const { process, controller } = run(world);
  await modify(world.store, "Tenant", "a", (tenant) => {
    tenant.spec.reclaimPolicy = "Delete";
    tenant.metadata.deletionTimestamp = new Date().toISOString();
  });
  await expect.poll(() => world.store.get("Tenant", "a")).toBeUndefined();
  expect(dedicated.serves()).toBe(true);
  expect(await world.store.readSecret("a")).toBeDefined();
  expect(process.context.feed.get("a")).toBeUndefined();
  await controller.stop();
});

it("leads names to a dedicated process that a shard would allow it, and says of others that it does not", async () => {
  const { world } = await onItsOwn();
  const current = run(world);
  const configure = (config: string) =>
    modify(world.store, "Tenant", "a", ({ spec }) => void Object.assign(spec, { config }));
  await configure("synapse_shards: {hosts: [chat.a.localhost, b.localhost]}\npublic_baseurl: https://c.localhost/");
  const said = await tenantWhen(world, "told", ({ status }) => status.reason === "OptionNotAllowed");
  expect(said.status).toMatchObject({ phase: "Running", address: ADDRESS });
  expect(said.status.message).toBe(
    "c.localhost, b.localhost in its configuration do not lead to it: allowed are a.localhost, names below it, and those in the operator's allowedHosts",
  );
  const hosts = () => current.process.context.feed.get("a")?.hosts;
  await expect.poll(hosts).toEqual(["a.localhost", "chat.a.localhost"]);
  await configure("");
  await tenantWhen(world, "well again", (tenant) => isDedicated(tenant) && tenant.status.reason === "");
  await expect.poll(hosts).toEqual(["a.localhost"]);
  await end(current);
});

it("restarts a tenant whose Secret changes, though its generation does not", async () => {
  const world = await onShard();
  const { controller } = run(world);
  const before = (await world.store.get("Tenant", "a"))!;
  const secret = (await world.store.readSecret("a"))!;
  await world.store.writeSecret("a", { ...secret, macaroonSecretKey: "another" });
  const after = await tenantWhen(world, "restarted", (t) => isOnShard(t) && t.status.epoch > before.status.epoch);
  expect(after.metadata.generation).toBe(before.metadata.generation);
  expect(after.status.lastMove).toMatchObject({ reason: "ConfigChanged", outcome: "Succeeded" });
  await controller.stop();
});

it("counts the requests that gateways say were answered, and only while it is dedicated", async () => {
  const { world } = await onItsOwn();
  const process = new FakeProcess(world);
  const { reader, clock, log, feed } = process.context;
  process.context.recorder = new UsageRecorder({ history: world.store.usage, reader, clock, log });
  const controller = new Controller(process.context);
  await controller.start();
  const { epoch } = (await tenantWhen(world, "dedicated", isDedicated)).status;
  const requests = async () => (await process.context.recorder?.months({ tenant: "a" }))?.at(-1)?.requests;
  feed.answered({ gateway: "g", all: true, tenants: { a: { epoch, requests: 100 } } });
  feed.answered({ gateway: "g", all: false, tenants: { a: { epoch, requests: 103 }, b: { epoch: 1, requests: 5 } } });
  await expect.poll(requests).toBe(3);
  // Of no epoch that it had.
  feed.answered({ gateway: "g", all: false, tenants: { a: { epoch: epoch + 1, requests: 50 } } });
  feed.answered({ gateway: "g", all: false, tenants: { a: { epoch, requests: 104 } } });
  await expect.poll(requests).toBe(4);
  expect(await world.store.usage.list("b")).toEqual([]);
  world.readingOf = () => ({ users: 7 });
  await new UsageReadingLoop(process.context).turn();
  expect((await process.context.recorder.months({ tenant: "a" })).at(-1)).toMatchObject({ users: 7, requests: 4 });
  await end({ process, controller });
});

it("counts the processor time that its metrics tell, of each start, once, and also what they took meanwhile", async () => {
  const { world, dedicated } = await onItsOwn();
  await modify(
    world.store,
    "Tenant",
    "a",
    ({ spec }) => void (spec.dedicated = { address: ADDRESS, metricsPort: 9001 }),
  );
  const { process, controller } = run(world);
  const { context } = process;
  context.recorder = new UsageRecorder({ ...context, history: world.store.usage });
  await tenantWhen(world, "on its own", isDedicated);
  const loop = new DedicatedUsageLoop(context);
  const seconds = async () => (await context.recorder?.months({ tenant: "a" }))?.at(-1)?.cpuSeconds;
  for (const [startedAt, cpuSeconds, total] of [
    [1, 5, 5],
    [1, 5, 5],
    [1, 7, 7],
    [2, 1.5, 8.5],
    [2, 3, 10],
  ] as const) {
    dedicated.took = { startedAt, cpuSeconds };
    await loop.turn();
    expect(await seconds()).toBe(total);
  }
  // Whoever tells nothing is asked again.
  dedicated.leave();
  await loop.turn();
  expect(await seconds()).toBe(10);
  await end({ process, controller });
});

it("ends the sessions that were opened for its admin UI before its shard lets it go, and goes all the same if the shard keeps them", async () => {
  for (const keeps of [false, true]) {
    const world = await onShard();
    const first = run(world);
    const until = new Date(Date.now() + 3_600_000).toISOString();
    await modify(world.store, "Tenant", "a", ({ spec, status }) => {
      spec.adminAccess = { allowedNetworks: [] };
      status.adminSessions = [{ userId: "@ada:a.localhost", until }];
    });
    world.sessions.add(`a ada ${Date.parse(until)}`);
    world.keepsSessions = keeps;
    await want(world, 2, "dedicated");
    new FakeDedicated(world, "a", ADDRESS, 2).arrive();
    const { status } = await tenantWhen(world, "on its own", isDedicated);
    expect([world.sessions.size, status.adminSessions?.length]).toEqual(keeps ? [1, 1] : [0, undefined]);
    await end(first);
  }
});
