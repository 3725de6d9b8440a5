import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Agent } from "undici";
import { BenchCluster, STILL } from "./lib/cluster.ts";
import { type Bench, type BenchOptions, type BenchResult, type Figure, quantile } from "./lib/result.ts";
import { Asking, createTenants, shardsOf, STEP_MS, untilPhase, usersOf } from "./lib/tenants.ts";
import type { Answer } from "./load-client.ts";

interface Size {
  tenants: number;
  /** How often each part is killed. */
  kills: number;
}
const FULL: Size = { tenants: 25, kills: 5 };
const QUICK: Size = { tenants: 4, kills: 1 };

/** Between a client's answer and its next request. */
const ASK_EVERY_MS = 250;
/** Before a part is killed: one that ended earlier than this is started again later each time. */
const CALM_MS = 31_000;
/** After each serves again, for what comes late. */
const AFTER_MS = 3_000;

const PARTS = ["shard", "gateway", "controller", "PostgreSQL"] as const;
type Part = (typeof PARTS)[number];

export const bench: Bench = {
  name: "crash",
  title: "A part that is killed while tenants are in use: how long, and what their clients see",
  async run({ quick, log }: BenchOptions): Promise<BenchResult> {
    const size = quick ? QUICK : FULL;
    log("bringing up a whole cluster");
    const cluster = await BenchCluster.up({
      maxTenantsPerShard: size.tenants,
      maxShardsPerSynapseImageTag: 2,
      ...STILL,
      tenantPolicy: { allowedOptions: ["rc_login"] },
    });
    try {
      return report(size, await measure(cluster, size, log));
    } finally {
      await cluster.close();
    }
  },
};

interface Seen {
  /** Each tenant's longest gap after each kill, and how long after it each serves again; seconds. */
  gaps: number[];
  back: number[];
  requests: number;
  failed: Answer[];
}

type Measured = Record<Part, Seen>;

async function measure(cluster: BenchCluster, size: Size, log: (line: string) => void): Promise<Measured> {
  const names = Array.from({ length: size.tenants }, (_, index) => `clinic-${index}`);
  log(`creating ${size.tenants} tenants`);
  await createTenants(cluster, names);
  const agent = new Agent({ connections: 256 });
  const users = await usersOf(cluster, names, agent);
  const found = Object.fromEntries(
    PARTS.map((part) => [part, { gaps: [], back: [], requests: 0, failed: [] } satisfies Seen]),
  ) as unknown as Measured;
  for (const part of PARTS) {
    for (let kill = 0; kill < size.kills; kill++) {
      const asking = new Asking(users, ASK_EVERY_MS);
      await sleep(CALM_MS);
      const pid = await pidOf(cluster, part);
      const killed = performance.now();
      process.kill(pid, "SIGKILL");
      await asking.untilEachServes(killed);
      await sleep(AFTER_MS);
      await asking.end();
      const gaps = asking.gaps(killed);
      found[part].gaps.push(...gaps.map(({ seconds }) => seconds));
      found[part].back.push(...gaps.map(({ until }) => until));
      found[part].failed.push(...asking.failed(killed));
      found[part].requests += asking.count(killed);
      for (const name of names) await untilPhase(cluster, name, "Running");
    }
    const { gaps, failed } = found[part];
    log(`${part}: longest gap p50 ${inSeconds(gaps, 0.5)}, p99 ${inSeconds(gaps, 0.99)}, ${failed.length} failed`);
  }
  await agent.destroy();
  return found;
}

/** The process of a part; of shards, that with tenants. */
async function pidOf(cluster: BenchCluster, part: Part): Promise<number> {
  const file = (...path: string[]) => readFile(join(cluster.dataDir, ...path), "utf8");
  switch (part) {
    case "shard": {
      for (const deadline = Date.now() + STEP_MS; Date.now() < deadline; await sleep(100)) {
        const full = (await shardsOf(cluster)).find((shard) => shard.tenants.length > 0);
        if (full) return Number(await file("shards", full.metadata.name, "pid"));
      }
      throw new Error("no shard has tenants");
    }
    case "PostgreSQL":
      return Number((await file("postgres", "postmaster.pid")).split("\n")[0]);
    case "gateway":
    case "controller":
      return cluster.pidOf(part);
  }
}

function inSeconds(samples: number[], q: number): string {
  return `${quantile(samples, q).toFixed(2)} s`;
}

function report(size: Size, measured: Measured): BenchResult {
  const note = `${size.kills} kills, ${size.tenants} tenants on one shard, each with one client that asks 4 times a second`;
  const bounds: Record<Part, { p50?: number; p99: number }> = {
    shard: { p50: 2, p99: 4 },
    gateway: { p99: 1 },
    // Nothing that a client needs goes through it, so what there is belongs to the machine.
    controller: { p99: 0.5 },
    PostgreSQL: { p99: 2 },
  };
  const figures = PARTS.flatMap((part): Figure[] => {
    const { gaps, back, requests, failed } = measured[part];
    const { p50, p99 } = bounds[part];
    const what = part === "shard" ? "until each tenant serves again" : "longest time without an answer";
    const samples = part === "shard" ? back : gaps;
    const target = (value: number | undefined) =>
      value === undefined ? {} : { target: { at: "most" as const, value } };
    return [
      { what: `kill -9 of the ${part}: ${what}, p50`, value: quantile(samples, 0.5), unit: "s", ...target(p50), note },
      { what: `kill -9 of the ${part}: ${what}, p99`, value: quantile(samples, 0.99), unit: "s", ...target(p99) },
      {
        what: `kill -9 of the ${part}: failed requests`,
        value: failed.length,
        unit: "requests",
        // A connection that ends with its gateway is the client's to repeat.
        ...(part === "gateway" ? {} : target(0)),
        note: `of ${requests}; with an answer: ${failed.filter(({ status }) => status !== 0).length}`,
      },
    ];
  });
  const shares = Array.from({ length: 101 }, (_, percent) => percent);
  return {
    name: bench.name,
    title: bench.title,
    figures,
    plots: [
      {
        title: "Each tenant's longest time without an answer after a kill",
        x: { label: "percentile", values: shares },
        y: { label: "seconds" },
        series: PARTS.map((part) => ({
          name: part,
          values: shares.map((q) => quantile(measured[part].gaps, q / 100)),
        })),
      },
    ],
    raw: { size, measured },
  };
}
