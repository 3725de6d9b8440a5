import { expect, it } from "vitest";
import { created, runController, runs, tenantWhen } from "../support/controller-run.ts";
import { FakeWorld } from "../support/fake-world.ts";

it("moves a tenant while a hundred others wait for their release's template", async () => {
  const world = new FakeWorld();
  const run = runController(world, { policy: { maxTenantsPerShard: 200 } });
  await created(world, run, ["a"]);
  let finish = () => {};
  world.template = new Promise<void>((done) => (finish = done));
  const names = Array.from({ length: 100 }, (_, n) => `waits-${n}`);
  for (const name of names) await run.service.createTenant({ name });
  await tenantWhen(world, "waits-0", "waits", ({ status }) => status.phase === "Provisioning");
  await run.service.moveTenant("a");
  const { status } = await tenantWhen(world, "a", "moved", (t) => runs(t) && t.status.lastMove !== undefined);
  expect(status.lastMove?.outcome).toBe("Succeeded");
  expect((await world.store.get("Tenant", "waits-99"))?.status.provisioned).toBe(false);
  finish();
  await tenantWhen(world, "waits-99", "runs", runs);
  await run.stop();
});
