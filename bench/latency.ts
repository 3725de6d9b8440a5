import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Agent } from "undici";
import { type Proxy, startGateway } from "./gateway-proxies.ts";
import { type Bench, type BenchOptions, type BenchResult, type Figure, quantile } from "./lib/result.ts";
import { median } from "./lib/statistics.ts";
import type { BenchTenant } from "./lib/tenant.ts";
import { World } from "./lib/world.ts";
import { type Answer, atRate, LoadUser, ok, type Target } from "./load-client.ts";

interface Size {
  neighbours: number;
  rounds: number;
  seconds: number;
  caps: number[];
}
/** 0 means no cap. */
const FULL: Size = { neighbours: 24, rounds: 3, seconds: 10, caps: [0, 4, 3, 2, 1] };
const QUICK: Size = { neighbours: 4, rounds: 1, seconds: 4, caps: [0, 4, 3, 2, 1] };

/** Pairs of a send and a sync, per second. */
const RATE = 8;
/** Clients that send requests to the neighbour as fast as it answers. */
const HAMMERS = 8;
const WARM_UP_MS = 1_500;

export const bench: Bench = {
  name: "latency",
  title: "Latency of send and sync beside neighbours, against a dedicated process",
  async run({ quick, log }: BenchOptions): Promise<BenchResult> {
    const size = quick ? QUICK : FULL;
    return report(size, await World.with(log, (world) => measure(world, size, log)));
  },
};

/** One case in one round. Milliseconds; requests per second. */
interface Sample {
  send: number[];
  sync: number[];
  /** What the hammered neighbour achieved. */
  hammered: number;
  failed: number;
}
type Samples = Map<string, Sample[]>;

const IDLE = "shard, the others idle";
const DEDICATED = "dedicated, alone";
const DEDICATED_HAMMERED = "dedicated, another process hammered";
const capped = (cap: number) =>
  cap === 0 ? "shard, a neighbour hammered" : `shard, a neighbour hammered, at most ${cap} in flight`;
const alone = (cap: number) => (cap === 0 ? "hammered alone" : `hammered alone, at most ${cap} in flight`);

/** A user with a room, wherever the homeserver is. */
interface Person {
  user: LoadUser;
  room: string;
}

async function measure(world: World, size: Size, log: (line: string) => void): Promise<Samples> {
  log(`starting a shard with ${size.neighbours + 1} tenants, and two dedicated processes`);
  const shard = await world.shard("shard");
  const [quiet, loud] = [await world.tenant("quiet"), await world.tenant("loud")];
  const [ownQuiet, ownLoud] = [await world.tenant("own-quiet"), await world.tenant("own-loud")];
  const [quietUrl, loudUrl] = [await shard.start(quiet), await shard.start(loud)];
  await shard.startAll(await world.tenants("idle", size.neighbours - 1));
  const dedicated = [await world.dedicated(ownQuiet), await world.dedicated(ownLoud)];
  const agent = new Agent({ connections: 64 });
  const people = {
    quiet: await register(world, quiet, quietUrl, 1),
    loud: await register(world, loud, loudUrl, HAMMERS),
    ownQuiet: await register(world, ownQuiet, dedicated[0]!.url, 1),
    ownLoud: await register(world, ownLoud, dedicated[1]!.url, HAMMERS),
  };
  const meet = (tokens: string[], target: Target): Promise<Person[]> =>
    Promise.all(
      tokens.map(async (token) => {
        const user = LoadUser.withToken(target, agent, token);
        const room = await user.createRoom();
        await user.sync(0);
        return { user, room };
      }),
    );
  const [quietHost, loudHost] = [quiet.serverName, loud.serverName];
  const gateways: { cap: number; proxy: Proxy; quiet: Person; loud: Person[] }[] = [];
  for (const cap of size.caps) {
    const origins = { [quietHost]: Number(new URL(quietUrl).port), [loudHost]: Number(new URL(loudUrl).port) };
    const proxy = await startGateway(join(world.directory, `gateway-${cap}`), origins, { maxInFlightPerTenant: cap });
    gateways.push({
      cap,
      proxy,
      quiet: (await meet(people.quiet, { url: proxy.url, host: quietHost }))[0]!,
      loud: await meet(people.loud, { url: proxy.url, host: loudHost }),
    });
  }
  const [direct] = await meet(people.quiet, { url: quietUrl });
  const [own] = await meet(people.ownQuiet, { url: dedicated[0]!.url });
  const ownHammers = await meet(people.ownLoud, { url: dedicated[1]!.url });

  const samples: Samples = new Map();
  const run = async (name: string, person: Person | undefined, hammers: Person[]): Promise<void> => {
    samples.set(name, [...(samples.get(name) ?? []), await measureOne(person, hammers, size.seconds)]);
  };
  for (let round = 1; round <= size.rounds; round++) {
    log(`round ${round} of ${size.rounds}`);
    await run(IDLE, direct, []);
    await run(DEDICATED, own, []);
    for (const gateway of gateways) await run(capped(gateway.cap), gateway.quiet, gateway.loud);
    await run(DEDICATED_HAMMERED, own, ownHammers);
    for (const gateway of gateways) await run(alone(gateway.cap), undefined, gateway.loud);
  }
  await agent.destroy();
  return samples;
}

/** @returns access tokens of new users */
async function register(world: World, tenant: BenchTenant, url: string, count: number): Promise<string[]> {
  const users = await world.users(tenant, url, count);
  await Promise.all(users.map((user) => user.close()));
  return users.map(({ accessToken }) => accessToken);
}

/** A person sends and syncs at a calm pace while others hammer. */
async function measureOne(person: Person | undefined, hammers: Person[], seconds: number): Promise<Sample> {
  const ending = new AbortController();
  const hammering = Promise.all(hammers.map((hammer) => hammerOn(hammer, ending.signal)));
  await sleep(WARM_UP_MS);
  const from = performance.now();
  const pacing = new AbortController();
  const paced = person ? atRate(RATE, pacing.signal, () => sendAndSync(person)) : Promise.resolve([]);
  await sleep(seconds * 1000);
  const to = performance.now();
  pacing.abort();
  const answers = (await paced).flat();
  ending.abort();
  const others = (await hammering).flat();
  const within = ({ answered }: Answer) => answered >= from && answered <= to;
  const took = (what: string) =>
    answers.filter((answer) => ok(answer) && answer.what === what).map(({ sent, answered }) => answered - sent);
  return {
    send: took("send"),
    sync: took("sync"),
    hammered: others.filter((answer) => ok(answer) && within(answer)).length / seconds,
    failed: [...answers, ...others].filter((answer) => !ok(answer)).length,
  };
}

async function sendAndSync({ user, room }: Person): Promise<Answer[]> {
  return [await user.send(room), await user.sync(0)];
}

async function hammerOn(person: Person, signal: AbortSignal): Promise<Answer[]> {
  const answers: Answer[] = [];
  while (!signal.aborted) {
    answers.push(...(await sendAndSync(person)));
    // Otherwise a homeserver that refuses would be asked as fast as it can refuse.
    if (!ok(answers.at(-1)!)) await sleep(200);
  }
  return answers;
}

function report({ neighbours, rounds, seconds, caps }: Size, samples: Samples): BenchResult {
  const at = (name: string, what: "send" | "sync", q: number): number =>
    median(samples.get(name)!.map((sample) => quantile(sample[what], q)));
  const hammered = (name: string): number => median(samples.get(name)!.map((sample) => sample.hammered));
  const note = `${RATE}/s, median of ${rounds} rounds of ${seconds} s`;
  const figures: Figure[] = [];
  for (const what of ["send", "sync"] as const)
    figures.push({
      what: `${what} with ${neighbours} idle neighbours, p50, against a dedicated process`,
      value: median(
        samples
          .get(IDLE)!
          .map((sample, round) => quantile(sample[what], 0.5) / quantile(samples.get(DEDICATED)![round]![what], 0.5)),
      ),
      unit: "×",
      target: { at: "most", value: 1.1 },
      note: `${note}, ratio within each round`,
    });
  const cases = [IDLE, DEDICATED, ...caps.map(capped), DEDICATED_HAMMERED];
  for (const name of cases) {
    for (const what of ["send", "sync"] as const)
      for (const q of [0.5, 0.99])
        figures.push({ what: `${name}: ${what}, p${q * 100}`, value: at(name, what, q), unit: "ms", note });
  }
  for (const name of [...caps.map(capped), DEDICATED_HAMMERED, ...caps.map(alone)])
    figures.push({
      what: `${name}: what the hammered one gets done`,
      value: hammered(name),
      unit: "requests/s",
      note: `${HAMMERS} clients; median of ${rounds} rounds of ${seconds} s`,
    });
  figures.push({
    what: "failed requests",
    value: [...samples.values()].flat().reduce((sum, { failed }) => sum + failed, 0),
    unit: "requests",
    target: { at: "most", value: 0 },
  });
  return {
    name: bench.name,
    title: bench.title,
    figures,
    plots: (["send", "sync"] as const).map((what) => ({
      title: `Latency of ${what}`,
      x: { label: "case", values: cases },
      y: { label: "ms" },
      series: [
        { name: "p50", values: cases.map((name) => at(name, what, 0.5)) },
        { name: "p99", values: cases.map((name) => at(name, what, 0.99)) },
      ],
    })),
    raw: Object.fromEntries(samples),
  };
}
