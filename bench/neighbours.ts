import { deflateSync } from "node:zlib";
import { setTimeout as sleep } from "node:timers/promises";
import { Agent } from "undici";
import type { AdminLogin } from "../src/database/connection.ts";
import { databaseSeconds } from "../src/database/usage.ts";
import { DEFAULT_CPU_BUDGET } from "../src/model/cpu-budget.ts";
import { nextLoad, type Load } from "../src/model/load.ts";
import { nextStanding, type CpuStanding } from "../src/planner/cpu-budget.ts";
import { type Bench, type BenchOptions, type BenchResult, type Figure, quantile } from "./lib/result.ts";
import { median } from "./lib/statistics.ts";
import { type MatrixUser, PASSWORD } from "./lib/matrix.ts";
import { RoutedGateway } from "./lib/routed.ts";
import type { RunningShard } from "./lib/shard.ts";
import type { BenchTenant } from "./lib/tenant.ts";
import { World } from "./lib/world.ts";
import { type Answer, atRate, LoadUser, ok, type Target } from "./load-client.ts";

interface Size {
  neighbours: number;
  rounds: number;
  seconds: number;
  rooms: number;
  /** For the budget to come to rest before it is measured: five halvings. */
  settleMs: number;
}
const FULL: Size = { neighbours: 24, rounds: 3, seconds: 15, rooms: 30, settleMs: 18_000 };
const QUICK: Size = { neighbours: 4, rounds: 1, seconds: 5, rooms: 10, settleMs: 10_000 };

/** Pairs of a send and a sync of the neighbour, per second. */
const RATE = 8;
/** Clients that ask the hammered tenant as fast as it answers. */
const HAMMERS = 12;
const WARM_UP_MS = 1_500;
const LOOK_MS = 1_000;
/** The budget is the default one; it is only averaged over less, so that a case does not take minutes. */
const LIMITS = { budget: DEFAULT_CPU_BUDGET.perTenant, averageSeconds: 2, isolateAfterSeconds: 0, calmSeconds: 3600 };

export const bench: Bench = {
  name: "neighbours",
  title: "Latency beside a tenant that is hammered in every way, without and with its CPU budget",
  async run({ quick, log }: BenchOptions): Promise<BenchResult> {
    const size = quick ? QUICK : FULL;
    return report(size, await World.with(log, (world) => measure(world, size, log)));
  },
};

interface Hammer {
  token: string;
  userId: string;
  rooms: string[];
}
type Ask = (method: "GET" | "POST" | "PUT", path: string, body?: object | Buffer, token?: string) => Promise<Answer>;
/** One request after another, for as long as it is wanted. @param number rises with each */
type Kind = (ask: Ask, who: Hammer, number: number) => Promise<Answer>;

const client = (path: string) => `/_matrix/client/v3${path}`;

const KINDS: Record<string, Kind> = {
  logins: (ask, { userId }) =>
    ask("POST", client("/login"), {
      type: "m.login.password",
      identifier: { type: "m.id.user", user: userId },
      password: PASSWORD,
    }),
  "initial syncs": (ask, { token }, number) =>
    // Another filter each, as equal syncs share an answer.
    ask(
      "GET",
      client(`/sync?filter=${filter({ room: { timeline: { limit: 50 + (number % 1000) } } })}`),
      undefined,
      token,
    ),
  searches: (ask, { token }, number) =>
    ask(
      "POST",
      client("/search"),
      { search_categories: { room_events: { search_term: `message ${number % 7}` } } },
      token,
    ),
  joins: (ask, { token, rooms }, number) =>
    ask(
      "POST",
      client(`/rooms/${encodeURIComponent(rooms[number % rooms.length]!)}/${number % 2 ? "leave" : "join"}`),
      {},
      token,
    ),
  uploads: (ask, { token }) => ask("POST", "/_matrix/media/v3/upload?filename=a.png", picture(), token),
  "to-device floods": (ask, { token, userId }, number) =>
    ask("PUT", client(`/sendToDevice/m.flood/${userId}-${number}-${Date.now()}`), toEverybody(userId), token),
  "large filters": (ask, { token, userId }, number) =>
    ask("POST", client(`/user/${encodeURIComponent(userId)}/filter`), largeFilter(number), token),
};

const filter = (content: object) => encodeURIComponent(JSON.stringify(content));

function toEverybody(userId: string): object {
  const server = userId.split(":")[1];
  const users = Array.from({ length: HAMMERS }, (_, index) => `@user${index}:${server}`);
  return { messages: Object.fromEntries(users.map((user) => [user, { "*": { body: "x".repeat(500) } }])) };
}

function largeFilter(number: number): object {
  return { room: { timeline: { types: Array.from({ length: 1500 }, (_, index) => `m.type.${number}.${index}`) } } };
}

let made: Buffer | undefined;
/** A PNG of 1500² pixels, of which thumbnails are made. */
function picture(): Buffer {
  if (made) return made;
  const [width, height] = [1500, 1500];
  const line = Buffer.alloc(1 + width * 3);
  const rows = Buffer.concat(Array.from({ length: height }, (_, y) => (line.fill(y % 251, 1), Buffer.from(line))));
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, 2, 0, 0, 0], 8);
  const chunks = [chunk("IHDR", header), chunk("IDAT", deflateSync(rows)), chunk("IEND", Buffer.alloc(0))];
  return (made = Buffer.concat([Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]), ...chunks]));
}

function chunk(type: string, data: Buffer): Buffer {
  const body = Buffer.concat([Buffer.from(type, "latin1"), data]);
  const [length, check] = [Buffer.alloc(4), Buffer.alloc(4)];
  length.writeUInt32BE(data.length);
  check.writeUInt32BE(crc32(body) >>> 0);
  return Buffer.concat([length, body, check]);
}

function crc32(data: Buffer): number {
  let crc = -1;
  for (const byte of data) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return crc ^ -1;
}

/** One case in one round. Milliseconds; requests per second; shares of a core. */
interface Sample {
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
type Samples = Map<string, Sample[]>;

const QUIET = "nobody hammered";
const without = (kind: string) => `${kind}, no budget`;
const within = (kind: string) => `${kind}, budget`;

async function measure(world: World, size: Size, log: (line: string) => void): Promise<Samples> {
  log(`starting a shard with ${size.neighbours + 1} tenants`);
  const shard = await world.shard("shard");
  const [quiet, loud] = [await world.tenant("quiet"), await world.tenant("loud")];
  // As if its clients came from many addresses: what is measured is the budget, not Synapse's own limits.
  loud.allow(["rc_login", "rc_joins", "rc_invites"]);
  loud.overrides = JSON.stringify(LIFTED);
  const urls = { quiet: await shard.start(quiet), loud: await shard.start(loud) };
  await shard.startAll(await world.tenants("idle", size.neighbours - 1));
  const gateway = await RoutedGateway.start(world.directory, { maxInFlightPerTenant: 3 });
  const secret = (await shard.control.state()).gatewaySecret;
  const tell = (tenant: BenchTenant, url: string, part = 1): Promise<void> =>
    gateway.tell({
      tenant: tenant.name,
      hosts: [tenant.serverName],
      state: "serving",
      address: new URL(url).host,
      epoch: 1,
      ...(secret === undefined ? {} : { secret }),
      ...(part === 1 ? {} : { share: part }),
    });
  await tell(quiet, urls.quiet);
  await tell(loud, urls.loud);
  log("making users and rooms");
  const agent = new Agent({ connections: 128 });
  const at = ({ serverName }: BenchTenant): Target => ({ url: gateway.proxy.url, host: serverName });
  const person = LoadUser.withToken(at(quiet), agent, (await world.users(quiet, urls.quiet, 1))[0]!.accessToken);
  const room = await person.createRoom();
  await person.sync(0);
  const hammers = await furnish(await world.users(loud, urls.loud, HAMMERS), size.rooms);

  const samples: Samples = new Map();
  const ask = asker(agent, at(loud));
  const run = async (name: string, kind: Kind | undefined, budget: boolean): Promise<void> => {
    const control = {
      admin: world.admin,
      shard,
      tenant: loud,
      throttle: (part: number) => tell(loud, urls.loud, part),
      budget,
    };
    const sample = await measureOne({ person, room }, kind && { kind, ask, hammers }, control, size);
    samples.set(name, [...(samples.get(name) ?? []), sample]);
    const { send, sync, part, tenantShare, processShare, hammered, lag } = sample;
    log(
      `${name}: send p99 ${quantile(send, 0.99).toFixed(0)}, sync p99 ${quantile(sync, 0.99).toFixed(0)} ms; part ${part}, ` +
        `tenant ${tenantShare.toFixed(2)} of ${processShare.toFixed(2)} cores, statements ${sample.databaseShare.toFixed(2)}, starved ${sample.starved.toFixed(2)}, ${hammered.toFixed(0)}/s, lag ${(lag * 1000).toFixed(0)} ms`,
    );
  };
  for (let round = 1; round <= size.rounds; round++) {
    log(`round ${round} of ${size.rounds}`);
    for (const [name, kind] of Object.entries(KINDS)) {
      await run(QUIET, undefined, false);
      await run(without(name), kind, false);
      await run(within(name), kind, true);
    }
  }
  await agent.destroy();
  return samples;
}

const MANY = { per_second: 10_000, burst_count: 10_000 };
const LIFTED = {
  rc_login: { address: MANY, account: MANY, failed_attempts: MANY },
  rc_joins: { local: MANY, remote: MANY },
};

/** Rooms with all users and some messages. */
async function furnish(users: MatrixUser[], count: number): Promise<Hammer[]> {
  const [host, ...guests] = users;
  const rooms: string[] = [];
  for (let index = 0; index < count; index++) {
    const room = await host!.createRoom(guests.map((guest) => guest.userId));
    rooms.push(room);
    for (const guest of guests.slice(0, 3)) await guest.join(room);
    for (let number = 0; number < 5; number++) await host!.send(room, `message ${number} of room ${index}`);
  }
  await Promise.all(users.map((user) => user.close()));
  return users.map(({ accessToken, userId }) => ({ token: accessToken, userId, rooms }));
}

function asker(agent: Agent, { url, host }: Target): Ask {
  return async (method, path, body, token) => {
    const sent = performance.now();
    const answer = (status: number): Answer => ({ sent, answered: performance.now(), status, what: path });
    try {
      const response = await agent.request({
        origin: url,
        path,
        method,
        headers: {
          ...(host === undefined ? {} : { host }),
          ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
          ...(body === undefined ? {} : { "content-type": Buffer.isBuffer(body) ? "image/png" : "application/json" }),
        },
        body: body === undefined ? null : Buffer.isBuffer(body) ? body : JSON.stringify(body),
        signal: AbortSignal.timeout(120_000),
      });
      await response.body.dump();
      return answer(response.statusCode);
    } catch {
      return answer(0);
    }
  };
}

interface Control {
  admin: AdminLogin;
  shard: RunningShard;
  tenant: BenchTenant;
  throttle(part: number): Promise<void>;
  budget: boolean;
}

async function measureOne(
  { person, room }: { person: LoadUser; room: string },
  load: { kind: Kind; ask: Ask; hammers: Hammer[] } | undefined,
  control: Control,
  size: Pick<Size, "seconds" | "settleMs">,
): Promise<Sample> {
  const ending = new AbortController();
  const hammering = Promise.all(
    (load?.hammers ?? []).map((who, index) => hammerOn(load!, who, index * 100_000, ending.signal)),
  );
  const keeping = control.budget ? keepBudget(control, ending.signal) : Promise.resolve(1);
  await sleep(control.budget ? size.settleMs : WARM_UP_MS);
  await control.shard.stats();
  const [from, before] = [performance.now(), await control.shard.control.load()];
  const statementsOf = async () =>
    (await databaseSeconds(control.admin, [control.tenant.name])).get(control.tenant.name) ?? 0;
  const statementsBefore = await statementsOf();
  const pacing = new AbortController();
  const paced = atRate(RATE, pacing.signal, async () => [await person.send(room), await person.sync(0)]);
  await sleep(size.seconds * 1000);
  pacing.abort();
  const [to, after] = [performance.now(), await control.shard.control.load()];
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

async function hammerOn(
  { kind, ask }: { kind: Kind; ask: Ask },
  who: Hammer,
  first: number,
  signal: AbortSignal,
): Promise<Answer[]> {
  const answers: Answer[] = [];
  for (let number = first; !signal.aborted; number++) {
    const answer = await kind(ask, who, number);
    answers.push(answer);
    // Clients wait when they are told to; hostile ones not for long.
    if (!ok(answer)) await sleep(200);
  }
  return answers;
}

/** As the controller does it. @returns the part that the tenant was left with */
async function keepBudget({ admin, shard, tenant, throttle }: Control, signal: AbortSignal): Promise<number> {
  let standing: CpuStanding = {};
  let known: Load | undefined;
  let statements: Load | undefined;
  while (!signal.aborted) {
    const { tenants, process } = await shard.control.load();
    const { starvedSeconds } = process;
    const { cpuSeconds = 0, imageSeconds = 0 } = tenants[tenant.name] ?? {};
    const look = { at: Date.now(), cpuSeconds: cpuSeconds + imageSeconds, starvedSeconds };
    known = nextLoad(known, look, LIMITS.averageSeconds);
    const active = (await databaseSeconds(admin, [tenant.name])).get(tenant.name) ?? 0;
    statements = nextLoad(statements, { at: Date.now(), cpuSeconds: active, starvedSeconds: 0 }, LIMITS.averageSeconds);
    const database = (statements.share ?? 0) / DEFAULT_CPU_BUDGET.databasePerTenant;
    const seen = { share: known.share ?? 0, database, hasNeighbours: true };
    const next = nextStanding(Date.now(), standing, seen, LIMITS);
    if (next.throttle?.part !== standing.throttle?.part) await throttle(next.throttle?.part ?? 1);
    standing = next;
    await sleep(LOOK_MS, undefined, { signal }).catch(() => {});
  }
  return standing.throttle?.part ?? 1;
}

function report({ neighbours, rounds, seconds }: Size, samples: Samples): BenchResult {
  const kinds = Object.keys(KINDS);
  const quiet = samples.get(QUIET)!;
  // Over all rounds: the p99 of one is its second longest answer, which is chance.
  const p99 = (found: Sample[], what: "send" | "sync") =>
    quantile(
      found.flatMap((sample) => sample[what]),
      0.99,
    );
  const note = `${neighbours} neighbours; ${rounds} rounds of ${seconds} s, ${RATE} answers a second`;
  const figures: Figure[] = (["send", "sync"] as const).map((what) => ({
    what: `${QUIET}: ${what}, p99`,
    value: p99(quiet, what),
    unit: "ms",
    note: `${note}, before each case`,
  }));
  for (const kind of kinds)
    for (const name of [without(kind), within(kind)]) {
      const found = samples.get(name)!;
      for (const what of ["send", "sync"] as const) {
        figures.push(
          { what: `${name}: ${what}, p99`, value: p99(found, what), unit: "ms", note },
          {
            what: `${name}: ${what}, p99, against nobody hammered`,
            value: p99(found, what) / p99(quiet, what),
            unit: "×",
            ...(name === within(kind) ? { target: { at: "most" as const, value: 1.5 } } : {}),
            note,
          },
        );
      }
      figures.push(
        {
          what: `${name}: processor time of the hammered one`,
          value: median(found.map((one) => one.tenantShare)),
          unit: "cores",
          note,
        },
        {
          what: `${name}: what the hammered one gets done`,
          value: median(found.map((one) => one.hammered)),
          unit: "requests/s",
          note,
        },
      );
      if (name === within(kind))
        figures.push({
          what: `${name}: part of its requests in flight`,
          value: median(found.map((one) => one.part)),
          unit: "",
          note,
        });
    }
  figures.push({
    what: "part of the time in which the machine did not let the shard run",
    value: median([...samples.values()].flat().map((one) => one.starved)),
    unit: "",
    note: "median of all cases; above 0.1 the figures are the machine's",
  });
  const cases = [QUIET, ...kinds.flatMap((kind) => [without(kind), within(kind)])];
  return {
    name: bench.name,
    title: bench.title,
    figures,
    plots: (["send", "sync"] as const).map((what) => ({
      title: `Latency of a neighbour's ${what}`,
      x: { label: "case", values: cases },
      y: { label: "ms" },
      series: [0.5, 0.99].map((q) => ({
        name: `p${q * 100}`,
        values: cases.map((name) => median(samples.get(name)!.map((one) => quantile(one[what], q)))),
      })),
    })),
    raw: Object.fromEntries(samples),
  };
}
