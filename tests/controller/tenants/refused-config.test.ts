import { expect, it } from "vitest";
import { StoreClusterService } from "../../../src/controller/service/store-cluster-service.ts";
import { Controller } from "../../../src/controller/controller.ts";
import { modify } from "../../../src/ports/store.ts";
import { conditionsOf } from "../../../src/platforms/kubernetes/store/conditions.ts";
import { FakeProcess, FakeWorld } from "../../support/fake-world.ts";

const SETTINGS = { version: "0", release: "1.163.2", baseDomain: "localhost", urlOf: () => "http://x" };

function begin() {
  const world = new FakeWorld();
  const process = new FakeProcess(world, {});
  const controller = new Controller(process.context);
  void controller.start();
  return {
    world,
    service: new StoreClusterService(process.context, SETTINGS),
    status: async () => (await world.store.get("Tenant", "a"))?.status,
    stop: async () => {
      await controller.stop();
      process.kill();
    },
  };
}

it("prevents a complaint that outlives its cause: a wrong configuration is refused, and forgotten when it is taken back", async () => {
  const { world, service, status, stop } = begin();
  const upToDate = async () =>
    conditionsOf((await world.store.get("Tenant", "a"))!, [], "").find(({ type }) => type === "UpToDate")?.reason;
  try {
    await service.createTenant({ name: "a", config: "good: 1" });
    await expect.poll(async () => (await status())?.phase).toBe("Running");
    const started = (await status())?.epoch;
    world.wrongConfigs.add("wrong: 1");
    await service.updateTenant("a", { config: "wrong: 1" });
    await expect.poll(async () => (await status())?.reason).toBe("InvalidConfig");
    expect(await upToDate()).toBe("ConfigRefused");
    await service.updateTenant("a", { config: "good: 1" });
    await expect.poll(async () => (await status())?.reason).toBe("");
    await expect.poll(upToDate).toBe("AsSpecified");
    expect(await status()).toMatchObject({ phase: "Running", message: "", epoch: started });
  } finally {
    await stop();
  }
});

it("prevents the same for a release: who goes back to the one that runs, by kubectl as by the API, is not told of the other any more", async () => {
  const { world, service, status, stop } = begin();
  const edit = (version: string) => modify(world.store, "Tenant", "a", ({ spec }) => void (spec.release = version));
  try {
    await service.createTenant({ name: "a", config: "old: 1", release: "1.157.2" });
    await expect.poll(async () => (await status())?.phase).toBe("Running");
    world.wrongConfigs.add("old: 1");
    await edit("1.163.2");
    await expect.poll(async () => (await status())?.reason).toBe("InvalidConfig");
    expect((await status())?.refusedRelease).toMatchObject({ release: "1.163.2" });
    await edit("1.157.2");
    await expect.poll(async () => (await status())?.reason).toBe("");
    expect(await status()).toMatchObject({ phase: "Running", message: "", shard: "1.157.2-0" });
    expect((await status())?.refusedRelease).toBeUndefined();
  } finally {
    await stop();
  }
});
