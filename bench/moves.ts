import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Agent } from "undici";
import { stringify } from "yaml";
import type { TenantView } from "../src/api/views.ts";
import type { Move, MoveResult } from "../src/model/move.ts";
import { BenchCluster, STILL } from "./lib/cluster.ts";
import { PASSWORD } from "./lib/matrix.ts";
import { type Bench, type BenchOptions, type BenchResult, type Figure, quantile } from "./lib/result.ts";
import { type Answer, atRate, LoadUser, ok } from "./load-client.ts";

const FULL = { moves: 1_000 };
const QUICK = { moves: 20 };

const TENANT = "clinic-a";
const POLLS = 20;
const POLL_MS = 30_000;
/** Per second; 50 in total, which a shard on one core sustains beside everything else. */
const RATES = { send: 5, sync: 20, whoami: 25 };
/** Pause between two moves, until the polls wait again and held requests are answered; otherwise the next move would measure the queue of the last one. */
const PAUSE_MS = 150;
const SETTLED = 10;
const SETTLE_MS = 20_000;
/** What a client sees shortly before and after the move belongs to it. */
const AROUND_MS = 100;
const CALM_MS = 5_000;
const MOVE_MS = 60_000;
const ASK_EVERY_MS = 25;

export const bench: Bench = {
  name: "moves",
  title: "Moving a tenant while it is in use: 50 requests/s and 20 long polls",
  async run({ quick, log }: BenchOptions): Promise<BenchResult> {
    const { moves } = quick ? QUICK : FULL;
    log("bringing up a whole cluster");
    const cluster = await BenchCluster.up({
      maxTenantsPerShard: 3,
      avgShardsLoadRedistributionThreshold: 0,
      ...STILL,
      tenantPolicy: { allowedOptions: ["rc_message", "rc_login"] },
    });
    try {
      const often = { per_second: 10_000, burst_count: 10_000 };
      const overrides = join(cluster.dataDir, "overrides.yaml");
      const rc_login = { address: often, account: often, failed_attempts: often };
      await writeFile(overrides, stringify({ rc_message: often, rc_login, bcrypt_rounds: 4 }));
      for (const name of [TENANT, "clinic-b"])
        await cluster.cli("tenant", "create", name, "--wait", "--config", overrides);
      for (const user of ["alice", "watcher"])
        await cluster.cli("tenant", "register-user", TENANT, "--user", user, "--password", PASSWORD);
      return report(await measure(cluster, moves, log));
    } finally {
      await cluster.close();
    }
  },
};

interface Seen {
  result: MoveResult;
  /** `performance.now()` */
  begun: number;
  ended: number;
}

interface Measured {
  moves: Seen[];
  answers: Answer[];
  polls: Answer[];
  /** The period in which nothing moved. */
  calm: [number, number];
}

async function measure(cluster: BenchCluster, moves: number, log: (line: string) => void): Promise<Measured> {
  const agent = new Agent({ connections: 256, headersTimeout: 0, bodyTimeout: 0 });
  const target = { url: cluster.gateway, host: `${TENANT}.localhost` };
  const login = (user: string) => LoadUser.logIn(target, agent, user, PASSWORD);
  const alice = await login("alice");
  const room = await alice.createRoom();
  await alice.sync(0);
  const ending = new AbortController();
  const polling: Promise<Answer[]>[] = [];
  for (let index = 0; index < POLLS; index++) polling.push(poll(await login("watcher"), ending.signal));
  let open = 0;
  const counted = (ask: () => Promise<Answer>) => () => {
    open += 1;
    return ask().finally(() => {
      open -= 1;
    });
  };
  const load = Promise.all([
    atRate(
      RATES.send,
      ending.signal,
      counted(() => alice.send(room)),
    ),
    atRate(
      RATES.sync,
      ending.signal,
      counted(() => alice.sync(0)),
    ),
    atRate(
      RATES.whoami,
      ending.signal,
      counted(() => alice.whoami()),
    ),
  ]);
  await sleep(1_000);
  const calm: [number, number] = [performance.now(), performance.now() + CALM_MS];
  await sleep(CALM_MS);
  const seen: Seen[] = [];
  for (let number = 1; number <= moves; number++) {
    const begun = performance.now();
    const result = await move(cluster, TENANT);
    seen.push({ result, begun, ended: performance.now() });
    if (number % Math.ceil(moves / 10) === 0) log(`${number} of ${moves} moves`);
    await sleep(PAUSE_MS);
    for (const deadline = performance.now() + SETTLE_MS; open > SETTLED && performance.now() < deadline;)
      await sleep(ASK_EVERY_MS);
  }
  ending.abort();
  const answers = (await load).flat();
  const polls = (await Promise.all(polling)).flat();
  await agent.destroy();
  return { moves: seen, answers, polls, calm };
}

/** One poll after another; the last one, which nobody waits for, is not counted. */
async function poll(user: LoadUser, signal: AbortSignal): Promise<Answer[]> {
  const answers: Answer[] = [];
  for (let timeout = 0; ; timeout = POLL_MS) {
    const answer = await user.sync(timeout, signal);
    if (signal.aborted) return answers;
    answers.push(answer);
    // Otherwise a homeserver that refuses would be asked as fast as it can refuse.
    if (!ok(answer)) await sleep(1_000);
  }
}

async function move(cluster: BenchCluster, tenant: string): Promise<MoveResult> {
  const { id } = await cluster.call<Move>("POST", `/v1/tenants/${tenant}/move`);
  for (const deadline = Date.now() + MOVE_MS; Date.now() < deadline; await sleep(ASK_EVERY_MS)) {
    const { lastMove } = (await cluster.call<TenantView>("GET", `/v1/tenants/${tenant}`)).status;
    if (lastMove?.id === id) return lastMove;
  }
  throw new Error(`the move ${id} did not end within ${MOVE_MS / 1000} s`);
}

/** The longest time between two consecutive answers, in seconds; `times` must be sorted. */
function longestGap(times: number[], from: number, to: number): number {
  let [last, longest] = [from, 0];
  for (const time of times) {
    if (time <= from) continue;
    if (time > to) break;
    longest = Math.max(longest, time - last);
    last = time;
  }
  return Math.max(longest, to - last) / 1000;
}

function report({ moves, answers, polls, calm }: Measured): BenchResult {
  const times = answers
    .filter(ok)
    .map(({ answered }) => answered)
    .toSorted((a, b) => a - b);
  const gaps = moves.map(({ begun, ended }) => longestGap(times, begun - AROUND_MS, ended + AROUND_MS));
  const blackouts = moves.map(({ result }) => result.blackoutSeconds);
  const failed = [...answers, ...polls].filter((answer) => !ok(answer));
  const unsuccessful = moves.filter(({ result }) => result.outcome !== "Succeeded");
  const waited = answers.filter(ok).map(({ sent, answered }) => (answered - sent) / 1000);
  const of = `of ${moves.length} moves`;
  const atMost = (value: number) => ({ at: "most" as const, value });
  const figures: Figure[] = [
    { what: "blackout, p50", value: quantile(blackouts, 0.5), unit: "s", target: atMost(0.5), note: of },
    { what: "blackout, p99", value: quantile(blackouts, 0.99), unit: "s", target: atMost(1.5), note: of },
    { what: "longest gap between answers in a move, p50", value: quantile(gaps, 0.5), unit: "s", note: of },
    { what: "longest gap between answers in a move, p99", value: quantile(gaps, 0.99), unit: "s", note: of },
    {
      what: "longest gap between answers without a move",
      value: longestGap(times, ...calm),
      unit: "s",
      note: `in ${CALM_MS / 1000} s`,
    },
    {
      what: "failed requests, as the clients count",
      value: failed.length,
      unit: "requests",
      target: atMost(0),
      note: `of ${answers.length} requests and ${polls.length} long polls in ${moves.length} moves`,
    },
    {
      what: "failed requests, as the gateway counts",
      value: moves.reduce((sum, { result }) => sum + result.failedRequests, 0),
      unit: "requests",
      target: atMost(0),
      note: of,
    },
    { what: "moves that did not succeed", value: unsuccessful.length, unit: "moves", target: atMost(0), note: of },
    {
      what: "requests that waited, per move",
      value: moves.reduce((sum, { result }) => sum + result.parkedRequests, 0) / moves.length,
      unit: "requests",
      note: `mean ${of}`,
    },
    { what: "latency of all requests, p99", value: quantile(waited, 0.99), unit: "s", note: "those in moves included" },
  ];
  const shares = Array.from({ length: 100 }, (_, index) => index + 1);
  return {
    name: bench.name,
    title: bench.title,
    figures,
    plots: [
      {
        title: "Blackout of a move",
        x: { label: "percentile", values: shares },
        y: { label: "seconds" },
        series: [
          { name: "blackout", values: shares.map((share) => quantile(blackouts, share / 100)) },
          { name: "longest gap between answers", values: shares.map((share) => quantile(gaps, share / 100)) },
        ],
      },
    ],
    raw: {
      moves: moves.map(({ result, begun, ended }, index) => ({
        ...result,
        seconds: (ended - begun) / 1000,
        gap: gaps[index],
      })),
      failed: failed.map(({ what, status }) => ({ what, status })),
    },
  };
}
