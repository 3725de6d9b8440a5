import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { DirectoryTarget } from "../../../src/backups/directory-target.ts";
import { AskedBackups } from "../../../src/controller/backups/asked-backups.ts";
import { Catalogue } from "../../../src/controller/backups/catalogue.ts";
import { StoreBackupService, type BackupSettings } from "../../../src/controller/backups/store-backup-service.ts";
import { BackupsConfigSchema, type BackupManifest, type Job } from "../../../src/model/backup.ts";
import type { BackupMeans, Bytes } from "../../../src/ports/backups.ts";
import { created, runController, tenantWhen, type Run } from "../../support/controller-run.ts";
import { FakeWorld } from "../../support/fake-world.ts";
import { until } from "../../support/patience.ts";

const FACTS = { counts: { users: 1, devices: 1, rooms: 1, events: 7, media: 0 } };

let directory: string;
let world: FakeWorld;
let run: Run;
let open: StoreBackupService[];
/** What each dump waits for. */
let mayDump: Promise<void>;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "synapse-shards-asked-"));
  world = new FakeWorld();
  run = runController(world);
  open = [];
  mayDump = Promise.resolve();
  await created(world, run, ["a"]);
});
afterEach(async () => {
  for (const service of open) await service.close();
  await run.stop();
  await rm(directory, { recursive: true, force: true });
});

async function started(retention: object = {}): Promise<StoreBackupService> {
  async function* content(): Bytes {
    yield Buffer.from("the dump");
  }
  const means = {
    target: new DirectoryTarget(directory),
    sealer: { seal: async (_to: string, text: Uint8Array) => text },
    copies: {
      clean: async () => {},
      dump: async (
        _t: unknown,
        _s: unknown,
        consume: (dump: Bytes, facts: unknown) => Promise<unknown>,
        signal: AbortSignal,
      ) => {
        signal.throwIfAborted();
        const aborted = new Promise<void>((_done, fail) => {
          signal.addEventListener("abort", () => fail(new Error("it is stopped")), { once: true });
        });
        await Promise.race([mayDump, aborted]);
        return consume(content(), FACTS);
      },
    },
    media: { async *list() {} },
  } as unknown as BackupMeans;
  const config = BackupsConfigSchema.parse({
    target: { directory },
    recipient: `age1${"q".repeat(58)}`,
    retention,
  });
  const settings: BackupSettings = { config: () => ({ config, means }), meansAt: () => means };
  const service = new StoreBackupService(run.process.context, run.service, settings);
  open.push(service);
  await service.start();
  return service;
}

const ended = (service: StoreBackupService, id: string) =>
  until("the backup has ended", () => {
    const job = service.jobs().find((known) => known.id === id);
    return job?.finishedAt !== undefined && job;
  });
const kept = (): Promise<BackupManifest[]> => new Catalogue(new DirectoryTarget(directory)).all("a");
const isNoted = async () => (await world.store.get("Tenant", "a"))?.status.backupAsked !== undefined;

it("goes on with a backup that somebody asked for, as the same job, where the controller is started again", async () => {
  mayDump = new Promise(() => {});
  const first = await started();
  const { id } = await first.backUp("a");
  await first.close();
  expect(await isNoted()).toBe(true);
  mayDump = Promise.resolve();
  const second = await started();
  expect((await ended(second, id)).state).toBe("Succeeded");
  await tenantWhen(world, "a", "without a note", ({ status }) => status.backupAsked === undefined);
  const third = await started();
  expect(third.jobs()).toEqual([]);
  expect(await kept()).toHaveLength(1);
});

it("keeps few of the backups that a tenant admin asks for, and none of them in place of others", async () => {
  const service = await started({ keepLast: 2, keepDays: 0, keepOfTenantAdmins: 1 });
  for (const byTenantAdmin of [false, false, true, true, true])
    await ended(service, (await service.backUp("a", { byTenantAdmin })).id);
  expect((await kept()).map(({ by = "" }) => by)).toEqual(["", "", "tenant-admin"]);
  // One that somebody else wants as well is kept like any other, also after a restart.
  let dump = () => {};
  mayDump = new Promise((done) => (dump = done));
  const { id } = await service.backUp("a", { byTenantAdmin: true });
  expect((await service.backUp("a")).id).toBe(id);
  expect((await world.store.get("Tenant", "a"))?.status.backupAsked).not.toHaveProperty("byTenantAdmin");
  dump();
  await ended(service, id);
  expect((await kept()).map(({ by = "" }) => by)).toEqual(["", "tenant-admin", ""]);
});

it("begins no backup a third time by itself at which two controllers ended without a word, and says so", async () => {
  const noted = async () => (await world.store.get("Tenant", "a"))?.status.backupAsked;
  mayDump = new Promise(() => {});
  const first = await started();
  const { id } = await first.backUp("a");
  await until("the first attempt is written", async () => (await noted())?.attempts === 1);
  // One that stops as it should is none.
  await first.close();
  expect(await noted()).toEqual({ id, requestedAt: expect.any(String) as string });
  for (const attempts of [1, 2]) {
    const begun = await started();
    await until("the attempt is written", async () => (await noted())?.attempts === attempts);
    // As a controller that is killed: it writes no more.
    vi.spyOn(AskedBackups.prototype, "stopped").mockResolvedValueOnce();
    await begun.close();
  }
  mayDump = Promise.resolve();
  const last = await started();
  expect(last.jobs()).toEqual([]);
  await tenantWhen(world, "a", "without a note", ({ status }) => status.backupAsked === undefined);
  const events = (await world.store.listEvents({ object: "Tenant/a", limit: 100 })).filter(
    ({ reason }) => reason === "BackupFailed",
  );
  expect(events.map(({ message }) => message)).toEqual([expect.stringContaining("controllers ended twice") as string]);
  expect(await kept()).toEqual([]);
  expect((await ended(last, (await last.backUp("a")).id)).state).toBe("Succeeded");
});

it("begins nothing again whose note cannot be removed, and removes the note once that is possible", async () => {
  const asked = new AskedBackups(run.process.context);
  const job = { id: "backup-1", tenant: "a", requestedAt: "2026-01-01T00:00:00.000Z" } as Job;
  await asked.note(job, { byTenantAdmin: false });
  await until("the note is known", () => asked.left().length === 1);
  const refusal = vi.spyOn(world.store, "update").mockRejectedValue(new Error("database or disk is full"));
  await expect(asked.done(job)).rejects.toThrow("full");
  expect(asked.left()).toEqual([]);
  await expect(asked.tidy()).rejects.toThrow("full");
  refusal.mockRestore();
  await asked.tidy();
  expect(await isNoted()).toBe(false);
});
