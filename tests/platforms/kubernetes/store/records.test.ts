import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { DeletedTenant } from "../../../../src/model/deleted-tenant.ts";
import { newTenantStatus } from "../../../../src/model/tenant.ts";
import { loadKubeConfig } from "../../../../src/platforms/kubernetes/client.ts";
import { KubernetesDeletedTenants } from "../../../../src/platforms/kubernetes/store/kubernetes-deleted-tenants.ts";
import { KubernetesStore } from "../../../../src/platforms/kubernetes/store/kubernetes-store.ts";
import { PurgeProofs } from "../../../../src/platforms/kubernetes/store/purge-proofs.ts";
import { TENANT_LABEL } from "../../../../src/platforms/kubernetes/store/labelled-secrets.ts";
import { headIn, packedHead } from "../../../../src/platforms/kubernetes/audit/audit-objects.ts";
import { SecretShelf } from "../../../../src/platforms/kubernetes/secret-shelf.ts";
import { AUDIT_LABEL, KubernetesAudit } from "../../../../src/platforms/kubernetes/audit/kubernetes-audit.ts";
import { HISTORY_LABEL, ShelfHistory } from "../../../../src/platforms/kubernetes/history/shelf-history.ts";
import { SecretUsageHistory } from "../../../../src/platforms/kubernetes/usage/secret-usage-history.ts";
import { withoutCluster } from "../../../kubernetes/support/cluster.ts";
import { applyCrds } from "../../../kubernetes/support/crds.ts";
import { actionsOf, auditEntry, describeAuditLogContract } from "../../../ports/audit-log-contract.ts";
import { describeDeletedTenantsContract, proofOf, recordOf } from "../../../ports/deleted-tenants-contract.ts";
import { describeUsageHistoryContract } from "../../../ports/usage-history-contract.ts";
import { CLUSTER, StoreNamespaces } from "./store-namespaces.ts";

/** A head holds four entries, a block a few heads. */
const SMALL_AUDIT = { headBytes: 1000, blockBytes: 1000 };

describe.skipIf(withoutCluster)("records on Kubernetes (needs KUBECONFIG)", () => {
  const config = withoutCluster ? undefined! : loadKubeConfig();
  const at = withoutCluster ? undefined! : new StoreNamespaces(config);
  const problems: string[] = [];
  const place = () => ({
    config,
    namespace: at.namespace,
    clusterId: CLUSTER,
    onError: (message: string) => void problems.push(message),
  });
  beforeAll(() => applyCrds());
  afterAll(() => at.removeAll());
  const secretsOf = async (label: string) =>
    (await at.core.listNamespacedSecret({ namespace: at.namespace, labelSelector: label })).items;

  describeUsageHistoryContract("Kubernetes", async () => {
    await at.next();
    const history = await SecretUsageHistory.open(place());
    const open = [history];
    return {
      history,
      reopened: async () => {
        // Within an hour at the latest.
        await history.flush();
        const again = await SecretUsageHistory.open(place());
        open.push(again);
        return again;
      },
      close: async () => {
        for (const one of open) await one.close();
      },
    };
  });

  describe("a history of usage", () => {
    beforeEach(() => at.next());
    const entry = (tenant: string, requests: number) => {
      const owner = { tenant, serverName: `${tenant}.example` };
      const runs = [{ run: "r", epoch: 1, cpuSeconds: 1, requests }];
      const month = { ...owner, month: "2026-01", cpuSeconds: 1, requests, updatedAt: "2026-01-01T00:00:00.000Z" };
      return { position: { ...owner, runs }, months: [month] };
    };

    it("writes an object for some tenants at a time, and none for what did not change", async () => {
      const history = await SecretUsageHistory.open({ ...place(), tenantsEach: 2 });
      await history.write(["a", "b", "c"].map((tenant) => entry(tenant, 1)));
      expect(await secretsOf("synapse-shards.io/usage-of")).toEqual([]);
      await history.flush();
      const versions = async () =>
        (await secretsOf("synapse-shards.io/usage-of")).map(({ metadata }) => metadata?.resourceVersion);
      const before = await versions();
      expect(before).toHaveLength(2);
      await history.flush();
      expect(await versions()).toEqual(before);
      await history.write([entry("c", 2)]);
      await history.close();
      const after = await versions();
      expect(after.filter((version) => before.includes(version))).toHaveLength(1);
      const next = await SecretUsageHistory.open({ ...place(), tenantsEach: 2 });
      expect((await next.list()).map(({ tenant, requests }) => [tenant, requests])).toEqual([
        ["a", 1],
        ["b", 1],
        ["c", 2],
      ]);
      await next.close();
    });

    it("keeps this leader's figures where one before it wrote late", async () => {
      const [former, leader] = [await SecretUsageHistory.open(place()), await SecretUsageHistory.open(place())];
      await former.write([entry("a", 1)]);
      await former.close();
      await leader.write([entry("a", 5)]);
      await expect(leader.flush()).rejects.toMatchObject({ code: "Conflict" });
      await leader.close();
      const next = await SecretUsageHistory.open(place());
      expect((await next.list("a")).map(({ requests }) => requests)).toEqual([5]);
      await next.close();
    });
  });

  it("the history for the plots goes on with the next leader", async () => {
    await at.next();
    const open = () => {
      const shelf = new SecretShelf({ ...place(), label: HISTORY_LABEL });
      return ShelfHistory.open({ ...place(), shelf });
    };
    const former = await open();
    const day = 24 * 3_600_000;
    await former.write([{ step: day, at: day, count: 1440, values: { running: 7 } }]);
    await former.close();
    const next = await open();
    expect(await next.read(day, 0, 2 * day)).toEqual([{ at: day, count: 1440, values: { running: 7 } }]);
    await next.close();
    const names = (await secretsOf(`${HISTORY_LABEL}=${CLUSTER}`)).map(({ metadata }) => metadata?.name);
    expect(names).toEqual([`${CLUSTER}.history.days`]);
  });

  describeDeletedTenantsContract("Kubernetes", async () => {
    await at.next();
    const store = await KubernetesStore.open(at.options);
    const deleted = await KubernetesDeletedTenants.open({ ...place(), store });
    const open = [deleted];
    const reopened = async () => {
      const again = await KubernetesDeletedTenants.open({ ...place(), store });
      open.push(again);
      return { deleted: again };
    };
    const close = async () => {
      for (const one of open) await one.close();
      await store.close();
    };
    return { deleted, reopened, close };
  });

  describe("the audit log", () => {
    const open = () => {
      const { onError: onProblem, ...rest } = place();
      const shelf = new SecretShelf({ ...rest, label: AUDIT_LABEL });
      return KubernetesAudit.open({ shelf, clusterId: CLUSTER, keepDays: 400, onProblem, ...SMALL_AUDIT });
    };

    describeAuditLogContract("Kubernetes", async () => {
      await at.next();
      const logs = [await open()];
      return {
        log: logs[0]!,
        reopened: async () => {
          logs.push(await open());
          return logs.at(-1)!;
        },
        tamper: async (change) => {
          const shelf = new SecretShelf({ ...place(), label: AUDIT_LABEL });
          const found = (await shelf.read(`${CLUSTER}.audit`))!;
          const head = headIn(found.data);
          const changed = packedHead({ ...head, lines: change([...head.lines]) });
          await shelf.replace(`${CLUSTER}.audit`, changed, found.version);
        },
        close: async () => {
          for (const log of logs) await log.close();
        },
      };
    });

    it("takes nothing from a leader once another one leads", async () => {
      await at.next();
      const former = await open();
      await former.append(auditEntry("before"));
      const leader = await open();
      expect(await former.append(auditEntry("late"))).toBe(false);
      expect(await leader.append(auditEntry("after"))).toBe(true);
      expect(await actionsOf(leader)).toEqual(["before", "after"]);
      expect(await leader.verify()).toMatchObject({ entries: 2, breaks: [] });
    });

    it("is in few objects, which can be had by their label", async () => {
      await at.next();
      const log = await open();
      for (let number = 0; number < 30; number++) await log.append(auditEntry(`action-${number}`));
      const secrets = await secretsOf(`synapse-shards.io/audit-of=${CLUSTER}`);
      expect(secrets.map(({ metadata }) => metadata?.name)).toContain(`${CLUSTER}.audit.1`);
      // Where the head is lost, the blocks are found.
      await at.core.deleteNamespacedSecret({ namespace: at.namespace, name: `${CLUSTER}.audit` });
      const next = await open();
      await next.append(auditEntry("after"));
      const found = await actionsOf(next);
      expect([found[0], found.at(-1)]).toEqual(["action-0", "after"]);
      expect((await next.verify()).breaks).toHaveLength(1);
    });
  });

  describe("deleted tenants", () => {
    let store: KubernetesStore;
    let deleted: KubernetesDeletedTenants;
    beforeEach(async () => {
      await at.next();
      store = await KubernetesStore.open(at.options);
      deleted = await KubernetesDeletedTenants.open({ ...place(), store });
      return async () => {
        await deleted.close();
        await store.close();
      };
    });
    const goes = async (name: string, record: DeletedTenant) => {
      // As when a tenant has run.
      await expect.poll(async () => (await at.raw(name)).metadata.finalizers).toHaveLength(1);
      await deleted.put(record);
      await store.remove("Tenant", name);
    };

    it("are made again with all that their owners wrote, and no secret gets out of a Secret", async () => {
      await at.secret("keys", { "homeserver.yaml": "password: hidden" }, { [TENANT_LABEL]: "a" });
      await at.apply("a", { secretName: "keys", suspended: true, plan: "small" });
      await expect.poll(() => store.get("Tenant", "a")).toMatchObject({ spec: { config: "password: hidden" } });
      const tenant = (await store.get("Tenant", "a"))!;
      await goes("a", { ...recordOf("a"), spec: tenant.spec });
      expect((await deleted.get("a"))?.spec.config).toBe("");
      const back = await deleted.recreate((await deleted.get("a"))!, { ...newTenantStatus(), dataSince: "then" });
      expect(back).toMatchObject({
        spec: { config: "password: hidden", plan: "small" },
        status: { dataSince: "then" },
      });
      const raw = await at.raw("a");
      expect(raw["spec"]).toMatchObject({ secretName: "keys", suspended: true, clusterId: CLUSTER });
      expect(JSON.stringify(raw)).not.toContain("hidden");
      expect(raw.metadata.finalizers).toHaveLength(1);
    });

    it("are not made again where they belong to a SynapseTenant of another namespace", async () => {
      await at.custom.createNamespacedCustomObject({
        group: "synapse-shards.io",
        version: "v1alpha1",
        namespace: at.namespace,
        plural: "synapsetenants",
        body: {
          apiVersion: "synapse-shards.io/v1alpha1",
          kind: "SynapseTenant",
          metadata: { name: "a", annotations: { "synapse-shards.io/claim": "clinic/a" } },
          spec: { clusterId: CLUSTER, serverName: "a.example" },
        },
      });
      await expect.poll(() => store.get("Tenant", "a")).toBeDefined();
      await goes("a", recordOf("a"));
      await expect(deleted.recreate(recordOf("a"), newTenantStatus())).rejects.toThrow(/SynapseTenant clinic\/a/);
    });

    it("knows of the signing key only where a purge removes it", async () => {
      const keys = { serverName: "s", macaroonSecretKey: "m", formSecret: "f", registrationSharedSecret: "r" };
      await store.writeSecret("ours", { ...keys, signingKey: "ed25519 a_1 x", databasePassword: "" });
      await at.secret("keys", { "signing.key": "ed25519 a_1 y" }, { [TENANT_LABEL]: "theirs" });
      await at.apply("theirs", { secretName: "keys" });
      await expect.poll(() => store.get("Tenant", "theirs")).toBeDefined();
      expect(await store.ownSigningKey("ours")).toBe("ed25519 a_1 x");
      expect(await store.ownSigningKey("theirs")).toBeUndefined();
      expect(await store.ownSigningKey("nobody")).toBeUndefined();
    });

    it("leave proofs in one chain, whatever number of objects they take, and whoever writes them", async () => {
      const small = () => new PurgeProofs({ ...place(), mostBytes: 700 });
      const names = ["a", "b", "c", "d", "e"];
      for (const name of names) await small().add(proofOf(name, "2026-03-03T00:00:00.000Z"));
      const proofs = await small().newest(10);
      expect(proofs.map(({ name }) => name)).toEqual(names);
      expect(proofs.map(({ previous }) => previous)).toEqual(["", ...proofs.slice(0, -1).map(({ sha256 }) => sha256)]);
      expect((await secretsOf("synapse-shards.io/purges-of")).length).toBeGreaterThan(1);
      const both = await Promise.allSettled(
        ["f", "g"].map((name) => small().add(proofOf(name, "2026-03-04T00:00:00.000Z"))),
      );
      const added = both.filter(({ status }) => status === "fulfilled").length;
      const chain = await small().newest(10);
      expect(chain).toHaveLength(names.length + added);
      expect(new Set(chain.map(({ previous }) => previous)).size).toBe(chain.length);
    });
  });
});
