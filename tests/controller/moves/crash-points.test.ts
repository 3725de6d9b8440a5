import { setTimeout as sleep } from "node:timers/promises";
import { expect, it } from "vitest";
import { StoreClusterService } from "../../../src/controller/service/store-cluster-service.ts";
import { Controller } from "../../../src/controller/controller.ts";
import type { Policy } from "../../../src/model/policy.ts";
import type { Tenant } from "../../../src/model/tenant.ts";
import { runs } from "../../support/controller-run.ts";
import { FakeProcess, FakeWorld } from "../../support/fake-world.ts";
import { until } from "../../support/patience.ts";

const SETTINGS = { version: "0", release: "1.163.2", baseDomain: "localhost", urlOf: () => "http://x" };
const POLICY: Partial<Policy> = { maxTenantsPerShard: 2, consolidateAfterSeconds: 0.1 };

interface Run {
  process: FakeProcess;
  controller: Controller;
  service: StoreClusterService;
}

async function run(world: FakeWorld, options: { killAtCall?: number; policy?: Partial<Policy> } = {}): Promise<Run> {
  const process = new FakeProcess(world, { policy: POLICY, ...options });
  const controller = new Controller(process.context);
  void controller.start();
  return { process, controller, service: new StoreClusterService(process.context, SETTINGS) };
}

async function settled(world: FakeWorld, names: string[], what = ""): Promise<Tenant[]> {
  let mine: Tenant[] = [];
  const look = async () => {
    mine = (await world.store.list("Tenant")).filter((tenant) => names.includes(tenant.metadata.name));
    return mine.length === names.length && mine.every(runs) && mine;
  };
  const seen = () => `${JSON.stringify(mine.map((tenant) => tenant.status))} ${world.log.join(", ")}`;
  return until(`${what} settled`, look, undefined, seen);
}

/** Two tenants on two shards, and a third place. */
async function twoTenants(): Promise<FakeWorld> {
  const world = new FakeWorld();
  const { process, controller, service } = await run(world, { policy: { maxTenantsPerShard: 1 } });
  await service.createTenant({ name: "a" });
  await service.createTenant({ name: "b" });
  await settled(world, ["a", "b"], "set-up");
  await controller.stop();
  process.kill();
  return world;
}

/** @returns whether the move was ended before the controller was killed */
async function moved(world: FakeWorld, process: FakeProcess): Promise<boolean> {
  while (!process.killed) {
    const tenant = await world.store.get("Tenant", "a");
    if (tenant?.status.lastMove && !tenant.status.move) return true;
    await sleep(1);
  }
  return false;
}

function expectOneOwner(world: FakeWorld, tenant: Tenant): void {
  expect(world.ownersOf(tenant.metadata.name)).toEqual([tenant.status.shard]);
  expect(world.fences.get(tenant.metadata.name)).toEqual({ epoch: tenant.status.epoch, shard: tenant.status.shard });
}

it("ends a move, with one owner, whatever call of it the controller is killed at", async () => {
  let killedAt = 0;
  let interrupted = 0;
  let survived = false;
  for (let call = 1; !survived; call += 0.5) {
    const world = await twoTenants();
    const before = (await world.store.get("Tenant", "a"))!;
    const first = await run(world, { killAtCall: call });
    // The request itself may be what is killed: then it was never made, or made and not answered.
    await Promise.race([first.service.moveTenant("a").catch(() => {}), first.process.whenKilled]);
    survived = await moved(world, first.process);
    first.process.kill();
    killedAt = call;
    if ((await world.store.get("Tenant", "a"))?.status.move) interrupted += 1;
    const second = await run(world);
    const tenants = await settled(world, ["a", "b"], `killed at call ${call}:`);
    await expect.poll(() => world.ownersOf("a").length).toBe(1);
    const after = tenants.find((t) => t.metadata.name === "a")!;
    expectOneOwner(world, after);
    expect(after.status.epoch).toBeGreaterThanOrEqual(before.status.epoch);
    await expect
      .poll(() => second.process.context.feed.get("a"))
      .toMatchObject({ state: "serving", address: after.status.address });
    await second.controller.stop();
    second.process.kill();
  }
  // The test is worth something only if it really went through the whole move.
  expect(killedAt).toBeGreaterThan(40);
  expect(interrupted).toBeGreaterThan(10);
}, 120_000);

it("ends a creation whatever call of it the controller is killed at", async () => {
  let survived = false;
  for (let call = 3; !survived; call += 1) {
    const world = new FakeWorld();
    const first = await run(world, { killAtCall: call });
    const created = first.service.createTenant({ name: "a" }).then(
      () => true,
      () => false,
    );
    await Promise.race([created, first.process.whenKilled]);
    const exists = (await world.store.get("Tenant", "a")) !== undefined;
    if (exists)
      survived = await Promise.race([
        first.process.whenKilled.then(() => false),
        settled(world, ["a"]).then(
          () => true,
          () => false,
        ),
      ]);
    first.process.kill();
    const second = await run(world);
    if (!exists) await second.service.createTenant({ name: "a" });
    const [tenant] = await settled(world, ["a"], `killed at call ${call}:`);
    expectOneOwner(world, tenant!);
    expect([...world.shards.keys()]).toEqual(["1.163.2-0"]);
    await second.controller.stop();
    second.process.kill();
  }
}, 120_000);

it("takes a tenant back to its old shard when the new one cannot reach the database, and does not hold that against it", async () => {
  const world = await twoTenants();
  const { controller, service } = await run(world);
  const { shard } = (await world.store.get("Tenant", "a"))!.status;
  const other = [...world.shards.keys()].find((name) => name !== shard)!;
  world.failingStarts.set(other, { code: "DatabaseUnreachable", message: "the new shard cannot reach the database" });
  await service.moveTenant("a", { to: other });
  const [tenant] = await settled(world, ["a"]);
  expect(tenant!.status).toMatchObject({
    shard,
    lastMove: { outcome: "Interrupted", message: expect.stringContaining("cannot reach the database") },
  });
  expect(tenant!.status.moveFailures ?? 0).toBe(0);
  expect(tenant!.status.moveNotBefore).toBeDefined();
  expectOneOwner(world, tenant!);
  await controller.stop();
});

it("starts the tenants of a silent shard elsewhere with a higher epoch, and the shard drops them when it is back", async () => {
  const world = await twoTenants();
  const { controller } = await run(world);
  const before = (await world.store.get("Tenant", "a"))!;
  const old = world.shards.get(before.status.shard!)!;
  old.paused = true;
  await expect.poll(async () => (await world.store.get("Tenant", "a"))!.status.shard).not.toBe(old.name);
  const [after] = await settled(world, ["a"]);
  expect(after!.status.epoch).toBeGreaterThan(before.status.epoch);
  expectOneOwner(world, after!);
  old.paused = false;
  await expect.poll(() => old.tenants.has("a")).toBe(false);
  await expect
    .poll(async () => (await world.store.get("Shard", old.name))?.status.phase ?? "gone")
    .toMatch(/Ready|gone|Stopping/);
  await controller.stop();
});

it("stops a deleted tenant, and gives its place to a waiting one", async () => {
  const world = new FakeWorld();
  const { controller, service } = await run(world, {
    policy: { maxTenantsPerShard: 1, maxShardsPerSynapseImageTag: 1 },
  });
  await service.createTenant({ name: "a" });
  await settled(world, ["a"]);
  await service.createTenant({ name: "b" });
  await expect
    .poll(async () => (await world.store.get("Tenant", "b"))?.status)
    .toMatchObject({ phase: "Pending", reason: "MaxShardsReached" });
  await service.deleteTenant("a", { purge: false });
  const [b] = await settled(world, ["b"]);
  expect(b!.status).toMatchObject({ shard: "1.163.2-0", reason: "", message: "" });
  expect(await world.store.get("Tenant", "a")).toBeUndefined();
  await controller.stop();
});

it("drains a shard with a failed tenant: it moves as it is, and is Failed there", async () => {
  const world = await twoTenants();
  world.failingStarts.set("*", { code: "InvalidConfig", message: "a mistake in its configuration" });
  const before = (await world.store.get("Tenant", "a"))!.status.shard!;
  world.shards.get(before)!.tenants.delete("a");
  const { controller, service } = await run(world);
  await expect.poll(async () => (await world.store.get("Tenant", "a"))!.status.phase).toBe("Failed");
  await service.drainShard(before);
  await expect.poll(async () => (await world.store.get("Shard", before)) === undefined).toBe(true);
  const after = (await world.store.get("Tenant", "a"))!;
  expect(after.status.shard).not.toBe(before);
  await expect
    .poll(async () => (await world.store.get("Tenant", "a"))!.status)
    .toMatchObject({ phase: "Failed", reason: "InvalidConfig" });
  await controller.stop();
});
