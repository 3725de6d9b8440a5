import { beforeEach, expect, it } from "vitest";
import { CachedReader } from "../../src/controller/cached-reader.ts";
import { LocalStore } from "../../src/platforms/local/store/local-store.ts";
import { modify } from "../../src/ports/store.ts";
import { SPEC, STATUS } from "../ports/store-contract.ts";

let store: LocalStore;
let reader: CachedReader;
beforeEach(() => {
  store = new LocalStore(":memory:");
  reader = new CachedReader(store);
  return () => store.close();
});

const names = (found: Iterable<{ metadata: { name: string } }>) => [...found].map(({ metadata }) => metadata.name);

it("has what is written while it opens", async () => {
  for (const name of ["a", "b", "c"]) await store.create("Tenant", name, SPEC, STATUS);
  const opening = reader.open();
  await Promise.all([
    modify(store, "Tenant", "a", (t) => void (t.status.epoch = 1)),
    modify(store, "Tenant", "a", (t) => void (t.status.epoch = 2)),
    store.remove("Tenant", "b"),
    store.create("Tenant", "d", SPEC, STATUS),
    opening,
  ]);
  expect(names(reader.values("Tenant")).toSorted()).toEqual(["a", "c", "d"]);
  expect(reader.get("Tenant", "a")).toEqual(await store.get("Tenant", "a"));
});

it("has all by name, whatever comes and goes", async () => {
  await store.create("Tenant", "m", SPEC, STATUS);
  await reader.open();
  const present = new Set(["m"]);
  const seen: string[] = [];
  const expected: string[] = [];
  for (const name of ["z", "a", "m", "b", "a", "z", "a", "m", "c", "m"]) {
    if (present.delete(name)) await store.remove("Tenant", name);
    else {
      present.add(name);
      await store.create("Tenant", name, SPEC, STATUS);
    }
    // Not each time: what came and went meanwhile is not there twice.
    if (name === "a") continue;
    seen.push(names(reader.sorted("Tenant")).join());
    expected.push([...present].toSorted().join());
  }
  expect(seen).toEqual(expected);
  await modify(store, "Tenant", "c", (t) => void (t.status.epoch = 7));
  expect(reader.sorted("Tenant").find(({ metadata }) => metadata.name === "c")?.status.epoch).toBe(7);
});

it("keeps what it heard while a list was on its way that is older", async () => {
  await store.create("Tenant", "a", SPEC, STATUS);
  const list = store.list.bind(store);
  store.list = async (kind) => {
    const read = await list(kind);
    if (kind === "Tenant") await modify(store, "Tenant", "a", (t) => void (t.status.epoch = 3));
    return read;
  };
  await reader.open();
  expect(reader.get("Tenant", "a")?.status.epoch).toBe(3);
});

it("a controller sees its own writes", async () => {
  await reader.open();
  await store.create("Tenant", "a", SPEC, STATUS);
  expect(reader.get("Tenant", "a")?.status.epoch).toBe(0);
  await modify(store, "Tenant", "a", (t) => void (t.status.epoch = 7));
  expect(reader.get("Tenant", "a")?.status.epoch).toBe(7);
  await store.remove("Tenant", "a");
  expect(reader.get("Tenant", "a")).toBeUndefined();
});

it("finds tenants by their shard and by both ends of their move", async () => {
  await store.create("Tenant", "a", SPEC, { ...STATUS, shard: "s-0" });
  await reader.open();
  const where = () => ["s-0", "s-1", "s-2"].filter((shard) => [...reader.tenantsOf(shard)].includes("a"));
  expect(where()).toEqual(["s-0"]);
  const move = { id: "m", from: "s-0", to: "s-1", reason: "Requested", step: "Preparing", requestedAt: "" } as never;
  await modify(store, "Tenant", "a", ({ status }) => void (status.move = move));
  expect(where()).toEqual(["s-0", "s-1"]);
  await modify(store, "Tenant", "a", ({ status }) => {
    status.shard = "s-1";
    delete status.move;
  });
  expect(where()).toEqual(["s-1"]);
  await store.remove("Tenant", "a");
  expect(where()).toEqual([]);
});

it("ends with its controller", async () => {
  await reader.open();
  reader.close();
  await store.create("Tenant", "a", SPEC, STATUS);
  expect(reader.get("Tenant", "a")).toBeUndefined();
});

it("finds a tenant by what its data are named by, under whatever name it has", async () => {
  await reader.open();
  const storageOf = () => ["a", "b", "c", "x"].map((storage) => reader.withStorage(storage)?.metadata.name);
  const rename = async (name: string, to: string, storage?: string) => {
    const tenant = (await store.get("Tenant", name))!;
    await store.rename({ ...tenant, status: { ...tenant.status, storage } }, to);
  };
  await store.create("Tenant", "a", SPEC, STATUS);
  expect(storageOf()).toEqual(["a", undefined, undefined, undefined]);
  await rename("a", "b", "a");
  expect(storageOf()).toEqual(["b", undefined, undefined, undefined]);
  await store.create("Tenant", "a", SPEC, { ...STATUS, storage: "x" });
  expect(storageOf()).toEqual(["b", undefined, undefined, "a"]);
  await rename("b", "c", "a");
  expect(storageOf()).toEqual(["c", undefined, undefined, "a"]);
  await store.remove("Tenant", "a");
  await rename("c", "a");
  expect(storageOf()).toEqual(["a", undefined, undefined, undefined]);
});
