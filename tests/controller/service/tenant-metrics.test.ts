import { afterEach, beforeEach, expect, it } from "vitest";
import { ShardUnreachable } from "../../../src/ports/shard-control.ts";
import { created, runController, tenantWhen, type Run } from "../../support/controller-run.ts";
import { FakeWorld } from "../../support/fake-world.ts";

let world: FakeWorld;
let run: Run;
beforeEach(async () => {
  world = new FakeWorld();
  run = runController(world);
  await created(world, run, ["a", "b"]);
});
afterEach(() => run.stop());

const asked = () => world.log.filter((line) => line.startsWith("metrics "));

it("gives what the shard exports of the tenant, and asks it once where many ask", async () => {
  const texts = await Promise.all(["a", "a", "b"].map((name) => run.service.tenantMetrics(name)));
  expect(texts[0]).toContain('synapse_shards_tenant_phase{tenant="a",phase="Running"} 1');
  expect(texts[0]).toContain('server_name="a.localhost"');
  expect(texts[1]).toBe(texts[0]);
  expect(texts[2]).toContain('server_name="b.localhost"');
  expect(asked()).toEqual(["metrics a 1.163.2-0", "metrics b 1.163.2-0"]);
});

it("says that a tenant sleeps, and leaves it asleep", async () => {
  await run.service.sleepTenant("a");
  await tenantWhen(world, "a", "sleeps", ({ status }) => status.phase === "Asleep");
  expect(await run.service.tenantMetrics("a")).toMatch(/phase="Asleep"\} 1\n$/);
  expect((await world.store.get("Tenant", "a"))?.status.wake).toBeUndefined();
});

it("says in words that a shard does not answer", async () => {
  world.fault = (call) => (call === "metricsOf" ? new ShardUnreachable("1.163.2-0", new Error("gone")) : undefined);
  await expect(run.service.tenantMetrics("a")).rejects.toMatchObject({ code: "Unavailable" });
});

it("starts a tenant again for other families, and with them", async () => {
  const familiesOf = () => world.assignments.get("1.163.2-0/a")?.policy?.metrics;
  expect(familiesOf()).toBeUndefined();
  await run.service.updateTenant("a", { metrics: ["all"] });
  await expect.poll(familiesOf).toEqual(["all"]);
  await run.service.updateTenant("a", { metrics: [] });
  await expect.poll(familiesOf).toBeUndefined();
  expect((await world.store.get("Tenant", "a"))?.spec).not.toHaveProperty("metrics");
});
