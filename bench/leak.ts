import { setTimeout as sleep } from "node:timers/promises";
import { MatrixUser } from "./lib/matrix.ts";
import { memoryOf, threadsOf } from "./lib/processes.ts";
import type { Bench, BenchOptions, BenchResult, Figure } from "./lib/result.ts";
import type { RunningShard, ShardStats } from "./lib/shard.ts";
import { median, slopeOf } from "./lib/statistics.ts";
import type { BenchTenant } from "./lib/tenant.ts";
import { World } from "./lib/world.ts";

const MIB = 1024 * 1024;
const KIB = 1024;

interface Size {
  cycles: number;
  /** Cycles between two samples of the process. */
  every: number;
}
const FULL: Size = { cycles: 1000, every: 20 };
const QUICK: Size = { cycles: 30, every: 4 };
/** Several at once, so that starts and stops overlap as in a drain. */
const AT_ONCE = 4;
/** A thousand cycles then add a megabyte; if each left a tenant behind, they would add three thousand times as much. */
const MOST_GROWTH_KIB = 1;
/** Samples whose median stands for one moment. */
const FEW = 5;
/** Threads that were told to end are still there for a moment. */
const SETTLE_MS = 300;

interface Subject {
  tenant: BenchTenant;
  user: MatrixUser;
  room: string;
}

interface Look {
  cycles: number;
  seconds: number;
  stats: ShardStats;
  /** Bytes that are the process's own, after garbage has been collected and memory given back. */
  memory: number;
}

export const bench: Bench = {
  name: "leak",
  title: "A thousand starts and stops: what stays behind",
  async run({ quick, log }: BenchOptions): Promise<BenchResult> {
    const size = quick ? QUICK : FULL;
    return report(await World.with(log, (world) => measure(world, size, log)));
  },
};

async function measure(world: World, size: Size, log: (line: string) => void): Promise<Look[]> {
  const shard = await world.shard("shard");
  const begun = performance.now();
  const look = async (cycles: number): Promise<Look> => {
    const collected = await shard.stats(true);
    await sleep(SETTLE_MS);
    const stats = { ...collected, threads: await threadsOf(shard.pid) };
    return { cycles, seconds: (performance.now() - begun) / 1000, stats, memory: (await memoryOf(shard.pid)).private };
  };
  // Before the first tenant: everything above this later was left by a tenant.
  const looks = [await look(0)];
  const subjects = await Promise.all((await world.tenants("subject", AT_ONCE)).map((tenant) => prepare(shard, tenant)));
  log(`${size.cycles} starts and stops, ${AT_ONCE} at once`);
  for (let cycles = 0; cycles < size.cycles;) {
    await Promise.all(subjects.map((subject) => cycle(shard, subject)));
    cycles += AT_ONCE;
    if (cycles % size.every === 0 || cycles >= size.cycles) looks.push(await look(cycles));
    if (cycles % (size.cycles / 5) === 0) log(`${cycles}`);
  }
  await shard.stop();
  return looks;
}

async function prepare(shard: RunningShard, tenant: BenchTenant): Promise<Subject> {
  const url = await shard.start(tenant);
  const user = await MatrixUser.register(url, tenant, "user");
  const room = await user.createRoom([]);
  await user.close();
  await shard.stopTenant(tenant);
  return { tenant, user, room };
}

/** A start, some work that goes through the homeserver's parts, and a stop. */
async function cycle(shard: RunningShard, subject: Subject): Promise<void> {
  const user = subject.user.at(await shard.start(subject.tenant));
  subject.user = user;
  await user.send(subject.room, "still here");
  if ((await user.sync()) !== 1) throw new Error(`${user.userId} has lost its room`);
  await user.close();
  await shard.stopTenant(subject.tenant);
}

function report(looks: Look[]): BenchResult {
  const [first, last] = [looks[0]!, looks.at(-1)!];
  const half = looks.filter(({ cycles }) => cycles >= last.cycles / 2);
  const line = slopeOf(
    half.map(({ cycles }) => cycles),
    half.map(({ memory }) => memory / KIB),
  );
  const more = (what: string, of: (stats: ShardStats) => number, bounded = true): Figure => {
    const later = looks.slice(1).map(({ stats }) => of(stats));
    return {
      what: `${what} more after ${last.cycles} starts and stops`,
      value: of(last.stats) - of(first.stats),
      unit: "",
      ...(bounded ? { target: { at: "most" as const, value: 0 } } : {}),
      note: `${of(first.stats)} before the first start, ${of(last.stats)} after the last stop; most in between ${Math.max(...later)}`,
    };
  };
  const typical = (some: Look[]) => median(some.map(({ memory }) => memory));
  const [settled, final] = [typical(half.slice(0, FEW)), typical(half.slice(-FEW))];
  const figures: Figure[] = [
    more("threads", (stats) => stats.threads),
    more("database connections", (stats) => stats.databaseConnections),
    more("live HomeServers", (stats) => stats.liveHomeServers),
    more("reactor triggers", (stats) => stats.triggers),
    more("file descriptors", (stats) => stats.fileDescriptors, false),
    {
      what: "memory growth per start and stop, second half",
      value: line.slope,
      unit: "KiB",
      target: { at: "most", value: MOST_GROWTH_KIB },
      note: `median of the slopes between any two of ${half.length} looks; half of them lie between ${line.low.toFixed(1)} and ${line.high.toFixed(1)}`,
    },
    {
      what: "memory growth in the second half",
      value: (final - settled) / MIB,
      unit: "MiB",
      note: `from ${(settled / MIB).toFixed(1)} to ${(final / MIB).toFixed(1)} MiB of its own; ${(first.memory / MIB).toFixed(1)} before the first start`,
    },
    {
      what: "starts and stops per second",
      value: last.cycles / last.seconds,
      unit: "1/s",
      note: `${AT_ONCE} at once, with a message and a sync each`,
    },
  ];
  const x = { label: "starts and stops", values: looks.map(({ cycles }) => cycles) };
  const plots = [
    {
      title: "Memory of the shard with no tenant left",
      x,
      y: { label: "MiB" },
      series: [{ name: "private memory", values: looks.map(({ memory }) => memory / MIB) }],
    },
    {
      title: "What else is left",
      x,
      y: { label: "count" },
      series: [
        { name: "threads", values: looks.map(({ stats }) => stats.threads) },
        { name: "live HomeServers", values: looks.map(({ stats }) => stats.liveHomeServers) },
        { name: "file descriptors", values: looks.map(({ stats }) => stats.fileDescriptors) },
      ],
    },
  ];
  return { name: bench.name, title: bench.title, figures, plots, raw: looks };
}
