import { expect, it } from "vitest";
import { exchangeNow, type RestoreParts } from "../../../src/controller/backups/restore.ts";
import {
  askForRestore,
  atEachCall,
  created,
  runController,
  runs,
  tenantWhen,
  throughKill,
} from "../../support/controller-run.ts";
import { FakeWorld } from "../../support/fake-world.ts";

/** A tenant that runs, and a database beside its own. */
async function withDatabaseBeside(): Promise<FakeWorld> {
  const world = new FakeWorld();
  const run = runController(world);
  await created(world, run, ["a"]);
  await run.stop();
  world.beside.set("a", "of the backup");
  return world;
}

it("starts a tenant with the restored database, and one owner, whatever call the controller is killed at", async () => {
  const interrupted = await atEachCall(async (killAtCall) => {
    const world = await withDatabaseBeside();
    const { epoch } = (await world.store.get("Tenant", "a"))!.status;
    await askForRestore(world);
    const { ended, end, second } = await throughKill(world, killAtCall, () =>
      tenantWhen(world, "a", "restored", (t) => runs(t) && t.status.restored !== undefined),
    );
    const { status } = ended;
    expect(world.contents.get("a")).toBe("of the backup");
    expect(status.restore).toBeUndefined();
    expect(status.restored).toMatchObject({ backup: "b" });
    expect(status.epoch).toBeGreaterThan(epoch);
    await expect.poll(() => world.ownersOf("a")).toEqual([status.shard]);
    await second.stop();
    return end;
  });
  // The test is worth something only if it really went through all of it.
  expect(interrupted).toBeGreaterThan(20);
}, 120_000);

it("goes on with the database that it has where no copy is where that is, and does not say that it was restored", async () => {
  const world = await withDatabaseBeside();
  world.beside.clear();
  await askForRestore(world);
  const run = runController(world);
  const { status } = await tenantWhen(world, "a", "runs on", (t) => runs(t) && !t.status.restore);
  expect(status.restored).toBeUndefined();
  expect(world.contents.has("a")).toBe(false);
  const events = await world.store.listEvents({ object: "Tenant/a", limit: 100 });
  expect(events.map(({ reason }) => reason)).toContain("NotRestored");
  const service = { wakeTenant: async () => {} } as unknown as RestoreParts["service"];
  const work = { say: () => {}, signal: new AbortController().signal, now: () => Date.now() };
  const asked = exchangeNow({ context: run.process.context, service }, "a", { backup: "b" }, work);
  await expect(asked).rejects.toMatchObject({ code: "Conflict", message: expect.stringContaining("not restored") });
  await run.stop();
});

it("starts a failed tenant with the restored database at once", async () => {
  const world = await withDatabaseBeside();
  const { shard } = (await world.store.get("Tenant", "a"))!.status;
  world.shards.get(shard!)!.tenants.delete("a");
  world.failingStarts.set("*", { code: "DatabaseUnsuitable", message: "its database is broken" });
  const run = runController(world);
  await tenantWhen(world, "a", "failed", ({ status }) => status.phase === "Failed");
  world.failingStarts.clear();
  await askForRestore(world);
  await tenantWhen(world, "a", "restored", (t) => runs(t) && t.status.restored?.backup === "b");
  expect(world.contents.get("a")).toBe("of the backup");
  await run.stop();
});
