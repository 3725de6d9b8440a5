import { globSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { ShardCache } from "../../../../src/platforms/kubernetes/launcher/shard-cache.ts";
import { FakeApi } from "../support/fake-api.ts";

const STATEFUL_SETS = "/apis/apps/v1/namespaces/shards/statefulsets";
const PODS = "/api/v1/namespaces/shards/pods";

describe("what the launcher knows of pods", () => {
  let api: FakeApi;
  let cache: ShardCache;
  const told: string[] = [];
  beforeEach(async () => {
    api = await FakeApi.open();
    told.length = 0;
    cache = new ShardCache(api.config, "shards", "a=b", (message) => void told.push(message));
  });
  afterEach(async () => {
    await cache.close();
    await api.close();
  });

  test("opens once a busy API server has answered, instead of giving up at its first 503", async () => {
    api.put(PODS, "one-0");
    let refusals = 3;
    api.fault = ({ path }) => (path === PODS && refusals-- > 0 ? 503 : undefined);
    await cache.open();
    expect(cache.pod("one")).toBeDefined();
  }, 120_000);

  test("says which rights are missing instead of waiting for them", async () => {
    api.fault = ({ path }) => (path === PODS ? 403 : undefined);
    await expect(cache.open()).rejects.toMatchObject({
      code: "Unauthorized",
      message: expect.stringContaining("cannot watch pods"),
    });
  });

  test("catches up after broken watches, in which pods came and went", async () => {
    api.put(STATEFUL_SETS, "one", { spec: { replicas: 1 } });
    api.put(PODS, "one-0");
    await cache.open();
    let isAway = true;
    api.fault = () => (isAway ? 503 : undefined);
    api.breakWatches();
    api.remove(PODS, "one-0");
    api.put(PODS, "two-0");
    api.put(STATEFUL_SETS, "one", { spec: { replicas: 0 } });
    await expect.poll(() => told.length).toBeGreaterThan(0);
    expect(cache.pod("one")).toBeDefined();
    const gone = cache.until(() => cache.pod("one") === undefined, 60_000);
    isAway = false;
    expect(await gone).toBe(true);
    await expect.poll(() => cache.pod("two")).toBeDefined();
    await expect.poll(() => cache.statefulSet("one")?.spec?.replicas).toBe(0);
  }, 120_000);
});

test("every client of the API server ends its requests: none is made but by client.ts", () => {
  const folder = resolve(import.meta.dirname, "../../../../src/platforms/kubernetes");
  const raw = globSync("**/*.ts", { cwd: folder }).filter((file) =>
    readFileSync(join(folder, file), "utf8").includes("makeApiClient"),
  );
  expect(raw).toEqual([]);
});
