import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { startApiUnderTest } from "../api/api-under-test.ts";
import { until } from "../support/patience.ts";
import { type ClusterUnderTest, startClusterUnderTest, startCli } from "./cli-under-test.ts";

// Each test starts a process, which takes its time on a machine that is busy.
vi.setConfig({ testTimeout: 180_000 });

let cluster: ClusterUnderTest;
const children: { kill(): void }[] = [];
beforeEach(async () => {
  cluster = await startClusterUnderTest();
  const { service } = cluster;
  service.run(service.addTenant("clinic-a"), "1.163.2-0");
  service.addTenant("clinic-b").spec.labels = { plan: "small" };
});
afterEach(async () => {
  for (const child of children.splice(0)) child.kill();
  await cluster.close();
});

function watching(...args: string[]) {
  const child = startCli([...args, "--watch", "--data", cluster.data]);
  children.push(child);
  const said = { stdout: "", stderr: "" };
  child.stdout?.on("data", (chunk: Buffer) => (said.stdout += chunk.toString()));
  child.stderr?.on("data", (chunk: Buffer) => (said.stderr += chunk.toString()));
  const rows = () =>
    said.stdout
      .trimEnd()
      .split("\n")
      .map((line) => line.trimEnd().split(/ {2,}/));
  const count = (wanted: number) =>
    until(`${wanted} lines: ${said.stdout}${said.stderr}`, async () => rows().length >= wanted);
  return { said, rows, count };
}

test("tenant list --watch goes on with each tenant that changes, also after the controller was restarted", async () => {
  const { service, api } = cluster;
  const { rows, count, said } = watching("tenant", "list");
  await count(3);
  expect(rows().map(([name, , , phase]) => [name, phase])).toEqual([
    ["NAME", "PHASE"],
    ["clinic-a", "Running"],
    ["clinic-b", "Pending"],
  ]);
  service.run(service.tenants.get("clinic-b")!, "1.163.2-0");
  service.wake();
  await count(4);
  expect(rows()[3]?.slice(0, 4)).toEqual(["clinic-b", "clinic-b.localhost", "1.163.2", "Running"]);
  const port = Number(new URL(api.url).port);
  await api.close();
  service.tenants.delete("clinic-a");
  service.addTenant("clinic-c");
  const again = await startApiUnderTest(service, { port });
  try {
    await count(6);
    expect(
      new Set(
        rows()
          .slice(4)
          .map(([name, , , phase]) => `${name} ${phase}`),
      ),
    ).toEqual(new Set(["clinic-c Pending", "clinic-a Gone"]));
    expect(said.stderr).toBe("the connection ended, and is made again\n");
  } finally {
    await again.close();
  }
});

test("tenant get --watch tells of one tenant, an object a line where JSON is asked for", async () => {
  const { service } = cluster;
  const { said, count } = watching("tenant", "get", "clinic-b", "-o", "json");
  await count(1);
  await until("the first is told", async () => said.stdout.endsWith("\n"));
  service.tenants.get("clinic-a")!.status.phase = "Failed";
  service.run(service.tenants.get("clinic-b")!, "1.163.2-1");
  service.wake();
  await count(2);
  const told = said.stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as { name: string; phase: string });
  expect(told.map(({ name, phase }) => [name, phase])).toEqual([
    ["clinic-b", "Pending"],
    ["clinic-b", "Running"],
  ]);
  expect((await cluster.cli(["tenant", "get", "nobody", "--watch"])).code).toBe(3);
  expect((await cluster.cli(["tenant", "list", "--watch", "-o", "yaml"])).code).toBe(2);
});
