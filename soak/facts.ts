import { readdir, readFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Client as PostgresClient } from "pg";
import type { ShardView, TenantView } from "../src/api/views.ts";
import { tenantDatabaseName } from "../src/database/names.ts";
import type { ShardState } from "../src/ports/shard-control.ts";
import type { Wishes } from "./actions.ts";
import { type Client, statusOf } from "./clients.ts";
import { readJson, type SoakCluster } from "./cluster.ts";
import type { Facts, FenceFacts, ProcessFacts, ShardFacts, TenantFacts } from "./oracle.ts";
import { type LogSweep, type Secret, secretsIn, secretsOf } from "./secrets.ts";

const CONNECT_MS = 10_000;
/** PostgreSQL recovers within seconds; after this time it is not coming back. */
const BACK_MS = 60_000;

/** What a tenant has to do at a time, as its database has it: the shard's own reading of it is what is tested here. */
const OVERDUE = `
  SELECT extract(epoch FROM now()) - min(at) / 1000.0 AS seconds FROM (
    SELECT min(send_ts) AS at FROM delayed_events WHERE NOT is_processed
    UNION ALL
    SELECT min("timestamp") FROM scheduled_tasks WHERE status IN ('scheduled', 'active')
  ) AS due`;

/** What the controller says of its tenants and shards. */
export async function controllerFacts(cluster: SoakCluster): Promise<{ tenants: TenantFacts[]; shards: ShardFacts[] }> {
  const tenants = itemsOf<TenantView>((await cluster.api("GET", "/v1/tenants")).body, "tenants");
  const shards = itemsOf<ShardView>((await cluster.api("GET", "/v1/shards")).body, "shards");
  return {
    tenants: tenants.map(({ metadata, spec, status }) => ({
      name: metadata.name,
      version: spec.release,
      phase: status.phase,
      reason: status.reason,
      message: status.message,
      shard: status.shard,
      schemaVersion: status.schemaRelease,
      wakesAt: status.sleep?.nextWake && Date.parse(status.sleep.nextWake.at),
      wakesFor: status.sleep?.nextWake?.reason,
      wokenByTime: status.awake?.reason === "due" ? status.awake.since : undefined,
      epoch: status.epoch,
      moving: status.move !== undefined,
      deleting: metadata.deletionTimestamp !== undefined,
      observed: status.observedGeneration === metadata.generation,
    })),
    shards: shards.map(({ metadata, spec, status, tenants }) => ({
      name: metadata.name,
      version: spec.release,
      phase: status.phase,
      message: status.message,
      tenants,
    })),
  };
}

/** Everything that the oracle judges by, from its source: shards, PostgreSQL, the gateway, the disk. */
export async function gatherFacts(
  cluster: SoakCluster,
  wishes: Wishes,
  clients: ReadonlyMap<string, Client>,
  sweep: LogSweep,
  secretsSeen: Map<string, Secret>,
): Promise<Facts> {
  const { tenants, shards } = await controllerFacts(cluster);
  const names = Object.keys(wishes);
  const processes = await cluster.processes();
  const hosts = processes.filter(({ args }) => args.includes("multi_synapse"));
  const pids = new Set(hosts.map(({ pid }) => pid));
  // The watchdog is a fork of its shard's process, with the same arguments.
  const parents = await Promise.all(hosts.map(({ pid }) => parentOf(pid)));
  const running = hosts.filter((_, index) => !pids.has(parents[index] ?? 0));
  const port = await cluster.gatewayPort();
  const present = names.filter((name) => wishes[name]?.state === "present");
  const looks = present
    .filter((name) => !wishes[name]?.resting)
    .map(async (name) => [name, await clients.get(name)?.look()] as const);
  const absent = names
    .filter((name) => !present.includes(name))
    .map(async (name) => [name, await statusOf(name, port)] as const);
  return {
    tenants,
    shards,
    processes: await Promise.all(running.map(({ pid, args }) => processFacts(cluster, pid, args))),
    parts: {
      controller: processes.filter(({ args }) => args.some((arg) => arg.endsWith("controller-main.ts"))).length,
      gateway: servingGateways(processes, await cluster.partPid("gateway")),
    },
    ...(await databaseFacts(cluster, names)),
    media: await readdir(join(cluster.dataDir, "media")).catch(() => []),
    clients: Object.fromEntries(
      (await Promise.all(looks)).flatMap(([name, look]) => (look ? [[name, look] as const] : [])),
    ),
    absent: Object.fromEntries(await Promise.all(absent)),
    leaks: await leaks(cluster, processes, clients, sweep, secretsSeen),
  };
}

async function processFacts(cluster: SoakCluster, pid: number, args: string[]): Promise<ProcessFacts> {
  const configFile = args.find((arg) => arg.endsWith("shard.json")) ?? "";
  const shard = basename(dirname(configFile));
  const state = (await cluster.askShard(shard)) as (ShardState & { pid: number }) | undefined;
  // Another process of the same shard must not answer for this one.
  if (state?.pid !== pid) return { pid, shard, version: "", tenants: [] };
  const tenants = state.tenants.map(({ name, phase, epoch }) => ({ name, phase, epoch }));
  return { pid, shard, version: state.release, tenants };
}

interface PostgresAddress {
  host: string;
  port: number;
  user: string;
  passwordFile: string;
}

/** 0 where the process is gone. */
async function parentOf(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
  return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1] ?? 0);
}

async function databaseFacts(
  cluster: SoakCluster,
  names: string[],
): Promise<Pick<Facts, "databases" | "roles" | "strangeDatabases" | "fences" | "overdue">> {
  const config = await readJson<{ postgres: PostgresAddress }>(join(cluster.dataDir, "controller.json"));
  if (!config) throw new Error("there is no controller.json");
  const { host, port, user, passwordFile } = config.postgres;
  const password = (await readFile(passwordFile, "utf8")).trim();
  const deadline = Date.now() + BACK_MS;
  const query = async (database: string, text: string): Promise<Record<string, string>[]> => {
    const client = new PostgresClient({
      host,
      port,
      user,
      password,
      database,
      connectionTimeoutMillis: CONNECT_MS,
      query_timeout: CONNECT_MS,
    });
    client.on("error", () => {});
    try {
      await client.connect();
    } catch (error) {
      // It may have been killed a moment ago.
      if (Date.now() > deadline) throw error;
      await sleep(500);
      return query(database, text);
    }
    try {
      return (await client.query(text)).rows as Record<string, string>[];
    } finally {
      await client.end();
    }
  };
  const found = await query("postgres", "SELECT datname AS name, pg_get_userbyid(datdba) AS owner FROM pg_database");
  const all = found.map((row) => row["name"] ?? "");
  const roles = (await query("postgres", "SELECT rolname AS name FROM pg_roles")).map((row) => row["name"]);
  const own = new Map(names.map((name) => [tenantDatabaseName(name), name]));
  // A tenant's database is its role's; every other is the administrator's.
  const strange = found.filter(({ name = "", owner }) => {
    const shared = ["postgres", "template0", "template1"].includes(name) || /^synapse_template_[0-9_]+$/.test(name);
    return own.has(name) ? owner !== name : !shared || owner !== user;
  });
  const fences: Record<string, FenceFacts> = {};
  const overdue: Record<string, number> = {};
  for (const [database, name] of own) {
    if (!all.includes(database)) continue;
    const [row] = await query(database, "SELECT shard, epoch FROM synapse_shards.fence").catch(() => []);
    if (row) fences[name] = { shard: row["shard"] ?? "", epoch: Number(row["epoch"]) };
    const [late] = await query(database, OVERDUE).catch(() => []);
    if (late) overdue[name] = Number(late["seconds"]);
  }
  return {
    databases: all.flatMap((name) => own.get(name) ?? []),
    roles: [...own].filter(([role]) => roles.includes(role)).map(([, name]) => name),
    strangeDatabases: strange.map(({ name, owner }) => `${name} of ${owner}`),
    fences,
    overdue,
  };
}

/** Secrets are remembered, because a tenant that was purged since may have leaked its own before. */
async function leaks(
  cluster: SoakCluster,
  processes: { pid: number; args: string[] }[],
  clients: ReadonlyMap<string, Client>,
  sweep: LogSweep,
  seen: Map<string, Secret>,
): Promise<string[]> {
  for (const secret of await secretsOf(cluster.dataDir)) seen.set(secret.value, secret);
  for (const { tenant, token, password } of clients.values()) {
    if (token) seen.set(token, { what: `an access token of ${tenant}`, value: token });
    seen.set(password, { what: `a password of ${tenant}`, value: password });
  }
  const secrets = [...seen.values()];
  const events = String((await cluster.api("GET", "/v1/events")).body);
  return [
    ...(await sweep.leaks(secrets)),
    ...secretsIn(events, secrets).map((what) => `the events: ${what}`),
    ...processes.flatMap(({ pid, args }) =>
      secretsIn(args.join(" "), secrets).map((what) => `the arguments of process ${pid}: ${what}`),
    ),
  ];
}

function itemsOf<T>(body: unknown, what: string): T[] {
  const items = (body as { items?: T[] } | null)?.items;
  if (!Array.isArray(items))
    throw new Error(`the controller gave no list of ${what}: ${JSON.stringify(body).slice(0, 300)}`);
  return items;
}

/** One more is loaded, and waits until it is needed. */
function servingGateways(processes: { pid: number; args: string[] }[], serving: number | undefined): number {
  const all = processes.filter(({ args }) => args.some((arg) => arg.endsWith("src/gateway/main.ts")));
  const others = all.filter(({ pid }) => pid !== serving);
  return all.length - others.length + Math.max(0, others.length - 1);
}
