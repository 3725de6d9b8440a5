import { MemoryService } from "../api/memory-service.ts";
import { describeClusterServiceContract } from "../ports/cluster-service-contract.ts";
import { describeLauncherContract } from "../ports/launcher-contract.ts";
import { describeShardControlContract } from "../ports/shard-control-contract.ts";
import { runController, runs, tenantWhen } from "./controller-run.ts";
import { fakeClient, fakeLauncher, FakeShard, FakeWorld } from "./fake-world.ts";

const RELEASE = "1.163.2";
const NAME = `${RELEASE}-0`;

describeLauncherContract("FakeWorld", async () => {
  const world = new FakeWorld();
  const launcher = () => fakeLauncher(world, (client) => client);
  return {
    launcher: launcher(),
    version: RELEASE,
    startsAgain: false,
    another: async () => launcher(),
    crash: async (shard) => world.endShard(shard),
    close: async () => {},
  };
});

describeShardControlContract("FakeWorld", async () => {
  const world = new FakeWorld();
  world.shards.set(NAME, new FakeShard(NAME, RELEASE));
  return {
    control: fakeClient(world, NAME),
    name: NAME,
    release: RELEASE,
    assignment: (tenant, epoch) => ({
      serverName: `${tenant}.example`,
      epoch,
      base: {},
      overrides: "",
      signingKey: "k",
    }),
    end: async () => void world.shards.delete(NAME),
    close: async () => {},
  };
});

describeClusterServiceContract("MemoryService", async () => {
  const service = new MemoryService();
  for (const name of [NAME, `${RELEASE}-1`]) service.addShard(name);
  return { service, settled: async () => {}, close: async () => {} };
});

describeClusterServiceContract("the controller's own, in FakeWorld", async () => {
  const world = new FakeWorld();
  const run = runController(world);
  return {
    service: run.service,
    settled: async (tenant) => void (await tenantWhen(world, tenant, "settled", runs)),
    close: () => run.stop(),
  };
});
