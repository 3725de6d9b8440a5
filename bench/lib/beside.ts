/** A person on a shard with idle neighbours, while another tenant is hammered: on the same shard, or on one of its own. */
import { setTimeout as sleep } from "node:timers/promises";
import { Agent } from "undici";
import type { AdminLogin } from "../../src/database/connection.ts";
import { databaseSeconds } from "../../src/database/usage.ts";
import { DEFAULT_CPU_BUDGET } from "../../src/model/cpu-budget.ts";
import { type Load, nextLoad } from "../../src/model/load.ts";
import { type CpuStanding, nextStanding, wantedShare } from "../../src/planner/cpu-budget.ts";
import { atRate, LoadUser, ok, type Target } from "../load-client.ts";
import { type Ask, asker, furnish, type Hammer, HAMMERS, hammerOn, type Kind, LIFTED } from "./hammers.ts";
import { type Plot, quantile } from "./result.ts";
import { RoutedGateway } from "./routed.ts";
import type { RunningShard } from "./shard.ts";
import { median } from "./statistics.ts";
import type { BenchTenant } from "./tenant.ts";
import type { World } from "./world.ts";

export interface BesideSize {
  neighbours: number;
  rounds: number;
  seconds: number;
  rooms: number;
  /** For the budget to come to rest before it is measured: five halvings. */
  settleMs: number;
}

/** Pairs of a send and a sync of the neighbour, per second. */
export const RATE = 8;
const WARM_UP_MS = 1_500;
const LOOK_MS = 1_000;
/** The budget is the default one; it is only averaged over less, so that a case does not take minutes. */
const LIMITS = { budget: DEFAULT_CPU_BUDGET.perTenant, averageSeconds: 2, isolateAfterSeconds: 0, calmSeconds: 3600 };

/** One case in one round. Milliseconds; requests per second; shares of a core. */
export interface Sample {
  send: number[];
  sync: number[];
  hammered: number;
  refused: number;
  tenantShare: number;
  processShare: number;
  /** Of the time, in which PostgreSQL ran its statements. */
  databaseShare: number;
  /** Part of the time in which the shard was ready to run and the machine did not let it: above 0.1, the figures are the machine's. */
  starved: number;
  part: number;
  lag: number;
}
/** By case, one of each round. */
export type Samples = Map<string, Sample[]>;

export const QUIET = "nobody hammered";

/** Over all rounds: the p99 of one is its second longest answer, which is chance. */
export function p99(samples: Samples, name: string, what: "send" | "sync"): number {
  const answers = samples.get(name)!.flatMap((sample) => sample[what]);
  return quantile(answers, 0.99);
}

/** @param where goes on with the title */
export function plotsOf(samples: Samples, cases: string[], where = ""): Plot[] {
  return (["send", "sync"] as const).map((what) => ({
    title: `Latency of a neighbour's ${what}${where}`,
    x: { label: "case", values: cases },
    y: { label: "ms" },
    series: [0.5, 0.99].map((q) => ({
      name: `p${q * 100}`,
      values: cases.map((name) => median(samples.get(name)!.map((one) => quantile(one[what], q)))),
    })),
  }));
}

export class Beside {
  readonly samples: Samples = new Map();
  readonly #size: BesideSize;
  readonly #log: (line: string) => void;
  readonly #agent: Agent;
  readonly #listener: { person: LoadUser; room: string };
  readonly #load: { ask: Ask; hammers: Hammer[] };
  readonly #control: Omit<Control, "budget">;

  private constructor(
    size: BesideSize,
    log: (line: string) => void,
    agent: Agent,
    listener: { person: LoadUser; room: string },
    load: { ask: Ask; hammers: Hammer[] },
    control: Omit<Control, "budget">,
  ) {
    this.#size = size;
    this.#log = log;
    this.#agent = agent;
    this.#listener = listener;
    this.#load = load;
    this.#control = control;
  }

  /** @param apart whether the hammered tenant is on a shard of its own */
  static async start(world: World, size: BesideSize, log: (line: string) => void, apart: boolean): Promise<Beside> {
    log(`starting a shard with ${size.neighbours + (apart ? 0 : 1)} tenants`);
    const shard = await world.shard("shard");
    const other = apart ? await world.shard("apart") : shard;
    const [quiet, loud] = [await world.tenant("quiet"), await world.tenant("loud")];
    loud.allow(["rc_login", "rc_joins", "rc_invites"]);
    loud.overrides = JSON.stringify(LIFTED);
    const urls = { quiet: await shard.start(quiet), loud: await other.start(loud) };
    await shard.startAll(await world.tenants("idle", size.neighbours - 1));
    const gateway = await RoutedGateway.start(world.directory, { maxInFlightPerTenant: 3 });
    const tell = async (tenant: BenchTenant, on: RunningShard, url: string, part = 1): Promise<void> => {
      const secret = (await on.control.state()).gatewaySecret;
      await gateway.tell({
        tenant: tenant.name,
        hosts: [tenant.serverName],
        state: "serving",
        address: new URL(url).host,
        epoch: 1,
        ...(secret === undefined ? {} : { secret }),
        ...(part === 1 ? {} : { share: part }),
      });
    };
    const throttle = (part: number) => tell(loud, other, urls.loud, part);
    await tell(quiet, shard, urls.quiet);
    await throttle(1);
    log("making users and rooms");
    const agent = new Agent({ connections: 128 });
    const at = ({ serverName }: BenchTenant): Target => ({ url: gateway.proxy.url, host: serverName });
    const person = LoadUser.withToken(at(quiet), agent, (await world.users(quiet, urls.quiet, 1))[0]!.accessToken);
    const room = await person.createRoom();
    await person.sync(0);
    const hammers = await furnish(await world.users(loud, urls.loud, HAMMERS), size.rooms);
    const load = { ask: asker(agent, at(loud)), hammers };
    return new Beside(size, log, agent, { person, room }, load, {
      admin: world.admin,
      shard,
      loudShard: other,
      tenant: loud,
      throttle,
    });
  }

  /** @param kind undefined: nobody hammers @param budget whether the hammered tenant is held to its budget */
  async measure(name: string, kind: Kind | undefined, budget: boolean): Promise<void> {
    const sample = await measureOne(
      this.#listener,
      kind && { kind, ...this.#load },
      { ...this.#control, budget },
      this.#size,
    );
    const { send, sync, part, tenantShare, processShare, hammered, lag } = sample;
    this.#log(
      `${name}: send p99 ${quantile(send, 0.99).toFixed(0)}, sync p99 ${quantile(sync, 0.99).toFixed(0)} ms; part ${part}, ` +
        `tenant ${tenantShare.toFixed(2)}, shard ${processShare.toFixed(2)} cores, statements ${sample.databaseShare.toFixed(2)}, starved ${sample.starved.toFixed(2)}, ${hammered.toFixed(0)}/s, lag ${(lag * 1000).toFixed(0)} ms`,
    );
    this.samples.set(name, [...(this.samples.get(name) ?? []), sample]);
  }

  async close(): Promise<void> {
    await this.#agent.destroy();
  }
}

interface Control {
  admin: AdminLogin;
  /** Of the neighbours, and of the hammered tenant: may be the same. */
  shard: RunningShard;
  loudShard: RunningShard;
  tenant: BenchTenant;
  throttle(part: number): Promise<void>;
  budget: boolean;
}

async function measureOne(
  { person, room }: { person: LoadUser; room: string },
  load: { kind: Kind; ask: Ask; hammers: Hammer[] } | undefined,
  control: Control,
  size: Pick<BesideSize, "seconds" | "settleMs">,
): Promise<Sample> {
  const ending = new AbortController();
  const hammering = Promise.all(
    (load?.hammers ?? []).map((who, index) => hammerOn(load!, who, index * 100_000, ending.signal)),
  );
  const keeping = control.budget ? keepBudget(control, ending.signal) : Promise.resolve(1);
  await sleep(control.budget ? size.settleMs : WARM_UP_MS);
  await control.shard.stats();
  const loadsOf = async () => ({
    process: (await control.shard.control.load()).process,
    tenants: (await control.loudShard.control.load()).tenants,
  });
  const [from, before] = [performance.now(), await loadsOf()];
  const statementsOf = async () =>
    (await databaseSeconds(control.admin, [control.tenant.name])).get(control.tenant.name) ?? 0;
  const statementsBefore = await statementsOf();
  const pacing = new AbortController();
  const paced = atRate(RATE, pacing.signal, async () => [await person.send(room), await person.sync(0)]);
  await sleep(size.seconds * 1000);
  pacing.abort();
  const [to, after] = [performance.now(), await loadsOf()];
  const statements = (await statementsOf()) - statementsBefore;
  const { reactorLag } = await control.shard.stats();
  const answers = (await paced).flat();
  ending.abort();
  const others = (await hammering).flat();
  const part = await keeping;
  await control.throttle(1);
  const of = (what: string) =>
    answers.filter((answer) => ok(answer) && answer.what === what).map(({ sent, answered }) => answered - sent);
  const { name } = control.tenant;
  const elapsed = (to - from) / 1000;
  const answered = others.filter((answer) => answer.answered >= from && answer.answered <= to);
  return {
    send: of("send"),
    sync: of("sync"),
    hammered: answered.filter(ok).length / elapsed,
    refused: answered.filter((answer) => !ok(answer)).length / elapsed,
    tenantShare: ((after.tenants[name]?.cpuSeconds ?? 0) - (before.tenants[name]?.cpuSeconds ?? 0)) / elapsed,
    starved: (after.process.starvedSeconds - before.process.starvedSeconds) / elapsed,
    databaseShare: statements / elapsed,
    processShare: (after.process.cpuSeconds - before.process.cpuSeconds) / elapsed,
    part,
    lag: reactorLag.maxSeconds,
  };
}

/** As the controller does it. @returns the part that the tenant was left with */
async function keepBudget({ admin, loudShard, tenant, throttle }: Control, signal: AbortSignal): Promise<number> {
  let standing: CpuStanding = {};
  let known: Load | undefined;
  let held: Load | undefined;
  let statements: Load | undefined;
  while (!signal.aborted) {
    const { tenants, process } = await loudShard.control.load();
    const { starvedSeconds } = process;
    const { cpuSeconds = 0, imageSeconds = 0, heldBackSeconds = 0 } = tenants[tenant.name] ?? {};
    const at = Date.now();
    known = nextLoad(known, { at, cpuSeconds: cpuSeconds + imageSeconds, starvedSeconds }, LIMITS.averageSeconds);
    held = nextLoad(held, { at, cpuSeconds: heldBackSeconds, starvedSeconds: 0 }, LIMITS.averageSeconds);
    const active = (await databaseSeconds(admin, [tenant.name])).get(tenant.name) ?? 0;
    statements = nextLoad(statements, { at: Date.now(), cpuSeconds: active, starvedSeconds: 0 }, LIMITS.averageSeconds);
    const database = (statements.share ?? 0) / DEFAULT_CPU_BUDGET.databasePerTenant;
    const share = wantedShare(known.share ?? 0, held.share);
    const seen = { share, database, hasNeighbours: true };
    const next = nextStanding(Date.now(), standing, seen, LIMITS);
    if (next.throttle?.part !== standing.throttle?.part) await throttle(next.throttle?.part ?? 1);
    standing = next;
    await sleep(LOOK_MS, undefined, { signal }).catch(() => {});
  }
  return standing.throttle?.part ?? 1;
}
