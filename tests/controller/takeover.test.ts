import { afterEach, beforeEach, expect, it } from "vitest";
import { setTimeout as sleep } from "node:timers/promises";
import type { Change } from "../../src/ports/store.ts";
import { created, runController, runs, tenantWhen, type Run } from "../support/controller-run.ts";
import { FakeWorld } from "../support/fake-world.ts";
import { until } from "../support/patience.ts";

const SHARD = "1.163.2-0";

let world: FakeWorld;
let run: Run;

beforeEach(async () => {
  world = new FakeWorld();
  run = runController(world);
  await created(world, run, ["a", "b"]);
  await until("all is quiet", async () => {
    const versions = async () => JSON.stringify((await world.store.list("Tenant")).map(({ metadata }) => metadata));
    const before = await versions();
    await sleep(200);
    return before === (await versions());
  });
  await run.stop();
});
afterEach(() => run.stop());

// Guards against: each failover writes every tenant's status twice, and shows all of them as starting for a moment.
it("writes nothing about tenants that run as they did under the former leader", async () => {
  const shard = world.shards.get(SHARD)!;
  const changes: Change[] = [];
  const unwatch = world.store.watch((change) => {
    if (change.kind === "Tenant") changes.push(change);
  });
  // Tenants are looked at before their shard has answered.
  shard.paused = true;
  run = runController(world);
  await sleep(300);
  shard.paused = false;
  await until("its shard is known", () => run.process.context.shardClients.has(SHARD));
  await sleep(300);
  unwatch();
  expect(changes.map(({ resource }) => resource.status)).toEqual([]);
});

it("starts tenants of a shard whose process ended meanwhile", async () => {
  const shard = world.shards.get(SHARD)!;
  shard.alive = false;
  shard.tenants.clear();
  run = runController(world);
  for (const name of ["a", "b"]) {
    await until(`${name} is there`, () =>
      [...world.shards.values()].some((one) => one.alive && one.tenants.get(name)?.phase === "running"),
    );
    await tenantWhen(world, name, "runs", runs);
  }
});
