import { afterEach, beforeEach, expect, it } from "vitest";
import type { Tenant } from "../../../src/model/tenant.ts";
import { created, runController, runs, tenantWhen, type Run } from "../../support/controller-run.ts";
import { FakeWorld } from "../../support/fake-world.ts";

let world: FakeWorld;
let run: Run;
beforeEach(() => {
  world = new FakeWorld();
  run = runController(world);
});
afterEach(() => run.stop());

it("writes the database's server down before the database is made, and starts the tenant with its address", async () => {
  world.databasePlaces.set("a", "db-2");
  const provisions: unknown[] = [];
  world.fault = (call, [first]) => {
    if (call === "provision") provisions.push(structuredClone((first as Tenant).status));
    return undefined;
  };
  await created(world, run, ["a", "b"]);
  expect((await tenantWhen(world, "a", "runs", runs)).status.databaseServer).toBe("db-2");
  expect((await tenantWhen(world, "b", "runs", runs)).status.databaseServer).toBeUndefined();
  expect(provisions).toContainEqual(expect.objectContaining({ databaseServer: "db-2", provisioned: false }));
  const assigned = [...world.shards.values()].flatMap((shard) => [...shard.tenants.entries()]);
  expect(assigned.map(([name]) => name).toSorted()).toEqual(["a", "b"]);
});
