import type { Wish, Wishes } from "./actions.ts";

export interface Limits {
  tenantsPerShard: number;
  shardsPerTag: number;
}

/** A tenant as the controller shows it. */
export interface TenantFacts {
  name: string;
  version: string;
  phase: string;
  reason: string;
  message: string;
  shard?: string;
  epoch: number;
  /** The release that its database is of. */
  schemaVersion?: string;
  /** When it is woken although nobody asks for it, while it sleeps; milliseconds since the epoch, and why. */
  wakesAt?: number;
  wakesFor?: string;
  /** Since when it has been awake, if it was woken because something was due. */
  wokenByTime?: string;
  moving: boolean;
  deleting: boolean;
  /** Whether its current specification has taken effect. */
  observed: boolean;
}

/** A shard as the controller shows it. */
export interface ShardFacts {
  name: string;
  version: string;
  phase: string;
  message: string;
  tenants: string[];
}

/** A process of a shard, and what it says of itself. */
export interface ProcessFacts {
  pid: number;
  shard: string;
  version: string;
  tenants: { name: string; phase: string; epoch: number }[];
}

export interface FenceFacts {
  shard: string;
  epoch: number;
}

/** What a client found through the gateway. */
export interface ClientFacts {
  /** Status of a request that needs the database; 0 without an answer. */
  status: number;
  /** Largest upload in bytes, as the tenant announces it. */
  uploadBytes?: number;
  /** Bodies of all messages, as stored. */
  messages: string[];
  /** Bodies of messages that were acknowledged. */
  acknowledged: string[];
}

export interface Facts {
  tenants: TenantFacts[];
  shards: ShardFacts[];
  processes: ProcessFacts[];
  /** Number of processes of each other part. */
  parts: { controller: number; gateway: number };
  /** Names of tenants that have a database, a role of that name and a directory of media; and everything else found there. */
  databases: string[];
  roles: string[];
  media: string[];
  /** Databases that belong to no tenant. */
  strangeDatabases: string[];
  fences: Record<string, FenceFacts>;
  /** By tenant: for how many seconds something in its database has been due. */
  overdue: Record<string, number>;
  clients: Record<string, ClientFacts>;
  /** The gateway's statuses for tenants that do not exist. */
  absent: Record<string, number>;
  /** Where a secret was found, without the secret. */
  leaks: string[];
}

/** A tenant that sleeps is woken by then for what is due: in time by the controller's own account, which may have been away for a moment. */
const WAKE_LATE_MS = 5_000;
/** The same by its database: a tenant that runs has some time for it. */
const OVERDUE_SECONDS = 30;

/** What the cluster still has to do, in words; empty when it has settled. */
export function unsettled(wishes: Wishes, tenants: TenantFacts[], shards: ShardFacts[], now = Date.now()): string[] {
  const left: string[] = [];
  for (const tenant of tenants) {
    if (wishes[tenant.name]?.state !== "present") left.push(`${tenant.name} is not gone (${tenant.phase})`);
  }
  for (const [name, wish] of Object.entries(wishes)) {
    if (wish.state !== "present") continue;
    const tenant = tenants.find((t) => t.name === name);
    if (!tenant) left.push(`${name} is not there`);
    else if (wish.resting && tenant.phase === "Asleep") left.push(...unsettledAsleep(wish, tenant, now));
    else if (tenant.phase !== "Running" || tenant.moving || !tenant.observed)
      left.push(`${name} is ${tenant.phase}${tenant.message ? ` (${tenant.reason}: ${tenant.message})` : ""}`);
    else if (shards.find((shard) => shard.name === tenant.shard)?.version !== wish.version)
      left.push(`${name} waits for Synapse ${wish.version} on ${tenant.shard}`);
  }
  for (const shard of shards) {
    if (shard.phase !== "Ready")
      left.push(`shard ${shard.name} is ${shard.phase}${shard.message && ` (${shard.message})`}`);
  }
  return left;
}

function unsettledAsleep({ version }: Wish, tenant: TenantFacts, now: number): string[] {
  const { name, schemaVersion, wakesAt, wakesFor } = tenant;
  const left: string[] = [];
  if (wakesAt === undefined) left.push(`${name} sleeps, and is never woken for its housekeeping`);
  else if (wakesAt < now - WAKE_LATE_MS)
    left.push(`${name} sleeps, and was to be woken ${Math.round((now - wakesAt) / 1000)} s ago for ${wakesFor}`);
  if (schemaVersion !== version) left.push(`${name} sleeps with a database of Synapse ${schemaVersion}`);
  return left;
}

/** What must hold at any time, settled or not. */
export function exceeded(shards: ShardFacts[], limits: Limits): string[] {
  const wrong: string[] = [];
  for (const { name, tenants } of shards) {
    if (tenants.length > limits.tenantsPerShard)
      wrong.push(
        `shard ${name} has ${tenants.length} tenants, more than ${limits.tenantsPerShard}: ${tenants.join(" ")}`,
      );
  }
  for (const [version, own] of Map.groupBy(shards, (shard) => shard.version)) {
    if (own.length > limits.shardsPerTag)
      wrong.push(`Synapse ${version} has ${own.length} shards, more than ${limits.shardsPerTag}`);
  }
  return wrong;
}

/** What is wrong with a settled cluster, one sentence each; empty when nothing is. */
export function judge(wishes: Wishes, facts: Facts, limits: Limits): string[] {
  return [
    ...exceeded(facts.shards, limits),
    ...judgeProcesses(facts, limits),
    ...judgePlaces(wishes, facts),
    ...judgeData(wishes, facts),
    ...judgeClients(wishes, facts),
    ...facts.leaks.map((where) => `a secret is in ${where}`),
  ];
}

function judgeProcesses({ processes, shards, parts }: Facts, limits: Limits): string[] {
  const wrong: string[] = [];
  for (const { name } of shards) {
    const own = processes.filter((process) => process.shard === name);
    if (own.length !== 1) wrong.push(`shard ${name} has ${own.length} processes`);
  }
  for (const { pid, shard, tenants } of processes) {
    if (!shards.some(({ name }) => name === shard))
      wrong.push(`process ${pid} is of shard ${shard}, which is not there`);
    if (tenants.length > limits.tenantsPerShard)
      wrong.push(`process ${pid} of shard ${shard} has ${tenants.length} tenants`);
  }
  for (const [part, count] of Object.entries(parts))
    if (count !== 1) wrong.push(`there are ${count} processes of the ${part}`);
  return wrong;
}

/** Each wanted tenant is on exactly one shard, where the controller and its database's fence say it is. */
function judgePlaces(wishes: Wishes, { tenants, processes, fences, overdue }: Facts): string[] {
  const wrong: string[] = [];
  for (const [name, wish] of Object.entries(wishes)) {
    const places = processes.flatMap(({ shard, version, tenants: own }) =>
      own.filter((tenant) => tenant.name === name).map((tenant) => ({ shard, version, ...tenant })),
    );
    if (wish.state !== "present") {
      for (const { shard, phase } of places) wrong.push(`${name} was deleted and is ${phase} on ${shard}`);
      continue;
    }
    const known = tenants.find((tenant) => tenant.name === name);
    if (wish.resting && known?.phase === "Asleep") {
      for (const { shard, phase } of places) wrong.push(`${name} sleeps and is ${phase} on ${shard}`);
      const late = overdue[name] ?? 0;
      if (late > OVERDUE_SECONDS) wrong.push(`${name} sleeps, and something was due ${Math.round(late)} s ago`);
      continue;
    }
    const [place] = places;
    if (!place || places.length > 1 || place.phase !== "running") {
      const found = places.map(({ shard, phase }) => `${phase} on ${shard}`).join(" and ") || "on no shard";
      wrong.push(`${name} ought to run on one shard, and is ${found}`);
      continue;
    }
    if (place.version !== wish.version)
      wrong.push(`${name} runs on Synapse ${place.version} instead of ${wish.version}`);
    if (known?.shard !== place.shard)
      wrong.push(`${name} runs on ${place.shard}, and the controller says ${known?.shard}`);
    if (known?.epoch !== place.epoch)
      wrong.push(`${name} runs with epoch ${place.epoch}, and the controller says ${known?.epoch}`);
    const fence = fences[name];
    if (fence?.shard !== place.shard || fence.epoch !== place.epoch)
      wrong.push(
        `${name} runs on ${place.shard} with epoch ${place.epoch}, and its fence says ${fence?.shard} ${fence?.epoch}`,
      );
  }
  return wrong;
}

/** Exactly the tenants that should have data have it. */
function judgeData(wishes: Wishes, { databases, roles, media, strangeDatabases }: Facts): string[] {
  const wrong = strangeDatabases.map((name) => `database ${name} is nobody's`);
  for (const [name, { state }] of Object.entries(wishes)) {
    for (const [what, found] of Object.entries({ database: databases, role: roles })) {
      if (state === "absent" && found.includes(name))
        wrong.push(`the ${what} of ${name} is there though it was purged`);
      if (state !== "absent" && !found.includes(name)) wrong.push(`the ${what} of ${name} (${state}) is gone`);
    }
    if (state === "absent" && media.includes(name)) wrong.push(`media of ${name} are there though it was purged`);
  }
  return wrong;
}

function judgeClients(wishes: Wishes, { clients, absent }: Facts): string[] {
  const wrong: string[] = [];
  for (const [name, wish] of Object.entries(wishes)) {
    if (wish.state !== "present") {
      const status = absent[name];
      if (status !== undefined && status !== 404)
        wrong.push(`the gateway answers ${status} for ${name}, which is not there`);
      continue;
    }
    // To look would be to use it. It is looked at when it is used again.
    if (wish.resting) continue;
    const client = clients[name];
    if (!client || client.status !== 200) {
      wrong.push(`${name} answers a client with ${client?.status || "nothing"}`);
      continue;
    }
    if (client.uploadBytes !== wish.uploadMegabytes * 2 ** 20)
      wrong.push(`${name} runs with uploads of ${client.uploadBytes} bytes instead of ${wish.uploadMegabytes} MB`);
    wrong.push(...judgeMessages(name, client));
  }
  return wrong;
}

function judgeMessages(name: string, { messages, acknowledged }: ClientFacts): string[] {
  const counts = new Map<string, number>();
  for (const body of messages) counts.set(body, (counts.get(body) ?? 0) + 1);
  const lost = acknowledged.filter((body) => !counts.has(body));
  const doubled = [...counts].filter(([, count]) => count > 1).map(([body]) => body);
  return [
    ...(lost.length > 0 ? [`${name} has lost ${lost.length} acknowledged messages: ${some(lost)}`] : []),
    ...(doubled.length > 0 ? [`${name} has ${doubled.length} messages more than once: ${some(doubled)}`] : []),
  ];
}

function some(items: string[]): string {
  return items.slice(0, 5).join(", ") + (items.length > 5 ? ", …" : "");
}
