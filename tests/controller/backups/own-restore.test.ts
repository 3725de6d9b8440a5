import { expect, it } from "vitest";
import { exchangeNow, type RestoreParts } from "../../../src/controller/backups/restore.ts";
import { UserError } from "../../../src/model/errors.ts";
import { modify } from "../../../src/ports/store.ts";
import { atEachCall, runController, runs, tenantWhen, throughKill } from "../../support/controller-run.ts";
import { FakeWorld } from "../../support/fake-world.ts";

const CONFIG = `database: {name: psycopg2, args: {host: db.example, user: a, password: pw, dbname: a}}`;

/** A tenant that runs with a database that it brings along. */
async function withOwnDatabase(): Promise<FakeWorld> {
  const world = new FakeWorld();
  const run = runController(world);
  await run.service.createTenant({ name: "a", config: CONFIG });
  await tenantWhen(world, "a", "created", runs);
  await run.stop();
  world.contents.set("a", "of today");
  world.backups.set("b", "of the backup");
  return world;
}

async function ask(world: FakeWorld): Promise<void> {
  const restore = { id: "r", backup: "b", requestedAt: new Date().toISOString(), schemaRelease: "1.163.2" };
  await modify(world.store, "Tenant", "a", ({ status }) => void (status.restore = restore));
}

it("starts a tenant with what was restored into its database, and one owner, whatever call the controller is killed at", async () => {
  const interrupted = await atEachCall(async (killAtCall) => {
    const world = await withOwnDatabase();
    const { epoch } = (await world.store.get("Tenant", "a"))!.status;
    await ask(world);
    const { ended, end, second } = await throughKill(world, killAtCall, () =>
      tenantWhen(world, "a", "restored", (t) => runs(t) && t.status.restored !== undefined),
    );
    const { status } = ended;
    expect(world.contents.get("a")).toBe("of the backup");
    expect(world.log).toContain("media of a admitted");
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

it("goes on with what it has where the backup cannot be had, and says why", async () => {
  const world = await withOwnDatabase();
  world.ownRestoreFails = new UserError("Unavailable", "the backup target s3://backups/ cannot be used: it is away");
  await ask(world);
  const run = runController(world);
  const { status } = await tenantWhen(world, "a", "runs on", (t) => runs(t) && !t.status.restore);
  expect(status.restored).toBeUndefined();
  expect(world.contents.get("a")).toBe("of today");
  const events = await world.store.listEvents({ object: "Tenant/a", limit: 100 });
  expect(events.find(({ reason }) => reason === "NotRestored")?.message).toContain("it is away");
  await run.stop();
});

it("refuses another restore while one is pending, which would put aside what the first has brought", async () => {
  const world = await withOwnDatabase();
  const { context } = runController(world, { killAtCall: 1 }).process;
  await ask(world);
  const parts = { context, service: {} as RestoreParts["service"] };
  const work = { say: () => {}, signal: new AbortController().signal, now: () => Date.now() };
  const { status } = (await world.store.get("Tenant", "a"))!;
  const other = exchangeNow({ ...parts, context: { ...context, store: world.store } }, "a", { backup: "c" }, work);
  await expect(other).rejects.toMatchObject({ code: "Conflict", message: expect.stringContaining("being restored") });
  expect((await world.store.get("Tenant", "a"))!.status.restore).toEqual(status.restore);
});

it("looks at the schema of what it restored, also where somebody else wrote down meanwhile how that ended", async () => {
  const world = await withOwnDatabase();
  await ask(world);
  const run = runController(world);
  const { context } = run.process;
  const read = context.ownRestores!.read;
  context.ownRestores!.read = async (...of) => {
    await modify(world.store, "Tenant", "a", ({ status }) => void delete status.restore);
    return read(...of);
  };
  const described: string[] = [];
  const { describe } = context.databases;
  context.databases.describe = async (tenant, secrets) => {
    described.push(tenant.metadata.name);
    return describe(tenant, secrets);
  };
  await tenantWhen(world, "a", "restored", (t) => runs(t) && world.contents.get("a") === "of the backup");
  expect(described).toEqual(["a"]);
  await run.stop();
});
