import { afterEach, describe, expect, it } from "vitest";
import type { Tenant } from "../../../src/model/tenant.ts";
import { modify } from "../../../src/ports/store.ts";
import { atEachCall, created, runController, runs, tenantWhen, type Run } from "../../support/controller-run.ts";
import { FakeWorld } from "../../support/fake-world.ts";
import { asleep, connectGateway, QUIET } from "../sleep/sleep-world.ts";

let running: Run | undefined;
afterEach(() => running?.stop());

function start(world = new FakeWorld(), killAtCall?: number): { world: FakeWorld; run: Run } {
  const run = (running = runController(world, { killAtCall, policy: { hibernation: QUIET } }));
  connectGateway(run);
  return { world, run };
}

const isSuspended = ({ status }: Tenant) => status.phase === "Suspended" && status.shard === undefined;
const routeOf = (run: Run) => run.process.context.feed.get("a");
const eventsOf = async (world: FakeWorld) =>
  (await world.store.listEvents({ object: "Tenant/a", limit: 100 })).map(({ reason }) => reason);

async function suspended(world: FakeWorld, { service }: Run): Promise<Tenant> {
  await service.suspendTenant("a", { lift: false });
  return tenantWhen(world, "a", "suspended", isSuspended);
}

describe("a tenant that is suspended", () => {
  it("is on no shard, owns nothing, keeps data and keys, and runs again with them when it is resumed", async () => {
    const { world, run } = start();
    await created(world, run, ["a", "b"]);
    const keys = await world.store.readSecret("a");
    const { status } = await suspended(world, run);
    expect(world.ownersOf("a")).toEqual([]);
    expect(world.fences.get("a")).toMatchObject({ shard: "" });
    expect(routeOf(run)).toMatchObject({ state: "unavailable", reason: "Suspended", hosts: ["a.localhost"] });
    expect(world.managed.get("a")?.hasDatabase).toBe(true);
    expect(await world.store.readSecret("a")).toEqual(keys);
    expect((await run.service.status()).problems.filter((problem) => problem.includes("tenant a"))).toEqual([]);
    await run.service.suspendTenant("a", { lift: true });
    const resumed = await tenantWhen(world, "a", "resumed", runs);
    expect(resumed.status.epoch).toBeGreaterThan(status.epoch);
    expect(world.ownersOf("a")).toEqual([resumed.status.shard]);
    expect(await eventsOf(world)).toEqual(expect.arrayContaining(["Suspended", "Resumed"]));
  });

  it("leaves its keys to every gateway, also where it slept before, and as long as it is not resumed", async () => {
    const { world, run } = start();
    await created(world, run, ["a", "b"]);
    await suspended(world, run);
    const said = { "/_matrix/key/v2/server": "keys of a.localhost 1" };
    expect(routeOf(run)).toMatchObject({ said });
    // Another controller tells the same to a gateway that never saw the tenant awake.
    await run.stop();
    const next = (running = runController(world, { policy: { hibernation: QUIET } }));
    await expect.poll(() => routeOf(next)).toMatchObject({ reason: "Suspended", said });
    await next.service.suspendTenant("a", { lift: true });
    await tenantWhen(world, "a", "resumed", runs);
    await expect.poll(() => routeOf(next)).toMatchObject({ state: "serving" });
    expect(routeOf(next)).not.toHaveProperty("said");
    connectGateway(next);
    await asleep(world, next, "b");
    expect(next.process.context.feed.get("b")).not.toHaveProperty("said");
    await next.service.suspendTenant("b", { lift: false });
    await expect
      .poll(() => next.process.context.feed.get("b"))
      .toMatchObject({
        reason: "Suspended",
        said: { "/_matrix/key/v2/server": expect.stringContaining("b.localhost") },
      });
  });

  it("names whom its users can ask: its own contact, else the operator's", async () => {
    const { world, run } = start();
    run.process.context.feed.adminContact = "https://operator.example/help";
    await run.service.createTenant({ name: "a", config: "admin_contact: mailto:it@clinic.example" });
    await created(world, run, ["b"]);
    await tenantWhen(world, "a", "created", runs);
    for (const name of ["a", "b"]) await run.service.suspendTenant(name, { lift: false });
    const contactOf = (name: string) => run.process.context.feed.get(name)?.contact;
    await expect.poll(() => contactOf("a")).toBe("mailto:it@clinic.example");
    await expect.poll(() => contactOf("b")).toBe("https://operator.example/help");
  });

  it("is the same after the same command twice", async () => {
    const { world, run } = start();
    await created(world, run, ["a"]);
    const { metadata } = await suspended(world, run);
    const again = await run.service.suspendTenant("a", { lift: false });
    expect(again.metadata).toEqual(metadata);
    await run.service.suspendTenant("a", { lift: true });
    const awake = await tenantWhen(world, "a", "resumed", runs);
    expect((await run.service.suspendTenant("a", { lift: true })).metadata.generation).toBe(awake.metadata.generation);
    expect((await eventsOf(world)).filter((reason) => reason === "Suspended")).toHaveLength(1);
  });

  it("wakes for nobody, also where it slept before", async () => {
    const { world, run } = start();
    await created(world, run, ["a"]);
    await asleep(world, run, "a");
    await suspended(world, run);
    await run.service.wakeTenants([{ tenant: "a", reason: "request" }]);
    await expect(run.service.wakeTenant("a")).rejects.toMatchObject({ code: "Conflict" });
    await expect(run.service.sleepTenant("a")).rejects.toMatchObject({ code: "Conflict" });
    await expect(run.service.moveTenant("a")).rejects.toMatchObject({ code: "Conflict" });
    expect(isSuspended((await world.store.get("Tenant", "a"))!)).toBe(true);
    expect(world.log.filter((line) => line.startsWith("start a"))).toHaveLength(1);
  });

  it("leaves its place to another, and waits for one when it is resumed and there is none", async () => {
    const world = new FakeWorld();
    const run = (running = runController(world, {
      policy: { hibernation: QUIET, maxTenantsPerShard: 1, maxShardsPerSynapseImageTag: 1 },
    }));
    await created(world, run, ["a"]);
    await suspended(world, run);
    await created(world, run, ["b"]);
    expect(isSuspended((await world.store.get("Tenant", "a"))!)).toBe(true);
    await run.service.suspendTenant("a", { lift: true });
    await tenantWhen(world, "a", "waiting", ({ status }) => status.reason === "MaxShardsReached");
  });

  it("takes up a configuration that was changed meanwhile when it is resumed", async () => {
    const { world, run } = start();
    await created(world, run, ["a"]);
    await suspended(world, run);
    const { metadata } = await run.service.updateTenant("a", { config: "enable_registration: true" });
    const noted = ({ status }: Tenant) =>
      isSuspended({ status } as Tenant) && status.observedGeneration >= metadata.generation;
    await tenantWhen(world, "a", "noted", noted);
    await run.service.suspendTenant("a", { lift: true });
    const { status } = await tenantWhen(world, "a", "resumed", runs);
    expect(world.assignments.get(`${status.shard}/a`)?.overrides).toBe("enable_registration: true");
  });

  it("is deleted like any other", async () => {
    const { world, run } = start();
    await created(world, run, ["a"]);
    await suspended(world, run);
    await run.service.deleteTenant("a", { purge: true });
    await expect.poll(() => world.store.get("Tenant", "a")).toBeUndefined();
    expect(world.managed.has("a")).toBe(false);
  });

  it("is shut out of its database where its shard does not answer any more, and is stopped there when it does", async () => {
    const { world, run } = start();
    await created(world, run, ["a", "b"]);
    const shard = world.shards.get("1.163.2-0")!;
    shard.paused = true;
    await suspended(world, run);
    expect(world.fences.get("a")).toMatchObject({ shard: "" });
    shard.paused = false;
    await expect.poll(() => shard.tenants.has("a")).toBe(false);
  });
});

it("refuses to suspend a tenant that is dedicated", async () => {
  const { world, run } = start();
  await created(world, run, ["a"]);
  await modify(world.store, "Tenant", "a", ({ spec }) => void (spec.dedicated = { address: "own.a.svc:8008" }));
  await expect(run.service.suspendTenant("a", { lift: false })).rejects.toMatchObject({ code: "Conflict" });
});

for (const lift of [false, true])
  it(`is ${lift ? "resumed" : "suspended"}, whatever call the controller is killed at`, async () => {
    const isDone = lift ? runs : isSuspended;
    const killed = await atEachCall(async (call) => {
      const world = new FakeWorld();
      const before = runController(world, { policy: { hibernation: QUIET } });
      await created(world, before, ["a"]);
      if (lift) await suspended(world, before);
      await before.stop();
      const first = runController(world, { killAtCall: call, policy: { hibernation: QUIET } });
      const asked = first.service.suspendTenant("a", { lift }).catch(() => {});
      await Promise.race([asked, first.process.whenKilled]);
      const survived = await Promise.race([
        first.process.whenKilled.then(() => false),
        tenantWhen(world, "a", "done", isDone).then(
          () => true,
          () => false,
        ),
      ]);
      first.process.kill();
      const second = runController(world, { policy: { hibernation: QUIET } });
      await second.service.suspendTenant("a", { lift });
      const { status } = await tenantWhen(world, "a", "done", isDone);
      await expect.poll(() => world.ownersOf("a")).toEqual(lift ? [status.shard] : []);
      await second.stop();
      return survived ? "done" : "interrupted";
    });
    expect(killed).toBeGreaterThan(5);
  }, 120_000);
