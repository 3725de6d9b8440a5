import { expect, it } from "vitest";
import { StoreClusterService } from "../../src/controller/cluster-service.ts";
import { Controller } from "../../src/controller/controller.ts";
import { conditionsOf } from "../../src/store/kubernetes/conditions.ts";
import { FakeProcess, FakeWorld } from "../support/fake-world.ts";

const SETTINGS = { version: "0", synapseVersion: "1.163.2", baseDomain: "localhost", urlOf: () => "http://x" };

it("prevents a complaint that outlives its cause: a wrong configuration is refused, and forgotten when it is taken back", async () => {
  const world = new FakeWorld();
  const process = new FakeProcess(world, {});
  const controller = new Controller(process.context);
  void controller.start();
  const service = new StoreClusterService(process.context, SETTINGS);
  const status = async () => (await world.store.get("Tenant", "a"))?.status;
  const upToDate = async () =>
    conditionsOf((await world.store.get("Tenant", "a"))!, [], "").find(({ type }) => type === "UpToDate")?.reason;
  try {
    await service.createTenant({ name: "a", config: "good: 1" });
    await expect.poll(async () => (await status())?.phase, { timeout: 5_000 }).toBe("Running");
    const started = (await status())?.epoch;
    world.wrongConfigs.add("wrong: 1");
    await service.updateTenant("a", { config: "wrong: 1" });
    await expect.poll(async () => (await status())?.reason, { timeout: 5_000 }).toBe("InvalidConfig");
    expect(await upToDate()).toBe("ConfigRefused");
    await service.updateTenant("a", { config: "good: 1" });
    await expect.poll(async () => (await status())?.reason, { timeout: 5_000 }).toBe("");
    await expect.poll(upToDate, { timeout: 5_000 }).toBe("AsSpecified");
    expect(await status()).toMatchObject({ phase: "Running", message: "", epoch: started });
  } finally {
    await controller.stop();
    process.kill();
  }
});
