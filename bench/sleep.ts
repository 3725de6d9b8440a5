import { setTimeout as sleep } from "node:timers/promises";
import { Agent } from "undici";
import { type Answer, type LoadUser, ok } from "./load-client.ts";
import { BenchCluster, STILL } from "./lib/cluster.ts";
import { cpuSecondsOf, familyOf, memoryOf } from "./lib/processes.ts";
import { registerSleeping } from "./lib/registered.ts";
import { type Bench, type BenchOptions, type BenchResult, type Figure, quantile } from "./lib/result.ts";
import { createTenants, fallAsleep, inTurns, untilPhase, untilShards, usersOf } from "./lib/tenants.ts";

interface Size {
  awake: number;
  perShard: number;
  /** Registered, those that are awake among them; and the same with very many. */
  registered: number;
  many: number;
  /** How often those that sleep are woken one by one, and all at once. */
  alone: number;
  together: number;
  /** The same where a shard has to be made first. */
  aloneOnNew: number;
  togetherOnNew: number;
  settleSeconds: number;
  restSeconds: number;
}
const FULL: Size = {
  awake: 100,
  perShard: 25,
  registered: 1_000,
  many: 10_000,
  alone: 3,
  together: 4,
  aloneOnNew: 10,
  togetherOnNew: 3,
  settleSeconds: 60,
  restSeconds: 30,
};
const QUICK: Size = {
  awake: 6,
  perShard: 3,
  registered: 60,
  many: 600,
  alone: 1,
  together: 1,
  aloneOnNew: 1,
  togetherOnNew: 1,
  settleSeconds: 5,
  restSeconds: 5,
};
const MIB = 1024 * 1024;
/** Between two wakes that are to have nothing to do with each other. */
const APART_MS = 300;
const SLEPT_AT_ONCE = 3;

export const bench: Bench = {
  name: "sleep",
  title: "Tenants that sleep: what a registered one costs, and how fast one wakes",
  async run({ quick, log }: BenchOptions): Promise<BenchResult> {
    const size = quick ? QUICK : FULL;
    log("bringing up a whole cluster");
    const cluster = await BenchCluster.up({
      maxTenantsPerShard: size.perShard,
      maxShardsPerSynapseImageTag: size.awake / size.perShard + 1,
      avgShardsLoadRedistributionThreshold: 0,
      consolidateAfterSeconds: 2,
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

/** A sleep or a wake, as its client sees it; seconds. */
interface Wakes {
  alone: number[];
  together: number[];
  aloneOnNew: number[];
  togetherOnNew: number[];
  /** Of a request that came while its tenant fell asleep. */
  falling: number[];
  failed: Answer[];
}

/** Bytes, by what the processes are. */
type Memory = Record<"controller" | "gateway" | "supervisor" | "shards" | "fork server", number>;

interface Measured {
  registered: Memory;
  many: Memory;
  /** Shares of a core with very many registered. */
  rest: { controller: number; gateway: number };
  wakes: Wakes;
}

async function measure(cluster: BenchCluster, size: Size, log: (line: string) => void): Promise<Measured> {
  const world = new Tenants(cluster, size.perShard);
  log(`creating ${size.awake} tenants that stay awake, and ${size.perShard} others`);
  await world.create(size.awake);
  await world.create(size.perShard, "late");
  await world.users();

  log(`waking: ${size.perShard} that sleep, on shards that run`);
  const wakes = await world.wakes(size, log);

  const seeded = size.registered - size.awake - size.perShard;
  log(`${size.registered} registered, ${size.awake} of them awake`);
  await world.sleepAll("late");
  await cluster.restart(0, () => registerSleeping(cluster.dataDir, "late-0", seeded));
  await world.untilAwake();
  await sleep(size.settleSeconds * 1000);
  const registered = await memoryOfAll(cluster);
  log(`MiB: ${inMib(registered)}`);

  log(`${size.many} registered`);
  await cluster.restart(0, () => registerSleeping(cluster.dataDir, "late-0", size.many - size.registered, seeded));
  await world.untilAwake();
  await sleep(size.settleSeconds * 1000);
  const many = await memoryOfAll(cluster);
  const pids = [await cluster.pidOf("controller"), await cluster.pidOf("gateway")];
  const cpu = () => Promise.all(pids.map(cpuSecondsOf));
  const before = await cpu();
  await sleep(size.restSeconds * 1000);
  const [controller = 0, gateway = 0] = (await cpu()).map((used, index) => (used - before[index]!) / size.restSeconds);
  return { registered, many, rest: { controller, gateway }, wakes };
}

async function memoryOfAll(cluster: BenchCluster): Promise<Memory> {
  const memory: Memory = { controller: 0, gateway: 0, supervisor: 0, shards: 0, "fork server": 0 };
  for (const { pid, command, name } of await familyOf(cluster.pid)) {
    // The database server is the same, however homeservers are run.
    if (name.startsWith("postgres")) continue;
    const what: keyof Memory = command.includes("controller-main.ts")
      ? "controller"
      : command.includes("gateway/main.ts")
        ? "gateway"
        : command.includes("fork_server")
          ? "fork server"
          : command.includes("multi_synapse")
            ? "shards"
            : "supervisor";
    // One that ended since, such as a connection's, has none.
    memory[what] += await memoryOf(pid).then(
      ({ pss }) => pss,
      () => 0,
    );
  }
  return memory;
}

function inMib(memory: Memory): string {
  return Object.entries(memory)
    .map(([what, bytes]) => `${what} ${(bytes / MIB).toFixed(0)}`)
    .join(", ");
}

class Tenants {
  readonly #cluster: BenchCluster;
  readonly #perShard: number;
  readonly #agent = new Agent({ connections: 256 });
  readonly #names: string[] = [];
  #users = new Map<string, LoadUser>();

  constructor(cluster: BenchCluster, perShard: number) {
    this.#cluster = cluster;
    this.#perShard = perShard;
  }

  async create(count: number, prefix = "awake"): Promise<void> {
    const names = Array.from({ length: count }, (_, index) => `${prefix}-${index}`);
    const begun = this.#names.length;
    this.#names.push(...names);
    await createTenants(this.#cluster, names);
    if (begun === 0) await this.untilAwake();
  }

  /** One for each of those that are woken: the late ones, and as many of the others, of every shard. */
  async users(): Promise<void> {
    this.#users = await usersOf(this.#cluster, [...this.#late(), ...this.#early()], this.#agent);
  }

  async wakes(size: Size, log: (line: string) => void): Promise<Wakes> {
    const found: Wakes = { alone: [], together: [], aloneOnNew: [], togetherOnNew: [], falling: [], failed: [] };
    const note = (into: number[], answer: Answer): void => {
      if (ok(answer)) into.push((answer.answered - answer.sent) / 1000);
      else found.failed.push(answer);
    };
    const one = async (name: string, into: number[]) => note(into, await this.#user(name).whoami());
    // The late ones first leave their shard, which then is given up.
    await this.sleepAll("late");
    await untilShards(this.#cluster, size.awake / this.#perShard);
    log("on a new shard");
    for (let round = 0; round < size.aloneOnNew; round++) {
      await one("late-0", found.aloneOnNew);
      await fallAsleep(this.#cluster, "late-0");
      await untilShards(this.#cluster, size.awake / this.#perShard);
    }
    for (let round = 0; round < size.togetherOnNew; round++) {
      await Promise.all(this.#late().map((name) => one(name, found.togetherOnNew)));
      await this.sleepAll("late");
      await untilShards(this.#cluster, size.awake / this.#perShard);
    }
    log(`${inShort(found.aloneOnNew)}; together ${inShort(found.togetherOnNew)}; on shards that run`);
    const early = this.#early();
    for (let round = 0; round < size.alone; round++) {
      await inTurns(early, SLEPT_AT_ONCE, (name) => fallAsleep(this.#cluster, name));
      for (const name of early) {
        await sleep(APART_MS);
        await one(name, found.alone);
      }
    }
    for (let round = 0; round < size.together; round++) {
      await inTurns(early, SLEPT_AT_ONCE, (name) => fallAsleep(this.#cluster, name));
      await sleep(APART_MS);
      await Promise.all(early.map((name) => one(name, found.together)));
    }
    log(`${inShort(found.alone)}; together ${inShort(found.together)}; while they fall asleep`);
    for (let round = 0; round < size.together; round++) {
      for (const [index, name] of early.entries()) {
        const falls = this.#cluster.ask("POST", `/v1/tenants/${name}/sleep`);
        await sleep(((index * 7 + round * 3) % 40) * 10);
        await one(name, found.falling);
        await falls;
        // One that was answered just before is no reason to stay awake.
        await this.#cluster.ask("POST", `/v1/tenants/${name}/wake`);
        await untilPhase(this.#cluster, name, "Running");
      }
    }
    return found;
  }

  async sleepAll(prefix: "late"): Promise<void> {
    const names = this.#names.filter((name) => name.startsWith(prefix));
    await inTurns(names, SLEPT_AT_ONCE, (name) => fallAsleep(this.#cluster, name));
  }

  async untilAwake(): Promise<void> {
    for (const name of this.#names) if (name.startsWith("awake")) await untilPhase(this.#cluster, name, "Running");
  }

  #late(): string[] {
    return this.#names.filter((name) => name.startsWith("late"));
  }

  /** As many as a shard holds, evenly of all shards. */
  #early(): string[] {
    const names = this.#names.filter((name) => name.startsWith("awake"));
    return names.filter((_, index) => index % (names.length / this.#perShard) < 1);
  }

  #user(name: string): LoadUser {
    const user = this.#users.get(name);
    if (!user) throw new Error(`${name} has no user`);
    return user;
  }
}

function inShort(samples: number[]): string {
  return `p50 ${quantile(samples, 0.5).toFixed(2)} s, p99 ${quantile(samples, 0.99).toFixed(2)} s`;
}

function report(size: Size, { registered, many, rest, wakes }: Measured): BenchResult {
  const total = (memory: Memory) => Object.values(memory).reduce((sum, bytes) => sum + bytes, 0);
  const shards = size.awake / size.perShard;
  const time = (what: string, samples: number[], q: number, most?: number): Figure => ({
    what: `${what}, p${q * 100}`,
    value: quantile(samples, q),
    unit: "s",
    ...(most === undefined ? {} : { target: { at: "most" as const, value: most } }),
    note: `${samples.length} times`,
  });
  const both = (what: string, samples: number[]): Figure[] => [
    time(what, samples, 0.5, 0.5),
    time(what, samples, 0.99, 2),
  ];
  const together = `${size.perShard} at once`;
  const figures: Figure[] = [
    {
      what: `memory by registered tenant, ${size.registered} registered and ${size.awake} awake`,
      value: total(registered) / size.registered / MIB,
      unit: "MiB PSS",
      target: { at: "most", value: 0.5 },
      note: `all processes but PostgreSQL's, on ${shards} shards; MiB: ${inMib(registered)}`,
    },
    {
      what: `memory of one more registered tenant, which sleeps`,
      value: (total(many) - total(registered)) / (size.many - size.registered) / 1024,
      unit: "KiB PSS",
      note: `${size.many} registered; MiB: ${inMib(many)}`,
    },
    {
      what: `processor time of the controller at rest, ${size.many} registered`,
      value: rest.controller * 100,
      unit: "% of a core",
      note: `${size.awake} awake on ${shards} shards`,
    },
    {
      what: `processor time of the gateway at rest, ${size.many} registered`,
      value: rest.gateway * 100,
      unit: "% of a core",
      target: { at: "most", value: 1 },
    },
    ...both("wake to the answer, alone, on a shard that runs", wakes.alone),
    ...both(`wake to the answer, ${together}, on shards that run`, wakes.together),
    ...both("wake to the answer, alone, on a new shard", wakes.aloneOnNew),
    ...both(`wake to the answer, ${together}, on a new shard`, wakes.togetherOnNew),
    time("a request that comes while its tenant falls asleep", wakes.falling, 0.5),
    time("a request that comes while its tenant falls asleep", wakes.falling, 0.99, 2),
    {
      what: "failed requests",
      value: wakes.failed.length,
      unit: "requests",
      target: { at: "most", value: 0 },
      note: `of ${Object.values(wakes).reduce((sum, list) => sum + list.length, 0)}`,
    },
  ];
  const shares = Array.from({ length: 101 }, (_, percent) => percent);
  const series = (name: string, samples: number[]) => ({ name, values: shares.map((q) => quantile(samples, q / 100)) });
  return {
    name: bench.name,
    title: bench.title,
    figures,
    plots: [
      {
        title: "From a request to its answer by a tenant that slept",
        x: { label: "percentile", values: shares },
        y: { label: "seconds" },
        series: [
          series("alone, shard that runs", wakes.alone),
          series(`${together}, shards that run`, wakes.together),
          series("alone, new shard", wakes.aloneOnNew),
          series(`${together}, new shard`, wakes.togetherOnNew),
        ],
      },
    ],
    raw: { size, registered, many, rest, wakes },
  };
}
