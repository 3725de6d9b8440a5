import { afterEach, beforeEach, expect, it } from "vitest";
import { created, runController, tenantWhen, type Run } from "../../support/controller-run.ts";
import { FakeWorld } from "../../support/fake-world.ts";

let world: FakeWorld;
let run: Run;
beforeEach(async () => {
  world = new FakeWorld();
  run = runController(world);
  await created(world, run, ["a"]);
});
afterEach(() => run.stop());

const before = () => world.store.get("Tenant", "a");

it("says what would become of a configuration, as its shard judges it, and changes nothing", async () => {
  world.wrongConfigs.add("wrong: 1");
  world.dubiousConfigs.add("dubious: 1");
  const tenant = await before();
  expect(await run.service.checkConfig("a", "fine: 1")).toEqual({ verdict: "Accepted", warnings: [] });
  expect(await run.service.checkConfig("a", "dubious: 1")).toEqual({
    verdict: "Accepted",
    warnings: ["dubious: 1: unknown"],
  });
  expect(await run.service.checkConfig("a", "wrong: 1")).toEqual({
    verdict: "Refused",
    reason: "InvalidConfig",
    message: "wrong: 1: no such setting",
    warnings: [],
  });
  expect(await run.service.checkConfig("a", "no: [yaml")).toMatchObject({
    verdict: "Refused",
    reason: "InvalidConfig",
  });
  expect(await before()).toEqual(tenant);
});

it("asks another shard of its release about a tenant that sleeps, which goes on sleeping", async () => {
  await created(world, run, ["b"]);
  await run.service.sleepTenant("a");
  await tenantWhen(world, "a", "sleeps", ({ status }) => status.phase === "Asleep");
  world.wrongConfigs.add("wrong: 1");
  expect(await run.service.checkConfig("a", "wrong: 1")).toMatchObject({ verdict: "Refused" });
  expect((await before())?.status.phase).toBe("Asleep");
});

it("cannot judge what no shard can be asked about, and says so", async () => {
  world.fault = (call) => (call === "checkTenant" ? new Error("the database server is away") : undefined);
  await expect(run.service.checkConfig("a", "fine: 1")).rejects.toThrow("away");
  world.fault = () => undefined;
  run.process.context.shardClients.clear();
  expect(await run.service.checkConfig("a", "fine: 1")).toMatchObject({
    verdict: "Unknown",
    message: expect.stringContaining("no shard of Synapse 1.163.2 runs") as string,
  });
});

it("refuses what another tenant has, before any shard is asked", async () => {
  await created(world, run, ["b"]);
  const config = "public_baseurl: http://b.localhost/";
  expect(await run.service.checkConfig("a", config)).toMatchObject({ verdict: "Refused", reason: "HostTaken" });
});
