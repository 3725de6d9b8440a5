import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { DEFAULT_BALANCING, DEFAULT_HIBERNATION, type Policy } from "../src/model/policy.ts";
import { ClusterIndex } from "../src/planner/cluster-index.ts";
import { plan, planFromIndex } from "../src/planner/plan.ts";
import type { SnapshotShard, Snapshot, SnapshotTenant } from "../src/planner/snapshot.ts";
import { type Bench, type BenchOptions, type BenchResult, quantile } from "./lib/result.ts";

const VERSIONS = ["1.157.2", "1.160.0", "1.161.0", "1.163.2"];
const PER_SHARD = 25;
const REPEATS = 3;
const CHANGES = 80;
/** What a second brings, as one plan may find it. */
const WAKES = 100;
const WAKE_PLANS = 50;
const HOUR_MS = 3_600_000;
/** Milliseconds since the epoch; long after the last change of any shard. */
const NOW = 1_900_000_000_000;
const MIB = 2 ** 20;

interface Row {
  tenants: number;
  shards: number;
  fullMs: number[];
  freshMs: number;
  indexMs: number;
  changeMs: number[];
  heapMiB: number;
}

export const bench: Bench = {
  name: "planner",
  title: "Planning for very many tenants",
  async run(options: BenchOptions): Promise<BenchResult> {
    const sizes = options.quick ? [1_000, 10_000] : [12_500, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000];
    const quoted = options.quick ? 10_000 : 100_000;
    const rows: Row[] = [];
    for (const size of sizes) {
      const row = measure(size);
      rows.push(row);
      options.log(
        `${size} tenants: full plan ${quantile(row.fullMs, 0.5).toFixed(0)} ms, one change ${quantile(row.changeMs, 0.5).toFixed(1)} ms`,
      );
    }
    const row = rows.find(({ tenants }) => tenants === quoted)!;
    const wakeMs = measureWakes(quoted);
    const asleep = `${WAKES} wakes at once, ${quoted} tenants of which a tenth is awake, all places taken`;
    options.log(`${asleep}: ${quantile(wakeMs, 0.5).toFixed(1)} ms`);
    const largest = rows.at(-1)!;
    const what = `${row.tenants} tenants on ${row.shards} shards`;
    const growth =
      quantile(largest.fullMs, 0.5) / quantile(row.fullMs, 0.5) / (nLogN(largest.tenants) / nLogN(row.tenants));
    return {
      name: this.name,
      title: this.title,
      figures: [
        {
          what: `full plan, ${what}, p50`,
          value: quantile(row.fullMs, 0.5),
          unit: "ms",
          target: { at: "most", value: 1_000 },
          note: `${REPEATS} plans from whole snapshots`,
        },
        {
          what: `placing all of ${row.tenants} new tenants`,
          value: row.freshMs,
          unit: "ms",
          note: "one plan, from no shards",
        },
        {
          what: `one change, ${what}, p50`,
          value: quantile(row.changeMs, 0.5),
          unit: "ms",
          target: { at: "most", value: 50 },
          note: `${CHANGES} changes, each with a plan from the index kept by the caller`,
        },
        { what: `one change, ${what}, p99`, value: quantile(row.changeMs, 0.99), unit: "ms" },
        {
          what: `${asleep}, p50`,
          value: quantile(wakeMs, 0.5),
          unit: "ms",
          target: { at: "most", value: 50 },
          note: `${WAKE_PLANS} plans from the index, each of which puts ${WAKES} others to sleep; waiting, they are taken in too`,
        },
        { what: `${asleep}, p99`, value: quantile(wakeMs, 0.99), unit: "ms" },
        {
          what: `memory of snapshot, index and plan, ${what}`,
          value: row.heapMiB,
          unit: "MiB",
          target: { at: "most", value: 500 },
          note: "heap in use after a garbage collection, less that before",
        },
        {
          what: `growth of the full plan from ${row.tenants} to ${largest.tenants} tenants, against n log n`,
          value: growth,
          unit: "×",
          target: { at: "most", value: 1.25 },
          note: "ratio of medians; a quarter is left for caches and noise",
        },
      ],
      plots: [
        {
          title: "Time of a plan",
          x: { label: "tenants", values: rows.map(({ tenants }) => tenants) },
          y: { label: "milliseconds" },
          series: [
            { name: "full plan", values: rows.map(({ fullMs }) => quantile(fullMs, 0.5)) },
            { name: "one change", values: rows.map(({ changeMs }) => quantile(changeMs, 0.5)) },
          ],
        },
      ],
      raw: { rows, wakeMs },
    };
  },
};

function measure(tenants: number): Row {
  const before = heap();
  const given = snapshot(tenants);
  const policy = policyFor(given.shards.length);
  const fullMs = Array.from({ length: REPEATS }, () => timed(() => plan(given, policy)));
  let index = new ClusterIndex();
  const indexMs = timed(() => (index = ClusterIndex.of(given)));
  const heapMiB = (heap() - before) / MIB;
  const changeMs = Array.from({ length: CHANGES }, (_, n) => timed(() => change(index, given, n, policy)));
  const nobody = { now: NOW, shards: [], tenants: given.tenants.map((tenant) => ({ ...tenant, shard: undefined })) };
  const freshMs = timed(() => plan(nobody, policy));
  return { tenants, shards: given.shards.length, fullMs, freshMs, indexMs, changeMs, heapMiB };
}

/** The changes: a new tenant, a deletion, an upgrade, a shard that falls silent and comes back. */
function change(index: ClusterIndex, { tenants, shards }: Snapshot, n: number, policy: Policy): void {
  const tenant = tenants[(n * 7919) % tenants.length]!;
  const shard = shards[(n * 31) % shards.length]!;
  const kinds = [
    () => index.setTenant({ ...tenant, shard: undefined }),
    () => index.setTenant({ ...tenant, deleting: true }),
    () => index.setTenant({ ...tenant, release: VERSIONS.find((release) => release !== tenant.release)! }),
    () => index.setShard({ ...shard, phase: "Lost" }),
  ];
  kinds[n % kinds.length]!();
  planFromIndex(index, NOW, policy);
  // The next change meets the same world.
  if (n % kinds.length === 3) index.setShard(shard);
  else index.setTenant(tenant);
}

/** Tenants are wanted that sleep, and those that were used longest ago have to make room. */
function measureWakes(count: number): number[] {
  const { shards, tenants: awake } = snapshot(count / 10);
  const idle = (n: number) => ({ since: NOW - HOUR_MS - n, awakeSince: NOW - 2 * HOUR_MS });
  const asleep: SnapshotTenant[] = Array.from({ length: count - awake.length }, (_, n) => ({
    name: `asleep-${((n * 7919) % count).toString(36)}-${n}`,
    release: VERSIONS[n % VERSIONS.length]!,
    deleting: false,
    asleep: { wakeAt: NOW + HOUR_MS + n },
  }));
  const index = ClusterIndex.of({
    now: NOW,
    shards,
    tenants: [...awake.map((tenant, n) => ({ ...tenant, idle: idle(n) })), ...asleep],
  });
  const hibernation = { afterIdleSeconds: 86_400, minAwakeSeconds: 120, maxConcurrentWakes: WAKES };
  const policy = { ...policyFor(shards.length / VERSIONS.length), hibernation };
  return Array.from({ length: WAKE_PLANS }, (_, round) => {
    const wanted = Array.from({ length: WAKES }, (_, n) => asleep[(round * WAKES + n) % asleep.length]!);
    const took = timed(() => {
      for (const tenant of wanted)
        index.setTenant({ ...tenant, asleep: undefined, waking: { due: false }, waitingSince: NOW });
      const sleeps = planFromIndex(index, NOW, policy).filter(({ type }) => type === "Sleep");
      if (sleeps.length !== WAKES) throw new Error(`${sleeps.length} of ${WAKES} make room`);
    });
    // The next round meets the same world.
    for (const tenant of wanted) index.setTenant(tenant);
    return took;
  });
}

/** A settled world: all shards full, names in no order. */
function snapshot(count: number): Snapshot {
  const shards: SnapshotShard[] = VERSIONS.flatMap((release) =>
    Array.from({ length: Math.ceil(count / VERSIONS.length / PER_SHARD) }, (_, index) => ({
      name: `${release}-${index}`,
      release,
      phase: "Ready" as const,
      lastAssignmentChange: 0,
      grownAt: 0,
    })),
  );
  const tenants: SnapshotTenant[] = Array.from({ length: count }, (_, n) => {
    const { name, release } = shards[n % shards.length]!;
    return { name: `tenant-${((n * 7919) % count).toString(36)}-${n}`, release, shard: name, deleting: false };
  });
  return { now: NOW, tenants, shards };
}

function policyFor(shards: number): Policy {
  return {
    maxShardsPerSynapseImageTag: shards,
    maxTenantsPerShard: PER_SHARD,
    avgShardsLoadRedistributionThreshold: 15,
    consolidateAfterSeconds: 30,
    hibernation: DEFAULT_HIBERNATION,
    balancing: DEFAULT_BALANCING,
    maxConcurrentMoves: 4,
  };
}

setFlagsFromString("--expose-gc");
/** Otherwise a figure of the heap would mostly say when garbage was last collected. */
const collect = runInNewContext("gc") as () => void;

function heap(): number {
  collect();
  return process.memoryUsage().heapUsed;
}

function timed(work: () => void): number {
  const begin = performance.now();
  work();
  return performance.now() - begin;
}

function nLogN(n: number): number {
  return n * Math.log2(n);
}
