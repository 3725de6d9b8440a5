import { rm } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { Cluster } from "./support/cluster.ts";

let cluster: Cluster;
beforeAll(async () => void (cluster = await Cluster.start()));
afterAll(() => cluster?.destroy());

async function keysOf(tenant: string): Promise<unknown> {
  const port = await cluster.gatewayPort();
  const response = await fetch(`http://127.0.0.1:${port}/_matrix/key/v2/server`, {
    headers: { host: `${tenant}.localhost` },
  });
  return ((await response.json()) as { verify_keys: unknown }).verify_keys;
}

it("goes on with the tenants' keys after the store was lost, and never without them", async () => {
  await cluster.createTenant("clinic-a");
  const before = await keysOf("clinic-a");
  const { epoch } = await cluster.tenant("clinic-a");
  await cluster.end("SIGINT");
  for (const suffix of ["", "-wal", "-shm"]) await rm(join(cluster.dataDir, `store.db${suffix}`), { force: true });
  await expect(cluster.restart()).rejects.toThrow(
    /databases of tenants that .*store.db does not know: tenant_clinic_a.*up --recover/,
  );
  await cluster.restart("SIGINT", "--recover");
  expect(cluster.output).toContain("Restored the store from");
  await expect.poll(async () => (await cluster.tenant("clinic-a")).phase).toBe("Running");
  expect(await keysOf("clinic-a")).toEqual(before);
  expect((await cluster.tenant("clinic-a")).epoch).toBeGreaterThan(epoch);
  await cluster.restart();
  expect((await cluster.tenant("clinic-a")).phase).toMatch(/Running|Starting/);
});
