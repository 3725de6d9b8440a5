import { afterEach, beforeEach, expect, it } from "vitest";
import type { Tenant } from "../../../src/model/tenant.ts";
import { created, runController, runs, tenantWhen, type Run } from "../../support/controller-run.ts";
import { FakeWorld } from "../../support/fake-world.ts";

let world: FakeWorld;
let run: Run;
beforeEach(async () => {
  world = new FakeWorld();
  run = runController(world);
  await created(world, run, ["a", "b"]);
});
afterEach(() => run.stop());

/** What a gateway says of parks that it has counted. */
function count(parks: Record<string, { parked: number; failed: number }>): void {
  run.process.context.feed.acknowledge({ gateway: "g", version: 0, parks });
}

const move = async (name: string) => {
  const { id } = await run.service.moveTenant(name);
  return tenantWhen(world, name, "moved", (t) => runs(t) && t.status.lastMove?.id === id);
};
const last = async (name: string) => (await world.store.get("Tenant", name))!.status.lastMove;
const counts = ({ status }: Tenant) => status.lastMove;

it("adds what fails after the end of a move to that move, however often more is heard of it", async () => {
  expect(counts(await move("a"))).toMatchObject({ parkedRequests: 0, failedRequests: 0 });
  count({ a: { parked: 4, failed: 1 } });
  await expect.poll(() => last("a")).toMatchObject({ parkedRequests: 4, failedRequests: 1 });
  count({ a: { parked: 0, failed: 2 } });
  count({ a: { parked: 0, failed: 3 } });
  await expect.poll(() => last("a")).toMatchObject({ parkedRequests: 4, failedRequests: 6, outcome: "Succeeded" });
  expect(await last("b")).toBeUndefined();
});

it("begins the count of the next move at zero", async () => {
  await move("a");
  count({ a: { parked: 4, failed: 1 } });
  await expect.poll(() => last("a")).toMatchObject({ failedRequests: 1 });
  expect(counts(await move("a"))).toMatchObject({ parkedRequests: 0, failedRequests: 0 });
});

it("takes counts of a tenant that never moved for nothing", async () => {
  const { metadata } = (await world.store.get("Tenant", "b"))!;
  count({ b: { parked: 1, failed: 1 } });
  await move("a");
  const after = (await world.store.get("Tenant", "b"))!;
  expect(after.status.lastMove).toBeUndefined();
  expect(after.metadata.generation).toBe(metadata.generation);
  expect(counts(await move("b"))).toMatchObject({ parkedRequests: 0, failedRequests: 0 });
});
