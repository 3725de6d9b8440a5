import { setTimeout as sleep } from "node:timers/promises";
import type { DedicatedSynapse } from "./lib/dedicated.ts";
import { type MatrixUser, seed, SEEDING_OVERRIDES } from "./lib/matrix.ts";
import { cpuSecondsOf, memoryOf, type ProcessMemory, threadsOf } from "./lib/processes.ts";
import type { Bench, BenchOptions, BenchResult, Figure, Plot } from "./lib/result.ts";
import type { RunningShard } from "./lib/shard.ts";
import { mean, median, sum } from "./lib/statistics.ts";
import type { BenchTenant } from "./lib/tenant.ts";
import { World } from "./lib/world.ts";

const MIB = 1024 * 1024;

interface Size {
  dedicated: number;
  perShard: number;
  shards: number;
  seeded: number;
  /** Seconds without a request before anything is measured. */
  settle: number;
  /** Seconds over which processor time and connections are measured: an idle tenant's housekeeping comes in rounds, every ten minutes, and has to be included. */
  window: number;
}
const FULL: Size = { dedicated: 5, perShard: 25, shards: 4, seeded: 10, settle: 60, window: 600 };
const QUICK: Size = { dedicated: 2, perShard: 5, shards: 2, seeded: 2, settle: 15, window: 10 };
/** A dedicated process and a bare shard need less time: they close nothing later. */
const SHORT_SETTLE = 0.5;
/** A shard that has come up writes to a part of what it shares. */
const BARE_SETTLE_MS = 5_000;
/** Enough for one shard and PostgreSQL to keep two cores busy. */
const SEEDED_AT_ONCE = 5;

/** Processes that are measured alone with the machine's Python, so that no neighbour bears a part of their libraries. */
interface Group {
  /** The sum over the processes. */
  pss: number;
  private: number;
  each: ProcessMemory[];
}

export const bench: Bench = {
  name: "memory",
  title: "What an idle tenant costs: memory, threads, connections, processor time",
  async run(options: BenchOptions): Promise<BenchResult> {
    const size = options.quick ? QUICK : FULL;
    return World.with(options.log, (world) => measure(world, size, options.log));
  },
};

async function measure(world: World, size: Size, log: (line: string) => void): Promise<BenchResult> {
  const most = size.perShard * size.shards;
  log(`starting ${size.dedicated} dedicated processes`);
  const alone = await world.tenants("alone", size.dedicated);
  const dedicated: DedicatedSynapse[] = [];
  for (const tenant of alone) dedicated.push(await world.dedicated(tenant));
  const until = Date.now() + size.settle * SHORT_SETTLE * 1000;
  log(`making ${most} databases`);
  const tenants = await world.tenants("idle", most);
  await sleep(Math.max(0, until - Date.now()));
  // Before any shard runs: dedicated processes share their libraries with each other only.
  const dedicatedMemory = await groupOf(dedicated.map(({ pid }) => pid));

  log(`starting ${most} tenants on ${size.shards} shards`);
  const shards: RunningShard[] = [];
  for (let index = 0; index < size.shards; index++) {
    const shard = await world.shard(`shard-${index}`);
    shards.push(shard);
    await shard.startAll(tenants.slice(index * size.perShard, (index + 1) * size.perShard));
  }
  log(`one idle minute, then a window of ${size.window} s`);
  await sleep(size.settle * 1000);
  const threads = await Promise.all(shards.map(({ pid }) => threadsOf(pid)));
  const dedicatedThreads = await Promise.all(dedicated.map(({ pid }) => threadsOf(pid)));
  const idle = await watch(world, shards, dedicated, tenants, size.window);
  await Promise.all(dedicated.map((synapse) => synapse.stop()));
  const manyShards = await groupOf(await world.shardProcesses());
  await Promise.all(shards.slice(1).map((shard) => shard.stop()));
  const oneShard = await groupOf(await world.shardProcesses());
  await shards[0]!.stop();
  log(`${size.shards} shards without tenants`);
  const [bare, empty] = await measureEmpty(world, size);

  log(`${most} tenants on one shard`);
  const large = await world.shard("large");
  await large.startAll(tenants);
  await sleep(size.settle * SHORT_SETTLE * 1000);
  const largeShard = await groupOf(await world.shardProcesses());
  const collected = await large.stats(true).then(async () => groupOf(await world.shardProcesses()));
  await large.stop();

  const seeded = await measureSeeded(world, size, log);
  return report({
    size,
    most,
    dedicatedMemory,
    dedicatedThreads,
    threads,
    idle,
    manyShards,
    oneShard,
    bare,
    empty,
    largeShard,
    collected,
    seeded,
  });
}

/** One shard without tenants, and several. */
async function measureEmpty(world: World, size: Size): Promise<[Group, Group]> {
  const shards = [await world.shard("empty-0")];
  await sleep(BARE_SETTLE_MS);
  const bare = await groupOf(await world.shardProcesses());
  for (let index = 1; index < size.shards; index++) shards.push(await world.shard(`empty-${index}`));
  await sleep(BARE_SETTLE_MS);
  const empty = await groupOf(await world.shardProcesses());
  await Promise.all(shards.map((shard) => shard.stop()));
  return [bare, empty];
}

async function groupOf(pids: number[]): Promise<Group> {
  const each = await Promise.all(pids.map((pid) => memoryOf(pid)));
  return { pss: sum(each.map(({ pss }) => pss)), private: sum(each.map((memory) => memory.private)), each };
}

interface Idle {
  seconds: number;
  /** Seconds of processor time in the window, per process. */
  shardCpu: number[];
  dedicatedCpu: number[];
  /** Connections of all tenants together, second by second; and of the dedicated processes. */
  connections: number[];
  dedicatedConnections: number[];
  /** Share of tenants without a connection, second by second. */
  without: number[];
}

async function watch(
  world: World,
  shards: RunningShard[],
  dedicated: DedicatedSynapse[],
  tenants: BenchTenant[],
  seconds: number,
): Promise<Idle> {
  const alone = dedicated.map(({ tenant }) => tenant);
  const cpu = () => Promise.all([...shards, ...dedicated].map(({ pid }) => cpuSecondsOf(pid)));
  const [connections, dedicatedConnections, without]: [number[], number[], number[]] = [[], [], []];
  const [begun, before] = [performance.now(), await cpu()];
  for (let second = 1; second <= seconds; second++) {
    await sleep(Math.max(0, begun + second * 1000 - performance.now()));
    const counts = await world.connections([...tenants, ...alone]);
    const ofShards = counts.slice(0, tenants.length);
    connections.push(sum(ofShards));
    without.push(ofShards.filter((count) => count === 0).length / tenants.length);
    dedicatedConnections.push(sum(counts.slice(tenants.length)));
  }
  const after = await cpu();
  const used = after.map((value, index) => value - before[index]!);
  return {
    seconds: (performance.now() - begun) / 1000,
    shardCpu: used.slice(0, shards.length),
    dedicatedCpu: used.slice(shards.length),
    connections,
    dedicatedConnections,
    without,
  };
}

interface Seeded {
  tenants: number;
  started: Group;
  synced: Group;
}

/** Tenants with content, started again on a shard of their own; then each of their users syncs once. */
async function measureSeeded(world: World, size: Size, log: (line: string) => void): Promise<Seeded> {
  log(`seeding ${size.seeded} tenants with 5 users and 20 rooms each`);
  const tenants = await world.tenants("seeded", size.seeded);
  const seeder = await world.shard("seeder");
  const users: MatrixUser[][] = [];
  for (let index = 0; index < tenants.length; index += SEEDED_AT_ONCE) {
    const some = tenants.slice(index, index + SEEDED_AT_ONCE).map(async (tenant) => {
      tenant.overrides = SEEDING_OVERRIDES;
      const made = await seed(await seeder.start(tenant), tenant);
      tenant.overrides = "";
      return made;
    });
    users.push(...(await Promise.all(some)));
  }
  await Promise.all(users.flat().map((user) => user.close()));
  await seeder.stop();
  const shard = await world.shard("seeded");
  const urls = await shard.startAll(tenants);
  await sleep(size.settle * SHORT_SETTLE * 1000);
  const started = await groupOf(await world.shardProcesses());
  for (const [index, url] of urls.entries()) {
    for (const user of users[index]!) {
      const here = user.at(url);
      if ((await here.sync()) === 0) throw new Error(`${user.userId} has lost its rooms`);
      await here.close();
    }
  }
  await sleep(size.settle * SHORT_SETTLE * 1000);
  const synced = await groupOf(await world.shardProcesses());
  await shard.stop();
  return { tenants: tenants.length, started, synced };
}

interface Measured {
  size: Size;
  most: number;
  dedicatedMemory: Group;
  dedicatedThreads: number[];
  threads: number[];
  idle: Idle;
  manyShards: Group;
  oneShard: Group;
  bare: Group;
  /** As many shards as have tenants in the end, without any. */
  empty: Group;
  largeShard: Group;
  collected: Group;
  seeded: Seeded;
}

/** The memory of N dedicated processes: N times what each has of its own, plus once what they share. */
function scaled({ dedicatedMemory: { pss, private: own, each } }: Measured, count: number): number {
  return pss - own + (own / each.length) * count;
}

function report(measured: Measured): BenchResult {
  const { size, most, idle, seeded } = measured;
  const { perShard, shards } = size;
  const few = perShard;
  const each = (group: Group, count: number) => (group.pss - measured.bare.pss) / count / MIB;
  const ratio = (group: Group, count: number) => (100 * group.pss) / scaled(measured, count);
  const processes = `${size.dedicated} dedicated processes measured (${(measured.dedicatedMemory.pss / MIB).toFixed(0)} MiB), scaled to as many as tenants`;
  const shardCpu = (100 * sum(idle.shardCpu)) / idle.seconds / most;
  const dedicatedCpu = (100 * mean(idle.dedicatedCpu)) / idle.seconds;
  const figures: Figure[] = [
    {
      what: `memory of ${few} idle tenants in 1 shard, of dedicated processes`,
      value: ratio(measured.oneShard, few),
      unit: "%",
      target: { at: "most", value: 10 },
      note: `${mib(measured.oneShard)} MiB PSS; ${processes}`,
    },
    {
      what: `memory of ${most} idle tenants in ${shards} shards, of dedicated processes`,
      value: ratio(measured.manyShards, most),
      unit: "%",
      target: { at: "most", value: 4 },
      note: `${mib(measured.manyShards)} MiB PSS; ${processes}`,
    },
    {
      what: `memory of ${most} idle tenants in 1 shard, of dedicated processes`,
      value: ratio(measured.largeShard, most),
      unit: "%",
      note: `${mib(measured.largeShard)} MiB PSS`,
    },
    {
      what: "one dedicated process, empty",
      value: measured.dedicatedMemory.pss / size.dedicated / MIB,
      unit: "MiB PSS",
      note: `mean of ${size.dedicated}`,
    },
    {
      what: "a shard without tenants",
      value: measured.bare.pss / MIB,
      unit: "MiB PSS",
      note: "with the process beside it, and the one that shards are forked from",
    },
    {
      what: "each further shard without tenants",
      value: (measured.empty.pss - measured.bare.pss) / (shards - 1) / MIB,
      unit: "MiB PSS",
      target: { at: "most", value: 40 },
      note: `${shards} of one release: ${mib(measured.empty)} MiB`,
    },
    {
      what: "each tenant, empty",
      value: each(measured.oneShard, few),
      unit: "MiB PSS",
      target: { at: "most", value: 3.5 },
      note: `(shard with ${few} − bare shard) / ${few}`,
    },
    {
      what: `each tenant, empty, ${most} in 1 shard`,
      value: each(measured.largeShard, most),
      unit: "MiB PSS",
      note: `after collecting all garbage: ${each(measured.collected, most).toFixed(2)}`,
    },
    {
      what: "each tenant, 5 users and 20 rooms, started and idle",
      value: each(seeded.started, seeded.tenants),
      unit: "MiB PSS",
      target: { at: "most", value: 3.5 },
      note: `(shard with ${seeded.tenants} − bare shard) / ${seeded.tenants}`,
    },
    {
      what: "each tenant, 5 users and 20 rooms, after an initial sync of each user",
      value: each(seeded.synced, seeded.tenants),
      unit: "MiB PSS",
      note: "caches filled",
    },
    {
      what: "threads per idle tenant",
      value: sum(measured.threads) / most,
      unit: "threads",
      target: { at: "most", value: 0.3 },
      note: `of the whole process; ${shards} shards of ${perShard}`,
    },
    { what: "threads of a dedicated idle process", value: mean(measured.dedicatedThreads), unit: "threads" },
    {
      what: "database connections of an idle tenant",
      value: median(idle.connections) / most,
      unit: "connections",
      target: { at: "most", value: 0 },
      note: `median of ${idle.connections.length} looks, one a second, after an idle minute; mean ${(mean(idle.connections) / most).toFixed(3)}, most ${(Math.max(...idle.connections) / most).toFixed(2)}`,
    },
    { what: "time without any connection, of an idle tenant", value: 100 * mean(idle.without), unit: "%" },
    {
      what: "database connections of a dedicated idle process",
      value: median(idle.dedicatedConnections) / size.dedicated,
      unit: "connections",
    },
    {
      what: "processor time of an idle tenant",
      value: shardCpu,
      unit: "% of a core",
      target: { at: "most", value: 0.1 },
      note: `${most} tenants on ${shards} shards for ${idle.seconds.toFixed(0)} s, whole processes`,
    },
    {
      what: "processor time of an idle tenant, of a dedicated idle process's",
      value: (100 * shardCpu) / dedicatedCpu,
      unit: "%",
      target: { at: "most", value: 100 },
      note: `dedicated: ${dedicatedCpu.toFixed(3)} % of a core, in the same ${idle.seconds.toFixed(0)} s`,
    },
  ];
  return { name: bench.name, title: bench.title, figures, plots: plots(measured), raw: measured };
}

function mib(group: Group): string {
  return (group.pss / MIB).toFixed(0);
}

function plots(measured: Measured): Plot[] {
  const { most, size, idle } = measured;
  const few = size.perShard;
  const inMib = (bytes: number) => bytes / MIB;
  return [
    {
      title: "Memory of idle homeservers",
      x: { label: "", values: [`${few} tenants`, `${most} tenants`] },
      y: { label: "MiB PSS" },
      series: [
        { name: "dedicated processes", values: [inMib(scaled(measured, few)), inMib(scaled(measured, most))] },
        { name: `shards of ${few}`, values: [inMib(measured.oneShard.pss), inMib(measured.manyShards.pss)] },
      ],
    },
    {
      title: "Database connections of idle homeservers, each",
      x: { label: "second", values: idle.connections.map((_, second) => second + 1) },
      y: { label: "connections" },
      series: [
        { name: "dedicated process", values: idle.dedicatedConnections.map((count) => count / size.dedicated) },
        { name: "tenant in a shard", values: idle.connections.map((count) => count / most) },
      ],
    },
  ];
}
