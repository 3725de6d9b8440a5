import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { parse } from "yaml";
import { type ClusterUnderTest, startClusterUnderTest } from "./cli-under-test.ts";

// Each test starts several processes, which takes its time on a machine that is busy.
vi.setConfig({ testTimeout: 180_000 });

let cluster: ClusterUnderTest;
beforeEach(async () => {
  cluster = await startClusterUnderTest();
  cluster.service.addTenant("clinic-a", { phase: "Asleep" });
});
afterEach(() => cluster.close());

const host = (...args: string[]) => cluster.cli(["tenant", "host", ...args]);

test("tenant host adds, lists and removes what the configuration has, and leaves the rest of it as it is", async () => {
  expect(await host("add", "clinic-a", "chat.clinic-a.localhost")).toMatchObject({
    code: 0,
    stdout: "chat.clinic-a.localhost leads to tenant clinic-a\n",
  });
  await host("add", "clinic-a", "mas.clinic-a.localhost");
  expect((await host("add", "clinic-a", "mas.clinic-a.localhost")).stderr).toContain("nothing was changed");
  const { spec } = await cluster.service.getTenant("clinic-a");
  expect(parse(spec.config)).toEqual({
    synapse_shards: { hosts: ["chat.clinic-a.localhost", "mas.clinic-a.localhost"] },
  });

  const listed = JSON.parse((await host("list", "clinic-a", "-o", "json")).stdout) as object[];
  expect(listed).toEqual([
    { name: "clinic-a.localhost", inEffect: expect.any(Boolean) as boolean, from: "serverName" },
    { name: "chat.clinic-a.localhost", inEffect: false, from: "synapse_shards.hosts" },
    { name: "mas.clinic-a.localhost", inEffect: false, from: "synapse_shards.hosts" },
  ]);
  expect(await host("remove", "clinic-a", "chat.clinic-a.localhost", "--yes")).toMatchObject({ code: 0 });
  expect(await host("remove", "clinic-a", "chat.clinic-a.localhost", "--yes")).toMatchObject({
    code: 1,
    stderr: expect.stringContaining("chat.clinic-a.localhost is no further host of tenant clinic-a") as string,
  });
});

test("tenant host refuses what is no name, before anything is changed", async () => {
  for (const wrong of ["Chat.example", "chat.example:8008", "10.0.0.1", "*.example"])
    expect(await host("add", "clinic-a", wrong)).toMatchObject({
      code: expect.not.stringMatching(/^0$/) as number,
      stderr: expect.stringContaining("is not the name of a host in lower case, without a port") as string,
    });
});
