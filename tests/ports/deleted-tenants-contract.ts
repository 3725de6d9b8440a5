import { createHash } from "node:crypto";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { DeletedTenant, PurgeProof } from "../../src/model/deleted-tenant.ts";
import type { DeletedTenants } from "../../src/ports/deleted-tenants.ts";

export interface DeletedUnderTest {
  deleted: DeletedTenants;
  /** As a process finds them that starts after this one was killed. */
  reopened(): Promise<{ deleted: DeletedTenants }>;
  close(): Promise<void>;
}

export function recordOf(name: string): DeletedTenant {
  return {
    name,
    spec: { serverName: `${name}.example`, release: "1.163.2", config: "", reclaimPolicy: "Retain" },
    createdAt: "2026-01-01T00:00:00.000Z",
    deletedAt: "2026-02-01T00:00:00.000Z",
    keptUntil: "2026-03-03T00:00:00.000Z",
    managedDatabase: false,
    brought: ["database db.example:5432/clinic"],
  };
}

export function proofOf(name: string, purgedAt: string): Omit<PurgeProof, "previous" | "sha256"> {
  const { spec, createdAt, deletedAt } = recordOf(name);
  const removed = { signingKey: { sha256: "k" }, left: ["bucket b"] };
  return { name, serverName: spec.serverName, createdAt, deletedAt, purgedAt, reason: "Expired", removed };
}

/** What all that keeps deleted tenants does (the comments of `DeletedTenants`). */
export function describeDeletedTenantsContract(what: string, open: () => Promise<DeletedUnderTest>): void {
  describe(`${what} as a keeper of deleted tenants`, () => {
    let here: DeletedUnderTest;
    let deleted: DeletedTenants;
    beforeEach(async () => ({ deleted } = here = await open()));
    afterEach(() => here.close());

    it("gives back what was put, by name, and after a restart; the last of one name counts", async () => {
      await deleted.put(recordOf("b"));
      await deleted.put({ ...recordOf("a"), keptUntil: "2027-01-01T00:00:00.000Z" });
      await deleted.put(recordOf("a"));
      const again = await here.reopened();
      for (const found of [deleted, again.deleted]) {
        expect(await found.list()).toEqual([recordOf("a"), recordOf("b")]);
        expect(await found.get("a")).toEqual(recordOf("a"));
        expect(await found.get("c")).toBeUndefined();
      }
      await deleted.remove("a");
      await deleted.remove("a");
      expect((await deleted.list()).map(({ name }) => name)).toEqual(["b"]);
      expect(await (await here.reopened()).deleted.get("a")).toBeUndefined();
    });

    it("keeps one proof of each deletion, in a chain of hashes that anybody can compute", async () => {
      const first = await deleted.prove(proofOf("a", "2026-03-03T00:00:00.000Z"));
      const second = await (await here.reopened()).deleted.prove(proofOf("b", "2026-03-04T00:00:00.000Z"));
      expect([first.previous, second.previous]).toEqual(["", first.sha256]);
      const { sha256, ...content } = second;
      expect(createHash("sha256").update(JSON.stringify(content)).digest("hex")).toBe(sha256);
      // Whoever goes on with a purge asks once more.
      expect(await deleted.prove(proofOf("a", "2026-03-05T00:00:00.000Z"))).toEqual(first);
      expect(await deleted.proofs(10)).toEqual([first, second]);
      expect(await deleted.proofs(1)).toEqual([second]);
    });
  });
}
