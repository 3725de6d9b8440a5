import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { FleetSpec, FleetStatus } from "../../src/model/fleet.ts";
import { newTenantStatus } from "../../src/model/tenant.ts";
import { ConflictError, modify, type Change, type Store } from "../../src/ports/store.ts";

export const SPEC = {
  serverName: "a.example",
  release: "1.163.2",
  config: "",
  reclaimPolicy: "Retain" as const,
};
export const STATUS = newTenantStatus();
const FLEET_SPEC: FleetSpec = {
  release: "1.163.2",
  rollout: {
    canaries: { count: 1, names: ["a"] },
    waveSize: 10,
    maxConcurrentMoves: 2,
    soakSeconds: 60,
    progressDeadlineSeconds: 600,
    windows: [{ schedule: "0 2 * * *", durationMinutes: 120, timezone: "Europe/Berlin" }],
    maxFailures: 1,
    onFailure: "RollBack",
    paused: false,
  },
};
const FLEET_STATUS: FleetStatus = {
  phase: "Canary",
  reason: "",
  message: "",
  observedGeneration: 1,
  release: "1.163.2",
  previousRelease: "1.157.2",
  wave: 0,
  waves: 3,
  updated: 1,
  total: 21,
  failed: ["b"],
};
const SECRET = {
  serverName: "a.example",
  signingKey: "k",
  macaroonSecretKey: "m",
  formSecret: "f",
  registrationSharedSecret: "r",
  databasePassword: "p",
};

/** What every store does (the comment of `Store`). `reopen` closes and opens it again, as a new controller would. */
export function describeStoreContract(
  name: string,
  open: () => Promise<Store>,
  reopen: (store: Store) => Promise<Store>,
): void {
  describe(`store contract: ${name}`, () => {
    let store: Store;
    beforeEach(async () => void (store = await open()));
    afterEach(() => store.close());

    it("the second of two writers of one version is refused", async () => {
      await store.create("Tenant", "a", SPEC, STATUS);
      const [one, two] = [await store.get("Tenant", "a"), await store.get("Tenant", "a")];
      one!.status.epoch = 1;
      await store.update(one!);
      two!.status.epoch = 7;
      await expect(store.update(two!)).rejects.toThrow(ConflictError);
      expect((await store.get("Tenant", "a"))?.status.epoch).toBe(1);
    });

    it("concurrent modifications all take effect", async () => {
      await store.create("Tenant", "a", SPEC, STATUS);
      const results = await Promise.all(
        Array.from({ length: 20 }, () => modify(store, "Tenant", "a", (t) => void (t.status.epoch += 1))),
      );
      expect(new Set(results.map((t) => t?.status.epoch)).size).toBe(20);
      expect((await store.get("Tenant", "a"))?.status.epoch).toBe(20);
    });

    it("refuses a write to an object that is gone", async () => {
      const tenant = await store.create("Tenant", "a", SPEC, STATUS);
      await store.remove("Tenant", "a");
      await expect(store.update(tenant)).rejects.toThrow(ConflictError);
      expect(await modify(store, "Tenant", "a", () => {})).toBeUndefined();
    });

    it("refuses a second object of one name", async () => {
      await store.create("Tenant", "a", SPEC, STATUS);
      await expect(store.create("Tenant", "a", SPEC, STATUS)).rejects.toMatchObject({ code: "AlreadyExists" });
    });

    it("refuses a write meant for a former object of the same name", async () => {
      const old = await store.create("Tenant", "a", SPEC, STATUS);
      await store.remove("Tenant", "a");
      await store.create("Tenant", "a", SPEC, STATUS);
      old.status.epoch = 5;
      await expect(store.update(old)).rejects.toThrow(ConflictError);
      expect((await store.get("Tenant", "a"))?.status.epoch).toBe(0);
    });

    it("shards and fleets come back as they were written, each kind for itself", async () => {
      const shardSpec = { release: "1.163.2-rc1" };
      const shardStatus = { phase: "Ready", reason: "", message: "", load: 0.25, failures: 0 } as const;
      await store.create("Shard", "1.163.2-rc1-0", shardSpec, shardStatus);
      await store.create("Fleet", "fleet", FLEET_SPEC, FLEET_STATUS);
      expect(await store.list("Tenant")).toEqual([]);
      expect(await store.list("Shard")).toMatchObject([
        { kind: "Shard", metadata: { name: "1.163.2-rc1-0" }, spec: shardSpec, status: shardStatus },
      ]);
      const fleet = await store.get("Fleet", "fleet");
      expect(fleet).toMatchObject({ kind: "Fleet", metadata: { name: "fleet", generation: 1 } });
      expect([fleet?.spec, fleet?.status]).toEqual([FLEET_SPEC, FLEET_STATUS]);
      const drained = await modify(store, "Shard", "1.163.2-rc1-0", (shard) => void (shard.spec.drain = "Requested"));
      expect(drained).toMatchObject({ spec: { drain: "Requested" }, metadata: { generation: 2 } });
      await modify(store, "Shard", "1.163.2-rc1-0", (shard) => void delete shard.spec.drain);
      expect((await store.get("Shard", "1.163.2-rc1-0"))?.spec).toEqual(shardSpec);
      const paused = await modify(store, "Fleet", "fleet", ({ spec, status }) => {
        spec.rollout.paused = true;
        status.failed = [];
        delete status.previousRelease;
      });
      expect(paused).toMatchObject({ spec: { rollout: { paused: true } }, status: { failed: [] } });
      expect((await store.get("Fleet", "fleet"))?.status).not.toHaveProperty("previousRelease");
      await store.remove("Fleet", "fleet");
      expect(await store.list("Fleet")).toEqual([]);
    });

    it("what is to be deleted stays, and says so, until it is removed", async () => {
      const deletionTimestamp = new Date().toISOString();
      await store.create("Tenant", "a", SPEC, STATUS);
      await store.create("Shard", "1.163.2-0", { release: "1.163.2" }, { ...STATUS, phase: "Ready" } as never);
      const deleted = await modify(store, "Tenant", "a", (t) => {
        t.metadata.deletionTimestamp = deletionTimestamp;
        t.spec.reclaimPolicy = "Delete";
        t.status.message = "goes";
      });
      expect(deleted).toMatchObject({ spec: { reclaimPolicy: "Delete" }, status: { message: "goes" } });
      await modify(store, "Shard", "1.163.2-0", (shard) => {
        shard.metadata.deletionTimestamp = deletionTimestamp;
        shard.status.phase = "Stopping";
      });
      for (const [kind, name] of [
        ["Tenant", "a"],
        ["Shard", "1.163.2-0"],
      ] as const) {
        expect((await store.get(kind, name))?.metadata.deletionTimestamp).toBeDefined();
        await modify<"Tenant" | "Shard">(store, kind, name, ({ status }) => void (status.failures = 2));
        expect((await store.get(kind, name))?.status.failures).toBe(2);
        await store.remove(kind, name);
        expect(await store.get(kind, name)).toBeUndefined();
        await store.remove(kind, name);
      }
    });

    it("generation counts changes of the spec only", async () => {
      await store.create("Tenant", "a", SPEC, STATUS);
      const afterStatus = await modify(store, "Tenant", "a", (t) => void (t.status.phase = "Running"));
      expect(afterStatus?.metadata).toMatchObject({ generation: 1, resourceVersion: expect.any(String) });
      const afterSpec = await modify(store, "Tenant", "a", (t) => void (t.spec.release = "1.157.2"));
      expect(afterSpec?.metadata.generation).toBe(2);
      expect(afterSpec!.metadata.resourceVersion).not.toBe(afterStatus!.metadata.resourceVersion);
    });

    it("what it hands out is a copy", async () => {
      const created = await store.create("Tenant", "a", SPEC, STATUS);
      created.status.phase = "Failed";
      const listed = (await store.list("Tenant"))[0]!;
      listed.spec.config = "changed";
      expect(await store.get("Tenant", "a")).toMatchObject({ spec: SPEC, status: STATUS });
    });

    it("watchers hear each write once and in order, and see it in the store", async () => {
      const heard: [string, string][] = [];
      const stale: string[] = [];
      const unwatch = store.watch((change: Change) => {
        heard.push([change.type, change.resource.metadata.resourceVersion]);
        void store.get("Tenant", "a").then((now) => {
          if (
            change.type !== "Deleted" &&
            now &&
            Number(now.metadata.resourceVersion) < Number(change.resource.metadata.resourceVersion)
          )
            stale.push(change.type);
        });
      });
      await store.create("Tenant", "a", SPEC, STATUS);
      await modify(store, "Tenant", "a", (t) => void (t.status.epoch = 1));
      await modify(store, "Tenant", "a", (t) => void (t.status.epoch = 2));
      await store.remove("Tenant", "a");
      await expect.poll(() => heard.length).toBe(4);
      expect(heard.map(([type]) => type)).toEqual(["Added", "Modified", "Modified", "Deleted"]);
      const versions = heard.slice(0, 3).map(([, version]) => version);
      expect(versions).toEqual(versions.toSorted((a, b) => Number(a) - Number(b)));
      expect(stale).toEqual([]);
      unwatch();
      await store.create("Tenant", "b", SPEC, STATUS);
      await new Promise((resolve) => setTimeout(resolve, 20));
      expect(heard).toHaveLength(4);
    });

    it("a watcher hears of a write before the writer goes on", async () => {
      const heard: string[] = [];
      store.watch(({ type, resource }) => heard.push(`${type} ${resource.metadata.name}`));
      await store.create("Tenant", "a", SPEC, STATUS);
      expect(heard).toEqual(["Added a"]);
      await modify(store, "Tenant", "a", (t) => void (t.status.epoch = 1));
      expect(heard).toEqual(["Added a", "Modified a"]);
      await store.remove("Tenant", "a");
      expect(heard).toEqual(["Added a", "Modified a", "Deleted a"]);
    });

    it("hears what happens after it opened, and not what was before", async () => {
      await store.create("Tenant", "a", SPEC, STATUS);
      store = await reopen(store);
      const heard: string[] = [];
      store.watch(({ type, resource }) => heard.push(`${type} ${resource.metadata.name}`));
      await store.create("Tenant", "b", SPEC, STATUS);
      await store.remove("Tenant", "a");
      await expect.poll(() => heard).toEqual(["Added b", "Deleted a"]);
    });

    it("renames a tenant in one step, with its events and age, where names can be changed", async ({ skip }) => {
      const tenant = await store.create("Tenant", "a", { ...SPEC, config: "b: ä\n" }, STATUS);
      if (!store.rename) return skip();
      await store.create("Tenant", "c", SPEC, STATUS);
      await store.writeSecret("a", SECRET);
      await store.appendEvent({ type: "Normal", reason: "Created", object: "Tenant/a", message: "a was created" });
      await store.appendEvent({ type: "Normal", reason: "Created", object: "Tenant/c", message: "c was created" });
      const heard: string[] = [];
      store.watch(({ type, resource }) => heard.push(`${type} ${resource.metadata.name}`));
      await expect(store.rename(tenant, "c")).rejects.toMatchObject({ code: "AlreadyExists" });
      const wished = { ...tenant, status: { ...tenant.status, storage: "a" } };
      await modify(store, "Tenant", "a", ({ status }) => void (status.reason = "Changed"));
      await expect(store.rename(wished, "b")).rejects.toThrow(ConflictError);
      const { resourceVersion } = (await store.get("Tenant", "a"))!.metadata;
      await store.rename({ ...wished, metadata: { ...wished.metadata, resourceVersion } }, "b");
      await expect.poll(() => heard).toEqual(["Modified a", "Added b", "Deleted a"]);
      store = await reopen(store);
      expect(await store.get("Tenant", "a")).toBeUndefined();
      const { metadata, spec, status } = (await store.get("Tenant", "b"))!;
      expect({ spec, status }).toEqual({ spec: tenant.spec, status: wished.status });
      expect(metadata).toMatchObject({ generation: 1, creationTimestamp: tenant.metadata.creationTimestamp });
      expect(await store.readSecret("a")).toEqual(SECRET);
      const told = async (name: string) => (await store.listEvents({ object: `Tenant/${name}`, limit: 9 })).length;
      expect(await Promise.all(["a", "b", "c"].map(told))).toEqual([0, 1, 1]);
    });

    it("writes others that name a tenant in the step that renames it, or nothing at all", async ({ skip }) => {
      const tenant = await store.create("Tenant", "a", SPEC, STATUS);
      if (!store.rename) return skip();
      const others = [
        await store.create("Tenant", "c", { ...SPEC, placement: { spreadFrom: ["a"] } }, STATUS),
        await store.create("Tenant", "d", { ...SPEC, placement: { spreadFrom: ["a"] } }, STATUS),
      ].map((other) => ({ ...other, spec: { ...other.spec, placement: { spreadFrom: ["b"] } } }));
      await modify(store, "Tenant", "d", ({ status }) => void (status.reason = "Changed"));
      const apart = async () => (await store.list("Tenant")).map(({ spec }) => spec.placement?.spreadFrom?.[0]);
      await expect(store.rename(tenant, "b", others)).rejects.toThrow(ConflictError);
      expect(await apart()).toEqual([undefined, "a", "a"]);
      expect(await store.get("Tenant", "b")).toBeUndefined();
      const { resourceVersion } = (await store.get("Tenant", "d"))!.metadata;
      others[1]!.metadata.resourceVersion = resourceVersion;
      const heard: string[] = [];
      store.watch(({ type, resource }) => heard.push(`${type} ${resource.metadata.name}`));
      await store.rename(tenant, "b", [...others, tenant]);
      await expect.poll(() => heard).toEqual(["Added b", "Deleted a", "Modified c", "Modified d"]);
      expect(await apart()).toEqual([undefined, "b", "b"]);
      expect((await store.get("Tenant", "c"))?.metadata.generation).toBe(2);
      // Versions go on from there.
      await modify(store, "Tenant", "b", ({ status }) => void (status.reason = "Changed"));
    });

    it("objects, secrets and events are there again", async () => {
      await store.create("Tenant", "a", SPEC, STATUS);
      await store.writeSecret("a", SECRET);
      await store.appendEvent({ type: "Normal", reason: "Created", object: "Tenant/a", message: "a was created" });
      store = await reopen(store);
      expect(await store.get("Tenant", "a")).toMatchObject({ spec: SPEC });
      expect(await store.readSecret("a")).toEqual(SECRET);
      expect(await store.listEvents({ limit: 10 })).toMatchObject([{ reason: "Created", object: "Tenant/a" }]);
      await store.removeSecret("a");
      expect(await store.readSecret("a")).toBeUndefined();
    });

    it("keeps the configuration in effect across a restart, the last one alone, until the secret is removed", async () => {
      await store.create("Tenant", "a", SPEC, STATUS);
      expect(await store.readConfigInEffect("a")).toBeUndefined();
      await store.writeConfigInEffect("a", { hash: "1", config: "" });
      expect(await store.readConfigInEffect("a")).toEqual({ hash: "1", config: "" });
      await store.writeConfigInEffect("a", { hash: "2", config: "b: ä\n", secrets: SECRET });
      store = await reopen(store);
      expect(await store.readConfigInEffect("a")).toEqual({ hash: "2", config: "b: ä\n", secrets: SECRET });
      await store.writeSecret("a", SECRET);
      await store.removeSecret("a");
      expect(await store.readConfigInEffect("a")).toBeUndefined();
    });

    it("ids of events rise, `after` and `object` select, the newest are kept", async () => {
      for (let n = 0; n < 5; n++)
        await store.appendEvent({
          type: "Normal",
          reason: `R${n}`,
          object: n % 2 ? "Tenant/a" : "Tenant/b",
          message: "",
        });
      const all = await store.listEvents({ limit: 100 });
      expect(all.map((e) => e.reason)).toEqual(["R0", "R1", "R2", "R3", "R4"]);
      expect((await store.listEvents({ after: all[1]!.id, limit: 100 })).map((e) => e.reason)).toEqual([
        "R2",
        "R3",
        "R4",
      ]);
      expect((await store.listEvents({ object: "Tenant/a", limit: 100 })).map((e) => e.reason)).toEqual(["R1", "R3"]);
      expect((await store.listEvents({ limit: 2 })).map((e) => e.reason)).toEqual(["R3", "R4"]);
    });

    it("followers hear every event once", async () => {
      const event = { type: "Warning", object: "Shard/1.163.2-0", message: "m" } as const;
      await store.appendEvent({ ...event, reason: "Before" });
      const heard: string[] = [];
      const unwatch = store.watchEvents(({ reason }) => heard.push(reason));
      const written = [];
      for (const reason of ["R0", "R1", "R2"]) written.push(await store.appendEvent({ ...event, reason }));
      await expect.poll(() => heard).toEqual(["R0", "R1", "R2"]);
      expect(await store.listEvents({ after: written[0]!.id - 1, limit: 10 })).toEqual(written);
      unwatch();
      await store.appendEvent({ ...event, reason: "After" });
      await new Promise((resolve) => setTimeout(resolve, 100));
      expect(heard).toEqual(["R0", "R1", "R2"]);
    });
  });
}
