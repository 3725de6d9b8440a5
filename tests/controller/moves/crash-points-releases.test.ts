import { expect, it } from "vitest";
import type { Tenant } from "../../../src/model/tenant.ts";
import { atEachCall, created, runController, runs, tenantWhen, type Run } from "../../support/controller-run.ts";
import { FakeWorld } from "../../support/fake-world.ts";

const [OLD, NEW] = ["1.157.2", "1.163.2"];

async function worldWithTenant(): Promise<FakeWorld> {
  const world = new FakeWorld();
  const run = runController(world);
  await created(world, run, ["a"], OLD);
  await run.stop();
  return world;
}

function expectOneOwner(world: FakeWorld, tenant: Tenant): void {
  expect(world.ownersOf("a")).toEqual([tenant.status.shard]);
  expect(world.fences.get("a")).toEqual({ epoch: tenant.status.epoch, shard: tenant.status.shard });
}

/** Begins a move to the new release, and carries it on until it has ended or the controller is killed. */
async function interruptedAt(
  world: FakeWorld,
  killAtCall: number,
  hasEnded: (tenant: Tenant) => boolean,
): Promise<boolean> {
  const first: Run = runController(world, { killAtCall });
  const asked = first.service.updateTenant("a", { release: NEW }).catch(() => {});
  await Promise.race([asked, first.process.whenKilled]);
  const ended = tenantWhen(world, "a", "ended", hasEnded).then(
    () => true,
    () => false,
  );
  const survived = await Promise.race([ended, first.process.whenKilled.then(() => false)]);
  first.process.kill();
  // Preparers end with their controller's lease.
  world.preparers.clear();
  return !survived;
}

it("ends a move to another release whatever call of it the controller is killed at, with one owner and no preparer left", async () => {
  const interrupted = await atEachCall(async (call) => {
    const world = await worldWithTenant();
    const arrived = (t: Tenant) => runs(t) && t.status.shard === `${NEW}-0`;
    const wasKilled = await interruptedAt(world, call, arrived);
    const second = runController(world);
    if ((await world.store.get("Tenant", "a"))?.spec.release === OLD)
      await second.service.updateTenant("a", { release: NEW });
    const tenant = await tenantWhen(world, "a", `upgraded after a kill at call ${call}`, arrived);
    expectOneOwner(world, tenant);
    expect(tenant.status.schemaRelease).toBe(NEW);
    await expect.poll(() => world.preparers.size).toBe(0);
    await second.stop();
    return wasKilled ? "interrupted" : "done";
  });
  expect(interrupted).toBeGreaterThan(40);
}, 240_000);

it("ends a roll-back whatever call of it the controller is killed at: the old shard has the tenant, and the release is held against it once", async () => {
  const interrupted = await atEachCall(async (call) => {
    const world = await worldWithTenant();
    world.failingStarts.set(`${NEW}-0`, { code: "ModuleFailed", message: "a module that the new release cannot load" });
    const rolledBack = (t: Tenant) => runs(t) && t.status.lastMove?.outcome === "RolledBack";
    const wasKilled = await interruptedAt(world, call, rolledBack);
    const second = runController(world);
    if ((await world.store.get("Tenant", "a"))?.spec.release === OLD)
      await second.service.updateTenant("a", { release: NEW });
    const tenant = await tenantWhen(world, "a", `rolled back after a kill at call ${call}`, rolledBack);
    expect(tenant.status).toMatchObject({ shard: `${OLD}-0`, moveFailures: 1 });
    expectOneOwner(world, tenant);
    await expect.poll(() => world.preparers.size).toBe(0);
    await second.stop();
    return wasKilled ? "interrupted" : "done";
  });
  expect(interrupted).toBeGreaterThan(40);
}, 240_000);
