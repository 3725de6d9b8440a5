import { setTimeout as sleep } from "node:timers/promises";
import { Agent } from "undici";
import type { TenantView } from "../src/api/views.ts";
import { DEFAULT_RELEASE } from "../src/platforms/local/toolchain/toolchain.ts";
import { BenchCluster, STILL } from "./lib/cluster.ts";
import { type Bench, type BenchOptions, type BenchResult, type Figure, quantile } from "./lib/result.ts";
import {
  Asking,
  createTenants,
  fallAsleep,
  inTurns,
  shardsOf,
  STEP_MS,
  untilPhase,
  untilShards,
  usersOf,
} from "./lib/tenants.ts";
import { type LoadUser, ok } from "./load-client.ts";

interface Size {
  tenants: number;
  perShard: number;
  restarts: number;
  drains: number;
}
const FULL: Size = { tenants: 100, perShard: 25, restarts: 3, drains: 5 };
const QUICK: Size = { tenants: 6, perShard: 3, restarts: 1, drains: 1 };

/** A release that can read the same databases. */
const OLDER_RELEASE = "1.157.2";
const ASK_EVERY_MS = 500;
const LOOK_EVERY_MS = 100;
const CALM_MS = 3_000;
/** Many tenants change at once. */
const UPGRADE_MS = 600_000;
const CALLS_AT_ONCE = 10;

export const bench: Bench = {
  name: "fleet",
  title: "Many tenants at once: a restart of the whole cluster, a drain, an upgrade",
  async run({ quick, log }: BenchOptions): Promise<BenchResult> {
    const size = quick ? QUICK : FULL;
    log("bringing up a whole cluster");
    const cluster = await BenchCluster.up({
      maxTenantsPerShard: size.perShard,
      maxShardsPerSynapseImageTag: size.tenants / size.perShard + 1,
      avgShardsLoadRedistributionThreshold: 0,
      consolidateAfterSeconds: 2,
      ...STILL,
      tenantPolicy: { allowedOptions: ["rc_login"] },
    });
    const agent = new Agent({ connections: 512 });
    try {
      return report(size, await measure(cluster, agent, size, log));
    } finally {
      await agent.destroy();
      await cluster.close();
    }
  },
};

interface Change {
  seconds: number;
  requests: number;
  failed: string[];
}

interface Measured {
  /** From the command to the good answer of each tenant, all of them asked at once; and of the first one alone, while all sleep. Seconds. */
  up: number[];
  firstUp: number[];
  upWhileAsleep: number[];
  drains: Change[];
  upgrade: Change;
}

async function measure(
  cluster: BenchCluster,
  agent: Agent,
  size: Size,
  log: (line: string) => void,
): Promise<Measured> {
  const names = Array.from({ length: size.tenants }, (_, index) => `clinic-${index}`);
  log(`creating ${size.tenants} tenants of Synapse ${OLDER_RELEASE}`);
  await createTenants(cluster, names, { release: OLDER_RELEASE });
  const users = await usersOf(cluster, names, agent);

  const drains: Change[] = [];
  for (let drain = 0; drain < size.drains; drain++) {
    const shard = (await shardsOf(cluster)).find(({ tenants }) => tenants.length === size.perShard)!;
    const some = new Map([...users].filter(([name]) => shard.tenants.includes(name)));
    const begin = () => cluster.call("POST", `/v1/shards/${shard.metadata.name}/drain`);
    const isDone = async () => {
      const left = (await shardsOf(cluster)).find(({ metadata }) => metadata.name === shard.metadata.name);
      return (left?.tenants.length ?? 0) === 0;
    };
    drains.push(await underLoad(some, begin, isDone));
    for (const name of names) await untilPhase(cluster, name, "Running");
    await untilShards(cluster, size.tenants / size.perShard);
  }
  log(`drains: ${drains.map(({ seconds }) => seconds.toFixed(1)).join(", ")} s`);

  const release = DEFAULT_RELEASE;
  const begin = () =>
    inTurns(
      names,
      CALLS_AT_ONCE,
      async (name) => void (await cluster.call("PATCH", `/v1/tenants/${name}`, { release })),
    );
  const upgrade = await underLoad(users, begin, async () => {
    const shards = await shardsOf(cluster);
    const upgraded = shards.filter(({ spec }) => spec.release === release).flatMap(({ tenants }) => tenants);
    if (upgraded.length < names.length) return false;
    const { items } = await cluster.call<{ items: TenantView[] }>("GET", `/v1/tenants?limit=${names.length}`);
    return items.every(({ status }) => status.phase === "Running");
  });
  log(`upgrade: ${upgrade.seconds.toFixed(1)} s, ${upgrade.failed.length} failed`);

  const [up, firstUp] = [[], []] as [number[], number[]];
  for (let restart = 0; restart < size.restarts; restart++) {
    const took = await restarted(cluster, users);
    up.push(...took);
    firstUp.push(Math.min(...took));
    for (const name of names) await untilPhase(cluster, name, "Running");
  }
  log(`up: first ${quantile(firstUp, 0.5).toFixed(1)} s, all ${quantile(up, 1).toFixed(1)} s`);

  const upWhileAsleep: number[] = [];
  for (let restart = 0; restart < size.restarts; restart++) {
    await inTurns(names, 3, (name) => fallAsleep(cluster, name));
    const [first] = users;
    upWhileAsleep.push(...(await restarted(cluster, new Map([first!]))));
  }
  log(`up while all sleep: ${quantile(upWhileAsleep, 0.5).toFixed(1)} s`);
  return { up, firstUp, upWhileAsleep, drains, upgrade };
}

/** Ends and starts the cluster, and asks each user's tenant as soon as anything listens. @returns seconds from the start to each good answer */
async function restarted(cluster: BenchCluster, users: ReadonlyMap<string, LoadUser>): Promise<number[]> {
  let begun = 0;
  let served: Promise<number[]> | undefined;
  await cluster.restart(0, async () => {
    begun = performance.now();
    served = Promise.all([...users.values()].map((user) => firstGood(user, begun)));
  });
  return served!;
}

async function firstGood(user: LoadUser, begun: number): Promise<number> {
  for (const deadline = Date.now() + STEP_MS; Date.now() < deadline; await sleep(LOOK_EVERY_MS)) {
    const answer = await user.whoami();
    if (ok(answer)) return (answer.answered - begun) / 1000;
  }
  throw new Error(`a tenant did not serve within ${STEP_MS / 1000} s`);
}

async function underLoad(
  users: ReadonlyMap<string, LoadUser>,
  begin: () => Promise<unknown>,
  isDone: () => Promise<boolean>,
): Promise<Change> {
  const asking = new Asking(users, ASK_EVERY_MS);
  await sleep(CALM_MS);
  const begun = performance.now();
  await begin();
  for (const deadline = Date.now() + UPGRADE_MS; !(await isDone()); await sleep(LOOK_EVERY_MS))
    if (Date.now() > deadline) throw new Error(`not done within ${UPGRADE_MS / 1000} s`);
  const seconds = (performance.now() - begun) / 1000;
  await sleep(CALM_MS);
  await asking.end();
  return {
    seconds,
    requests: asking.count(begun),
    failed: asking.failed(begun).map(({ status, what }) => `${status} ${what}`),
  };
}

function report(size: Size, { up, firstUp, upWhileAsleep, drains, upgrade }: Measured): BenchResult {
  const atMost = (value: number) => ({ target: { at: "most" as const, value } });
  const failures = (what: string, changes: Change[]): Figure => ({
    what: `${what}: failed requests`,
    value: changes.flatMap(({ failed }) => failed).length,
    unit: "requests",
    ...atMost(0),
    note: `of ${changes.reduce((sum, { requests }) => sum + requests, 0)}`,
  });
  const load = "each tenant has a client that asks twice a second";
  const drained = drains.map(({ seconds }) => seconds);
  const figures: Figure[] = [
    {
      what: `drain of a shard of ${size.perShard}, median`,
      value: quantile(drained, 0.5),
      unit: "s",
      ...atMost(5),
      note: `${drains.length} times; ${load}`,
    },
    { what: `drain of a shard of ${size.perShard}, worst`, value: quantile(drained, 1), unit: "s" },
    failures("drain", drains),
    {
      what: `upgrade of ${size.tenants} tenants to another release`,
      value: upgrade.seconds,
      unit: "s",
      ...atMost(60),
      note: `Synapse ${OLDER_RELEASE} to ${DEFAULT_RELEASE}; ${load}`,
    },
    failures("upgrade", [upgrade]),
    {
      what: `\`up\` with ${size.tenants} tenants that are all asked: the first serves`,
      value: quantile(firstUp, 0.5),
      unit: "s",
      note: `median of ${firstUp.length}`,
    },
    {
      what: `\`up\` with ${size.tenants} tenants that are all asked: median tenant serves`,
      value: quantile(up, 0.5),
      unit: "s",
    },
    {
      what: `\`up\` with ${size.tenants} tenants that are all asked: all serve`,
      value: quantile(up, 1),
      unit: "s",
      ...atMost(15),
      note: `the worst of ${firstUp.length} times`,
    },
    {
      what: `\`up\` with ${size.tenants} tenants that sleep: one that is asked serves`,
      value: quantile(upWhileAsleep, 0.5),
      unit: "s",
      ...atMost(3),
      note: `median of ${upWhileAsleep.length}`,
    },
  ];
  const shares = Array.from({ length: 101 }, (_, percent) => percent);
  return {
    name: bench.name,
    title: bench.title,
    figures,
    plots: [
      {
        title: `From the start of the cluster until a tenant serves, ${size.tenants} tenants`,
        x: { label: "share of tenants, %", values: shares },
        y: { label: "seconds" },
        series: [{ name: "all asked at once", values: shares.map((q) => quantile(up, q / 100)) }],
      },
    ],
    raw: { size, up, firstUp, upWhileAsleep, drains, upgrade },
  };
}
