import { afterEach, beforeEach, expect, it } from "vitest";
import { Controller } from "../../../src/controller/controller.ts";
import { DatabaseUsageLoop } from "../../../src/controller/usage/database-usage.ts";
import { StoreClusterService } from "../../../src/controller/service/store-cluster-service.ts";
import { suspectOf } from "../../../src/model/tenant-usage.ts";
import { FakeProcess, FakeWorld } from "../../support/fake-world.ts";
import { PATIENCE_MS } from "../../support/patience.ts";

const SETTINGS = { version: "0", release: "1.163.2", baseDomain: "localhost", urlOf: () => "http://x" };
const A = "1.163.2-0";

let world: FakeWorld;
let process: FakeProcess;
let controller: Controller;
let service: StoreClusterService;

beforeEach(async () => {
  world = new FakeWorld();
  process = new FakeProcess(world, { timing: { shardPoll: 0.02, loadEvery: 0.02 } });
  controller = new Controller(process.context);
  await controller.start();
  service = new StoreClusterService(process.context, SETTINGS);
});
afterEach(() => controller.stop());

async function running(...names: string[]): Promise<void> {
  for (const name of names) await service.createTenant({ name });
  for (const name of names)
    await expect
      .poll(async () => (await service.getTenant(name)).status.phase, { timeout: PATIENCE_MS })
      .toBe("Running");
}

it("names the tenant that grew when a shard comes near the limit of its memory, once", async () => {
  let rows = 0;
  world.holdingsOf = (tenant) =>
    tenant === "grower" ? { databaseRows: (rows += 1000), cacheEntries: 5_000 } : { cacheEntries: 500 };
  await running("grower", "neighbour");
  const told = async () =>
    (await world.store.listEvents({ object: `Shard/${A}`, limit: 100 })).filter(
      ({ reason }) => reason === "ShardMemoryHigh",
    );
  world.memoryOf = () => ({ bytes: 800, limitBytes: 1000 });
  await expect.poll(() => process.context.usage.shard(A)?.memoryRatio, { timeout: PATIENCE_MS }).toBe(0.8);
  expect(await told()).toEqual([]);
  world.memoryOf = () => ({ bytes: 900, limitBytes: 1000 });
  await expect.poll(async () => (await told()).length, { timeout: PATIENCE_MS }).toBe(1);
  expect((await told())[0]?.message).toMatch(/90 % of the memory that it may have; grower has \d\d %/);
  expect(process.context.usage.shard(A)?.suspect?.tenant).toBe("grower");
  // Around the bound it is not told again.
  for (const bytes of [800, 900, 800, 900]) {
    world.memoryOf = () => ({ bytes, limitBytes: 1000 });
    await expect.poll(() => process.context.usage.shard(A)?.memoryRatio, { timeout: PATIENCE_MS }).toBe(bytes / 1000);
  }
  expect(await told()).toHaveLength(1);
  world.memoryOf = () => ({ bytes: 100, limitBytes: 1000 });
  await expect.poll(() => process.context.usage.shard(A)?.suspect, { timeout: PATIENCE_MS }).toBeUndefined();
});

it("tells what a tenant takes of its shard and of the database server", async () => {
  world.holdingsOf = () => ({ responseBytes: 5, databaseRows: 6, imageSeconds: 7, cacheEntries: 8 });
  world.usageOf = () => ({ bytes: 9, connections: 10, rowsWritten: 11, tempBytes: 12 });
  await running("a");
  await new DatabaseUsageLoop(process.context).turn();
  await expect.poll(async () => (await service.tenantUsage("a")).holdings, { timeout: PATIENCE_MS }).toBeDefined();
  expect(await service.tenantUsage("a")).toMatchObject({
    cpuBudget: 0.25,
    holdings: { responseBytes: 5, databaseRows: 6, imageSeconds: 7, cacheEntries: 8 },
    database: { bytes: 9, connections: 10, rowsWritten: 11, tempBytes: 12 },
  });
  await expect(service.tenantUsage("b")).rejects.toMatchObject({ code: "NotFound" });
});

it("looks at a few databases at a time, and at all of them in turn, also after a failure", async () => {
  const names = Array.from({ length: 15 }, (_, index) => `t-${String(index).padStart(2, "0")}`);
  await running(...names);
  const asked: string[][] = [];
  let fails = true;
  world.fault = (call, [tenants]) => {
    if (call !== "usage") return undefined;
    asked.push(tenants as string[]);
    return fails ? new Error("the server is away") : undefined;
  };
  const loop = new DatabaseUsageLoop(process.context);
  await loop.turn();
  fails = false;
  for (let turn = 0; turn < 8; turn++) await loop.turn();
  expect(asked.slice(0, 3)).toEqual([names.slice(0, 2), names.slice(0, 2), names.slice(2, 4)]);
  expect(new Set(asked.flat())).toEqual(new Set(names));
  for (const name of names) expect((await service.tenantUsage(name)).database?.bytes).toBe(8_000_000);
});

it("suspects nobody where nothing is known, and otherwise who holds most", () => {
  const holdings = (cacheEntries: number) => ({ responseBytes: 0, databaseRows: 0, imageSeconds: 0, cacheEntries });
  expect(suspectOf([])).toBeUndefined();
  expect(suspectOf([["a", { holdings: holdings(0), passing: 0 }]])).toBeUndefined();
  const found = suspectOf([
    ["a", { holdings: holdings(100), passing: 0 }],
    ["b", { holdings: holdings(0), passing: 10_000 }],
  ]);
  expect(found).toEqual({ tenant: "b", part: 0.75 });
});
