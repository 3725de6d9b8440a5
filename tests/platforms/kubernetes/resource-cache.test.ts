import { CoreV1Api, type V1Secret } from "@kubernetes/client-node";
import { afterEach, beforeEach, expect, it } from "vitest";
import { apiClient } from "../../../src/platforms/kubernetes/client.ts";
import { ResourceCache, type CacheChange } from "../../../src/platforms/kubernetes/resource-cache.ts";
import { until } from "../../support/patience.ts";
import { FakeApi } from "./support/fake-api.ts";

const PATH = "/api/v1/namespaces/shards/secrets";

let api: FakeApi;
let cache: ResourceCache<V1Secret>;
let heard: string[];

beforeEach(async () => {
  heard = [];
  api = await FakeApi.open();
  const client = apiClient(api.config, CoreV1Api);
  api.put(PATH, "a");
  cache = new ResourceCache<V1Secret>({
    config: api.config,
    path: PATH,
    list: (page) => client.listNamespacedSecret({ namespace: "shards", ...page }),
    what: "Secrets",
    onChange: ({ type, object }: CacheChange<V1Secret>) => void heard.push(`${type} ${object.metadata?.name}`),
    onError: () => {},
  });
  await cache.open();
});
afterEach(async () => {
  await cache.close();
  await api.close();
});

const made = (name: string, resourceVersion: string): V1Secret => ({
  metadata: { name, namespace: "shards", uid: `own-${name}`, resourceVersion },
});

// Guards against: a shard that was made and deleted while no watch was there stays known forever.
it("forgets what we made and somebody deleted before the watch told of either", async () => {
  cache.put(made("gone", "3"));
  expect(cache.get("gone")).toBeDefined();
  // Others of the kind change meanwhile, so that everything is listed again.
  for (let i = 0; i < 5; i++) api.put(PATH, "a", { data: { i: String(i) } });
  api.breakWatches();
  api.put(PATH, "b");
  await until("the new list is there", () => cache.get("b") !== undefined);
  expect(cache.get("gone")).toBeUndefined();
  expect(heard).toContain("Deleted gone");
});

it("keeps what is newer than a list", async () => {
  api.breakWatches();
  api.put(PATH, "b");
  cache.put(made("newer", "1000"));
  await until("the new list is there", () => cache.get("b") !== undefined);
  expect(cache.get("newer")).toBeDefined();
  expect(heard).not.toContain("Deleted newer");
});

it("keeps nothing of who wrote which field", async () => {
  api.put(PATH, "c", { metadata: { managedFields: [{ manager: "x" }] } });
  await until("it is told", () => cache.get("c") !== undefined);
  expect(cache.get("c")?.metadata).not.toHaveProperty("managedFields");
});
