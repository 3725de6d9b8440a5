import { randomBytes } from "node:crypto";
import { CoreV1Api, CustomObjectsApi } from "@kubernetes/client-node";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { API_GROUP, API_VERSION, loadKubeConfig } from "../../src/kubernetes/client.ts";
import { TENANT_LABEL } from "../../src/store/kubernetes/tenant-secrets.ts";
import { KubernetesStore } from "../../src/store/kubernetes/kubernetes-store.ts";
import { ConflictError, modify, type Change, type Store } from "../../src/store/store.ts";
import { applyCrds } from "../kubernetes/support/crds.ts";
import { withoutCluster } from "../kubernetes/support/cluster.ts";
import { describeStoreContract, SPEC, STATUS } from "./contract.ts";
import { CuttableProxy } from "../kubernetes/support/cuttable-proxy.ts";

const CLUSTER = "shards";

describe.skipIf(withoutCluster)("store on Kubernetes (needs KUBECONFIG)", () => {
  const config = withoutCluster ? undefined! : loadKubeConfig();
  const core = withoutCluster ? undefined! : config.makeApiClient(CoreV1Api);
  const custom = withoutCluster ? undefined! : config.makeApiClient(CustomObjectsApi);
  let namespace = "";
  const used: string[] = [];
  const options = () => ({ config, namespace, clusterId: CLUSTER, instance: "test" });
  const tenants = () => ({ group: API_GROUP, version: API_VERSION, namespace, plural: "synapsetenants" });

  beforeAll(() => applyCrds());
  const newNamespace = async () => {
    namespace = `store-${randomBytes(4).toString("hex")}`;
    used.push(namespace);
    await core.createNamespace({ body: { metadata: { name: namespace } } });
  };
  afterAll(async () => {
    for (const name of used) {
      namespace = name;
      const { items } = (await custom.listNamespacedCustomObject(tenants())) as {
        items: { metadata: { name: string } }[];
      };
      // Nobody is left to take the finalizers off.
      for (const { metadata } of items)
        await custom
          .patchNamespacedCustomObject({
            ...tenants(),
            name: metadata.name,
            body: [{ op: "remove", path: "/metadata/finalizers" }],
          })
          .catch(() => {});
      await core.deleteNamespace({ name });
    }
  });

  describeStoreContract(
    "Kubernetes",
    async () => {
      await newNamespace();
      return KubernetesStore.open(options());
    },
    async (store) => {
      await store.close();
      return KubernetesStore.open(options());
    },
  );

  describe("what only Kubernetes has", () => {
    let store: Store;
    beforeEach(async () => {
      await newNamespace();
      store = await KubernetesStore.open(options());
    });
    afterEach(() => store.close());

    const apply = (name: string, spec: object = {}) =>
      custom.createNamespacedCustomObject({
        ...tenants(),
        body: {
          apiVersion: `${API_GROUP}/${API_VERSION}`,
          kind: "SynapseTenant",
          metadata: { name },
          spec: { clusterId: CLUSTER, serverName: `${name}.example`, ...spec },
        },
      });
    const secret = (name: string, data: Record<string, string>) =>
      core.createNamespacedSecret({
        namespace,
        body: { metadata: { name, labels: { [TENANT_LABEL]: name } }, stringData: data },
      });

    it("prevents a tenant that vanishes while it runs: one made by hand gets the finalizer", async () => {
      await apply("a");
      await expect.poll(() => store.get("Tenant", "a")).toBeDefined();
      await expect
        .poll(async () => (await custom.getNamespacedCustomObject({ ...tenants(), name: "a" })).metadata.finalizers)
        .toEqual(["synapse-shards.io/controller"]);
      await custom.deleteNamespacedCustomObject({ ...tenants(), name: "a" });
      await expect.poll(async () => (await store.get("Tenant", "a"))?.metadata.deletionTimestamp).toBeDefined();
      await store.remove("Tenant", "a");
      await expect
        .poll(() => custom.getNamespacedCustomObject({ ...tenants(), name: "a" }).catch((e) => e.code))
        .toBe(404);
    });

    it("prevents taking another cluster's tenants", async () => {
      await apply("theirs", { clusterId: "another" });
      await apply("ours");
      await expect.poll(async () => (await store.list("Tenant")).map((t) => t.metadata.name)).toEqual(["ours"]);
      expect(await store.get("Tenant", "theirs")).toBeUndefined();
    });

    it("prevents a configuration that is not noticed: a changed Secret is a change of its tenant", async () => {
      await secret("mine", { "homeserver.yaml": "a: 1\n" });
      await apply("a", { secretName: "mine", config: "ignored: true" });
      await expect.poll(async () => (await store.get("Tenant", "a"))?.spec.config).toBe("a: 1\n");
      const heard: string[] = [];
      store.watch((change: Change) => {
        if (change.kind === "Tenant" && change.type === "Modified") heard.push(change.resource.spec.config);
      });
      await core.patchNamespacedSecret({
        namespace,
        name: "mine",
        body: [{ op: "replace", path: "/data/homeserver.yaml", value: Buffer.from("a: 2\n").toString("base64") }],
      });
      await expect.poll(() => heard.includes("a: 2\n")).toBe(true);
    });

    it("prevents keys invented or overwritten where the owner gave some: a missing key is named, a foreign Secret left alone", async () => {
      await secret("mine", { "signing.key": "k", "macaroon-secret-key": "m", "form-secret": "f" });
      await apply("a", { secretName: "mine" });
      await apply("b", { secretName: "nowhere" });
      await expect.poll(() => store.get("Tenant", "b")).toBeDefined();
      await expect(store.readSecret("a")).rejects.toThrow(/mine has no key registration-shared-secret/);
      await expect(store.readSecret("b")).rejects.toThrow(/no Secret .*nowhere/);
      const data = {
        serverName: "s",
        signingKey: "x",
        macaroonSecretKey: "x",
        formSecret: "x",
        registrationSharedSecret: "x",
        databasePassword: "",
      };
      await expect(store.writeSecret("a", data)).rejects.toThrow(/not the controller's/);
      await store.removeSecret("a");
      expect((await core.readNamespacedSecret({ namespace, name: "mine" })).data).toHaveProperty(["signing.key"]);
    });

    it("prevents a change that takes no effect: a configuration that is in a Secret cannot be changed here", async () => {
      await secret("mine", { "homeserver.yaml": "a: 1\n" });
      await apply("a", { secretName: "mine" });
      await expect.poll(() => store.get("Tenant", "a")).toBeDefined();
      await expect(modify(store, "Tenant", "a", (t) => void (t.spec.config = "b: 1"))).rejects.toThrow(
        /is in the Secret/,
      );
    });

    it("prevents a blind `kubectl`: the status has conditions with reasons, and events are on the object", async () => {
      await store.create("Tenant", "a", SPEC, { ...STATUS, reason: "MaxShardsReached", message: "no place" });
      const conditions = async () =>
        (await custom.getNamespacedCustomObject({ ...tenants(), name: "a" })).status.conditions as Record<
          string,
          string
        >[];
      const ready = async () => (await conditions()).find(({ type }) => type === "Ready");
      expect(await ready()).toMatchObject({ status: "False", reason: "MaxShardsReached", message: "no place" });
      await modify(
        store,
        "Tenant",
        "a",
        (t) => void Object.assign(t.status, { phase: "Running", reason: "", message: "" }),
      );
      expect(await ready()).toMatchObject({ status: "True", reason: "Running" });
      await store.appendEvent({ type: "Warning", reason: "Tested", object: "Tenant/a", message: "by hand" });
      const { items } = await core.listNamespacedEvent({ namespace, fieldSelector: "involvedObject.name=a" });
      expect(items).toContainEqual(expect.objectContaining({ reason: "Tested", message: "by hand" }));
    });

    it("prevents wrong specs: the API server refuses them in words", async () => {
      const words = (spec: object) =>
        apply("w", spec).then(
          () => "accepted",
          (e: { body: string }) => JSON.stringify(e.body),
        );
      expect(await words({ image: { tag: "latest" } })).toContain("spec.image.tag");
      expect(await words({ reclaimPolicy: "Keep" })).toContain("supported values");
      expect(await words({ dedicated: { address: "nowhere" } })).toContain("spec.dedicated.address");
      await apply("w");
      const change = {
        ...tenants(),
        name: "w",
        body: [{ op: "replace", path: "/spec/serverName", value: "other.example" }],
      };
      const refused: unknown = await custom
        .patchNamespacedCustomObject(change)
        .catch((e: { body: string }) => JSON.stringify(e.body));
      expect(refused).toContain("serverName cannot be changed");
    });
  });

  it("prevents deafness: watches that were cut hear what happened meanwhile, and writes work again", async () => {
    await newNamespace();
    const proxy = await CuttableProxy.open(config);
    const store = await KubernetesStore.open({ ...options(), config: proxy.config });
    const other = await KubernetesStore.open(options());
    try {
      await store.create("Tenant", "a", SPEC, STATUS);
      proxy.cut();
      await expect.poll(() => other.get("Tenant", "a")).toBeDefined();
      await modify(other, "Tenant", "a", (t) => void (t.status.epoch = 5));
      await expect(modify(store, "Tenant", "a", (t) => void (t.status.epoch = 7))).rejects.toThrow(/cannot replaceStatus/);
      proxy.mend();
      await expect.poll(async () => (await store.get("Tenant", "a"))?.status.epoch, { timeout: 20_000 }).toBe(5);
      await modify(store, "Tenant", "a", (t) => void (t.status.epoch += 1));
      await expect.poll(async () => (await other.get("Tenant", "a"))?.status.epoch).toBe(6);
    } finally {
      await store.close();
      await other.close();
      await proxy.close();
    }
  }, 60_000);

  it("prevents a write over what was not read: a stale reader gets a conflict, then the truth", async () => {
    await newNamespace();
    const [one, two] = [await KubernetesStore.open(options()), await KubernetesStore.open(options())];
    try {
      await one.create("Tenant", "a", SPEC, STATUS);
      await expect.poll(() => two.get("Tenant", "a")).toBeDefined();
      const old = (await two.get("Tenant", "a"))!;
      await modify(one, "Tenant", "a", (t) => void (t.status.epoch = 3));
      old.status.epoch = 9;
      await expect(two.update(old)).rejects.toThrow(ConflictError);
      const results = await Promise.all(
        [one, two].flatMap((store) =>
          Array.from({ length: 10 }, () => modify(store, "Tenant", "a", (t) => void (t.status.epoch += 1))),
        ),
      );
      expect(new Set(results.map((t) => t?.status.epoch)).size).toBe(20);
    } finally {
      await one.close();
      await two.close();
    }
  });
});
