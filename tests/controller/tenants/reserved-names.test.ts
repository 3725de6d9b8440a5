import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import { gzipSync } from "node:zlib";
import { afterEach, beforeEach, expect, it } from "vitest";
import type { BackupManifest } from "../../../src/model/backup.ts";
import { UserError } from "../../../src/model/errors.ts";
import { newTenantSecrets } from "../../../src/model/tenant-secrets.ts";
import type { BackupMeans } from "../../../src/ports/backups.ts";
import type { Work } from "../../../src/controller/backups/back-up.ts";
import { restoreGone } from "../../../src/controller/backups/restore.ts";
import { created, runController, runs, tenantWhen, type Run } from "../../support/controller-run.ts";
import { FakeWorld } from "../../support/fake-world.ts";

const COUNTS = { users: 1, devices: 1, rooms: 1, events: 7, media: 0 };
/** A list of no media, and anything else. */
const STORED = gzipSync("");
const KEPT = { key: "k", bytes: STORED.length, sha256: createHash("sha256").update(STORED).digest("hex") };

let world: FakeWorld;
let run: Run;
beforeEach(() => {
  world = new FakeWorld();
  run = runController(world);
});
afterEach(() => run.stop());

/** The restore of a tenant that is gone, which waits before its database is put beside. */
function restoring(name: string, { serverName = "lost.example", storage = name, putBeside = async () => {} } = {}) {
  const begun = Promise.withResolvers<void>();
  const goOn = Promise.withResolvers<void>();
  const secrets = newTenantSecrets(serverName);
  const sealed = { serverName, config: "", release: "1.163.2", secrets };
  const done: string[] = [];
  const means = {
    target: { place: "here", get: async () => Readable.from([STORED]) },
    sealer: { open: async () => Buffer.from(JSON.stringify(sealed)) },
    copies: {
      inPlace: async () => undefined,
      restoreBeside: async (storage: string) => {
        done.push(`beside ${storage}`);
        begun.resolve();
        await goOn.promise;
        await putBeside();
        return { counts: COUNTS, schemaVersion: 93, schemaCompatVersion: 91 };
      },
      exchange: async (storage: string) => {
        done.push(`exchanged ${storage}`);
        world.managed.set(storage, { hasDatabase: true, keepsake: { serverName, secrets, config: "" } });
      },
      settle: async () => {},
    },
    media: { admitStaged: async (storage: string) => void done.push(`media ${storage}`) },
  } as unknown as BackupMeans;
  const manifest = {
    id: "b1",
    tenant: storage,
    name,
    serverName,
    database: { ...KEPT, counts: COUNTS },
    sealed: KEPT,
    media: { ...KEPT, files: 0, newFiles: 0, newBytes: 0 },
  } as unknown as BackupManifest;
  const work: Work = { say: () => {}, signal: new AbortController().signal, now: () => 0 };
  const parts = { context: run.process.context, means, service: run.service };
  const ended = restoreGone(parts, name, manifest, "AGE-SECRET-KEY-1", work).then(
    (message) => message,
    (error: unknown) => (error instanceof UserError ? `${error.code}: ${error.message}` : String(error)),
  );
  void ended.then((how) => begun.reject(new Error(how)));
  begun.promise.catch(() => {});
  return { begun: begun.promise, goOn: () => goOn.resolve(), ended, done };
}

const refused = (work: Promise<unknown>) =>
  work.then(
    () => "accepted",
    (error: unknown) => (error as UserError).message,
  );

it("lets nobody have the name, server name or storage name of a tenant that is being restored", async () => {
  await created(world, run, ["other", "kept"]);
  await run.service.deleteTenant("kept", { purge: false });
  await expect.poll(() => world.store.get("Tenant", "kept")).toBeUndefined();
  const restore = restoring("lost", { storage: "once" });
  await restore.begun;
  const { service } = run;
  const why = "is reserved for the restore of lost";
  expect(await refused(service.createTenant({ name: "lost", serverName: "new.example" }))).toContain(
    `name lost ${why}`,
  );
  // Also by another port, whose host is the same.
  expect(await refused(service.createTenant({ name: "new", serverName: "lost.example:8448" }))).toContain(why);
  expect(await refused(service.renameTenant("other", { to: "lost" }))).toContain(why);
  expect(await refused(service.purgeTenant("lost"))).toContain("nothing is kept");
  expect(await restoring("lost", { serverName: "third.example" }).ended).toContain(why);
  // The name that the data are named by is anybody's, but not the data.
  await service.createTenant({ name: "once", serverName: "once.example" });
  const once = await tenantWhen(world, "once", "created", runs);
  expect(once.status.storage).toMatch(/^once-/);
  // What is not reserved is done meanwhile.
  await service.undeleteTenant("kept");
  restore.goOn();
  expect(await restore.ended).toContain("lost runs with backup b1");
  expect(restore.done).toEqual(["beside once", "media once", "exchanged once"]);
  expect((await service.getTenant("lost")).status.storage).toBe("once");
});

it("neither purges nor has back what a restore puts its data beside", async () => {
  await created(world, run, ["lost"]);
  await run.service.deleteTenant("lost", { purge: false });
  await expect.poll(() => world.store.get("Tenant", "lost")).toBeUndefined();
  world.managed.delete("lost");
  const restore = restoring("lost", { serverName: "lost.localhost" });
  await restore.begun;
  expect(await refused(run.service.purgeTenant("lost"))).toContain("is reserved for the restore of lost");
  expect(await refused(run.service.undeleteTenant("lost"))).toContain("is reserved for the restore of lost");
  restore.goOn();
  expect(await restore.ended).toContain("lost runs with backup b1");
});

it("refuses the restore before anything is done where a deleted tenant has the server name", async () => {
  await created(world, run, ["lost"]);
  await run.service.deleteTenant("lost", { purge: false });
  await expect.poll(() => world.store.get("Tenant", "lost")).toBeUndefined();
  const restore = restoring("again", { serverName: "lost.localhost" });
  expect(await restore.ended).toMatch(/AlreadyExists: the server name lost.localhost is reserved until/);
  expect(restore.done).toEqual([]);
});

it("puts nothing in its place where a name was taken nevertheless, and lets go of the names when it fails", async () => {
  const spec = { serverName: "b.localhost", release: "1.163.2", config: "", reclaimPolicy: "Retain" as const };
  const { newTenantStatus } = await import("../../../src/model/tenant.ts");
  const putBeside = async () => void (await world.store.create("Tenant", "lost", spec, newTenantStatus()));
  const restore = restoring("lost", { putBeside });
  await restore.begun;
  restore.goOn();
  expect(await restore.ended).toBe("AlreadyExists: there is a tenant named lost already");
  expect(restore.done).toEqual(["beside lost"]);
  await run.service.createTenant({ name: "new", serverName: "lost.example" });
});
