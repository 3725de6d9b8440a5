import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { TenantStatus } from "../../src/model/resources.ts";
import { ConflictError, modify, type Change, type Store } from "../../src/store/store.ts";

export const SPEC = {
  serverName: "a.example",
  synapseVersion: "1.163.2",
  config: "",
  reclaimPolicy: "Retain" as const,
};
export const STATUS: TenantStatus = {
  phase: "Pending",
  reason: "",
  message: "",
  epoch: 0,
  observedGeneration: 0,
  provisioned: false,
  failures: 0,
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

    it("prevents a lost update: the second of two writers of one version is refused", async () => {
      await store.create("Tenant", "a", SPEC, STATUS);
      const [one, two] = [await store.get("Tenant", "a"), await store.get("Tenant", "a")];
      one!.status.epoch = 1;
      await store.update(one!);
      two!.status.epoch = 7;
      await expect(store.update(two!)).rejects.toThrow(ConflictError);
      expect((await store.get("Tenant", "a"))?.status.epoch).toBe(1);
    });

    it("prevents an epoch handed out twice: concurrent modifications all take effect", async () => {
      await store.create("Tenant", "a", SPEC, STATUS);
      const results = await Promise.all(
        Array.from({ length: 20 }, () => modify(store, "Tenant", "a", (t) => void (t.status.epoch += 1))),
      );
      expect(new Set(results.map((t) => t?.status.epoch)).size).toBe(20);
      expect((await store.get("Tenant", "a"))?.status.epoch).toBe(20);
    });

    it("prevents a write to an object that is gone", async () => {
      const tenant = await store.create("Tenant", "a", SPEC, STATUS);
      await store.remove("Tenant", "a");
      await expect(store.update(tenant)).rejects.toThrow(ConflictError);
      expect(await modify(store, "Tenant", "a", () => {})).toBeUndefined();
    });

    it("prevents two objects of one name", async () => {
      await store.create("Tenant", "a", SPEC, STATUS);
      await expect(store.create("Tenant", "a", SPEC, STATUS)).rejects.toMatchObject({ code: "AlreadyExists" });
    });

    it("prevents needless restarts: generation counts changes of the spec only", async () => {
      await store.create("Tenant", "a", SPEC, STATUS);
      const afterStatus = await modify(store, "Tenant", "a", (t) => void (t.status.phase = "Running"));
      expect(afterStatus?.metadata).toMatchObject({ generation: 1, resourceVersion: expect.any(String) });
      const afterSpec = await modify(store, "Tenant", "a", (t) => void (t.spec.synapseVersion = "1.157.2"));
      expect(afterSpec?.metadata.generation).toBe(2);
      expect(afterSpec!.metadata.resourceVersion).not.toBe(afterStatus!.metadata.resourceVersion);
    });

    it("prevents changes behind the store's back: what it hands out is a copy", async () => {
      const created = await store.create("Tenant", "a", SPEC, STATUS);
      created.status.phase = "Failed";
      const listed = (await store.list("Tenant"))[0]!;
      listed.spec.config = "changed";
      expect(await store.get("Tenant", "a")).toMatchObject({ spec: SPEC, status: STATUS });
    });

    it("prevents a missed change: watchers hear each write once and in order, and see it in the store", async () => {
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

    it("prevents loss at a restart: objects, secrets and events are there again", async () => {
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

    it("prevents gaps in events: ids rise, `after` and `object` select, the newest are kept", async () => {
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
  });
}
