import { afterEach, beforeEach, expect, it } from "vitest";
import { UserError } from "../../../src/model/errors.ts";
import type { Tenant } from "../../../src/model/tenant.ts";
import type { OnlineCopy } from "../../../src/model/database-move.ts";
import { modify } from "../../../src/ports/store.ts";
import { NotFollowed } from "../../../src/ports/database-moves.ts";
import { DatabaseTrouble } from "../../../src/ports/databases.ts";
import {
  atEachCall,
  created,
  runController,
  runs,
  tenantWhen,
  throughKill,
  type Run,
} from "../../support/controller-run.ts";
import { until } from "../../support/patience.ts";
import { FakeWorld } from "../../support/fake-world.ts";

let world: FakeWorld;
let run: Run;
beforeEach(async () => {
  world = new FakeWorld();
  world.databaseBytes = 5 * 1024 ** 3;
  run = runController(world);
  await created(world, run, ["a"]);
});
afterEach(() => run.stop());

const moved = (where = world) =>
  tenantWhen(where, "a", "moved", (t) => runs(t) && t.status.databaseServer === "db-2" && !t.status.databaseMove);
const stepIs = (step: OnlineCopy["step"]) =>
  tenantWhen(world, "a", step, (t) => t.status.databaseMove?.online?.step === step);

it("copies a large database while its tenant runs, and stops the tenant for the switch alone", async () => {
  let release = () => {};
  const isCopied = new Promise<void>((resolve) => (release = resolve));
  const calls: string[] = [];
  world.fault = (call) => {
    if (["follow", "move", "stopTenant", "cleanCopies"].includes(call)) calls.push(call);
    return undefined;
  };
  world.copying = isCopied;
  const { epoch } = (await world.store.get("Tenant", "a"))!.status;
  const asked = await run.service.moveDatabase("a", { to: "db-2" });
  expect(asked.status.databaseMove?.online).toMatchObject({ step: "Waiting", attempts: 0 });
  const copying = await stepIs("Copying");
  expect(copying.status).toMatchObject({ phase: "Running", epoch });
  // What a migration or a restart does meanwhile is the tenant's start alone.
  expect(calls).not.toContain("move");
  release();
  const { status } = await moved();
  expect(status.lastDatabaseMove).toMatchObject({
    id: asked.status.databaseMove?.id,
    outcome: "Succeeded",
    message: expect.stringContaining("copied before that") as string,
  });
  expect(calls.indexOf("follow")).toBeLessThan(calls.indexOf("move"));
  const events = await world.store.listEvents({ object: "Tenant/a", limit: 100 });
  expect(events.map(({ reason }) => reason)).toContain("DatabaseCopied");
});

it("goes by size where nobody says how, and refuses what cannot be done, with the other way", async () => {
  world.notOnline = { words: "the server has wal_level replica", isPassing: false };
  const refused = await run.service.moveDatabase("a", { to: "db-2" }).catch((error: unknown) => error as UserError);
  expect(refused).toMatchObject({ code: "Conflict", message: expect.stringContaining("wal_level replica") as string });
  expect(refused).toMatchObject({ message: expect.stringMatching(/--parked.*5120.0 MiB take about \d+ s/s) as string });
  world.databaseBytes = 500 * 1024 ** 2;
  const parked = await run.service.moveDatabase("a", { to: "db-2" });
  expect(parked.status.databaseMove?.online).toBeUndefined();
  await moved();
  const events = await world.store.listEvents({ object: "Tenant/a", limit: 100 });
  expect(events.find(({ reason }) => reason === "DatabaseParked")?.message).toContain("wal_level replica");
});

it("copies a small database while its tenant is parked, where nobody says how", async () => {
  world.databaseBytes = 10_000_000;
  const small = await run.service.moveDatabase("a", { to: "db-2" });
  expect(small.status.databaseMove?.online).toBeUndefined();
  await moved();
});

it("waits for what passes, and says for what", async () => {
  world.notOnline = { words: "background updates are under way", isPassing: true };
  await run.service.moveDatabase("a", { to: "db-2", way: "online" });
  const waiting = await tenantWhen(world, "a", "waits", (t) => t.status.databaseMove?.online?.message !== undefined);
  expect(waiting.status.databaseMove?.online).toMatchObject({
    step: "Waiting",
    message: "background updates are under way",
  });
  expect(waiting.status.databaseServer).toBeUndefined();
});

it("is taken back while it is copied, once and again, and can be asked for again", async () => {
  world.copying = new Promise(() => {});
  await run.service.moveDatabase("a", { to: "db-2" });
  await stepIs("Copying");
  const again = await run.service.moveDatabase("a", { to: "db-2" });
  const back = await run.service.cancelDatabaseMove("a");
  expect(back.status.databaseMove).toBeUndefined();
  expect(back.status.lastDatabaseMove).toMatchObject({
    id: again.status.databaseMove?.id,
    outcome: "Failed",
    message: "taken back, as requested",
  });
  await run.service.cancelDatabaseMove("a");
  await expect.poll(() => world.copies.size).toBe(0);
  world.copying = undefined;
  await run.service.moveDatabase("a", { to: "db-2" });
  await moved();
});

it("is taken back in its first moments, before its copy has begun", async () => {
  const begun = Promise.withResolvers<void>();
  const held = Promise.withResolvers<void>();
  let follows = 0;
  world.fault = (call) => {
    if (call === "follow") follows += 1;
    return undefined;
  };
  world.asked = () => {
    world.asked = () => {
      begun.resolve();
      return held.promise;
    };
    return Promise.resolve();
  };
  await run.service.moveDatabase("a", { to: "db-2" });
  await begun.promise;
  await run.service.cancelDatabaseMove("a");
  held.resolve();
  world.asked = undefined;
  // Another one begins after what became of the first.
  await run.service.moveDatabase("a", { to: "db-2", way: "parked" });
  await moved();
  expect([follows, world.copies.size]).toEqual([0, 0]);
});

it("is taken back while the tenant is being stopped for it", async () => {
  let back: Promise<Tenant> | undefined;
  world.fault = (call) => {
    if (call === "stopTenant") back ??= run.service.cancelDatabaseMove("a");
    return undefined;
  };
  await run.service.moveDatabase("a", { to: "db-2" });
  await until("a tenant that is stopped", () => back !== undefined);
  expect((await back)?.status.lastDatabaseMove?.message).toBe("taken back, as requested");
  await tenantWhen(world, "a", "runs where it was", (t) => runs(t) && t.status.databaseServer === undefined);
  await expect.poll(() => world.copies.size).toBe(0);
});

it("waits while a job has the database", async () => {
  let job: string | undefined = "backup";
  run.process.context.workFor = () => job;
  await run.service.moveDatabase("a", { to: "db-2" });
  await tenantWhen(
    world,
    "a",
    "waits",
    (t) => t.status.databaseMove?.online?.message === "a job (backup) has the database",
  );
  expect(world.copies.size).toBe(0);
  job = undefined;
});

it("does not switch while a job has the database that began meanwhile", async () => {
  const isCopied = Promise.withResolvers<void>();
  let isStopped = false;
  world.fault = (call) => {
    if (call === "stopTenant") isStopped = true;
    return undefined;
  };
  world.copying = isCopied.promise;
  await run.service.moveDatabase("a", { to: "db-2" });
  await stepIs("Copying");
  let job: string | undefined = "backup";
  let asked = 0;
  run.process.context.workFor = () => {
    asked += 1;
    return job;
  };
  isCopied.resolve();
  const following = await stepIs("Following");
  expect(following.status.databaseMove?.online?.message).toBe("a job (backup) has the database");
  await until("several looks", () => asked > 3);
  expect([world.copies.size, isStopped]).toEqual([1, false]);
  job = undefined;
  await moved();
});

it("begins again, a limited number of times, where the switch comes to nothing for what may pass", async () => {
  let moves = 0;
  world.fault = (call) =>
    call === "move" && moves++ < 2 ? new UserError("Unavailable", "its tables or indexes were changed") : undefined;
  await run.service.moveDatabase("a", { to: "db-2" });
  await moved();
  expect(moves).toBe(3);
});

it("is deleted whatever becomes of its copy", async () => {
  world.copying = new Promise(() => {});
  await run.service.moveDatabase("a", { to: "db-2" });
  await stepIs("Copying");
  world.fault = (call) => (call === "leave" ? new UserError("Unavailable", "db-2 does not answer") : undefined);
  await run.service.deleteTenant("a", { purge: true });
  await until("tenant a gone", async () => (await world.store.get("Tenant", "a")) === undefined);
});

it("starts the tenant where its database is, and copies it again, where the copy is lost before the switch", async () => {
  let lost = 0;
  world.fault = (call) => (call === "move" && lost++ === 0 ? new NotFollowed("no copy follows it") : undefined);
  await run.service.moveDatabase("a", { to: "db-2" });
  await moved();
  expect(lost).toBe(2);
});

it("ends with the database where it is where its copy always breaks off, and at once where the disk is full", async () => {
  let attempts = 0;
  world.fault = (call) => {
    if (call !== "follow") return undefined;
    attempts += 1;
    return new DatabaseTrouble("DatabaseFull", "PostgreSQL at db-2:5432 has a full disk");
  };
  await run.service.moveDatabase("a", { to: "db-2" });
  const { status } = await tenantWhen(world, "a", "failed", (t) => t.status.lastDatabaseMove !== undefined);
  expect(status).toMatchObject({ phase: "Running", lastDatabaseMove: { outcome: "Failed" } });
  expect(status.lastDatabaseMove?.message).toContain("full disk");
  expect(attempts).toBe(1);
});

it("has its copy ended before a migration changes the schema", async () => {
  world.copying = new Promise(() => {});
  await run.service.moveDatabase("a", { to: "db-2" });
  await stepIs("Copying");
  await expect.poll(() => world.copies.size).toBe(1);
  const left: boolean[] = [];
  const warmUp = world.warmUp.bind(world);
  world.warmUp = async () => {
    const migration = await warmUp();
    const migrate = migration.run.bind(migration);
    return {
      ...migration,
      run: async (...asked) => {
        left.push(world.copies.size === 0);
        return migrate(...asked);
      },
    };
  };
  await run.service.updateTenant("a", { release: "1.150.0" });
  await tenantWhen(world, "a", "upgraded", (t) => runs(t) && t.status.schemaRelease === "1.150.0");
  expect(left.length).toBeGreaterThan(0);
  expect(left).not.toContain(false);
});

it("ends with one database and one owner, whatever call the controller is killed at", async () => {
  const interrupted = await atEachCall(async (killAtCall) => {
    const here = new FakeWorld();
    const before = runController(here);
    await created(here, before, ["a"]);
    await before.stop();
    const requestedAt = new Date().toISOString();
    const online: OnlineCopy = { step: "Waiting", since: requestedAt, attempts: 0 };
    await modify(
      here.store,
      "Tenant",
      "a",
      ({ status }) => void (status.databaseMove = { id: "d", to: "db-2", requestedAt, online }),
    );
    const { ended, end, second } = await throughKill(here, killAtCall, () => moved(here));
    expect(ended.status.lastDatabaseMove).toMatchObject({ id: "d", outcome: "Succeeded" });
    expect(here.databasesAt.get("a")).toBe("db-2");
    await expect.poll(() => here.ownersOf("a")).toEqual([ended.status.shard]);
    await second.stop();
    return end;
  });
  expect(interrupted).toBeGreaterThan(20);
});
