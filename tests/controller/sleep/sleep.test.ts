import { afterEach, describe, expect, it } from "vitest";
import type { Route } from "../../../src/model/routes.ts";
import { created, runs, tenantWhen, type Run } from "../../support/controller-run.ts";
import { modify } from "../../../src/ports/store.ts";
import { FakeDedicated, FakeWorld } from "../../support/fake-world.ts";
import { asleep, connectGateway, isAsleep, runWith } from "./sleep-world.ts";

let running: Run | undefined;
afterEach(() => running?.stop());

async function start(...options: Parameters<typeof runWith> extends [unknown, ...infer Rest] ? Rest : never): Promise<{
  world: FakeWorld;
  run: Run;
}> {
  const world = new FakeWorld();
  const run = (running = runWith(world, ...options));
  connectGateway(run);
  return { world, run };
}

const routesOf = (run: Run, tenant: string): Route[] => {
  const seen: Route[] = [];
  const { feed } = run.process.context;
  const publish = feed.publish.bind(feed);
  feed.publish = (route) => {
    const before = feed.get(tenant);
    const version = publish(route);
    const now = feed.get(tenant);
    if (now && JSON.stringify(now) !== JSON.stringify(before)) seen.push(now);
    return version;
  };
  return seen;
};

describe("a tenant that is put to sleep", () => {
  it("is on no shard, and nobody owns its database", async () => {
    const { world, run } = await start({});
    await created(world, run, ["a"]);
    const routes = routesOf(run, "a");
    const { status } = await asleep(world, run, "a");
    expect(status.shard ?? status.address).toBeUndefined();
    expect(status.sleep).toMatchObject({ step: "Asleep", reason: "Requested", since: expect.any(String) });
    expect(world.ownersOf("a")).toEqual([]);
    expect(world.fences.get("a")).toMatchObject({ shard: "" });
    expect(world.shards.get("1.163.2-0")?.tenants.has("a")).toBe(false);
    expect(routes.map(({ state, reason, draining }) => [state, reason, draining !== undefined])).toEqual([
      ["parked", "FallingAsleep", true],
      ["asleep", "Asleep", false],
    ]);
    expect(routes.at(-1)?.hosts).toEqual(["a.localhost"]);
    // What its gateways need to answer without it.
    expect(routes.at(-1)).toMatchObject({ position: "s1_1_1", revision: routes[0]?.revision });
    expect(routes[0]?.revision).toMatch(/^1\.163\.2\/1\.163\.2\/./);
  });

  it("is woken once, however often it is wanted, and serves on a shard that is there", async () => {
    const { world, run } = await start({});
    await created(world, run, ["a", "b"]);
    const shard = async () => (await world.store.get("Shard", "1.163.2-0"))!.status;
    const { lastAssignmentChange: settled } = await shard();
    const before = await asleep(world, run, "a");
    await expect.poll(async () => (await shard()).lastSleepOrWake).toBeDefined();
    const { lastSleepOrWake: slept } = await shard();
    const routes = routesOf(run, "a");
    const wish = { tenant: "a", reason: "request" as const };
    await Promise.all([run.service.wakeTenants([wish, wish]), run.service.wakeTenants([wish])]);
    await run.service.wakeTenants([{ tenant: "nobody", reason: "request" }, wish]);
    const { status } = await tenantWhen(world, "a", "awake", runs);
    expect(status).toMatchObject({ shard: "1.163.2-0", awake: { reason: "request" } });
    expect(status.sleep ?? status.wake).toBeUndefined();
    expect(status.epoch).toBeGreaterThan(before.status.epoch);
    expect(world.ownersOf("a")).toEqual(["1.163.2-0"]);
    // Neither is a change that consolidation waits for.
    const woken = await shard();
    expect(woken.lastAssignmentChange).toBe(settled);
    expect(Date.parse(woken.lastSleepOrWake!)).toBeGreaterThan(Date.parse(slept!));
    expect(world.log.filter((line) => line.startsWith("start a"))).toHaveLength(2);
    await expect.poll(() => routes.at(-1)?.state).toBe("serving");
    expect(routes.slice(0, -1).every(({ state, reason }) => state === "parked" && reason === "Waking")).toBe(true);
  });

  it("stays awake, and says why, while it owes something to somebody", async () => {
    const { world, run } = await start({});
    await created(world, run, ["a"]);
    world.idle.set("a", { keepsAwake: ["a transaction for bridge is due"] });
    await expect(run.service.sleepTenant("a")).rejects.toThrow("a cannot sleep now: a transaction for bridge is due");
    expect(await run.service.restOf("a")).toMatchObject({ keepsAwake: ["a transaction for bridge is due"] });
    expect(runs((await world.store.get("Tenant", "a"))!)).toBe(true);
  });

  it("serves on without a stop where something came up while gateways parked", async () => {
    const { world, run } = await start({});
    await created(world, run, ["a"]);
    let asked = 0;
    world.fault = (call) => {
      if (call === "idle" && ++asked === 2) world.idle.set("a", { keepsAwake: ["an event is being sent"] });
      return undefined;
    };
    await run.service.sleepTenant("a");
    await expect.poll(() => asked).toBe(2);
    await tenantWhen(world, "a", "awake again", runs);
    expect(world.log.filter((line) => line.startsWith("stop"))).toEqual([]);
    await expect.poll(() => run.process.context.feed.get("a")?.state).toBe("serving");
  });

  it("is woken as soon as it is asleep where it is wanted while its shard stops it", async () => {
    const { world, run } = await start({});
    await created(world, run, ["a"]);
    world.fault = (call) => {
      if (call === "stopTenant") void run.service.wakeTenants([{ tenant: "a", reason: "request" }]);
      return undefined;
    };
    await run.service.sleepTenant("a");
    const { status } = await tenantWhen(world, "a", "awake", (t) => runs(t) && t.status.awake !== undefined);
    expect(status.awake?.reason).toBe("request");
    expect(world.log.filter((line) => line.startsWith("start a"))).toHaveLength(2);
  });

  it("says why it cannot be woken, and wakes when it can", async () => {
    const { world, run } = await start({});
    await created(world, run, ["a"]);
    await asleep(world, run, "a");
    world.failingStarts.set("*", { code: "ModuleFailed", message: "its module is broken" });
    await run.service.wakeTenant("a");
    const failed = await tenantWhen(world, "a", "failed", ({ status }) => status.phase === "Failed");
    expect(failed.status).toMatchObject({ reason: "ModuleFailed", message: "its module is broken" });
    await expect
      .poll(() => run.process.context.feed.get("a"))
      .toMatchObject({ state: "unavailable", reason: "Failed" });
    world.failingStarts.clear();
    await tenantWhen(world, "a", "awake", runs);
    const { wakes, wakeFailures } = run.process.context.metrics;
    const counted = (await wakes.get()).values.filter(({ value }) => value > 0);
    expect(counted).toMatchObject([{ labels: { reason: "operator" }, value: 1 }]);
    expect((await wakeFailures.get()).values[0]).toMatchObject({ labels: { reason: "ModuleFailed" } });
  });

  it("is taken over in its sleep by a dedicated Synapse, and then never sleeps", async () => {
    const { world, run } = await start({ afterIdleSeconds: 1 });
    await created(world, run, ["a"]);
    await asleep(world, run, "a");
    await modify(world.store, "Tenant", "a", ({ spec }) => {
      spec.revision = 2;
      spec.dedicated = { address: "a-synapse:8008" };
    });
    new FakeDedicated(world, "a", "a-synapse:8008", 2).arrive();
    const { status } = await tenantWhen(
      world,
      "a",
      "dedicated",
      ({ status: { phase, address } }) => phase === "Running" && address === "a-synapse:8008",
    );
    expect(status.sleep ?? status.wake).toBeUndefined();
    expect(world.ownersOf("a")).toEqual(["a-synapse:8008"]);
    await expect(run.service.sleepTenant("a")).rejects.toThrow("tenant a is dedicated, and never sleeps");
    expect(await run.service.restOf("a")).toEqual({ keepsAwake: ["tenant a is dedicated, and never sleeps"] });
  });

  it("is deleted in its sleep", async () => {
    const { world, run } = await start({});
    await created(world, run, ["a"]);
    await asleep(world, run, "a");
    await run.service.deleteTenant("a", { purge: true });
    await expect.poll(() => world.store.get("Tenant", "a")).toBeUndefined();
    expect(world.managed.has("a")).toBe(false);
    expect(world.log.filter((line) => line.startsWith("start a"))).toHaveLength(1);
  });

  it("is deleted while it falls asleep", async () => {
    const { world, run } = await start({});
    await created(world, run, ["a"]);
    await run.service.sleepTenant("a");
    await run.service.deleteTenant("a", { purge: true });
    await expect.poll(() => world.store.get("Tenant", "a")).toBeUndefined();
    expect(world.ownersOf("a")).toEqual([]);
  });

  it("is not waited for by a shard that is lost", async () => {
    const { world, run } = await start({});
    await created(world, run, ["a"]);
    world.fault = (call) => {
      if (call === "stopTenant") world.shards.get("1.163.2-0")!.paused = true;
      return undefined;
    };
    await run.service.sleepTenant("a");
    await tenantWhen(world, "a", "asleep", isAsleep);
    world.fault = () => undefined;
    await run.service.wakeTenant("a");
    const { status } = await tenantWhen(world, "a", "awake", runs);
    expect(world.ownersOf("a")).toEqual([status.shard]);
  });

  it("takes a changed configuration when it wakes, and hears at once of one that is wrong", async () => {
    const { world, run } = await start({});
    await created(world, run, ["a", "b"]);
    await asleep(world, run, "a");
    world.wrongConfigs.add("wrong: 1\n");
    await run.service.updateTenant("a", { config: "wrong: 1\n" });
    const refused = await tenantWhen(world, "a", "refused", ({ status }) => status.refusedConfig !== undefined);
    expect(refused.status).toMatchObject({ phase: "Asleep", refusedConfig: { reason: "InvalidConfig" } });
    await run.service.updateTenant("a", { config: "fine: 1\n" });
    await tenantWhen(world, "a", "admitted", ({ status }) => status.sleep?.admittedConfig !== undefined);
    expect(world.log.filter((line) => line.startsWith("start a"))).toHaveLength(1);
    await run.service.wakeTenant("a");
    const { status } = await tenantWhen(world, "a", "awake", runs);
    expect(status.refusedConfig).toBeUndefined();
    expect(world.assignments.get(`${status.shard}/a`)?.overrides).toBe("fine: 1\n");
  });

  it("is brought to another release without being started", async () => {
    const { world, run } = await start({});
    await created(world, run, ["a"], "1.157.2");
    const before = await asleep(world, run, "a");
    expect(before.status.schemaRelease).toBe("1.157.2");
    await run.service.updateTenant("a", { release: "1.163.2" });
    const { status } = await tenantWhen(world, "a", "prepared", (t) => t.status.schemaRelease === "1.163.2");
    expect(status).toMatchObject({ phase: "Asleep", sleep: { preparedAt: expect.any(String) } });
    expect(world.fences.get("a")?.shard).toBe("");
    expect(world.log.filter((line) => line.startsWith("start a"))).toHaveLength(1);
    expect([...world.shards.keys()].filter((name) => name.startsWith("1.163.2"))).toEqual([]);
    await run.service.wakeTenant("a");
    expect((await tenantWhen(world, "a", "awake", runs)).status.shard).toBe("1.163.2-0");
  });

  it("stays on its release, and wakes with it, where its database cannot go to another one", async () => {
    const { world, run } = await start({});
    await created(world, run, ["a"], "1.157.2");
    await asleep(world, run, "a");
    await run.service.updateTenant("a", { release: "1.163.2" });
    world.schemaCompatVersion = 999;
    const { status } = await tenantWhen(world, "a", "refused", (t) => t.status.refusedRelease !== undefined);
    expect(status).toMatchObject({ phase: "Asleep", refusedRelease: { release: "1.163.2", reason: "SchemaTooNew" } });
    await run.service.wakeTenant("a");
    expect((await tenantWhen(world, "a", "awake", runs)).status.shard).toBe("1.157.2-0");
  });
});

describe("tenants that nobody uses", () => {
  it("fall asleep on their own, but for those that never do", async () => {
    const { world, run } = await start({ afterIdleSeconds: 60 });
    await run.service.createTenant({ name: "never", hibernation: { mode: "Never" } });
    await created(world, run, ["a"]);
    const { status } = await tenantWhen(world, "a", "asleep", isAsleep);
    expect(status.sleep?.reason).toBe("Idle");
    expect(runs((await world.store.get("Tenant", "never"))!)).toBe(true);
    await run.service.updateTenant("never", { hibernation: { mode: "Auto", afterIdleSeconds: 100 } });
    await tenantWhen(world, "never", "asleep", isAsleep);
  });

  it("stay awake while a gateway is there that cannot wake them", async () => {
    const { world, run } = await start({ afterIdleSeconds: 60 });
    world.idle.set("a", { inFlight: 1 });
    await created(world, run, ["a"]);
    const disconnect = connectGateway(run, { wakes: false });
    expect(run.process.context.feed.wakes).toBe(false);
    world.idle.clear();
    await expect.poll(() => run.process.context.idle.get("a")).toBeDefined();
    await new Promise((go) => setTimeout(go, 100));
    expect(runs((await world.store.get("Tenant", "a"))!)).toBe(true);
    disconnect();
    await tenantWhen(world, "a", "asleep", isAsleep);
  });

  it("make room for those that are wanted, as many of them as there are", async () => {
    const { world, run } = await start(
      { afterIdleSeconds: 7_200 },
      { maxTenantsPerShard: 2, maxShardsPerSynapseImageTag: 1 },
    );
    world.idle.set("busy", { inFlight: 1, lastUse: 0 });
    await created(world, run, ["busy", "a"]);
    await run.service.createTenant({ name: "c" });
    await tenantWhen(world, "c", "awake", runs);
    const a = await tenantWhen(world, "a", "asleep", isAsleep);
    expect(a.status.sleep?.reason).toBe("PlacesNeeded");
    await run.service.wakeTenants([{ tenant: "a", reason: "request" }]);
    await tenantWhen(world, "a", "awake", runs);
    await tenantWhen(world, "c", "asleep", isAsleep);
    expect(runs((await world.store.get("Tenant", "busy"))!)).toBe(true);
  });

  it("wait for a place where all are in use", async () => {
    const { world, run } = await start(
      { afterIdleSeconds: 7_200 },
      { maxTenantsPerShard: 1, maxShardsPerSynapseImageTag: 1 },
    );
    await created(world, run, ["a"]);
    world.idle.set("a", { inFlight: 1, lastUse: 0 });
    world.idle.set("b", { inFlight: 1, lastUse: 0 });
    await run.service.createTenant({ name: "b" });
    const { status } = await tenantWhen(world, "b", "waiting", (t) => t.status.reason === "MaxShardsReached");
    expect(status.phase).toBe("Pending");
    world.idle.delete("a");
    await tenantWhen(world, "b", "awake", runs);
  });

  it("are woken when something is due, and sleep again when it is done", async () => {
    const { world, run } = await start({ afterIdleSeconds: 60 });
    const due = Date.now() / 1000 + 3_600;
    world.idle.set("a", { nextDue: { at: due, reason: "a delayed event" } });
    await created(world, run, ["a"]);
    const { status } = await tenantWhen(world, "a", "asleep", isAsleep);
    expect(status.sleep?.nextWake).toMatchObject({ reason: "a delayed event" });
    world.idle.delete("a");
    world.clockSetBy = 3_600_000;
    const awake = await tenantWhen(world, "a", "awake", runs);
    expect(awake.status.awake?.reason).toBe("due");
    const again = await tenantWhen(world, "a", "asleep again", isAsleep);
    expect(again.status.sleep?.reason).toBe("Done");
  });
});
