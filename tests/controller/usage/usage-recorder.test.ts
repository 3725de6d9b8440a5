import { afterEach, beforeEach, expect, it } from "vitest";
import { Controller } from "../../../src/controller/controller.ts";
import { StoreClusterService } from "../../../src/controller/service/store-cluster-service.ts";
import { UsageReadingLoop } from "../../../src/controller/usage/usage-reading.ts";
import { UsageRecorder } from "../../../src/controller/usage/usage-recorder.ts";
import { monthOf } from "../../../src/model/usage-month.ts";
import type { UsageQuestion } from "../../../src/ports/databases.ts";
import type { UsageEntry, UsageHistory } from "../../../src/ports/usage-history.ts";
import { FakeProcess, FakeWorld } from "../../support/fake-world.ts";
import { PATIENCE_MS, until } from "../../support/patience.ts";

const SETTINGS = { version: "0", release: "1.163.2", baseDomain: "localhost", urlOf: () => "http://x" };

let world: FakeWorld;
let now: Here;
/** Of each start of a tenant, as its shard counts them. */
let totals: Map<string, { cpuSeconds: number; requests: number }>;

interface Here {
  process: FakeProcess;
  controller: Controller;
  service: StoreClusterService;
  recorder: UsageRecorder;
  written: UsageEntry[][];
}

/** A controller that keeps a history; with `before`, after it was killed without a word. */
async function begin(before?: Here): Promise<Here> {
  before?.process.kill();
  const process = new FakeProcess(world, { timing: { shardPoll: 0.02, loadEvery: 0.02 } });
  const { reader, clock, log } = process.context;
  const written: UsageEntry[][] = [];
  const { usage } = world.store;
  const history: UsageHistory = {
    list: (tenant) => usage.list(tenant),
    around: (month) => usage.around(month),
    position: (owner) => usage.position(owner),
    owners: () => usage.owners(),
    unread: () => usage.unread(),
    prune: (oldest, isThere) => usage.prune(oldest, isThere),
    write: async (entries) => {
      // What is killed writes nothing.
      if (process.killed) return new Promise(() => {});
      if (entries.length > 0) written.push([...entries]);
      return usage.write(entries);
    },
  };
  const recorder = new UsageRecorder({ history, reader, clock, log });
  process.context.recorder = recorder;
  const controller = new Controller(process.context);
  await controller.start();
  return { process, controller, recorder, written, service: new StoreClusterService(process.context, SETTINGS) };
}

beforeEach(async () => {
  world = new FakeWorld();
  totals = new Map();
  world.cpuSecondsOf = (tenant, run) => totals.get(`${tenant} ${run}`)?.cpuSeconds ?? 0;
  world.requestsOf = (tenant, run) => totals.get(`${tenant} ${run}`)?.requests ?? 0;
  now = await begin();
});
afterEach(() => now.controller.stop());

async function running(name: string): Promise<void> {
  const phase = async () => (await world.store.get("Tenant", name))?.status;
  await until(`${name} runs`, async () => {
    const status = await phase();
    return status?.phase === "Running" && !status.move;
  });
}

async function created(...names: string[]): Promise<void> {
  for (const name of names) await now.service.createTenant({ name });
  for (const name of names) await running(name);
}

/** The tenant is used where it runs. */
async function used(name: string, requests: number): Promise<void> {
  const shard = world.shards.get((await world.store.get("Tenant", name))?.status.shard ?? "");
  const key = `${name} ${shard?.runs.get(name)}`;
  const before = totals.get(key) ?? { cpuSeconds: 0, requests: 0 };
  totals.set(key, { cpuSeconds: before.cpuSeconds + requests / 10, requests: before.requests + requests });
}

/** In memory; nothing is written for it. */
async function seen(name: string, requests: number): Promise<void> {
  const owner = { tenant: name, serverName: `${name}.localhost` };
  await until(
    "it is looked at",
    async () => (await now.recorder.positionOf(owner))?.runs.at(-1)?.requests === requests,
  );
}

const rowOf = async (name: string) => (await now.service.usageHistory({ tenant: name })).at(-1);

async function counts(name: string, requests: number): Promise<void> {
  await until(`${requests} requests of ${name} are counted`, async () => (await rowOf(name))?.requests === requests);
  expect((await rowOf(name))?.cpuSeconds).toBeCloseTo(requests / 10, 2);
}

it("adds up what a tenant takes over moves, sleep, restarts of its shard and of the controller", async () => {
  await created("a", "b");
  await used("a", 10);
  await counts("a", 10);
  // A move tells the last figures, also of what was not looked at.
  await used("a", 5);
  await now.service.moveTenant("a");
  await until(
    "a has moved",
    async () => (await world.store.get("Tenant", "a"))?.status.lastMove?.outcome === "Succeeded",
  );
  await used("a", 7);
  await counts("a", 22);
  now = await begin(now);
  await used("a", 1);
  await counts("a", 23);
  await now.service.sleepTenant("a");
  await until("a sleeps", async () => (await world.store.get("Tenant", "a"))?.status.phase === "Asleep");
  await now.service.wakeTenant("a");
  await running("a");
  await used("a", 2);
  await counts("a", 25);
  const shard = (await world.store.get("Tenant", "a"))?.status.shard ?? "";
  const { instance } = world.shards.get(shard)!;
  world.endShard(shard);
  await until("its shard is another process", async () => {
    const present = world.shards.get(shard);
    return present !== undefined && present.instance !== instance && present.tenants.has("a");
  });
  await running("a");
  await used("a", 4);
  await counts("a", 29);
  expect((await rowOf("b"))?.requests ?? 0).toBe(0);
}, 60_000);

it("counts once what was not written before the controller was killed", async () => {
  await created("a");
  await used("a", 30);
  await seen("a", 30);
  expect(await world.store.usage.list()).toEqual([]);
  now = await begin(now);
  await counts("a", 30);
  now = await begin(now);
  await used("a", 1);
  await counts("a", 31);
});

it("writes nothing for a tenant whose figures do not change", async () => {
  await created("a");
  await used("a", 1);
  await counts("a", 1);
  const before = now.written.length;
  for (let turn = 0; turn < 3; turn++) await now.recorder.flush();
  expect(now.written).toHaveLength(before);
});

it("asks a sleeping tenant's database once after it was used, and wakes nobody", async () => {
  const asked: [string, UsageQuestion][] = [];
  const month = monthOf(now.process.context.clock.now());
  world.readingOf = (tenant, question) => {
    asked.push([tenant, question]);
    const from = question.messagesFrom;
    return { users: 3, mediaBytes: 5, messages: { from, to: 40, sent: [{ month, count: 2 }] } };
  };
  await created("a");
  await used("a", 1);
  await counts("a", 1);
  await now.service.sleepTenant("a");
  await until("a sleeps", async () => (await world.store.get("Tenant", "a"))?.status.phase === "Asleep");
  await now.recorder.flush();
  const loop = new UsageReadingLoop(now.process.context);
  for (let turn = 0; turn < 3; turn++) await loop.turn();
  expect(asked.map(([tenant, { messagesFrom }]) => [tenant, messagesFrom])).toEqual([["a", undefined]]);
  expect(await rowOf("a")).toMatchObject({ month, requests: 1, users: 3, mediaBytes: 5, messages: 2 });
  // Nor does the next controller.
  now = await begin(now);
  await new UsageReadingLoop(now.process.context).turn();
  expect(asked).toHaveLength(1);
  expect((await world.store.get("Tenant", "a"))?.status.phase).toBe("Asleep");
  expect((await world.store.usage.position({ tenant: "a", serverName: "a.localhost" }))?.messagesTo).toBe(40);
});

it("asks again for what a running tenant's database did not tell yet, once it sleeps", async () => {
  const asked: (number | undefined)[] = [];
  world.readingOf = (_tenant, { messagesFrom: from }) => {
    asked.push(from);
    return { messages: { from, to: 40 + asked.length, sent: [] } };
  };
  await created("a");
  await used("a", 1);
  await counts("a", 1);
  await new UsageReadingLoop(now.process.context).turn();
  await now.service.sleepTenant("a");
  await until("a sleeps", async () => (await world.store.get("Tenant", "a"))?.status.phase === "Asleep");
  const loop = new UsageReadingLoop(now.process.context);
  await loop.turn();
  expect(asked).toEqual([undefined]);
  world.clockSetBy = 3_600_000;
  for (let turn = 0; turn < 3; turn++) await loop.turn();
  expect(asked).toEqual([undefined, 41]);
});

it("keeps the rows of a deleted tenant, with its last figures", async () => {
  world.readingOf = () => ({ users: 4 });
  await created("a");
  await used("a", 6);
  await now.service.deleteTenant("a", { purge: true });
  await until("a is gone", async () => (await world.store.get("Tenant", "a")) === undefined);
  expect(await rowOf("a")).toMatchObject({ requests: 6, users: 4 });
  // Another of that name has rows of its own.
  await now.service.createTenant({ name: "a", serverName: "other.example" });
  await running("a");
  await used("a", 1);
  await until("both have rows", async () => (await now.service.usageHistory({ tenant: "a" })).length === 2);
  const rows = await now.service.usageHistory({});
  expect(Object.fromEntries(rows.map(({ serverName, requests }) => [serverName, requests]))).toEqual({
    "a.localhost": 6,
    "other.example": 1,
  });
});

it("goes on while the history cannot be written, and writes it all afterwards", async () => {
  const { write } = world.store.usage;
  world.store.usage.write = () => Promise.reject(new Error("the disk is full"));
  await created("a");
  await used("a", 8);
  await seen("a", 8);
  await now.recorder.flush();
  expect(await world.store.usage.list()).toEqual([]);
  world.store.usage.write = write;
  await counts("a", 8);
});

it(
  "refuses months that are none, and tenants that nobody knows",
  async () => {
    await expect(now.service.usageHistory({ month: "2026-13" })).rejects.toMatchObject({ code: "InvalidInput" });
    await expect(now.service.usageHistory({ tenant: "x" })).rejects.toMatchObject({ code: "NotFound" });
    expect(await now.service.usageHistory({ month: "2001-01" })).toEqual([]);
    const without = new FakeProcess(world);
    const service = new StoreClusterService(without.context, SETTINGS);
    await expect(service.usageHistory({})).rejects.toMatchObject({ code: "Conflict" });
  },
  PATIENCE_MS,
);
