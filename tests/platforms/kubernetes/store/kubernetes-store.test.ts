import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { loadKubeConfig } from "../../../../src/platforms/kubernetes/client.ts";
import { KubernetesStore } from "../../../../src/platforms/kubernetes/store/kubernetes-store.ts";
import { TENANT_LABEL } from "../../../../src/platforms/kubernetes/store/labelled-secrets.ts";
import { modify, type Change, type Store } from "../../../../src/ports/store.ts";
import { withoutCluster } from "../../../kubernetes/support/cluster.ts";
import { applyCrds } from "../../../kubernetes/support/crds.ts";
import { describeStoreContract, SPEC, STATUS } from "../../../ports/store-contract.ts";
import { CLUSTER, StoreNamespaces } from "./store-namespaces.ts";

const FOREIGN_KEYS = {
  "signing.key": "ed25519 a_1 x",
  "macaroon-secret-key": "m",
  "form-secret": "f",
  "registration-shared-secret": "r",
};
const OWN_SECRET = {
  serverName: "s",
  signingKey: "x",
  macaroonSecretKey: "x",
  formSecret: "x",
  registrationSharedSecret: "x",
  databasePassword: "",
};
const SHARD_STATUS = { phase: "Ready", reason: "", message: "", failures: 0 } as const;

describe.skipIf(withoutCluster)("store on Kubernetes (needs KUBECONFIG)", () => {
  const at = withoutCluster ? undefined! : new StoreNamespaces(loadKubeConfig());
  beforeAll(() => applyCrds());
  afterAll(() => at.removeAll());

  describeStoreContract(
    "Kubernetes",
    async () => {
      await at.next();
      return KubernetesStore.open(at.options);
    },
    async (store) => {
      await store.close();
      return KubernetesStore.open(at.options);
    },
  );

  describe("what only Kubernetes has", () => {
    let store: Store;
    beforeEach(async () => {
      await at.next();
      store = await KubernetesStore.open(at.options);
    });
    afterEach(() => store.close());
    const labelled = (name: string, data: Record<string, string>, tenant = "a") =>
      at.secret(name, data, { [TENANT_LABEL]: tenant });
    const condition = async (name: string, type: string) =>
      ((await at.raw(name))["status"]?.["conditions"] as Record<string, string>[] | undefined)?.find(
        (each) => each["type"] === type,
      );

    it("keeps a tenant that was made by hand until it has been stopped", async () => {
      await at.apply("a");
      await expect.poll(() => store.get("Tenant", "a")).toBeDefined();
      await expect.poll(async () => (await at.raw("a")).metadata.finalizers).toEqual(["synapse-shards.io/controller"]);
      await at.delete("a");
      await expect.poll(async () => (await store.get("Tenant", "a"))?.metadata.deletionTimestamp).toBeDefined();
      await store.remove("Tenant", "a");
      await expect.poll(() => at.raw("a").catch((e: { code: number }) => e.code)).toBe(404);
    });

    it("leaves other clusters' tenants alone, and says so of one whose cluster is not there", async () => {
      await at.apply("theirs", { clusterId: "another" });
      await at.apply("ours");
      await expect.poll(async () => (await store.list("Tenant")).map((t) => t.metadata.name)).toEqual(["ours"]);
      expect(await store.get("Tenant", "theirs")).toBeUndefined();
      await expect(store.create("Tenant", "theirs", SPEC, STATUS)).rejects.toMatchObject({ code: "AlreadyExists" });
      await store.remove("Tenant", "theirs");
      const theirs = await at.raw("theirs");
      expect(theirs.metadata).not.toHaveProperty("finalizers");
      await expect
        .poll(async () => (await at.raw("theirs"))["status"])
        .toMatchObject({
          phase: "Pending",
          reason: "UnknownCluster",
          message: `no cluster another is in the namespace ${at.namespace}; there is ${CLUSTER}`,
        });
    });

    it("tells of a changed Secret as of a change of its tenant", async () => {
      await labelled("mine", { "homeserver.yaml": "a: 1\n" });
      await at.apply("a", { secretName: "mine", config: "ignored: true" });
      await expect.poll(async () => (await store.get("Tenant", "a"))?.spec.config).toBe("a: 1\n");
      const heard: string[] = [];
      store.watch((change: Change) => {
        if (change.kind === "Tenant" && change.type === "Modified") heard.push(change.resource.spec.config);
      });
      await at.core.patchNamespacedSecret({
        namespace: at.namespace,
        name: "mine",
        body: [{ op: "replace", path: "/data/homeserver.yaml", value: Buffer.from("a: 2\n").toString("base64") }],
      });
      await expect.poll(() => heard.includes("a: 2\n")).toBe(true);
    });

    it("keeps what is in the Secret out of the custom resource", async () => {
      await labelled("mine", { "homeserver.yaml": "database: {args: {password: hush}}\n" });
      await at.apply("a", { secretName: "mine" });
      await expect.poll(async () => (await store.get("Tenant", "a"))?.spec.config).toContain("hush");
      await modify(store, "Tenant", "a", (t) => {
        t.spec.release = "1.163.2";
        t.metadata.deletionTimestamp = new Date().toISOString();
      });
      const raw = await at.raw("a");
      expect(raw["spec"]).toMatchObject({ secretName: "mine", image: { tag: "1.163.2" } });
      expect(JSON.stringify(raw)).not.toContain("hush");
      expect((await store.get("Tenant", "a"))?.spec.config).toContain("hush");
    });

    it("leaves no copy of a configuration behind when the tenant's object is gone", async () => {
      await at.apply("a", {});
      await expect.poll(() => store.get("Tenant", "a")).toBeDefined();
      await store.writeConfigInEffect("a", { hash: "1", config: "database: {args: {password: hush}}\n" });
      expect(await store.readConfigInEffect("a")).toMatchObject({ hash: "1" });
      await store.remove("Tenant", "a");
      await expect.poll(() => store.readConfigInEffect("a")).toBeUndefined();
    });

    it("refuses to change a configuration that is in a Secret", async () => {
      await labelled("mine", { "homeserver.yaml": "a: 1\n" });
      await at.apply("a", { secretName: "mine" });
      await expect.poll(() => store.get("Tenant", "a")).toBeDefined();
      const change = modify(store, "Tenant", "a", (t) => {
        t.spec.config = "b: 1";
        t.status.message = "half";
      });
      await expect(change).rejects.toThrow(/is in the Secret/);
      expect((await at.raw("a"))["status"]?.["message"]).not.toBe("half");
    });

    it("names what the owner's Secret lacks, and makes up no keys", async () => {
      const { "registration-shared-secret": _, ...incomplete } = FOREIGN_KEYS;
      await labelled("incomplete", incomplete, "incomplete");
      await at.secret("unlabelled", FOREIGN_KEYS, {});
      await labelled("whole", FOREIGN_KEYS, "whole");
      for (const secretName of ["incomplete", "nowhere", "unlabelled", "whole"])
        await at.apply(secretName, { secretName });
      await expect.poll(async () => (await store.list("Tenant")).length).toBe(4);
      await expect(store.readSecret("incomplete")).rejects.toThrow(/incomplete has no key registration-shared-secret/);
      await expect(store.readSecret("nowhere")).rejects.toThrow(/no Secret .*nowhere/);
      await expect(store.readSecret("unlabelled")).rejects.toThrow(/unlabelled has no label synapse-shards.io\/tenant/);
      expect(await store.readSecret("whole")).toMatchObject({
        serverName: "whole.example",
        signingKey: "ed25519 a_1 x",
        databasePassword: "",
      });
    });

    it("says of a Secret that was deleted, or is another tenant's, what is wrong, and keeps the configuration", async () => {
      await labelled("mine", { "homeserver.yaml": "a: 1\n", ...FOREIGN_KEYS });
      await labelled("theirs", { "homeserver.yaml": "b: 1\n", ...FOREIGN_KEYS }, "b");
      await at.apply("a", { secretName: "mine" });
      await at.apply("thief", { secretName: "theirs" });
      await expect.poll(async () => (await store.list("Tenant")).length).toBe(2);
      for (const name of ["a", "thief"]) await modify(store, "Tenant", name, (t) => void (t.status.phase = "Running"));
      await expect.poll(() => condition("a", "SecretsReadable")).toMatchObject({ status: "True" });
      await at.core.deleteNamespacedSecret({ namespace: at.namespace, name: "mine" });
      await expect
        .poll(() => condition("a", "SecretsReadable"))
        .toMatchObject({ status: "False", reason: "SecretMissing", message: expect.stringContaining("mine") });
      expect((await store.get("Tenant", "a"))?.spec.config).toBe("a: 1\n");
      expect((await store.get("Tenant", "thief"))?.spec.config).toBe("");
      expect((await condition("thief", "SecretsReadable"))?.["reason"]).toBe("SecretNotLabelled");
      await labelled("mine", { "homeserver.yaml": "a: 2\n", ...FOREIGN_KEYS });
      await expect.poll(() => condition("a", "SecretsReadable")).toMatchObject({ status: "True", message: "" });
      expect((await store.get("Tenant", "a"))?.spec.config).toBe("a: 2\n");
    }, 30_000);

    it("neither overwrites nor removes Secrets of others, labelled or not", async () => {
      await labelled("mine", FOREIGN_KEYS);
      await at.secret("b-synapse-tenant", FOREIGN_KEYS, {});
      await at.apply("a", { secretName: "mine" });
      await at.apply("b");
      await expect.poll(async () => (await store.list("Tenant")).length).toBe(2);
      for (const [tenant, name] of [
        ["a", "mine"],
        ["b", "b-synapse-tenant"],
      ] as const) {
        await expect(store.writeSecret(tenant, OWN_SECRET)).rejects.toThrow(/was not made by the controller for/);
        await store.removeSecret(tenant);
        const { data } = await at.core.readNamespacedSecret({ namespace: at.namespace, name });
        expect(Buffer.from(data?.["signing.key"] ?? "", "base64").toString()).toBe("ed25519 a_1 x");
      }
    });

    it("neither overwrites nor removes a Secret that we made for another tenant", async () => {
      await at.apply("a");
      await at.apply("b", { secretName: "a-synapse-tenant" });
      await expect.poll(async () => (await store.list("Tenant")).length).toBe(2);
      await store.writeSecret("a", OWN_SECRET);
      await expect(store.writeSecret("b", { ...OWN_SECRET, formSecret: "of-b" })).rejects.toThrow(/for b/);
      await store.removeSecret("b");
      expect((await store.readSecret("a"))?.formSecret).toBe(OWN_SECRET.formSecret);
    });

    it("keeps what the owner put into a Secret that we made", async () => {
      await at.apply("a");
      await expect.poll(() => store.get("Tenant", "a")).toBeDefined();
      await store.writeSecret("a", OWN_SECRET);
      await at.core.patchNamespacedSecret({
        namespace: at.namespace,
        name: "a-synapse-tenant",
        body: [{ op: "add", path: "/data/homeserver.yaml", value: Buffer.from("a: 1\n").toString("base64") }],
      });
      await expect.poll(async () => (await store.get("Tenant", "a"))?.spec.config).toBe("a: 1\n");
      await store.writeSecret("a", { ...OWN_SECRET, formSecret: "new" });
      expect((await store.get("Tenant", "a"))?.spec.config).toBe("a: 1\n");
      expect((await store.readSecret("a"))?.formSecret).toBe("new");
    });

    it("shows conditions with reasons, tags, a shard's tenants, and events on the object", async () => {
      await store.create("Shard", "1.163.2-0", { release: "1.163.2" }, SHARD_STATUS);
      await store.create("Tenant", "a", { ...SPEC, release: "" }, { ...STATUS, reason: "MaxShardsReached" });
      const ready = async () =>
        ((await at.raw("a"))["status"]?.["conditions"] as Record<string, string>[] | undefined)?.find(
          ({ type }) => type === "Ready",
        );
      expect(await ready()).toMatchObject({ status: "False", reason: "MaxShardsReached" });
      await modify(store, "Tenant", "a", ({ status }) => {
        Object.assign(status, { phase: "Running", reason: "", shard: "1.163.2-0", fleetRelease: "1.163.2" });
      });
      expect(await ready()).toMatchObject({ status: "True", reason: "Running" });
      const shown = async (kind: string) => {
        const { stdout } = await promisify(execFile)("kubectl", ["get", kind, "-n", at.namespace]);
        return stdout.split("\n").map((line) => line.trim().split(/\s{2,}/));
      };
      const tenants = await shown("stenant");
      expect(tenants[0]).toEqual(["NAME", "SERVER NAME", "SHARD", "TAG", "PHASE", "REASON", "AGE"]);
      expect(tenants[1]).toEqual(["a", "a.example", "1.163.2-0", "1.163.2", "Running", expect.any(String)]);
      await expect
        .poll(async () => (await shown("sshard"))[1]?.slice(1, 5))
        .toEqual(["1.163.2-0", "1.163.2", "Ready", "1"]);
      await modify(store, "Shard", "1.163.2-0", ({ status }) => void (status.load = 0.5));
      expect((await at.raw("shards-1.163.2-0", "synapseshards"))["status"]).toMatchObject({ tenants: 1, load: 0.5 });

      await store.appendEvent({ type: "Warning", reason: "Tested", object: "Tenant/a", message: "by hand" });
      const { stdout } = await promisify(execFile)("kubectl", ["describe", "stenant", "a", "-n", at.namespace]);
      expect(stdout).toMatch(/Warning\s+Tested.*by hand/);
    });

    it("has the API server refuse wrong specs in words", async () => {
      const words = (call: Promise<unknown>) =>
        call.then(
          () => "accepted",
          (e: { body: string }) => JSON.stringify(e.body),
        );
      expect(await words(at.apply("w", { image: { tag: "latest" } }))).toMatch(/spec.image.tag.*such as 1.163.2/);
      expect(await words(at.apply("w", { reclaimPolicy: "Keep" }))).toContain("supported values");
      expect(await words(at.apply("w", { dedicated: { address: "nowhere" } }))).toContain("SERVICE.NAMESPACE.svc");
      const dedicated = { address: "s.elsewhere.svc.cluster.local:8008" };
      expect(await words(at.apply("w", { secretName: "s", secretNamespace: "home", dedicated }))).toContain(
        "a Service in spec.secretNamespace",
      );
      expect(await words(at.apply("w", { dedicated }))).toContain("a Service in spec.secretNamespace");
      expect(await words(at.apply("w", { secretNamespace: "home" }))).toContain("needs it");
      const ref = { for: "signing.key", path: "/a", name: "n", key: "k" };
      expect(await words(at.apply("w", { secretName: "s", secretRefs: [ref] }))).toContain("have a path");
      const hosts = (...names: string[]) =>
        words(at.apply("w", { secretName: "s", secretNamespace: "home", serverName: "w.example", hosts: names }));
      expect(await hosts("chat.elsewhere.svc.cluster.local")).toContain("a Service in spec.hosts is one of");
      expect(await hosts("chat.w.example:8008")).toContain("a host is a name in lower case");
      expect(await words(at.apply("w", { serverName: "w.example", hosts: ["chat.w.example"] }))).toContain("need it");
      expect(await words(at.apply("w", { serverName: "w.example:70000" }))).toContain("at most 65535");
      expect(await words(at.apply("w", { serverName: "Upper.example" }))).toContain("domain name in lower case");
      expect(await words(at.apply("w.x", { serverName: "w.example" }))).toContain("DNS label");
      expect(await words(at.apply("w", { clusterId: "" }))).toContain("spec.clusterId");
      await at.apply("w", { serverName: "w.example:8448", image: { tag: "v1.163.2-custom.1" } });
      expect(await words(at.patch("w", "/spec/serverName", "other.example"))).toContain("serverName cannot be changed");
      expect(await words(at.patch("w", "/spec/clusterId", "other"))).toContain("clusterId cannot be changed");
      // The store says it as somebody's mistake, not as a failure of the API.
      await expect(modify(store, "Tenant", "w", (t) => void (t.spec.release = "new"))).rejects.toMatchObject({
        code: "InvalidInput",
        message: expect.stringContaining("such as 1.163.2"),
      });
    });
  });
});
