import { expect, it } from "vitest";
import { created, runController, runs, tenantWhen } from "../support/controller-run.ts";
import { FakeWorld } from "../support/fake-world.ts";

const TWO_HOURS = 2 * 3_600_000;

it("goes on retrying a tenant, and planning, after the machine's clock was set back by two hours", async () => {
  const world = new FakeWorld();
  const run = runController(world, { policy: { consolidateAfterSeconds: 0.5 } });
  world.failingStarts.set("*", { code: "InvalidConfig", message: "a mistake in its configuration" });
  await run.service.createTenant({ name: "a" });
  await tenantWhen(world, "a", "failed", ({ status }) => status.failures > 1);
  world.clockSetBy = -TWO_HOURS;
  const { failures } = (await world.store.get("Tenant", "a"))!.status;
  await tenantWhen(world, "a", "retried", ({ status }) => status.failures > failures + 1);
  world.failingStarts.clear();
  await tenantWhen(world, "a", "runs", runs);
  // A shard that is empty and unwanted goes when it has been quiet for long enough.
  await run.service.deleteTenant("a", { purge: false });
  await expect.poll(async () => (await world.store.list("Shard")).length).toBe(0);
  await run.stop();
});

it("retries at once what a controller before it, whose clock was two hours ahead, had put off", async () => {
  const world = new FakeWorld();
  world.clockSetBy = TWO_HOURS;
  const ahead = runController(world);
  await created(world, ahead, ["b"]);
  world.failingStarts.set("*", { code: "InvalidConfig", message: "a mistake in its configuration" });
  await ahead.service.createTenant({ name: "a" });
  await tenantWhen(world, "a", "failed", ({ status }) => status.failures > 1);
  await ahead.stop();
  world.clockSetBy = 0;
  world.failingStarts.clear();
  const behind = runController(world);
  await tenantWhen(world, "a", "runs", runs);
  expect(runs((await world.store.get("Tenant", "b"))!)).toBe(true);
  await behind.stop();
});
