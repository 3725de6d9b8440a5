import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Agent } from "undici";
import { DENDRITE, ensureGoTool, findGo } from "../bin/go-tools.ts";
import { onEnd } from "./lib/cleanup.ts";
import { Dendrite } from "./lib/dendrite.ts";
import { FEATURES, lacking } from "./lib/features.ts";
import { MatrixUser } from "./lib/matrix.ts";
import { cpuSecondsOf, memoryOf, type ProcessMemory } from "./lib/processes.ts";
import { type Bench, type BenchOptions, type BenchResult, type Figure, quantile } from "./lib/result.ts";
import { mean, median, sum } from "./lib/statistics.ts";
import type { BenchTenant } from "./lib/tenant.ts";
import { World } from "./lib/world.ts";
import { type Answer, atRate, LoadUser, ok } from "./load-client.ts";

const MIB = 1024 * 1024;

interface Size {
  /** Tenants on the shard, and what the memory of the others is scaled to. */
  homeservers: number;
  /** Processes of each of the others that are measured. */
  processes: number;
  starts: number;
  settle: number;
  /** Seconds without a request. */
  idle: number;
  rounds: number;
  /** Of each kind in each round. */
  seconds: number;
}
const FULL: Size = { homeservers: 25, processes: 3, starts: 5, settle: 60, idle: 600, rounds: 5, seconds: 10 };
const QUICK: Size = { homeservers: 5, processes: 2, starts: 2, settle: 10, idle: 10, rounds: 1, seconds: 4 };
/** Pairs of a send and a sync, per second. */
const RATE = 8;

const SHARD = "tenant of a shard";
const SYNAPSE = "Synapse, a process each";
const OTHER = "Dendrite, a process each";
const KINDS = [SHARD, SYNAPSE, OTHER];

export const bench: Bench = {
  name: "servers",
  title: "Side by side: a tenant of a shard, a Synapse process, and a Dendrite, which is another implementation",
  async run({ quick, log }: BenchOptions): Promise<BenchResult> {
    const size = quick ? QUICK : FULL;
    log("building Dendrite, if it is not there yet");
    const program = ensureGoTool(DENDRITE, await findGo({ onProgress: log }));
    return World.with(log, (world) => measure(world, program, size, log));
  },
};

/** Of one kind of homeserver. */
interface Measured {
  /** Bytes of each homeserver, where there are `homeservers` of them. */
  memory: number;
  /** Seconds from a stopped one to its first answer. */
  starts: number[];
  /** Part of a core. */
  idle: number;
  /** Milliseconds, by round. */
  send: number[][];
  sync: number[][];
  lacks: string[];
  failed: number;
}

/** A homeserver that runs, with a person who has a room. */
interface Site {
  kind: string;
  user: LoadUser;
  room: string;
}

async function measure(world: World, program: string, size: Size, log: (line: string) => void): Promise<BenchResult> {
  const found = new Map(KINDS.map((kind) => [kind, empty()]));
  const of = (kind: string) => found.get(kind)!;

  log(`${size.processes} Synapses`);
  const synapseTenants = await world.tenants("synapse", size.processes);
  const synapses = [];
  for (const tenant of synapseTenants) synapses.push(await world.dedicated(tenant));
  await sleep(size.settle * 1000);
  of(SYNAPSE).memory = each(await memories(synapses.map(({ pid }) => pid)), size.homeservers);
  for (let count = 0; count < size.starts; count++) {
    await synapses[0]!.stop();
    of(SYNAPSE).starts.push(await seconds(async () => (synapses[0] = await world.dedicated(synapseTenants[0]!))));
  }

  log(`${size.processes} Dendrites`);
  const dendriteTenants = Array.from({ length: size.processes }, (_, index) => world.newTenant(`dendrite-${index}`));
  const dendrites: Dendrite[] = [];
  onEnd(async () => void (await Promise.all(dendrites.map((dendrite) => dendrite.stop()))));
  const home = (tenant: BenchTenant) => join(world.directory, "dendrites", tenant.name);
  for (const tenant of dendriteTenants) {
    await Dendrite.prepare(tenant, world.admin, home(tenant));
    dendrites.push(await Dendrite.start(program, home(tenant)));
  }
  await sleep(size.settle * 1000);
  of(OTHER).memory = each(await memories(dendrites.map(({ pid }) => pid)), size.homeservers);
  for (let count = 0; count < size.starts; count++) {
    await dendrites[0]!.stop();
    const start = async () => (dendrites[0] = await Dendrite.start(program, home(dendriteTenants[0]!)));
    of(OTHER).starts.push(await seconds(start));
  }

  log(`a shard with ${size.homeservers} tenants`);
  const shard = await world.shard("shard");
  const tenants = await world.tenants("tenant", size.homeservers);
  const urls = await shard.startAll(tenants);
  for (let count = 0; count < size.starts; count++) {
    await shard.stopTenant(tenants[0]!);
    of(SHARD).starts.push(await seconds(async () => (urls[0] = await shard.start(tenants[0]!))));
  }
  await sleep(size.settle * 1000);
  const shardProcesses = await world.shardProcesses();
  of(SHARD).memory = sum((await memories(shardProcesses)).map(({ pss }) => pss)) / size.homeservers;

  log(`${size.idle} s in which nobody asks anything`);
  const groups: [string, number[], number][] = [
    [SHARD, shardProcesses, size.homeservers],
    [SYNAPSE, synapses.map(({ pid }) => pid), size.processes],
    [OTHER, dendrites.map(({ pid }) => pid), size.processes],
  ];
  const cpu = () =>
    Promise.all(groups.map(async ([, pids]) => sum(await Promise.all(pids.map((pid) => cpuSecondsOf(pid))))));
  const before = await cpu();
  await sleep(size.idle * 1000);
  const after = await cpu();
  for (const [index, [kind, , count]] of groups.entries())
    of(kind).idle = (after[index]! - before[index]!) / size.idle / count;

  const agent = new Agent({ connections: 16 });
  const sites: Site[] = [];
  const places: [string, BenchTenant, string, (tenant: BenchTenant, url: string) => Promise<string>][] = [
    [SHARD, tenants[0]!, urls[0]!, (tenant, url) => unlimited(world, tenant, url)],
    [SYNAPSE, synapseTenants[0]!, synapses[0]!.url, (tenant, url) => unlimited(world, tenant, url)],
    [OTHER, dendriteTenants[0]!, dendrites[0]!.url, registered],
  ];
  for (const [kind, tenant, url, register] of places) {
    const token = await register(tenant, url);
    const user = LoadUser.withToken({ url }, agent, token);
    const room = await user.createRoom();
    await user.sync(0);
    sites.push({ kind, user, room });
    of(kind).lacks = await lacking({ url, token, room, agent });
  }
  for (let round = 1; round <= size.rounds; round++) {
    log(`round ${round} of ${size.rounds} of sends and syncs`);
    for (const site of sites) {
      const answers = await use(site, size.seconds);
      const took = (what: string) =>
        answers.filter((answer) => ok(answer) && answer.what === what).map(({ sent, answered }) => answered - sent);
      const one = of(site.kind);
      one.send.push(took("send"));
      one.sync.push(took("sync"));
      one.failed += answers.filter((answer) => !ok(answer)).length;
    }
  }
  await agent.destroy();
  return report(found, size);
}

function empty(): Measured {
  return { memory: Number.NaN, starts: [], idle: Number.NaN, send: [], sync: [], lacks: [], failed: 0 };
}

function memories(pids: number[]): Promise<ProcessMemory[]> {
  return Promise.all(pids.map((pid) => memoryOf(pid)));
}

/** @returns bytes of each of `count` processes: what they share once among all, and what each has of its own */
function each(measured: ProcessMemory[], count: number): number {
  const own = mean(measured.map((memory) => memory.private));
  const shared = sum(measured.map(({ pss }) => pss)) - own * measured.length;
  return own + shared / count;
}

async function seconds(act: () => Promise<unknown>): Promise<number> {
  const begun = performance.now();
  await act();
  return (performance.now() - begun) / 1000;
}

async function unlimited(world: World, tenant: BenchTenant, url: string): Promise<string> {
  const [user] = await world.users(tenant, url, 1);
  await user!.close();
  return user!.accessToken;
}

async function registered(tenant: BenchTenant, url: string): Promise<string> {
  const user = await MatrixUser.register(url, tenant, "user0");
  await user.close();
  return user.accessToken;
}

async function use({ user, room }: Site, forSeconds: number): Promise<Answer[]> {
  const ending = new AbortController();
  const using = atRate(RATE, ending.signal, async () => [await user.send(room), await user.sync(0)]);
  await sleep(forSeconds * 1000);
  ending.abort();
  return (await using).flat();
}

function report(found: Map<string, Measured>, size: Size): BenchResult {
  const { homeservers, processes, starts, idle, rounds, seconds: length } = size;
  const figures: Figure[] = [];
  const rows: [what: string, unit: string, note: string, of: (one: Measured) => number][] = [
    [
      "memory, idle",
      "MiB PSS",
      `each of ${homeservers}; processes scaled from ${processes}`,
      (one) => one.memory / MIB,
    ],
    ["processor time, idle", "% of a core", `over ${idle} s`, (one) => one.idle * 100],
    ["start on an existing database, p50", "s", `${starts} starts`, (one) => median(one.starts)],
    ...(["send", "sync"] as const).flatMap((what) =>
      [0.5, 0.99].map((q): [string, string, string, (one: Measured) => number] => [
        `${what}, p${q * 100}`,
        "ms",
        `${RATE}/s, median of ${rounds} rounds of ${length} s, in turn`,
        (one) => median(one[what].map((samples) => quantile(samples, q))),
      ]),
    ),
  ];
  for (const [what, unit, note, of] of rows)
    for (const kind of KINDS) figures.push({ what: `${kind}: ${what}`, value: of(found.get(kind)!), unit, note });
  for (const kind of KINDS) {
    const { lacks } = found.get(kind)!;
    figures.push({
      what: `${kind}: of ${FEATURES.length} features asked for, it has`,
      value: FEATURES.length - lacks.length,
      unit: "",
      note: lacks.length === 0 ? "all" : `lacks ${lacks.join(", ")}`,
    });
  }
  const failed = sum([...found.values()].map((one) => one.failed));
  figures.push({ what: "failed requests", value: failed, unit: "requests", target: { at: "most", value: 0 } });
  const bars = (what: string, label: string, of: (one: Measured) => number) => ({
    title: what,
    x: { label: "", values: KINDS },
    y: { label },
    series: [{ name: what, values: KINDS.map((kind) => of(found.get(kind)!)) }],
  });
  return {
    name: bench.name,
    title: bench.title,
    figures,
    plots: [bars(`Memory of each of ${homeservers} idle homeservers`, "MiB PSS", (one) => one.memory / MIB)],
    raw: Object.fromEntries(found),
  };
}
