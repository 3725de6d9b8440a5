import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { loadKubeConfig } from "../../../../src/platforms/kubernetes/client.ts";
import { KubernetesStore } from "../../../../src/platforms/kubernetes/store/kubernetes-store.ts";
import { ConflictError, modify, type Store } from "../../../../src/ports/store.ts";
import { withoutCluster } from "../../../kubernetes/support/cluster.ts";
import { applyCrds } from "../../../kubernetes/support/crds.ts";
import { CuttableProxy } from "../../../kubernetes/support/cuttable-proxy.ts";
import { FaultyApi } from "../../../kubernetes/support/faulty-api.ts";
import { SPEC, STATUS } from "../../../ports/store-contract.ts";
import { StoreNamespaces } from "./store-namespaces.ts";

describe.skipIf(withoutCluster)("store on Kubernetes in bad times (needs KUBECONFIG)", () => {
  const config = withoutCluster ? undefined! : loadKubeConfig();
  const at = withoutCluster ? undefined! : new StoreNamespaces(config);
  /** Somebody else, whom nothing ails. */
  let other: Store;
  const open: { close(): Promise<void> }[] = [];
  const opened = <T extends { close(): Promise<void> }>(thing: T): T => {
    open.unshift(thing);
    return thing;
  };
  beforeAll(() => applyCrds());
  afterAll(() => at.removeAll());
  beforeEach(async () => {
    await at.next();
    other = opened(await KubernetesStore.open(at.options));
  });
  afterEach(async () => {
    for (const thing of open.splice(0)) await thing.close();
  });
  const epochIn = async (store: Store, name = "a") => (await store.get("Tenant", name))?.status.epoch;

  it("catches up after its watches were cut, and writes again", async () => {
    const proxy = opened(await CuttableProxy.open(config));
    const told: string[] = [];
    const onError = (message: string) => void told.push(message);
    const store = opened(await KubernetesStore.open({ ...at.options, config: proxy.config, onError }));
    await store.create("Tenant", "a", SPEC, STATUS);
    proxy.cut();
    await expect.poll(() => other.get("Tenant", "a")).toBeDefined();
    await modify(other, "Tenant", "a", (t) => void (t.status.epoch = 5));
    await expect(modify(store, "Tenant", "a", (t) => void (t.status.epoch = 7))).rejects.toMatchObject({
      code: "Unavailable",
      message: expect.stringMatching(/cannot replaceStatus synapsetenants\/a/),
    });
    await expect.poll(() => told.join("\n")).toMatch(/cannot watch synapsetenants, trying again: .+: .+/);
    proxy.heal();
    await expect.poll(() => epochIn(store)).toBe(5);
    await modify(store, "Tenant", "a", (t) => void (t.status.epoch += 1));
    await expect.poll(() => epochIn(other)).toBe(6);
  }, 60_000);

  it("reads everything again where the API server has forgotten the past", async () => {
    const api = opened(await FaultyApi.open(config));
    const store = opened(await KubernetesStore.open({ ...at.options, config: api.config }));
    await store.create("Tenant", "stays", SPEC, STATUS);
    await store.create("Tenant", "goes", SPEC, STATUS);
    const heard: string[] = [];
    store.watch(({ type, resource }) => heard.push(`${type} ${resource.metadata.name}`));
    let away = true;
    api.fault = ({ isWatch }) => (away && isWatch ? { status: 503 } : undefined);
    api.breakWatches();
    await expect.poll(() => other.get("Tenant", "goes")).toBeDefined();
    await other.remove("Tenant", "goes");
    await other.create("Tenant", "comes", SPEC, STATUS);
    await modify(other, "Tenant", "stays", (t) => void (t.status.epoch = 3));
    expect((await store.list("Tenant")).map((t) => t.metadata.name)).toEqual(["goes", "stays"]);
    // Once for each of the watches: 410 Gone is what an API server says of a version that it no longer has.
    const gone = new Set<string>();
    api.fault = ({ isWatch, path }) => {
      away = false;
      if (!isWatch || gone.has(path)) return undefined;
      gone.add(path);
      return { status: 410 };
    };
    await expect.poll(async () => (await store.list("Tenant")).map((t) => t.metadata.name)).toEqual(["comes", "stays"]);
    expect(await epochIn(store, "stays")).toBe(3);
    await expect.poll(() => heard.toSorted()).toEqual(["Added comes", "Deleted goes", "Modified stays"]);
    await modify(other, "Tenant", "comes", (t) => void (t.status.epoch = 8));
    await expect.poll(() => epochIn(store, "comes")).toBe(8);
  }, 60_000);

  it("settles a conflict by one read where no watch tells of anything", async () => {
    const api = opened(await FaultyApi.open(config));
    const store = opened(await KubernetesStore.open({ ...at.options, config: api.config }));
    await store.create("Tenant", "a", SPEC, STATUS);
    api.fault = ({ isWatch }) => (isWatch ? "hang" : undefined);
    api.breakWatches();
    await expect.poll(() => other.get("Tenant", "a")).toBeDefined();
    await modify(other, "Tenant", "a", (t) => void (t.status.epoch = 5));
    expect(await epochIn(store)).toBe(0);
    const before = api.seen.length;
    await modify(store, "Tenant", "a", (t) => void (t.status.epoch += 1));
    expect(await epochIn(store)).toBe(6);
    const calls = api.seen.slice(before).filter(({ isWatch, path }) => !isWatch && path.includes("/synapsetenants/"));
    expect(calls.map(({ method }) => method)).toEqual(["PUT", "GET", "PUT"]);
  }, 60_000);

  it("finds a Secret that the watch has not told of yet", async () => {
    const api = opened(await FaultyApi.open(config));
    const store = opened(await KubernetesStore.open({ ...at.options, config: api.config }));
    api.fault = ({ isWatch, path }) => (isWatch && path.endsWith("/secrets") ? "hang" : undefined);
    api.breakWatches();
    await other.create("Tenant", "a", SPEC, STATUS);
    const data = { ...KEYS, databasePassword: "p" };
    await other.writeSecret("a", data);
    await expect.poll(() => store.get("Tenant", "a")).toBeDefined();
    expect(await store.readSecret("a")).toEqual(data);
  }, 60_000);

  it("retries what a busy API server turns away, a few times", async () => {
    const api = opened(await FaultyApi.open(config));
    const store = opened(await KubernetesStore.open({ ...at.options, config: api.config }));
    let left = 2;
    const turnAway = () => (left-- > 0 ? { status: 429, headers: { "retry-after": "0" } } : undefined);
    api.fault = ({ isWatch }) => (isWatch ? undefined : turnAway());
    await store.create("Tenant", "a", SPEC, STATUS);
    left = 1;
    await modify(store, "Tenant", "a", (t) => void (t.status.epoch = 1));
    left = 2;
    await store.appendEvent({ type: "Normal", reason: "R", object: "Tenant/a", message: "" });
    left = 2;
    await store.writeSecret("a", { ...KEYS, databasePassword: "p" });
    left = Number.POSITIVE_INFINITY;
    const before = api.seen.length;
    await expect(modify(store, "Tenant", "a", (t) => void (t.status.epoch = 2))).rejects.toMatchObject({
      code: "Unavailable",
    });
    expect(api.seen.length - before).toBeLessThan(8);
    left = 0;
    await store.remove("Tenant", "a");
    expect(await store.list("Tenant")).toEqual([]);
  }, 60_000);

  it("gives a stale reader a conflict, then the truth", async () => {
    const store = opened(await KubernetesStore.open(at.options));
    await store.create("Tenant", "a", SPEC, STATUS);
    await expect.poll(() => other.get("Tenant", "a")).toBeDefined();
    const old = (await other.get("Tenant", "a"))!;
    await modify(store, "Tenant", "a", (t) => void (t.status.epoch = 3));
    old.status.epoch = 9;
    await expect(other.update(old)).rejects.toThrow(ConflictError);
    const results = await Promise.all(
      [store, other].flatMap((writer) =>
        Array.from({ length: 10 }, () => modify(writer, "Tenant", "a", (t) => void (t.status.epoch += 1))),
      ),
    );
    expect(new Set(results.map((t) => t?.status.epoch)).size).toBe(20);
    await expect.poll(async () => [await epochIn(store), await epochIn(other)]).toEqual([23, 23]);
  }, 120_000);

  it("opens when everything has been read, or says why it cannot", async () => {
    await other.create("Tenant", "a", SPEC, STATUS);
    const api = opened(await FaultyApi.open(config));
    let refused = 3;
    api.fault = () => (refused-- > 0 ? { status: 503 } : undefined);
    const store = opened(await KubernetesStore.open({ ...at.options, config: api.config }));
    expect(await epochIn(store)).toBe(0);
    api.fault = ({ path }) => (path.endsWith("/synapsefleets") ? { status: 403 } : undefined);
    await expect(KubernetesStore.open({ ...at.options, config: api.config })).rejects.toMatchObject({
      code: "Unauthorized",
      message: expect.stringContaining("cannot watch synapsefleets"),
    });
  }, 60_000);
});

const KEYS = {
  serverName: "a.example",
  signingKey: "k",
  macaroonSecretKey: "m",
  formSecret: "f",
  registrationSharedSecret: "r",
};
