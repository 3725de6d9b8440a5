import { expect, onTestFinished, test } from "vitest";
import { Registry } from "prom-client";
import { Gauges } from "../../src/controller/gauges.ts";
import { createControllerMetrics } from "../../src/controller/metrics.ts";
import type { ControllerContext } from "../../src/controller/context.ts";
import { UsageBook } from "../../src/controller/usage/usage-book.ts";
import { RouteFeed } from "../../src/controller/routes/route-feed.ts";
import { DEFAULT_POLICY } from "../../src/model/policy.ts";
import { newTenantStatus } from "../../src/model/tenant.ts";
import { CachedReader } from "../../src/controller/cached-reader.ts";
import { LocalStore } from "../../src/platforms/local/store/local-store.ts";
import { modify } from "../../src/ports/store.ts";
import { SteadyClock } from "../../src/model/clock.ts";

const NEW = newTenantStatus();
const SPEC = { serverName: "a.example", release: "1.163.2", config: "", reclaimPolicy: "Retain" } as const;

function controller(policy = {}) {
  const registry = new Registry();
  const store = new LocalStore(":memory:");
  const metrics = createControllerMetrics(registry);
  const feed = new RouteFeed();
  const usage = new UsageBook();
  const context = {
    store,
    metrics,
    feed,
    usage,
    clock: new SteadyClock(),
    policy: { ...DEFAULT_POLICY, ...policy },
  } as unknown as ControllerContext;
  const reader = new CachedReader(store);
  const gauges = new Gauges(context, reader);
  onTestFinished(() => store.close());
  const lead = async () => {
    await reader.open();
    metrics.scrape.begin(() => gauges.update());
  };
  return { registry, store, metrics, usage, lead };
}

/** Samples without the prefix. */
async function samples(registry: Registry): Promise<Record<string, number>> {
  const lines = (await registry.metrics()).split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  return Object.fromEntries(
    lines.map((line) => {
      const at = line.lastIndexOf(" ");
      return [line.slice("synapse_shards_controller_".length, at), Number(line.slice(at + 1))];
    }),
  );
}

test("a replica that stands by tells no numbers", async () => {
  const { registry, store, metrics, lead } = controller();
  await store.create("Tenant", "a", SPEC, { ...NEW });
  expect(Object.keys(await samples(registry)).filter((name) => name.startsWith("tenants"))).toEqual([]);
  expect(await samples(registry)).not.toHaveProperty("moves_in_progress");
  expect(await samples(registry)).not.toHaveProperty("gateways");
  await lead();
  expect(await samples(registry)).toMatchObject({
    'tenants{image_tag="1.163.2",phase="Pending",reason="",hosting="shard"}': 1,
    moves_in_progress: 0,
    gateways: 0,
  });
  metrics.scrape.end();
  const after = await samples(registry);
  expect(
    Object.keys(after).filter((name) => /^(tenants|tenant_not|shard|rollout|gateways|moves_in)/.test(name)),
  ).toEqual([]);
});

test("a scrape reads the store once", async () => {
  const { registry, store, lead } = controller();
  let lists = 0;
  const list = store.list.bind(store);
  store.list = async (kind) => {
    lists += 1;
    return list(kind);
  };
  await lead();
  await samples(registry);
  expect(lists).toBe(3);
});

test("a new leader knows how long a tenant has waited", async () => {
  const { registry, store, lead } = controller();
  const { metadata } = await store.create("Tenant", "a", SPEC, { ...NEW, reason: "MaxShardsReached" });
  await new Promise((done) => setTimeout(done, 1100));
  await lead();
  const since = (await samples(registry))[
    'tenant_not_ready_since_timestamp_seconds{tenant="a",phase="Pending",reason="MaxShardsReached"}'
  ];
  expect(since).toBe(Math.round(Date.parse(metadata.creationTimestamp) / 1000));
});

test("the clock of a failed tenant goes on from scrape to scrape, and ends when it runs", async () => {
  const { registry, store, lead } = controller();
  await lead();
  const name = 'tenant_not_ready_since_timestamp_seconds{tenant="a",phase="Failed",reason="InvalidConfig"}';
  const fail = () =>
    modify(
      store,
      "Tenant",
      "a",
      ({ status }) => void Object.assign(status, { phase: "Failed", reason: "InvalidConfig" }),
    );
  await store.create("Tenant", "a", SPEC, { ...NEW, epoch: 1 });
  await fail();
  const first = (await samples(registry))[name]!;
  await new Promise((done) => setTimeout(done, 1600));
  expect((await samples(registry))[name]).toBe(first);
  await modify(store, "Tenant", "a", ({ status }) => void Object.assign(status, { phase: "Running", reason: "" }));
  expect(Object.keys(await samples(registry)).some((key) => key.startsWith("tenant_not_ready"))).toBe(false);
  await fail();
  expect((await samples(registry))[name]).toBeGreaterThan(first);
});

test("series of shards end with them", async () => {
  const { registry, store, metrics, lead } = controller();
  await lead();
  await store.create(
    "Shard",
    "1.163.2-0",
    { release: "1.163.2" },
    { phase: "Ready", reason: "", message: "", failures: 0 },
  );
  expect(await samples(registry)).toMatchObject({ 'shard_restarts_total{shard="1.163.2-0"}': 0 });
  metrics.shardRestarts.inc("1.163.2-0");
  expect(await samples(registry)).toMatchObject({ 'shard_restarts_total{shard="1.163.2-0"}': 1 });
  await store.remove("Shard", "1.163.2-0");
  const left = async () => Object.keys(await samples(registry)).filter((key) => key.includes("1.163.2-0"));
  expect(await left()).toEqual([]);
  // Its last stall may be heard of when it is gone.
  metrics.shardStalls.inc("1.163.2-0");
  metrics.shardRestarts.inc("1.163.2-0");
  expect(await left()).toEqual([]);
});

test("tells saturation when a release is full", async () => {
  const { registry, store, lead } = controller({ maxShardsPerSynapseImageTag: 2, maxTenantsPerShard: 1 });
  await lead();
  const ready = { phase: "Ready", reason: "", message: "", failures: 0 } as const;
  const saturated = async () => (await samples(registry))['saturated{image_tag="1.163.2"}'];
  await store.create("Shard", "1.163.2-0", { release: "1.163.2" }, { ...ready });
  await store.create("Tenant", "a", SPEC, { ...NEW, shard: "1.163.2-0" });
  expect(await saturated()).toBe(0);
  await store.create("Shard", "1.163.2-1", { release: "1.163.2" }, { ...ready });
  expect(await saturated()).toBe(0);
  await store.create("Tenant", "b", SPEC, { ...NEW, shard: "1.163.2-1" });
  expect(await saturated()).toBe(1);
  expect((await samples(registry))['capacity{image_tag="1.163.2"}']).toBe(2);
});

test("every counter has its series before its first event", async () => {
  const { registry } = controller();
  expect(await samples(registry)).toMatchObject({
    'moves_total{reason="Upgrade",outcome="RolledBack"}': 0,
    'migrations_total{to="dedicated"}': 0,
    'reconcile_errors_total{kind="Tenant"}': 0,
    leader: 0,
  });
});

test("a tenant in a dedicated transition is counted once, and on no shard", async () => {
  const { registry, store, lead } = controller();
  await lead();
  const requestedAt = "2026-01-01T00:00:00.000Z";
  const transition = { id: "1", to: "dedicated", from: "1.163.2-0", step: "Preparing", requestedAt } as const;
  await store.create("Tenant", "a", SPEC, { ...NEW, phase: "Moving", epoch: 1, shard: "1.163.2-0", transition });
  await store.create("Tenant", "b", SPEC, { ...NEW, phase: "Running", epoch: 1, dedicated: { address: "b:8008" } });
  expect(await samples(registry)).toMatchObject({
    moves_in_progress: 1,
    'tenants{image_tag="1.163.2",phase="Moving",reason="",hosting="shard"}': 1,
    'tenants{image_tag="1.163.2",phase="Running",reason="",hosting="dedicated"}': 1,
    'tenant_not_ready_since_timestamp_seconds{tenant="a",phase="Moving",reason=""}': Date.parse(requestedAt) / 1000,
  });
});

test("tells what databases take, and which tenant is suspected of a shard whose memory is high", async () => {
  const { registry, store, usage, lead } = controller();
  await store.create("Tenant", "a", SPEC, { ...NEW, throttle: { part: 0.25, since: "", changedAt: "" } });
  const status = { phase: "Ready", reason: "", message: "", failures: 0 } as const;
  await store.create("Shard", "1.163.2-0", { release: "1.163.2" }, { ...status });
  for (const name of ["a", "gone"])
    usage.setDatabase(name, { bytes: 8192, connections: 1, rowsWritten: 12, tempBytes: 0, at: "" });
  usage.setShard("1.163.2-0", { memoryRatio: 0.9, suspect: { tenant: "a", part: 0.8 } });
  await lead();
  const found = await samples(registry);
  expect(found).toMatchObject({
    'tenant_database_bytes{tenant="a"}': 8192,
    'tenant_database_rows_written{tenant="a"}': 12,
    'tenant_throttle_ratio{tenant="a"}': 0.25,
    'shard_memory_ratio{shard="1.163.2-0",image_tag="1.163.2"}': 0.9,
    'shard_memory_suspect_ratio{shard="1.163.2-0",tenant="a"}': 0.8,
  });
  expect(Object.keys(found).filter((name) => name.includes("gone"))).toEqual([]);
  for (let n = 0; n < 30; n++) {
    await store.create("Tenant", `t-${n}`, SPEC, { ...NEW });
    usage.setDatabase(`t-${n}`, { bytes: 10_000 + n, connections: 1, rowsWritten: 12, tempBytes: 0, at: "" });
  }
  await expect
    .poll(async () => Object.keys(await samples(registry)).filter((name) => name.startsWith("tenant_database_bytes")))
    .toEqual(Array.from({ length: 20 }, (_, n) => `tenant_database_bytes{tenant="t-${29 - n}"}`));
});
