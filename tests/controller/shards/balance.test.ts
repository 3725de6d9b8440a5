import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, expect, it } from "vitest";
import { Controller } from "../../../src/controller/controller.ts";
import { StoreClusterService } from "../../../src/controller/service/store-cluster-service.ts";
import type { MaintenanceWindow } from "../../../src/model/fleet.ts";
import type { Shard } from "../../../src/model/shard.ts";
import type { Tenant } from "../../../src/model/tenant.ts";
import { FakeProcess, FakeWorld } from "../../support/fake-world.ts";
import { PATIENCE_MS } from "../../support/patience.ts";

const SETTINGS = { version: "0", release: "1.163.2", baseDomain: "localhost", urlOf: () => "http://x" };
const [A, B] = ["1.163.2-0", "1.163.2-1"];
const POLICY = {
  maxShardsPerSynapseImageTag: 3,
  consolidateAfterSeconds: 3600,
  // What the schema allows begins at a second.
  balancing: { cpuTarget: 0.6, averageSeconds: 0.1, coolDownSeconds: 0.5, tenantRestSeconds: 3600, movesPerHour: 12 },
};
/** A minute at the turn of a year that is far away. */
const NEVER_OPEN: MaintenanceWindow = { schedule: "0 0 29 2 *", durationMinutes: 1, timezone: "UTC" };

let world: FakeWorld;
let process: FakeProcess;
let controller: Controller;
let service: StoreClusterService;
/** Shares of a core, of tenants. */
const wanted = new Map<string, number>();

beforeEach(async () => {
  world = new FakeWorld();
  wanted.clear();
  // Each counter goes on from where it was, by the time that has passed.
  const counters = new Map<string, { at: number; seconds: number }>();
  const count = (key: string, share: number): number => {
    const now = performance.now();
    const before = counters.get(key) ?? { at: now, seconds: 0 };
    const seconds = before.seconds + (share * (now - before.at)) / 1000;
    counters.set(key, { at: now, seconds });
    return seconds;
  };
  const shareOf = (tenant: string) => wanted.get(tenant) ?? 0;
  world.cpuSecondsOf = (tenant) => count(tenant, shareOf(tenant));
  world.processSecondsOf = (shard, tenants) =>
    count(
      `process ${shard}`,
      tenants.reduce((sum, name) => sum + shareOf(name), 0),
    );
  process = new FakeProcess(world, {
    policy: POLICY,
    cpuBudget: { perTenant: 0 },
    timing: { shardPoll: 0.02, loadEvery: 0.02 },
  });
  controller = new Controller(process.context);
  await controller.start();
  service = new StoreClusterService(process.context, SETTINGS);
  for (const name of ["one", "two"]) {
    await service.createTenant({ name });
    await tenantWhen(name, ({ status }) => status.phase === "Running");
  }
});
afterEach(() => controller.stop());

async function tenantWhen(name: string, is: (tenant: Tenant) => boolean): Promise<Tenant> {
  return when(() => world.store.get("Tenant", name), is);
}
async function shardWhen(name: string, is: (shard: Shard) => boolean): Promise<Shard> {
  return when(() => world.store.get("Shard", name), is);
}
async function when<T>(look: () => Promise<T | undefined>, is: (found: T) => boolean): Promise<T> {
  for (const deadline = Date.now() + PATIENCE_MS; ; await sleep(5)) {
    const found = await look();
    if (found !== undefined && is(found)) return found;
    if (Date.now() > deadline) throw new Error(`not as expected: ${JSON.stringify(found)}`);
  }
}
const messagesOf = async (object: string) =>
  (await world.store.listEvents({ object, limit: 100 })).map(({ message }) => message);

it("makes a shard for a hot one and moves a tenant there, saying why and when", async () => {
  wanted.set("one", 0.4).set("two", 0.45);
  const moved = await tenantWhen("two", ({ status }) => status.shard === B && status.phase === "Running");
  expect(moved.status.lastMove?.reason).toBe("Balance");
  expect(moved.status.balanced).toMatchObject({ from: A, to: B });
  await expect
    .poll(async () => (await messagesOf("Tenant/two")).join("\n"), { timeout: PATIENCE_MS })
    .toMatch(
      new RegExp(`shard ${A} takes \\d+ % of a core, and its target is 60 %; it takes \\d+ % itself, and ${B} only`),
    );
  expect((await messagesOf(`Shard/${B}`)).join("\n")).toMatch(/takes \d+ % of a core, and its target is 60 %/);
  expect((await world.store.get("Tenant", "one"))?.status.shard).toBe(A);
});

it("says on the shard why nobody is moved, and takes it back", async () => {
  process.context.maintenanceWindows = [NEVER_OPEN];
  wanted.set("one", 0.4).set("two", 0.45);
  const kept = await shardWhen(A, ({ status }) => status.keeps !== undefined);
  expect(kept.status.keeps?.reason).toBe("OutsideWindow");
  expect(kept.status.keeps?.message).toMatch(/it keeps them: no maintenance window is open/);
  await expect.poll(() => messagesOf(`Shard/${A}`), { timeout: PATIENCE_MS }).toContain(kept.status.keeps?.message);
  wanted.set("one", 0.1).set("two", 0.1);
  await shardWhen(A, ({ status }) => status.keeps === undefined);
  expect((await world.store.list("Shard")).map(({ metadata }) => metadata.name)).toEqual([A]);
});

it("moves a tenant to where it is wanted, and forgets a wish that is taken back", async () => {
  await service.updateTenant("two", { placement: { isolate: true } });
  const moved = await tenantWhen("two", ({ status }) => status.shard === B && status.phase === "Running");
  expect(moved.status.lastMove?.reason).toBe("Placement");
  expect(moved.status.heavy, "its budget is another matter").toBeUndefined();
  expect(moved.status.throttle).toBeUndefined();
  await service.createTenant({ name: "three", placement: { shard: B } });
  const beside = await tenantWhen("three", ({ status }) => status.phase === "Running");
  expect(beside.status.shard, "a shard for one tenant").toBe(A);
  const freed = await service.updateTenant("two", { placement: {} });
  expect(freed.spec).not.toHaveProperty("placement");
  await tenantWhen("three", ({ status }) => status.shard === B && status.phase === "Running");
});
