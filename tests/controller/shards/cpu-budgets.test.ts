import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, expect, it } from "vitest";
import { Controller } from "../../../src/controller/controller.ts";
import { StoreClusterService } from "../../../src/controller/service/store-cluster-service.ts";
import type { Tenant } from "../../../src/model/tenant.ts";
import { FakeProcess, FakeWorld } from "../../support/fake-world.ts";
import { PATIENCE_MS } from "../../support/patience.ts";

const SETTINGS = { version: "0", release: "1.163.2", baseDomain: "localhost", urlOf: () => "http://x" };
const [A, B] = ["1.163.2-0", "1.163.2-1"];
/** All in a fraction of a second; what the schema allows begins at seconds, and the decisions have tests of their own. */
const BUDGET = { perTenant: 0.25, averageSeconds: 0.1, isolateAfterSeconds: 0.6, calmSeconds: 0.8 };

let world: FakeWorld;
let process: FakeProcess;
let controller: Controller;
let service: StoreClusterService;
/** What its users would make it take, as a share of a core. */
let wanted = 0;
let taken = 0;
let takenAt = 0;

beforeEach(async () => {
  world = new FakeWorld();
  [wanted, taken, takenAt] = [0, 0, performance.now()];
  world.cpuSecondsOf = (tenant) => {
    if (tenant !== "busy") return 0;
    const now = performance.now();
    taken += (wanted * (process.context.feed.get("busy")?.share ?? 1) * (now - takenAt)) / 1000;
    takenAt = now;
    return taken;
  };
  await begin();
  for (const name of ["busy", "neighbour"]) {
    await service.createTenant({ name });
    await tenantWhen(name, "runs", runsOn(A));
  }
});
afterEach(() => controller.stop());

async function begin(policy = { maxShardsPerSynapseImageTag: 3, consolidateAfterSeconds: 3600 }): Promise<void> {
  process = new FakeProcess(world, { policy, cpuBudget: BUDGET, timing: { shardPoll: 0.02, loadEvery: 0.02 } });
  controller = new Controller(process.context);
  await controller.start();
  service = new StoreClusterService(process.context, SETTINGS);
}

async function tenantWhen(name: string, what: string, is: (tenant: Tenant) => boolean): Promise<Tenant> {
  for (const deadline = Date.now() + PATIENCE_MS; ; await sleep(5)) {
    const found = await world.store.get("Tenant", name);
    if (found && is(found)) return found;
    if (Date.now() > deadline) throw new Error(`tenant ${name} not ${what}: ${JSON.stringify(found)}`);
  }
}
const runsOn =
  (shard: string) =>
  ({ status }: Tenant) =>
    status.phase === "Running" && status.shard === shard && !status.move;
/** Events come just after what they tell of. */
const told = (reason: string) =>
  expect.poll(() => reasonsOf("Tenant/busy"), { timeout: PATIENCE_MS }).toContain(reason);
const reasonsOf = async (object: string) =>
  (await world.store.listEvents({ object, limit: 100 }))
    .map(({ reason }) => reason)
    .filter((it) => it.startsWith("Cpu"));

it("throttles a tenant that takes more than its budget in its route, and lets it go when it takes little", async () => {
  process.context.cpuBudget.isolateAfterSeconds = 0;
  wanted = 0.6;
  await tenantWhen("busy", "is throttled", ({ status }) => status.throttle !== undefined);
  await expect.poll(() => process.context.feed.get("busy")?.share, { timeout: PATIENCE_MS }).toBeLessThan(1);
  expect(process.context.feed.get("neighbour")?.share).toBeUndefined();
  expect((await service.status()).problems.join()).toContain("tenant busy is throttled");
  wanted = 0;
  await tenantWhen("busy", "is let go", ({ status }) => status.throttle === undefined);
  await expect.poll(() => process.context.feed.get("busy")?.share, { timeout: PATIENCE_MS }).toBeUndefined();
  await told("CpuThrottled");
  await told("CpuThrottleLifted");
  expect(await reasonsOf("Tenant/neighbour")).toEqual([]);
});

it("gives a tenant that stays throttled a shard of its own, where it is throttled no more and stays once it is calm", async () => {
  wanted = 1;
  const busy = await tenantWhen("busy", "is alone", runsOn(B));
  expect(busy.status.lastMove?.reason).toBe("CpuBudgetExceeded");
  expect(busy.status.heavy?.message).toMatch(/throttled since \d{4}-.* more than 25 % of a core/);
  await tenantWhen("busy", "is not throttled", ({ status }) => status.throttle === undefined);
  await service.createTenant({ name: "newcomer" });
  await tenantWhen("newcomer", "does not join it", runsOn(A));
  wanted = 0;
  await tenantWhen("busy", "is heavy no more", ({ status }) => status.heavy === undefined);
  await told("CpuBudgetKept");
  expect((await world.store.get("Tenant", "busy"))?.status.shard).toBe(B);
});

it("keeps a tenant throttled while its shard holds its work back, and lets it go when it wants no more", async () => {
  process.context.cpuBudget.isolateAfterSeconds = 0;
  let heldBackSeconds = 0;
  let heldAt: number | undefined;
  world.holdingsOf = (tenant) => {
    if (tenant !== "busy") return {};
    const now = performance.now();
    if (heldAt !== undefined) heldBackSeconds += (now - heldAt) / 1000;
    if (heldAt !== undefined) heldAt = now;
    return { heldBackSeconds };
  };
  wanted = 0.6;
  await tenantWhen("busy", "is throttled", ({ status }) => status.throttle !== undefined);
  heldAt = performance.now();
  // Of which it would be let go, were it not held back.
  wanted = 0.15;
  await sleep(6 * BUDGET.averageSeconds * 1000);
  expect((await world.store.get("Tenant", "busy"))?.status.throttle).toBeDefined();
  heldAt = undefined;
  wanted = 0.01;
  await tenantWhen("busy", "is let go", ({ status }) => status.throttle === undefined);
});

it("counts the time of a tenant's images, which other processes decode", async () => {
  process.context.cpuBudget.isolateAfterSeconds = 0;
  const begunAt = performance.now();
  world.holdingsOf = (tenant) => (tenant === "busy" ? { imageSeconds: (performance.now() - begunAt) / 1000 } : {});
  await tenantWhen("busy", "is throttled", ({ status }) => status.throttle !== undefined);
  await told("CpuThrottled");
  expect(await reasonsOf("Tenant/neighbour")).toEqual([]);
});

it("throttles a tenant that takes the database server's time, and gives it no shard of its own for that", async () => {
  const begunAt = performance.now();
  let isBusy = true;
  let seconds = 0;
  world.databaseSecondsOf = (tenant) => {
    if (tenant === "busy" && isBusy) seconds = (performance.now() - begunAt) / 1000;
    return tenant === "busy" ? seconds : 0;
  };
  const busy = await tenantWhen("busy", "is throttled", ({ status }) => (status.throttle?.part ?? 1) < 0.25);
  const events = await world.store.listEvents({ object: "Tenant/busy", limit: 100 });
  expect(events.map(({ message }) => message).join("\n")).toMatch(/\d+ % of the time of a database connection/);
  // Longer than it takes to be heavy.
  await sleep(3 * BUDGET.isolateAfterSeconds * 1000);
  expect((await world.store.get("Tenant", "busy"))?.status.heavy).toBeUndefined();
  expect((await world.store.get("Tenant", "busy"))?.status.shard).toBe(busy.status.shard);
  expect((await world.store.get("Tenant", "neighbour"))?.status.throttle).toBeUndefined();
  isBusy = false;
  await tenantWhen("busy", "is let go", ({ status }) => status.throttle === undefined);
});

it("knows a throttled tenant in the next controller", async () => {
  process.context.cpuBudget.isolateAfterSeconds = 0;
  wanted = 0.6;
  await tenantWhen("busy", "is throttled", ({ status }) => status.throttle !== undefined);
  await controller.stop();
  await begin();
  expect(process.context.feed.get("busy")?.share).toBeLessThan(1);
});
