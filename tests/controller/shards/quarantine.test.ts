import { afterEach, beforeEach, expect, it } from "vitest";
import type { StoreClusterService } from "../../../src/controller/service/store-cluster-service.ts";
import type { Tenant } from "../../../src/model/tenant.ts";
import { runController, runsOn, type Run, tenantWhen as tenantIn } from "../../support/controller-run.ts";
import { FakeWorld } from "../../support/fake-world.ts";

const [A, B] = ["1.163.2-0", "1.163.2-1"];

let world: FakeWorld;
let run: Run;
let service: StoreClusterService;

beforeEach(async () => {
  world = new FakeWorld();
  run = runController(world, { policy: { maxShardsPerSynapseImageTag: 2 } });
  service = run.service;
  for (const name of ["hostile", "neighbour"]) {
    await service.createTenant({ name });
    await tenantWhen(name, "runs", runsOn(A));
  }
});
afterEach(() => run.stop());

const tenantWhen = (name: string, what: string, is: (tenant: Tenant) => boolean) => tenantIn(world, name, what, is);

/** The shard's watchdog ends its process, and the next one tells of it. */
function stall(shardName: string, number: number): void {
  const shard = world.shards.get(shardName)!;
  shard.stalls.push({
    id: `stall-${number}`,
    at: Date.now() / 1000,
    seconds: 5,
    serverName: "hostile.localhost",
    tenant: "hostile",
    stack: ["re/__init__.py:123 match"],
  });
  shard.tenants.clear();
  shard.instance = `${shardName}-${number}`;
}

it("starts a tenant again where it was after its first stall, and counts a stall once", async () => {
  stall(A, 1);
  const { status } = await tenantWhen("hostile", "knows", ({ status }) => status.stalls?.count === 1);
  expect(status.stalls).toMatchObject({ ids: ["stall-1"], where: "re/__init__.py:123 match" });
  world.shards.get(A)!.tenants.clear();
  world.shards.get(A)!.instance = "another process that tells of the same stall";
  await tenantWhen("hostile", "runs again", runsOn(A));
  await tenantWhen("neighbour", "runs again", runsOn(A));
  expect((await world.store.get("Tenant", "hostile"))?.status).toMatchObject({ stalls: { count: 1 } });
  expect((await world.store.get("Tenant", "hostile"))?.status.quarantine).toBeUndefined();
});

it("gives a tenant a shard of its own after the second stall, leaves its neighbours where they are, and says so", async () => {
  stall(A, 1);
  await tenantWhen("hostile", "knows", ({ status }) => status.stalls?.count === 1);
  await tenantWhen("hostile", "runs again", runsOn(A));
  stall(A, 2);
  const hostile = await tenantWhen("hostile", "is alone", runsOn(B));
  expect(hostile.status.quarantine?.message).toContain("2 times, last in re/__init__.py:123 match");
  await tenantWhen("neighbour", "stays", runsOn(A));
  await service.createTenant({ name: "newcomer" });
  await tenantWhen("newcomer", "gets no place beside it", runsOn(A));
  const events = await world.store.listEvents({ object: "Tenant/hostile", limit: 100 });
  expect(events.map(({ reason }) => reason).filter((reason) => /Stalled|Quarantined/.test(reason))).toEqual([
    "ShardStalled",
    "ShardStalled",
    "Quarantined",
  ]);
  await service.quarantineTenant("hostile", { lift: true });
  expect((await world.store.get("Tenant", "hostile"))?.status.stalls).toBeUndefined();
});

it("stops a quarantined tenant that has no place of its own rather than leave it among others", async () => {
  await service.quarantineTenant("hostile", { lift: false });
  await tenantWhen("hostile", "is alone", runsOn(B));
  await service.quarantineTenant("neighbour", { lift: false });
  // Two shards may exist: each is for one of them, and the third tenant waits.
  await service.createTenant({ name: "newcomer" });
  const { status } = await tenantWhen("newcomer", "waits", ({ status }) => status.reason === "MaxShardsReached");
  expect(status.phase).toBe("Pending");
  await tenantWhen("neighbour", "stays alone", runsOn(A));
});
