import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { identifier, literal, withConnection } from "../src/database/connection.ts";
import { startPostgres } from "../src/platforms/local/postgres/postgres.ts";
import { ensurePostgres } from "../src/platforms/local/toolchain/toolchain.ts";
import type { SynapseTenant } from "../src/platforms/kubernetes/store/resources.ts";
import { onEnd } from "./lib/cleanup.ts";
import { ControlPlane, findPrograms } from "./lib/control-plane.ts";
import { ControllerReplica, TOKENS } from "./lib/controller-replica.ts";
import { cpuSecondsOf, peakOf, memoryOf } from "./lib/processes.ts";
import { type Bench, type BenchOptions, type BenchResult, type Figure, quantile } from "./lib/result.ts";
import { SimulatedFleet } from "./lib/simulated-fleet.ts";
import { loopbackIp, SimulatedShards } from "./lib/simulated-shards.ts";

const PER_SHARD = 25;
/** After a start, until each shard has been asked twice and its load is known, and memory of the start is given back. */
const SETTLE_SECONDS = 100;
const AT_REST_SECONDS = 120;
const CHANGES = 20;
const WITHIN_MS = 600_000;
const MIB = 1024 ** 2;
const CLUSTER = { clusterId: "scale", namespace: "scale" };

/** Kubernetes' own writes, such as leases of the API server, are no part of what a tenant costs. */
const TENANTS_OWN = /^(POST|PUT|PATCH|APPLY|DELETE) (synapsetenants|secrets)/;
const READS_NOTHING = /^WATCH /;

/**
 * The controller as it is on Kubernetes, on a real API server with very many tenants. Only the shards are simulated: they answer, by HTTP, at the
 * addresses that their pods have.
 */
export const bench: Bench = {
  name: "kubernetes",
  title: "The controller on a Kubernetes API server with very many tenants",
  async run({ quick, log }: BenchOptions): Promise<BenchResult> {
    const programs = findPrograms();
    if ("missing" in programs) throw new Error(programs.missing);
    const tenants = Number(process.env["BENCH_TENANTS"] ?? (quick ? 500 : 20_000));
    const directory = await mkdtemp(join(tmpdir(), "synapse-shards-bench-"));
    onEnd(() => rm(directory, { recursive: true, force: true }));
    const database = await startDatabases(directory, CHANGES);
    const plane = await ControlPlane.start(directory, programs);
    const fleet = new SimulatedFleet({ ...CLUSTER, tenants, perShard: PER_SHARD, database, podIp: loopbackIp });
    const shards = await SimulatedShards.start(fleet);
    await fleet.make(plane.client, log);
    await plane.client.create(fleet.secretPath(), TOKENS);
    const measured = await measure({ quick, log, plane, fleet, shards, directory });
    return { name: this.name, title: this.title, figures: figuresOf(measured, fleet), plots: [], raw: measured };
  },
};

interface Parts extends BenchOptions {
  plane: ControlPlane;
  fleet: SimulatedFleet;
  shards: SimulatedShards;
  directory: string;
}

async function measure({ quick, log, plane, fleet, shards, directory }: Parts) {
  const etcdMiB = (await plane.etcdBytes()) / MIB;
  const apiServerBefore = await memoryOf(plane.apiServer);
  const config = {
    ...CLUSTER,
    maxShardsPerSynapseImageTag: fleet.shards,
    maxTenantsPerShard: PER_SHARD,
    // Nobody uses them: they would all fall asleep, and be brought together on fewer shards.
    hibernation: { afterIdleSeconds: 0 },
    avgShardsLoadRedistributionThreshold: 0,
  };
  const kubeconfig = await plane.kubeconfig();
  const start = () => ControllerReplica.start(directory, kubeconfig, config);
  const last = fleet.nameOf(fleet.options.tenants - 1);
  const allAsked = async () => shards.timesAsked > 0;

  const leader = await start();
  const startSeconds = await leader.leads(last, WITHIN_MS);
  log(`leads, and has read all, after ${startSeconds.toFixed(1)} s`);
  await leader.until("knew all shards", WITHIN_MS, allAsked);
  const allKnownSeconds = (performance.now() - leader.begunAt) / 1000;
  const startCpu = await cpuSecondsOf(leader.pid);
  const startPeak = await peakOf(leader.pid);
  log(
    `knows all shards after ${allKnownSeconds.toFixed(1)} s; ${startCpu.toFixed(1)} s of a core, at most ${(startPeak / MIB).toFixed(0)} MiB`,
  );
  const standby = await start();
  await standby.answers(last, WITHIN_MS);
  await sleep((quick ? 15 : SETTLE_SECONDS) * 1000);

  const atRest = await rest(
    plane,
    { leader: leader.pid, standby: standby.pid, apiServer: plane.apiServer, etcd: plane.etcd },
    quick,
  );
  const memory = { leader: await memoryOf(leader.pid), standby: await memoryOf(standby.pid) };
  const apiServerAfter = await memoryOf(plane.apiServer);
  const etcd = await memoryOf(plane.etcd);
  log(`at rest: ${(atRest.cpu.leader * 100).toFixed(1)} % of a core, ${(memory.leader.pss / MIB).toFixed(0)} MiB`);

  const before = { cpu: await cpuSecondsOf(leader.pid), requests: await plane.requests() };
  const changes: number[] = [];
  for (let tenant = 0; tenant < CHANGES; tenant++) changes.push(await change(plane, fleet, tenant));
  const [changesCpu, requests] = [
    (await cpuSecondsOf(leader.pid)) - before.cpu,
    difference(before.requests, await plane.requests()),
  ];
  log(`a changed configuration takes ${quantile(changes, 0.5).toFixed(2)} s`);
  const complaints = await leader.complaints();

  shards.forget();
  const killedAt = performance.now();
  const since = () => (performance.now() - killedAt) / 1000;
  await leader.kill();
  await standby.leads(last, WITHIN_MS);
  const failoverSeconds = since();
  await standby.until("knew all shards", WITHIN_MS, allAsked);
  const failoverAllKnownSeconds = since();
  log(`another leads, and has read all, ${failoverSeconds.toFixed(1)} s after the leader was killed`);
  return {
    tenants: fleet.options.tenants,
    etcdMiB,
    startSeconds,
    allKnownSeconds,
    startCpu,
    startPeak,
    atRest,
    memory,
    apiServer: { before: apiServerBefore, after: apiServerAfter },
    etcd,
    changes,
    changesCpu,
    changesRequests: Object.fromEntries(requests),
    failoverSeconds,
    failoverAllKnownSeconds,
    complaints: [...complaints, ...(await standby.complaints())],
  };
}

/** What all take while nothing happens. */
async function rest(
  plane: ControlPlane,
  pids: Record<"leader" | "standby" | "apiServer" | "etcd", number>,
  quick: boolean,
) {
  const names = Object.keys(pids) as (keyof typeof pids)[];
  const cpuOf = async () =>
    Object.fromEntries(
      await Promise.all(names.map(async (name) => [name, await cpuSecondsOf(pids[name])] as const)),
    ) as typeof pids;
  const begun = performance.now();
  const before = { cpu: await cpuOf(), requests: await plane.requests(), writes: await plane.etcdWrites() };
  await sleep((quick ? 15 : AT_REST_SECONDS) * 1000);
  const after = { cpu: await cpuOf(), requests: await plane.requests(), writes: await plane.etcdWrites() };
  const seconds = (performance.now() - begun) / 1000;
  const cpu = Object.fromEntries(
    names.map((name) => [name, (after.cpu[name] - before.cpu[name]) / seconds]),
  ) as typeof pids;
  const requests = difference(before.requests, after.requests);
  const counted = (isOne: (key: string) => boolean) =>
    [...requests].reduce((sum, [key, count]) => sum + (isOne(key) ? count : 0), 0);
  return {
    seconds,
    cpu,
    requestsPerSecond: counted((key) => !READS_NOTHING.test(key)) / seconds,
    tenantWrites: counted((key) => TENANTS_OWN.test(key)),
    etcdWritesPerSecond: (after.writes - before.writes) / seconds,
    requests: Object.fromEntries(requests),
  };
}

/** Another edition of a tenant's Secret, as `helm upgrade` writes it. @returns seconds until it runs with it */
async function change({ client }: ControlPlane, fleet: SimulatedFleet, tenant: number): Promise<number> {
  const path = fleet.customPath("synapsetenants");
  const name = fleet.nameOf(tenant);
  const { status } = await client.get<SynapseTenant>(`${path}/${name}`);
  const former = status?.inEffect?.hash;
  const followed = client.follow<SynapseTenant>(
    path,
    name,
    ({ status: now }) => now?.phase === "Running" && now.move === undefined && now.inEffect?.hash !== former,
    WITHIN_MS / 10,
  );
  const begun = performance.now();
  await client.patch(fleet.secretPath(tenant), { stringData: { "homeserver.yaml": fleet.configOf(tenant, 51) } });
  await followed;
  return (performance.now() - begun) / 1000;
}

/** A PostgreSQL server that has the first tenants' databases: a changed configuration is admitted only when its database answers. */
async function startDatabases(directory: string, count: number): Promise<{ host: string; port: number }> {
  const { binDir } = await ensurePostgres();
  // PostgreSQL's user, if it is another one, must be able to reach its data.
  await chmod(directory, 0o711);
  const server = await startPostgres({
    dataDir: join(directory, "data"),
    binDir,
    logFile: join(directory, "postgres.log"),
  });
  onEnd(async () => {
    await server.stop();
    await rm(server.dataDir, { recursive: true, force: true });
  });
  const { host, port, adminUser: user, adminPassword: password } = server;
  await withConnection({ host, port, user, password }, "postgres", async (client) => {
    for (let tenant = 0; tenant < count; tenant++) {
      const name = identifier(`t-${tenant}`);
      await client.query(`CREATE ROLE ${name} LOGIN PASSWORD ${literal("not-a-secret")}`);
      await client.query(`CREATE DATABASE ${name} OWNER ${name}`);
    }
  });
  return { host, port };
}

function difference(before: Map<string, number>, after: Map<string, number>): Map<string, number> {
  const pairs = [...after].map(([key, count]) => [key, count - (before.get(key) ?? 0)] as const);
  return new Map(pairs.filter(([, count]) => count > 0).toSorted(([, a], [, b]) => b - a));
}

type Measured = Awaited<ReturnType<typeof measure>>;

function figuresOf(measured: Measured, fleet: SimulatedFleet): Figure[] {
  const { atRest, memory, changes, apiServer } = measured;
  const what = `${fleet.options.tenants} tenants on ${fleet.shards} shards`;
  const most = (value: number) => ({ at: "most" as const, value });
  const share = (seconds: number) => ({ value: seconds * 100, unit: "% of a core" });
  const mib = (bytes: number) => ({ value: bytes / MIB, unit: "MiB PSS" });
  return [
    { what: `start, ${what}: until it leads and has read all`, value: measured.startSeconds, unit: "s" },
    { what: "the same, until all shards have been asked", value: measured.allKnownSeconds, unit: "s" },
    { what: "processor time of the start", value: measured.startCpu, unit: "s" },
    { what: "most memory of the start", value: measured.startPeak / MIB, unit: "MiB RSS" },
    { what: "memory of the leader at rest", ...mib(memory.leader.pss) },
    { what: "memory of a standby", ...mib(memory.standby.pss) },
    {
      what: "processor time of the leader at rest",
      ...share(atRest.cpu.leader),
      note: `over ${atRest.seconds.toFixed(0)} s`,
    },
    { what: "processor time of a standby", ...share(atRest.cpu.standby) },
    { what: "processor time of the API server at rest", ...share(atRest.cpu.apiServer) },
    { what: "processor time of etcd at rest", ...share(atRest.cpu.etcd) },
    {
      what: "requests to the API server at rest",
      value: atRest.requestsPerSecond,
      unit: "a second",
      note: "the API server's own to itself included",
    },
    { what: "writes to tenants and Secrets at rest", value: atRest.tenantWrites, unit: "", target: most(0) },
    { what: "writes of etcd at rest, of all", value: atRest.etcdWritesPerSecond, unit: "a second" },
    { what: "a changed configuration, until the tenant runs with it, p50", value: quantile(changes, 0.5), unit: "s" },
    { what: "the same, worst", value: quantile(changes, 1), unit: "s", note: `${changes.length} changes` },
    {
      what: "processor time of the leader for one change",
      value: (measured.changesCpu / changes.length) * 1000,
      unit: "ms",
    },
    { what: "the leader is killed: until another leads and has read all", value: measured.failoverSeconds, unit: "s" },
    { what: "the same, until all shards have been asked", value: measured.failoverAllKnownSeconds, unit: "s" },
    { what: "etcd's file, in use", value: measured.etcdMiB, unit: "MiB" },
    { what: "memory of the API server", ...mib(apiServer.after.pss) },
    { what: "memory of etcd", ...mib(measured.etcd.pss) },
  ];
}
