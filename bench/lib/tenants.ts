import { setTimeout as sleep } from "node:timers/promises";
import type { Agent } from "undici";
import { stringify } from "yaml";
import type { ShardView, TenantView } from "../../src/api/views.ts";
import { type Answer, LoadUser, ok } from "../load-client.ts";
import type { BenchCluster } from "./cluster.ts";
import { PASSWORD } from "./matrix.ts";

/** The time by which everything that is asked for has happened. */
export const STEP_MS = 120_000;
const LOOK_EVERY_MS = 25;
const AT_ONCE = 3;
const often = { per_second: 10_000, burst_count: 10_000 };
/** For users that log in as fast as they can. It needs `tenantPolicy.allowedOptions: [rc_login]`. */
const CONFIG = stringify({
  rc_login: { address: often, account: often, failed_attempts: often },
  bcrypt_rounds: 4,
});

/** Creates tenants of a whole cluster, and waits until they run. */
export async function createTenants(
  cluster: BenchCluster,
  names: readonly string[],
  spec: { release?: string } = {},
): Promise<void> {
  await inTurns(names, AT_ONCE, async (name) => {
    await cluster.call("POST", "/v1/tenants", { name, config: CONFIG, ...spec });
    await untilPhase(cluster, name, "Running");
  });
}

/** A user of each tenant, logged in through the gateway. */
export async function usersOf(
  cluster: BenchCluster,
  names: readonly string[],
  agent: Agent,
): Promise<Map<string, LoadUser>> {
  const users = new Map<string, LoadUser>();
  await inTurns(names, AT_ONCE, async (name) => {
    await cluster.call("POST", `/v1/tenants/${name}/users`, { username: "alice", password: PASSWORD, admin: false });
    const target = { url: cluster.gateway, host: `${name}.localhost` };
    users.set(name, await LoadUser.logIn(target, agent, "alice", PASSWORD));
  });
  return users;
}

export async function untilPhase(cluster: BenchCluster, name: string, phase: string): Promise<void> {
  let last = "";
  for (const deadline = Date.now() + STEP_MS; Date.now() < deadline; await sleep(LOOK_EVERY_MS)) {
    const { status } = await cluster.call<TenantView>("GET", `/v1/tenants/${name}`);
    if (status.phase === phase) return;
    last = `${status.phase} ${status.reason} ${status.message}`;
  }
  throw new Error(`${name} is not ${phase} but ${last}`);
}

/** Asks until it owes nothing to anybody. */
export async function fallAsleep(cluster: BenchCluster, name: string): Promise<void> {
  let last: unknown;
  for (const deadline = Date.now() + STEP_MS; Date.now() < deadline; await sleep(LOOK_EVERY_MS)) {
    const { phase } = (await cluster.call<TenantView>("GET", `/v1/tenants/${name}`)).status;
    if (phase === "Asleep") return;
    if (phase === "Running") last = (await cluster.ask("POST", `/v1/tenants/${name}/sleep`)).json;
  }
  throw new Error(`${name} did not fall asleep: ${JSON.stringify(last)}`);
}

export async function shardsOf(cluster: BenchCluster): Promise<ShardView[]> {
  return (await cluster.call<{ items: ShardView[] }>("GET", "/v1/shards")).items;
}

/** Not more than that number of shards, in any phase. */
export async function untilShards(cluster: BenchCluster, count: number): Promise<void> {
  for (const deadline = Date.now() + STEP_MS; Date.now() < deadline; await sleep(LOOK_EVERY_MS))
    if ((await shardsOf(cluster)).length <= count) return;
  throw new Error(`there are still more than ${count} shards`);
}

export async function inTurns<T>(items: readonly T[], atOnce: number, act: (item: T) => Promise<void>): Promise<void> {
  const left = [...items];
  const worker = async (): Promise<void> => {
    for (let item = left.shift(); item !== undefined; item = left.shift()) await act(item);
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
}

/** The users of tenants ask for something small that needs the database, again and again, each when it has been answered. */
export class Asking {
  readonly answers = new Map<string, Answer[]>();
  readonly #ending = new AbortController();
  readonly #asking: Promise<void>[];

  /** @param everyMs between an answer and the next request */
  constructor(users: ReadonlyMap<string, LoadUser>, everyMs: number) {
    this.#asking = [...users].map(async ([name, user]) => {
      const answers: Answer[] = [];
      this.answers.set(name, answers);
      while (!this.#ending.signal.aborted) {
        answers.push(await user.whoami());
        await sleep(everyMs, undefined, { signal: this.#ending.signal }).catch(() => {});
      }
    });
  }

  /** Waits until a request of each that was sent later is answered well. @param since `performance.now()` */
  async untilEachServes(since: number): Promise<void> {
    let missing: string[] = [];
    for (const deadline = Date.now() + STEP_MS; Date.now() < deadline; await sleep(LOOK_EVERY_MS)) {
      missing = [...this.answers]
        .filter(([, all]) => !all.some((one) => one.sent > since && ok(one)))
        .map(([name]) => name);
      if (missing.length === 0) return;
    }
    throw new Error(`not served within ${STEP_MS / 1000} s: ${missing.join(", ")}`);
  }

  /** What was answered badly since then. */
  failed(since: number): Answer[] {
    return [...this.answers.values()].flat().filter((answer) => answer.answered > since && !ok(answer));
  }

  /** How many requests were answered since then, or given up. */
  count(since: number): number {
    return [...this.answers.values()].flat().filter(({ answered }) => answered > since).length;
  }

  /** Each tenant's longest time between two good answers, and until when it lasted, both in seconds and from then on. */
  gaps(since: number): { seconds: number; until: number }[] {
    return [...this.answers.values()].map((answers) => {
      const good = answers.filter(ok).map(({ answered }) => answered);
      const times = [good.findLast((time) => time <= since) ?? since, ...good.filter((time) => time > since)];
      const gaps = times
        .slice(1)
        .map((time, index) => ({ seconds: (time - times[index]!) / 1000, until: (time - since) / 1000 }));
      return gaps.reduce((longest, gap) => (gap.seconds > longest.seconds ? gap : longest), { seconds: 0, until: 0 });
    });
  }

  async end(): Promise<void> {
    this.#ending.abort();
    await Promise.all(this.#asking);
  }
}
