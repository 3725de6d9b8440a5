import { ApiException, type V1Secret } from "@kubernetes/client-node";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { all, allPages, type ListPage } from "../../../src/platforms/kubernetes/list-and-watch.ts";
import { TenantIndex } from "../../../src/platforms/kubernetes/store/tenant-index.ts";
import { FakeApi } from "./support/fake-api.ts";

const PATH = "/api/v1/namespaces/shards/secrets";
const gone = () => new ApiException(410, "Gone", undefined, {});

/** Pages of numbered objects; a page may fail. */
function pagesOf(names: string[], fail: (page: ListPage) => Error | undefined = () => undefined) {
  return async (page: ListPage) => {
    const error = fail(page);
    if (error) throw error;
    const { _continue: next, limit } = page;
    const from = Number(next ?? 0);
    const to = from + limit;
    const items = names.slice(from, to).map((name) => ({ metadata: { name, managedFields: [{ manager: "x" }] } }));
    return { metadata: { resourceVersion: "7", continue: to < names.length ? String(to) : "" }, items };
  };
}

describe("a list in pages", () => {
  const names = ["a", "b", "c", "d", "e"];

  it("has each object once, with the version of the last page, and not who wrote which field", async () => {
    const { items, metadata } = await allPages(pagesOf(names), 2);
    expect(items.map(({ metadata: of }) => of.name)).toEqual(names);
    expect(items.every(({ metadata: of }) => !("managedFields" in of))).toBe(true);
    expect(metadata?.resourceVersion).toBe("7");
  });

  it("begins again where the API server has forgotten what the pages were of, instead of leaving some out", async () => {
    let left = 1;
    const fail = ({ _continue: next }: ListPage) => (next === "2" && left-- > 0 ? gone() : undefined);
    const { items } = await allPages(pagesOf(names, fail), 2);
    expect(items.map(({ metadata }) => metadata.name)).toEqual(names);
  });

  it("is given up where that happens again and again", async () => {
    const fail = ({ _continue: next }: ListPage) => (next === undefined ? undefined : gone());
    await expect(allPages(pagesOf(names, fail), 2)).rejects.toMatchObject({ code: 410 });
  });
});

describe("an API server that does not stream lists", () => {
  let api: FakeApi;
  beforeEach(async () => {
    api = await FakeApi.open();
  });
  afterEach(() => api.close());

  it("is asked for pages", async () => {
    const list = pagesOf(["a", "b"]);
    const { items } = await all<V1Secret>(api.config, PATH, list, undefined);
    expect(items.map(({ metadata }) => metadata?.name)).toEqual(["a", "b"]);
  });
});

describe("the index of tenants", () => {
  it("names those made from a Secret, and counts those on a shard, as they come, change and go", () => {
    const index = new TenantIndex();
    index.set("a", { secrets: ["ns/a", "ns/shared"], shard: "x" });
    index.set("b", { secrets: ["ns/shared"], shard: "x" });
    expect(index.madeFrom("ns/shared")).toEqual(["a", "b"]);
    expect([...index.counts]).toEqual([["x", 2]]);
    index.set("a", { secrets: ["ns/a"], shard: "y" });
    expect(index.madeFrom("ns/shared")).toEqual(["b"]);
    expect(Object.fromEntries(index.counts)).toEqual({ x: 1, y: 1 });
    index.remove("b");
    index.remove("b");
    expect(index.madeFrom("ns/shared")).toEqual([]);
    expect([...index.counts]).toEqual([["y", 1]]);
    expect(index.shardOf("a")).toBe("y");
    expect(index.shardOf("b")).toBeUndefined();
  });
});
