import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { findProgram, type Proxy, RIVALS, startBare, startGateway, startOrigin } from "./gateway-proxies.ts";
import { onEnd } from "./lib/cleanup.ts";
import { cpuSecondsOf } from "./lib/processes.ts";
import type { Bench, BenchOptions, BenchResult, Figure } from "./lib/result.ts";
import { median } from "./lib/statistics.ts";
import { hasWrk, type LoadResult, runWrk } from "./load-wrk.ts";

interface Size {
  rounds: number;
  seconds: number;
}
const FULL: Size = { rounds: 5, seconds: 6 };
const QUICK: Size = { rounds: 2, seconds: 2 };

const TENANTS = 50;
const CONNECTIONS = 64;
const WARM_UP_SECONDS = 3;
/** Share of the gateway's maximum; the others get the same rate. */
const HALF = 0.5;

/** One proxy (or none) in one round. */
interface Sample {
  name: string;
  full: LoadResult;
  /** Seconds of processor time that the proxy took. */
  cpuSeconds: number;
  half: LoadResult;
}

export const bench: Bench = {
  name: "gateway",
  title: "The gateway against HAProxy and nginx, before the same origin",
  async run({ quick, log }: BenchOptions): Promise<BenchResult> {
    const size = quick ? QUICK : FULL;
    if (!(await hasWrk())) throw new Error("the load comes from wrk, which is not here: apt-get install wrk");
    const directory = await mkdtemp(join(tmpdir(), "gateway-bench-"));
    onEnd(() => rm(directory, { recursive: true, force: true }));
    const hosts = Array.from({ length: TENANTS }, (_, index) => `tenant-${index}.example`);
    const origin = await startOrigin();
    const proxies: Proxy[] = [
      { name: "direct", url: `http://127.0.0.1:${origin.port}`, pid: origin.pid, version: process.version },
      await startGateway(directory, Object.fromEntries(hosts.map((host) => [host, origin.port]))),
      await startBare(origin.port),
    ];
    for (const { name, program, debian, start } of RIVALS) {
      const found = await findProgram(program);
      if (found) proxies.push(await start(found, directory, hosts, origin.port));
      else log(`NOT COMPARED with ${name}, which is not here: apt-get install ${debian}`);
    }
    const samples: Sample[][] = [];
    for (const { url } of proxies)
      await runWrk({ url, hosts, connections: CONNECTIONS, seconds: WARM_UP_SECONDS }, directory);
    for (let round = 0; round < size.rounds; round++) {
      log(`round ${round + 1} of ${size.rounds}: ${proxies.map(({ name }) => name).join(", ")}`);
      samples.push(await measure(proxies, hosts, size.seconds, directory));
    }
    return report(proxies, samples, size);
  },
};

/** Each in turn at its maximum, then each in turn at half of the gateway's maximum. */
async function measure(proxies: Proxy[], hosts: string[], seconds: number, directory: string): Promise<Sample[]> {
  const load = { hosts, connections: CONNECTIONS, seconds };
  const full = [];
  for (const { name, url, pid } of proxies) {
    const before = await cpuSecondsOf(pid);
    const result = await runWrk({ ...load, url }, directory);
    full.push({ name, full: result, cpuSeconds: (await cpuSecondsOf(pid)) - before });
  }
  const most = full.find(({ name }) => name === "gateway")!.full;
  const rate = (most.requests / most.seconds) * HALF;
  const samples: Sample[] = [];
  for (const [index, { url }] of proxies.entries())
    samples.push({ ...full[index]!, half: await runWrk({ ...load, url, rate }, directory) });
  return samples;
}

function report(proxies: Proxy[], samples: Sample[][], { rounds, seconds }: Size): BenchResult {
  const of = (name: string, value: (sample: Sample, direct: Sample) => number): number =>
    median(samples.map((round) => value(byName(round, name), byName(round, "direct"))));
  const perCore = (name: string) => of(name, ({ full, cpuSeconds }) => full.requests / cpuSeconds);
  const added50 = (name: string) => of(name, ({ half }, direct) => half.p50 - direct.half.p50);
  const added99 = (name: string) => of(name, ({ half }, direct) => half.p99 - direct.half.p99);
  const names = proxies.map(({ name }) => name).filter((name) => name !== "direct");
  const note = `median of ${rounds} rounds of ${seconds} s, ${CONNECTIONS} connections, ${TENANTS} tenants`;
  const half = of("gateway", ({ half: { requests, seconds: took } }) => requests / took).toFixed(0);
  const halfNote = `${note}; ${half} requests/s, half of the gateway's most; less that of the origin without a proxy`;
  const figures: Figure[] = names.flatMap((name) => [
    {
      what: `${name}: added latency at half load, p50`,
      value: added50(name),
      unit: "ms",
      ...(name === "gateway" ? { target: { at: "most" as const, value: 0.3 } } : {}),
      note: halfNote,
    },
    {
      what: `${name}: added latency at half load, p99`,
      value: added99(name),
      unit: "ms",
      ...(name === "gateway" ? { target: { at: "most" as const, value: 1 } } : {}),
      note: halfNote,
    },
    {
      what: `${name}: requests per second of processor time`,
      value: perCore(name),
      unit: "requests/s",
      note: `${note}; /proc/PID/stat, all its threads`,
    },
    {
      what: `${name}: requests per second, as many as are answered`,
      value: of(name, ({ full }) => full.requests / full.seconds),
      unit: "requests/s",
      note: `${note}; load, proxy and origin share this machine's processors`,
    },
  ]);
  for (const name of names.filter((rival) => rival !== "gateway"))
    figures.push({
      what: `gateway: requests per second and core, against ${name}`,
      value: median(samples.map((round) => ratePerCore(byName(round, "gateway")) / ratePerCore(byName(round, name)))),
      unit: "×",
      ...(name === "HAProxy" ? { target: { at: "least" as const, value: 0.4 } } : {}),
      note: `${note}, ratio within each round`,
    });
  figures.push({
    what: "failed requests",
    value: samples.flat().reduce((sum, sample) => sum + sample.full.errors + sample.half.errors, 0),
    unit: "requests",
    target: { at: "most", value: 0 },
  });
  return {
    name: bench.name,
    title: bench.title,
    figures,
    plots: [
      {
        title: "Requests per second of the proxy's processor time",
        x: { label: "proxy", values: names },
        y: { label: "requests/s" },
        series: [{ name: "median of rounds", values: names.map(perCore) }],
      },
      {
        title: "Added latency at half load",
        x: { label: "proxy", values: names },
        y: { label: "ms" },
        series: [
          { name: "p50", values: names.map(added50) },
          { name: "p99", values: names.map(added99) },
        ],
      },
    ],
    raw: { versions: Object.fromEntries(proxies.map(({ name, version }) => [name, version])), samples },
  };
}

function ratePerCore({ full, cpuSeconds }: Sample): number {
  return full.requests / cpuSeconds;
}

function byName(round: Sample[], name: string): Sample {
  return round.find((sample) => sample.name === name)!;
}
