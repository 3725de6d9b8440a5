import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Tenant } from "../../src/model/tenant.ts";
import { newTenantSecrets } from "../../src/model/tenant-secrets.ts";
import type { TenantDatabases } from "../../src/ports/databases.ts";
import { SPEC, STATUS } from "./store-contract.ts";

export interface DatabasesUnderTest {
  databases: TenantDatabases;
  /** Claims the fence of a tenant's database as a shard does. */
  claim(tenant: Tenant, shard: string, epoch: number): Promise<void>;
  close(): Promise<void>;
}

const SECRETS = newTenantSecrets("a.example");

function tenantOf(name: string, epoch = 0): Tenant {
  return {
    kind: "Tenant",
    metadata: { name, creationTimestamp: "2026-01-01T00:00:00Z", resourceVersion: "1", generation: 1 },
    spec: { ...SPEC, serverName: "a.example", release: "1.163.2" },
    status: { ...STATUS, epoch },
  };
}

/** What all that provides tenants' databases does (the comments of `TenantDatabases`). */
export function describeTenantDatabasesContract(name: string, open: () => Promise<DatabasesUnderTest>): void {
  describe(`${name} as tenants' databases`, () => {
    let here: DatabasesUnderTest;
    beforeEach(async () => (here = await open()));
    afterEach(() => here.close());

    it("gives each tenant an address of its own, always the same", () => {
      const { databases } = here;
      expect(databases.address(tenantOf("a"))).toEqual(databases.address(tenantOf("a")));
      expect(databases.address(tenantOf("a"))).not.toEqual(databases.address(tenantOf("b")));
    });

    it("makes a database with a schema and without an owner, and loses nothing when it is asked again", async () => {
      const { databases } = here;
      const a = tenantOf("a");
      expect(await databases.provision(a, SECRETS)).toEqual({ epoch: 0, kept: false });
      expect(await databases.fence(a, SECRETS)).toBeUndefined();
      expect(await databases.describe(a, SECRETS)).toMatchObject({ schemaVersion: expect.any(Number) as number });
      await here.claim(a, "1.163.2-0", 3);
      await databases.provision(a, SECRETS);
      expect(await databases.fence(a, SECRETS)).toMatchObject({ epoch: 3, owner: "1.163.2-0" });
    });

    it("knows a tenant's database by what its data are named by, and not by its name", async () => {
      const { databases } = here;
      const a = tenantOf("a");
      await databases.provision(a, SECRETS);
      await here.claim(a, "1.163.2-0", 3);
      const b = { ...tenantOf("b", 3), status: { ...STATUS, epoch: 3, storage: "a" } };
      expect(databases.address(b)).toEqual(databases.address(a));
      expect(await databases.provision(b, SECRETS)).toEqual({ epoch: 3, kept: true });
      expect(await databases.fence(b, SECRETS)).toMatchObject({ epoch: 3, owner: "1.163.2-0" });
      expect(await databases.keptData("b")).toEqual({ hasDatabase: false });
      // Another one that has the former name.
      const other = { ...a, status: { ...STATUS, storage: "a-12345678" } };
      expect(await databases.provision(other, SECRETS)).toEqual({ epoch: 0, kept: false });
      await databases.drop("a-12345678");
      expect(await databases.fence(b, SECRETS)).toMatchObject({ epoch: 3, owner: "1.163.2-0" });
      await databases.fenceOff(b);
      expect((await databases.provision(b, SECRETS)).epoch).toBeGreaterThan(3);
    });

    it("leaves out what a database does not tell of its use", async () => {
      const { databases } = here;
      await databases.provision(tenantOf("a"), SECRETS);
      const question = { months: ["2026-01"], receivedBefore: Date.parse("2026-01-02T00:00:00Z") };
      const reading = await databases.readUsage(tenantOf("a"), SECRETS, question);
      expect([reading.users, reading.messages, reading.active ?? []]).toEqual([undefined, undefined, []]);
    });

    it("keeps a tenant's keys beside its database until that is dropped, and drops what is not there without an error", async () => {
      const { databases } = here;
      expect(await databases.keptData("a")).toEqual({ hasDatabase: false });
      await databases.provision(tenantOf("a"), SECRETS);
      expect(await databases.keptData("a")).toMatchObject({
        hasDatabase: true,
        keepsake: { serverName: "a.example", secrets: SECRETS },
      });
      await databases.drop("a");
      await databases.drop("a");
      expect(await databases.keptData("a")).toEqual({ hasDatabase: false });
      expect(await databases.provision(tenantOf("a"), SECRETS)).toEqual({ epoch: 0, kept: false });
    });

    it("keeps the keys of a tenant that brings its database along, until it is dropped", async () => {
      const { databases } = here;
      await databases.keep(tenantOf("a"), SECRETS);
      await databases.keep(tenantOf("a"), SECRETS);
      expect(await databases.keptData("a")).toMatchObject({
        hasDatabase: false,
        keepsake: { serverName: "a.example", secrets: SECRETS },
      });
      await databases.drop("a");
      expect(await databases.keptData("a")).toEqual({ hasDatabase: false });
    });

    it("releases a database for its owner alone, and with a higher epoch only", async () => {
      const { databases } = here;
      await databases.provision(tenantOf("a"), SECRETS);
      await here.claim(tenantOf("a"), "1.163.2-0", 3);
      expect(await databases.release(tenantOf("a", 3), SECRETS, "1.163.2-0")).toBe(false);
      expect(await databases.release(tenantOf("a", 4), SECRETS, "1.163.2-1")).toBe(false);
      expect(await databases.release(tenantOf("a", 4), SECRETS, "1.163.2-0")).toBe(true);
      expect(await databases.fence(tenantOf("a"), SECRETS)).toMatchObject({ epoch: 4, owner: "" });
    });

    it("shuts out the owner of a database, whose successor comes behind a higher epoch; what is not there needs none", async () => {
      const { databases } = here;
      await databases.fenceOff(tenantOf("a"));
      await databases.provision(tenantOf("a"), SECRETS);
      await here.claim(tenantOf("a"), "1.163.2-0", 3);
      await databases.fenceOff(tenantOf("a"));
      const { epoch } = await databases.provision(tenantOf("a"), SECRETS);
      expect(epoch).toBeGreaterThan(3);
      expect((await databases.fence(tenantOf("a"), SECRETS))?.owner).not.toBe("1.163.2-0");
    });
  });
}
