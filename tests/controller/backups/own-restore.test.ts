import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterEach, expect, it } from "vitest";
import { DirectoryTarget } from "../../../src/backups/directory-target.ts";
import { store } from "../../../src/controller/backups/hashing.ts";
import { exchangeNow, restoreInPlace, type RestoreParts } from "../../../src/controller/backups/restore.ts";
import type { BackupManifest } from "../../../src/model/backup.ts";
import { UserError } from "../../../src/model/errors.ts";
import type { Tenant } from "../../../src/model/tenant.ts";
import type { Bytes } from "../../../src/ports/backups.ts";
import { modify } from "../../../src/ports/store.ts";
import {
  askForRestore,
  atEachCall,
  runController,
  runs,
  tenantWhen,
  throughKill,
} from "../../support/controller-run.ts";
import { FakeWorld } from "../../support/fake-world.ts";

const NONE = { users: 0, devices: 0, rooms: 0, events: 0, media: 0 };

let directory: string | undefined;
afterEach(() => directory && rm(directory, { recursive: true, force: true }));

async function newDirectory(): Promise<string> {
  return (directory = await mkdtemp(join(tmpdir(), "synapse-shards-own-")));
}

async function* content(text: string | Uint8Array): Bytes {
  yield Buffer.from(text);
}

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

it("starts a tenant with what was restored into its database, and one owner, whatever call the controller is killed at", async () => {
  const interrupted = await atEachCall(async (killAtCall) => {
    const world = await withOwnDatabase();
    const { epoch } = (await world.store.get("Tenant", "a"))!.status;
    await askForRestore(world);
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
  await askForRestore(world);
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
  await askForRestore(world);
  const parts = { context, service: {} as RestoreParts["service"] };
  const work = { say: () => {}, signal: new AbortController().signal, now: () => Date.now() };
  const { status } = (await world.store.get("Tenant", "a"))!;
  const other = exchangeNow({ ...parts, context: { ...context, store: world.store } }, "a", { backup: "c" }, work);
  await expect(other).rejects.toMatchObject({ code: "Conflict", message: expect.stringContaining("being restored") });
  expect((await world.store.get("Tenant", "a"))!.status.restore).toEqual(status.restore);
});

it("looks at the schema of what it restored, also where somebody else wrote down meanwhile how that ended", async () => {
  const world = await withOwnDatabase();
  await askForRestore(world);
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

it("reads the backup of the tenant that it is of, where that is not the one that is restored", async () => {
  const world = await withOwnDatabase();
  const target = new DirectoryTarget(await newDirectory());
  const database = { ...(await store(target, "dump", content("of the backup"))), counts: NONE };
  const media = { ...(await store(target, "media", content(gzipSync("")))), files: 0 };
  const manifest = { id: "b", tenant: "former-a", schemaRelease: "1.163.2", database, media } as BackupManifest;
  const run = runController(world);
  const { context } = run.process;
  const read = context.ownRestores!.read;
  const asked: string[] = [];
  context.ownRestores!.read = (storage, backup) => {
    asked.push(storage);
    return read(storage, backup);
  };
  await tenantWhen(world, "a", "runs", runs);
  const parts = {
    context,
    means: { target } as Partial<RestoreParts["means"]> as RestoreParts["means"],
    service: {} as RestoreParts["service"],
  };
  const work = { say: () => {}, signal: new AbortController().signal, now: () => Date.now() };
  await restoreInPlace(parts, (await world.store.get("Tenant", "a"))!, manifest, work);
  expect(asked).toEqual(["former-a"]);
  expect(world.contents.get("a")).toBe("of the backup");
  await run.stop();
});

it("restores into no database that the tenant may not have", async () => {
  const world = new FakeWorld();
  world.wrongConfigs.add(CONFIG);
  world.contents.set("a", "another one's");
  world.backups.set("b", "of the backup");
  const run = runController(world);
  await run.service.createTenant({ name: "a", config: CONFIG });
  const { status } = await tenantWhen(world, "a", "failed", (t) => t.status.phase === "Failed");
  await askForRestore(world);
  const isTriedAgain = (t: Tenant) => t.status.failures > status.failures + 1;
  const tried = await tenantWhen(world, "a", "tried again, or restored", (t) => isTriedAgain(t) || !t.status.restore);
  expect(tried.status).toMatchObject({ restore: { id: "r" }, reason: "InvalidConfig" });
  expect(world.contents.get("a")).toBe("another one's");
  world.wrongConfigs.clear();
  await tenantWhen(world, "a", "restored", (t) => runs(t) && t.status.restored !== undefined);
  expect(world.contents.get("a")).toBe("of the backup");
  await run.stop();
});

it("gives up a restore that does not end, and goes on with what it has", async () => {
  const world = await withOwnDatabase();
  await askForRestore(world);
  const run = runController(world, { timing: { ownRestoreWithin: 0.2 } });
  run.process.context.ownRestores!.databases.replace = (_tenant, _secrets, _restore, _dump, _check, signal) =>
    new Promise((_resolve, reject) => signal?.addEventListener("abort", () => reject(signal.reason as Error)));
  await tenantWhen(world, "a", "runs on", (t) => runs(t) && !t.status.restore);
  expect(world.contents.get("a")).toBe("of today");
  const events = await world.store.listEvents({ object: "Tenant/a", limit: 100 });
  expect(events.find(({ reason }) => reason === "NotRestored")?.message).toContain("it was not done in");
  await run.stop();
});
