import { setTimeout as sleep } from "node:timers/promises";
import { request } from "undici";
import { BenchCluster } from "./lib/cluster.ts";
import { listenerHeaders } from "./lib/listener.ts";
import { type Bench, type BenchOptions, type BenchResult, type Figure, type Plot, quantile } from "./lib/result.ts";
import type { RunningShard } from "./lib/shard.ts";
import { median } from "./lib/statistics.ts";
import type { BenchTenant } from "./lib/tenant.ts";
import { World } from "./lib/world.ts";

interface Size {
  neighbours: number;
  starts: number;
  fresh: number;
  migrations: number;
  created: number;
}
const FULL: Size = { neighbours: 24, starts: 60, fresh: 20, migrations: 10, created: 10 };
const QUICK: Size = { neighbours: 3, starts: 5, fresh: 3, migrations: 2, created: 3 };

/** Started and stopped in turn, so that no tenant profits from its own last start. */
const ROTATING = 5;
/** A release whose schema is one version older than the default release's. */
const OLDER_RELEASE = "1.150.0";
/** A stopped tenant's garbage is collected a second later: that stall is a part of the stop. */
const AFTER_STOP_MS = 1_300;
/** Work that a start leaves behind comes immediately. */
const AFTER_START_MS = 200;
const MS = 1000;

export const bench: Bench = {
  name: "start",
  title: "Starting a tenant, and what its neighbours notice of it",
  async run({ quick, log }: BenchOptions): Promise<BenchResult> {
    const size = quick ? QUICK : FULL;
    const inShard = await World.with(log, (world) => measureShard(world, size, log));
    log("bringing up a whole cluster");
    const cluster = await BenchCluster.up();
    try {
      return report(size, inShard, await measureCreate(cluster, size, log));
    } finally {
      await cluster.close();
    }
  },
};

/** Seconds each. */
interface InShard {
  existing: number[];
  /** Including the first answered request. */
  existingAnswered: number[];
  stop: number[];
  provision: number[];
  fresh: number[];
  migrate: number[];
  /** Longest stall of the reactor in each start, stop and migration, and in an equal time without any. */
  stalls: { start: number[]; stop: number[]; fresh: number[]; migrate: number[]; none: number[] };
}

async function measureShard(world: World, size: Size, log: (line: string) => void): Promise<InShard> {
  log(`starting ${size.neighbours} neighbours`);
  const shard = await world.shard("shard");
  await shard.startAll(await world.tenants("neighbour", size.neighbours));
  const rotating = await world.tenants("rotating", ROTATING);
  // The first start is different: it claims a fence that does not exist yet.
  for (const tenant of rotating) {
    await shard.start(tenant);
    await shard.stopTenant(tenant);
  }
  await sleep(6_000); // the neighbours have been frozen, and what has been stopped is collected
  const measured: InShard = {
    existing: [],
    existingAnswered: [],
    stop: [],
    provision: [],
    fresh: [],
    migrate: [],
    stalls: { start: [], stop: [], fresh: [], migrate: [], none: [] },
  };
  const { stalls } = measured;
  for (let index = 0; index < size.starts / 3; index++)
    stalls.none.push((await stallDuring(shard, () => sleep(AFTER_STOP_MS / 2))).stall);

  log(`${size.starts} starts and stops beside them`);
  for (let index = 0; index < size.starts; index++) {
    const tenant = rotating[index % ROTATING]!;
    const started = await stallDuring(shard, () => startAndAsk(shard, tenant), AFTER_START_MS);
    stalls.start.push(started.stall);
    measured.existing.push(started.value.started);
    measured.existingAnswered.push(started.value.answered);
    await stopMeasured(shard, tenant, measured);
  }

  log(`${size.fresh} starts of new tenants, with a database made from the template`);
  for (let index = 0; index < size.fresh; index++) {
    const tenant = world.newTenant(`fresh-${index}`);
    const { value, stall } = await stallDuring(shard, () => provisionAndStart(world, shard, tenant), AFTER_START_MS);
    stalls.fresh.push(stall);
    measured.provision.push(value.provisioned);
    measured.fresh.push(value.started);
    await stopMeasured(shard, tenant, measured);
  }

  log(`${size.migrations} starts of databases of Synapse ${OLDER_RELEASE}`);
  await world.makeTemplate(OLDER_RELEASE);
  for (let index = 0; index < size.migrations; index++) {
    const tenant = await world.tenant(`older-${index}`, OLDER_RELEASE);
    const { value, stall } = await stallDuring(shard, () => migrateAndStart(world, shard, tenant), AFTER_START_MS);
    stalls.migrate.push(stall);
    measured.migrate.push(value);
    await shard.stopTenant(tenant);
    await sleep(AFTER_STOP_MS);
  }
  await shard.stop();
  return measured;
}

/** The longest time for which the shard's reactor, and so each of its tenants, stood still during `work`. */
async function stallDuring<T>(
  shard: RunningShard,
  work: () => Promise<T>,
  afterMs = 0,
): Promise<{ value: T; stall: number }> {
  await shard.stats();
  const value = await work();
  await sleep(afterMs);
  return { value, stall: (await shard.stats()).reactorLag.maxSeconds };
}

async function stopMeasured(shard: RunningShard, tenant: BenchTenant, measured: InShard): Promise<void> {
  const { value, stall } = await stallDuring(shard, () => timed(() => shard.stopTenant(tenant)), AFTER_STOP_MS);
  measured.stop.push(value);
  measured.stalls.stop.push(stall);
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const begun = performance.now();
  await work();
  return (performance.now() - begun) / MS;
}

async function startAndAsk(shard: RunningShard, tenant: BenchTenant): Promise<{ started: number; answered: number }> {
  const begun = performance.now();
  const url = await shard.start(tenant);
  const started = (performance.now() - begun) / MS;
  const { statusCode, body } = await request(`${url}/_matrix/client/versions`, { headers: listenerHeaders(url) });
  await body.dump();
  if (statusCode !== 200) throw new Error(`tenant ${tenant.name} answered with ${statusCode}`);
  return { started, answered: (performance.now() - begun) / MS };
}

async function provisionAndStart(
  world: World,
  shard: RunningShard,
  tenant: BenchTenant,
): Promise<{ provisioned: number; started: number }> {
  const begun = performance.now();
  await world.provision(tenant);
  const provisioned = (performance.now() - begun) / MS;
  await shard.start(tenant);
  return { provisioned, started: (performance.now() - begun) / MS };
}

/** As the controller does it: the schema is migrated in a process of its own, which the neighbours may notice too. */
async function migrateAndStart(world: World, shard: RunningShard, tenant: BenchTenant): Promise<number> {
  const assignment = tenant.assignment();
  return timed(async () => {
    const preparer = await world.preparer();
    try {
      const { from, to } = await preparer.migrate({
        name: tenant.name,
        shard: shard.name,
        instance: "bench",
        assignment,
      });
      if (from === to)
        throw new Error(`the database of ${tenant.name} had schema ${from} already: nothing was migrated`);
    } finally {
      await preparer.close();
    }
    await shard.control.startTenant(tenant.name, assignment);
  });
}

/** Seconds each. */
interface Created {
  /** The first one waits for a shard's process and for the template. */
  first: number;
  others: number[];
}

/** From pressing Enter on `tenant create` to a client's answered request, through the gateway. */
async function measureCreate(cluster: BenchCluster, size: Size, log: (line: string) => void): Promise<Created> {
  const create = async (name: string) =>
    timed(async () => {
      const command = cluster.cli("tenant", "create", name);
      await Promise.all([command, cluster.untilAnswered(`${name}.localhost`)]);
    });
  log("the first tenant");
  const first = await create("first");
  log(`${size.created} more`);
  const others: number[] = [];
  for (let index = 0; index < size.created; index++) others.push(await create(`more-${index}`));
  return { first, others };
}

function report(size: Size, inShard: InShard, created: Created): BenchResult {
  const { stalls } = inShard;
  const beside = `beside ${size.neighbours} idle neighbours`;
  const seconds = (what: string, samples: number[], q: number, most?: number, note?: string): Figure => ({
    what: `${what}, p${q * 100}`,
    value: quantile(samples, q),
    unit: "s",
    ...(most === undefined ? {} : { target: { at: "most" as const, value: most } }),
    note: `${samples.length} times${note ? `; ${note}` : ""}`,
  });
  const stall = (what: string, samples: number[], bounded = true): Figure => ({
    what: `longest stall of neighbours ${what}, p99`,
    value: quantile(samples, 0.99) * MS,
    unit: "ms",
    ...(bounded ? { target: { at: "most" as const, value: 50 } } : {}),
    note: `${samples.length} times; median ${(median(samples) * MS).toFixed(1)}, most ${(Math.max(...samples) * MS).toFixed(1)}`,
  });
  const figures: Figure[] = [
    seconds("start on an existing database", inShard.existing, 0.5, 0.3, beside),
    seconds("start on an existing database", inShard.existing, 0.95, 0.6, beside),
    seconds("the same, to the first answered request", inShard.existingAnswered, 0.5),
    seconds(
      "start of a new tenant, database from the template",
      inShard.fresh,
      0.5,
      0.5,
      `of it the database: ${median(inShard.provision).toFixed(2)} s`,
    ),
    seconds("start of a new tenant, database from the template", inShard.fresh, 0.95),
    seconds(
      "`tenant create` to the first answered request",
      created.others,
      0.5,
      2,
      "command line, controller, gateway",
    ),
    {
      what: "`tenant create` to the first answered request, worst",
      value: Math.max(...created.others),
      unit: "s",
      target: { at: "most", value: 2 },
    },
    {
      what: "the same for a cluster's first tenant",
      value: created.first,
      unit: "s",
      note: "starts the first shard, and makes the release's template",
    },
    seconds("stop", inShard.stop, 0.5),
    seconds(
      `start with a schema migration from Synapse ${OLDER_RELEASE}`,
      inShard.migrate,
      0.5,
      undefined,
      "with the migrating process's own start",
    ),
    stall("while one starts", stalls.start),
    stall("while one stops", stalls.stop),
    stall("while a new one starts", stalls.fresh),
    stall("while one's schema is migrated, and it starts", stalls.migrate),
    stall("while nothing happens", stalls.none, false),
  ];
  const plots = [
    distribution("Start of a tenant", "ms", {
      "existing database": inShard.existing,
      "new, from template": inShard.fresh,
      stop: inShard.stop,
    }),
    distribution("Longest stall of the neighbours", "ms", {
      start: stalls.start,
      stop: stalls.stop,
      "new tenant": stalls.fresh,
      migration: stalls.migrate,
      nothing: stalls.none,
    }),
  ];
  return { name: bench.name, title: bench.title, figures, plots, raw: { size, inShard, created } };
}

/** All percentiles of each series, side by side. */
function distribution(title: string, unit: string, samples: Record<string, number[]>): Plot {
  const percentiles = Array.from({ length: 101 }, (_, percent) => percent);
  return {
    title,
    x: { label: "percentile", values: percentiles },
    y: { label: unit },
    series: Object.entries(samples).map(([name, values]) => ({
      name,
      values: percentiles.map((percent) => quantile(values, percent / 100) * MS),
    })),
  };
}
