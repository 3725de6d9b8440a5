import { expect, it } from "vitest";
import { refuseEarlierTenant } from "../../../src/controller/backups/restore-to-time.ts";
import { StoreBackupService, type BackupSettings } from "../../../src/controller/backups/store-backup-service.ts";
import { modify } from "../../../src/ports/store.ts";
import { created, runController, runs, tenantWhen } from "../../support/controller-run.ts";
import { FakeWorld } from "../../support/fake-world.ts";

const at = "2026-01-01T00:00:00.000Z";

it("takes a backup, and reads no copy of the cluster's own server, where a tenant's database is on another one", async () => {
  const world = new FakeWorld();
  const run = runController(world);
  await created(world, run, ["a"]);
  const config = { pointInTime: {} };
  const target = { place: "the target", async *list() {}, get: async () => undefined };
  const settings = {
    config: () => ({ config, means: { target } }),
    pointInTime: { log: {}, recoveries: {} },
  } as unknown as BackupSettings;
  const backups = new StoreBackupService(run.process.context, run.service, settings);
  const said = () =>
    backups.databaseOf("a", { at }).then(
      () => "",
      (error: unknown) => String(error),
    );
  expect(await said()).not.toContain("has no backup");
  await modify(world.store, "Tenant", "a", ({ status }) => void (status.databaseServer = "db-2"));
  expect(await said()).toContain("the target has no backup of a from before");
  await expect(backups.restore("a", { at })).rejects.toMatchObject({ code: "NotFound" });
  await run.service.deleteTenant("a", { purge: false });
  await expect.poll(() => world.store.get("Tenant", "a")).toBeUndefined();
  expect(await said()).toContain("the target has no backup of a from before");
  await backups.close();
  await run.stop();
});

it("takes nothing up that another tenant of the name may have had, but what was kept of a deleted one", async () => {
  const world = new FakeWorld();
  const run = runController(world);
  await created(world, run, ["a"]);
  const first = (await world.store.get("Tenant", "a"))!;
  const began = Date.parse(first.metadata.creationTimestamp);
  expect(() => refuseEarlierTenant(first, began)).not.toThrow();
  expect(() => refuseEarlierTenant(first, began - 1)).toThrow("may have been another one");
  for (let deletions = 0; deletions < 2; deletions++) {
    await run.service.deleteTenant("a", { purge: false });
    await expect.poll(() => world.store.get("Tenant", "a")).toBeUndefined();
    await run.service.undeleteTenant("a");
    const back = await tenantWhen(world, "a", "back", runs);
    expect(Date.parse(back.metadata.creationTimestamp)).toBeGreaterThan(began);
    expect(() => refuseEarlierTenant(back, began)).not.toThrow();
    expect(() => refuseEarlierTenant(back, began - 1)).toThrow("may have been another one");
  }
  await run.stop();
});
