import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { ClusterService } from "../../src/controller/service/cluster-service.ts";

/** A cluster with room on two shards for a tenant or two. */
export interface ServiceUnderTest {
  service: ClusterService;
  /** Resolves when the tenant runs. */
  settled(tenant: string): Promise<void>;
  close(): Promise<void>;
}

/** What every implementation behind the API promises (the comments of `ClusterService`). */
export function describeClusterServiceContract(name: string, open: () => Promise<ServiceUnderTest>): void {
  describe(`cluster service contract: ${name}`, () => {
    let cluster: ServiceUnderTest;
    let service: ClusterService;
    beforeEach(async () => {
      cluster = await open();
      ({ service } = cluster);
    });
    afterEach(() => cluster.close());

    it("creates a tenant with defaults, lists it, and refuses a second one of its name", async () => {
      const created = await service.createTenant({ name: "a" });
      expect(created).toMatchObject({ metadata: { name: "a", generation: 1 }, spec: { serverName: "a.localhost" } });
      await service.createTenant({ name: "b", serverName: "b.example" });
      expect((await service.listTenants()).map(({ metadata }) => metadata.name)).toEqual(["a", "b"]);
      await expect(service.createTenant({ name: "a" })).rejects.toMatchObject({ code: "AlreadyExists" });
    });

    it("counts changes of what is wanted", async () => {
      await service.createTenant({ name: "a" });
      await cluster.settled("a");
      const changed = await service.updateTenant("a", { config: "x: 1" });
      expect(changed).toMatchObject({ metadata: { generation: 2 }, spec: { config: "x: 1" } });
    });

    it("moves a tenant to another shard, under an id by which its result is found", async () => {
      await service.createTenant({ name: "a" });
      await cluster.settled("a");
      const { shard } = (await service.getTenant("a")).status;
      const move = await service.moveTenant("a");
      expect(move).toMatchObject({ from: shard, reason: "Requested", step: "Preparing" });
      await expect.poll(async () => (await service.getTenant("a")).status.lastMove?.id).toBe(move.id);
      expect((await service.getTenant("a")).status.lastMove).toMatchObject({ outcome: "Succeeded", to: move.to });
    });

    it("answers that something is not found, whatever is asked of it", async () => {
      for (const call of [
        service.getTenant("none"),
        service.updateTenant("none", { config: "" }),
        service.deleteTenant("none", { purge: false }),
        service.moveTenant("none"),
        service.getShard("1.163.2-77"),
        service.drainShard("1.163.2-77"),
      ])
        await expect(call).rejects.toMatchObject({ code: "NotFound" });
      await service.createTenant({ name: "a" });
      await cluster.settled("a");
      await expect(service.moveTenant("a", { to: "1.163.2-77" })).rejects.toMatchObject({ code: "NotFound" });
    });

    it("returns from a deletion at once, and the tenant is gone when it is not found", async () => {
      await service.createTenant({ name: "a" });
      await cluster.settled("a");
      const deleted = await service.deleteTenant("a", { purge: true });
      expect(deleted.metadata.deletionTimestamp).toBeDefined();
      expect(deleted.spec.reclaimPolicy).toBe("Delete");
      await expect.poll(() => service.getTenant("a").catch(({ code }: { code: string }) => code)).toBe("NotFound");
    });

    it("gives figures that fit what is there", async () => {
      await service.createTenant({ name: "a" });
      await cluster.settled("a");
      const { tenants, imageTags } = await service.status();
      expect(tenants).toEqual({ total: 1, byPhase: { Running: 1 } });
      expect(imageTags.reduce((sum, tag) => sum + tag.tenants, 0)).toBe(1);
      const shards = await service.listShards();
      expect(shards.flatMap((shard) => shard.tenants)).toEqual(["a"]);
    });
  });
}
