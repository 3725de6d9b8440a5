import { afterEach, beforeEach, expect, it } from "vitest";
import { modify } from "../../../src/ports/store.ts";
import { created, runController, runs, tenantWhen, type Run } from "../../support/controller-run.ts";
import { FakeWorld } from "../../support/fake-world.ts";

const [OLD, NEW] = ["1.157.2", "1.163.2"];

let world: FakeWorld;
let run: Run;
beforeEach(() => {
  world = new FakeWorld();
  run = runController(world, { policy: { maxConcurrentMoves: 8 } });
});
afterEach(() => run.stop());

const upgrade = (name: string) => run.service.updateTenant(name, { release: NEW });

it("closes a warmed-up preparer when a start fails before it is used, so that later upgrades get theirs", async () => {
  const names = ["a", "b", "c", "d", "e"];
  await created(world, run, [...names, "last"], OLD);
  // The old shard is stopped by then, and the schema is looked at before the preparer is used.
  let describes = 0;
  world.fault = (call) =>
    call === "readConfigInEffect" && ++describes < 40 ? new Error("the store is away for a moment") : undefined;
  for (const name of names) await upgrade(name);
  for (const name of names) await tenantWhen(world, name, "upgraded", (t) => runs(t) && t.status.shard === `${NEW}-0`);
  await upgrade("last");
  await tenantWhen(world, "last", "upgraded", (t) => runs(t) && t.status.shard === `${NEW}-0`);
  await expect.poll(() => world.preparers.size).toBe(0);
});

it("closes it when the tenant loses its keys, is rolled back, or is removed", async () => {
  await created(world, run, ["a", "b", "c"], OLD);
  const secrets = await world.store.readSecret("a");
  world.fault = (call, [name]) => {
    // Between the check and the start.
    if (call !== "stopTenant" || name !== "a") return undefined;
    void world.store.removeSecret("a");
    return undefined;
  };
  world.failingStarts.set(`${NEW}-0`, { code: "ModuleFailed", message: "a module that the new release cannot load" });
  for (const name of ["a", "b"]) await upgrade(name);
  await tenantWhen(world, "b", "rolled back", (t) => runs(t) && t.status.lastMove?.outcome === "RolledBack");
  await tenantWhen(world, "a", "ended its move", (t) => t.status.lastMove !== undefined && !t.status.move);
  await world.store.writeSecret("a", secrets!);
  // A tenant that is removed by hand in the middle of its move.
  world.fault = (call, [name]) => {
    if (call === "stopTenant" && name === "c") void world.store.remove("Tenant", "c");
    return undefined;
  };
  await upgrade("c");
  await expect.poll(async () => world.store.get("Tenant", "c")).toBeUndefined();
  await expect.poll(() => world.preparers.size).toBe(0);
});

it("closes it when the move is dropped while it is prepared", async () => {
  await created(world, run, ["a"], OLD);
  world.fault = (call) => {
    if (call !== "migration") return undefined;
    void modify(world.store, "Tenant", "a", (t) => {
      delete t.status.move;
      t.status.moveNotBefore = new Date(Date.now() + 60_000).toISOString();
      t.status.phase = "Running";
    });
    return undefined;
  };
  await upgrade("a");
  await expect.poll(async () => (await world.store.get("Tenant", "a"))?.status.moveNotBefore).toBeDefined();
  await expect.poll(() => world.preparers.size).toBe(0);
});
