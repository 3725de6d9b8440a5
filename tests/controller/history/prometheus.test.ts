import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { HistoryRecorder } from "../../../src/controller/history/history-recorder.ts";
import { MemoryHistory } from "../../../src/controller/history/memory-history.ts";
import { PrometheusHistory } from "../../../src/controller/history/prometheus.ts";
import { queriesOf } from "../../../src/controller/history/prometheus-queries.ts";
import { HistoryConfigSchema, type PrometheusConfig } from "../../../src/model/history-source.ts";
import { SteadyClock } from "../../../src/model/clock.ts";
import { FakeTime } from "../../support/fake-clock.ts";

const NOW = Date.parse("2026-11-27T12:00:30Z");
const MINUTE = 60_000;

/** Answers as a Prometheus does, with values of `at`. */
class FakePrometheus {
  readonly asked: { query: string; start: number; end: number; step: number; headers: IncomingMessage["headers"] }[] =
    [];
  /** Of a query at a time, in seconds; undefined: no series. */
  valueOf: (query: string, at: number) => string | undefined = () => "2";
  /** In place of that. */
  instead: ((response: ServerResponse) => void) | undefined;
  readonly #server: Server;

  constructor() {
    this.#server = createServer((request, response) => this.#answer(request, response));
  }

  async listen(): Promise<string> {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async close(): Promise<void> {
    const closed = this.#server.listening ? once(this.#server, "close") : undefined;
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const { pathname, searchParams } = new URL(request.url!, "http://prometheus");
    const [start, end, step] = ["start", "end", "step"].map((name) => Number(searchParams.get(name))) as [
      number,
      number,
      number,
    ];
    const query = searchParams.get("query")!;
    this.asked.push({ query, start, end, step, headers: request.headers });
    if (this.instead) return this.instead(response);
    if (!pathname.endsWith("/api/v1/query_range")) return void response.writeHead(404).end();
    const values: [number, string][] = [];
    for (let at = start; at <= end; at += step) {
      const value = this.valueOf(query, at);
      if (value !== undefined) values.push([at, value]);
    }
    const result = values.length === 0 ? [] : [{ metric: {}, values }];
    response.writeHead(200, { "Content-Type": "application/json" });
    response.end(JSON.stringify({ status: "success", data: { resultType: "matrix", result } }));
  }
}

let prometheus: FakePrometheus;
let url: string;
let time: FakeTime;
let directory: string;
beforeEach(async () => {
  prometheus = new FakePrometheus();
  url = await prometheus.listen();
  time = new FakeTime(NOW);
  directory = mkdtempSync(join(tmpdir(), "prometheus-history-"));
});
afterEach(async () => {
  await prometheus.close();
  rmSync(directory, { recursive: true });
});

function historyFrom(config: Partial<PrometheusConfig> = {}, timeoutMs?: number): PrometheusHistory {
  const whole: PrometheusConfig = { url, labels: {}, ...config };
  const parts = { config: whole, clock: new SteadyClock(time), maxTenantsPerShard: () => 25 };
  return new PrometheusHistory({ ...parts, ...(timeoutMs === undefined ? {} : { timeoutMs }) });
}

describe("plots from Prometheus", () => {
  test("have a value of each step, which is the one at its end", async () => {
    prometheus.valueOf = (query, at) => (query.includes(`phase="Running"`) ? String(at % 3600) : "1");
    const found = await historyFrom().read("hour");
    expect(found).toMatchObject({ from: "2026-11-27T11:01:00.000Z", stepSeconds: 60, source: "prometheus" });
    const running = found.series.find(({ name }) => name === "running")!.values;
    expect(running.length).toBe(60);
    expect([running[0], running[1], running.at(-1)]).toEqual([120, 180, 60]);
    expect(found.series.map(({ name }) => name)).toEqual(
      expect.arrayContaining(["asleep", "busiest", "load", "memory", "moves", "places", "shards", "wakes"]),
    );
  });

  test("leave out what Prometheus does not know, and what is no number", async () => {
    prometheus.valueOf = (query, at) => {
      if (query.includes("move_blackout")) return "NaN";
      if (query.includes(`phase="Running"`)) return at % 120 === 0 ? "3" : undefined;
      return query.includes("shard_load") ? "+Inf" : undefined;
    };
    const { series } = await historyFrom().read("hour");
    expect(series.map(({ name }) => name)).toEqual(["running"]);
    expect(series[0]!.values.slice(0, 4)).toEqual([3, null, 3, null]);
  });

  test("ask for this cluster's series alone, and hand a name to Prometheus as a name", async () => {
    const asked = { stepSeconds: 60, maxTenantsPerShard: 25, labels: { cluster_id: `x"} or up{a="` } };
    const shard = `1.163.2-0"} or up{b="`;
    for (const { query } of queriesOf({ ...asked, shard }))
      expect(query).toContain(String.raw`shard="1.163.2-0\"} or up{b=\""`);
    for (const of of [{}, { shard }]) {
      const queries = queriesOf({ ...asked, ...of });
      for (const { query } of queries) {
        expect(query).toContain(String.raw`cluster_id="x\"} or up{a=\""`);
      }
    }
    await historyFrom({ labels: { cluster_id: "clinics" } }).read("day", "1.163.2-0");
    expect(prometheus.asked.map(({ query }) => query)).toEqual([
      `avg_over_time((max(synapse_shards_controller_shard_load_ratio{cluster_id="clinics",shard="1.163.2-0"}))[300s:60s])`,
      `avg_over_time((max(process_resident_memory_bytes{cluster_id="clinics",component="shard",shard="1.163.2-0"}))[300s:60s])`,
    ]);
  });

  test("are asked for once, whoever looks at them, and again when there may be something new", async () => {
    const history = historyFrom();
    const [first, second] = await Promise.all([history.read("hour"), history.read("hour")]);
    expect(second).toBe(first);
    const once = prometheus.asked.length;
    expect(once).toBeGreaterThan(10);
    time.pass(MINUTE);
    await history.read("hour");
    expect(prometheus.asked.length).toBe(2 * once);
  });

  test("are asked for with a bounded number of steps, in every range", async () => {
    for (const range of ["hour", "day", "week", "month", "year"] as const) await historyFrom().read(range, "1.163.2-0");
    for (const { start, end, step } of prometheus.asked) expect((end - start) / step).toBeLessThan(400);
  });

  test("come with the token of the configuration, and below the path of its address", async () => {
    const tokenFile = join(directory, "token");
    writeFileSync(tokenFile, "s3cret\n");
    await historyFrom({ url: `${url}/prometheus/`, tokenFile }).read("hour", "1.163.2-0");
    expect(prometheus.asked[0]!.headers.authorization).toBe("Bearer s3cret");
    await expect(historyFrom({ tokenFile: join(directory, "none") }).read("hour")).rejects.toThrow(/tokenFile/);
  });

  const wrong: [string, (response: ServerResponse) => void, RegExp][] = [
    ["an error", (response) => response.writeHead(503).end(), /answers with 503/],
    ["a way to elsewhere", (response) => response.writeHead(302, { Location: "http://127.0.0.1:1/" }).end(), /302/],
    ["a page", (response) => response.end("<html>"), /something else/],
    ["another kind of result", (response) => response.end(`{"status":"success","data":{}}`), /something else/],
    ["no end", (response) => response.write(`{"status":`), /in time/],
    ["too much", (response) => response.end("x".repeat(2 * 1024 * 1024)), /more than/],
  ];
  test.each(wrong)("say what is wrong where the answer is %s", async (what, instead, words) => {
    prometheus.instead = instead;
    // Only what never ends takes the time that there is.
    await expect(historyFrom({}, what === "no end" ? 500 : undefined).read("hour")).rejects.toThrow(words);
  });

  test("do not wait for one that is away by each who looks", async () => {
    prometheus.instead = (response) => response.writeHead(500).end();
    const history = historyFrom();
    await expect(history.read("hour")).rejects.toThrow(/500/);
    const before = prometheus.asked.length;
    await expect(history.read("day")).rejects.toThrow(/500/);
    expect(prometheus.asked.length).toBe(before);
    prometheus.instead = undefined;
    time.pass(MINUTE);
    expect((await history.read("day")).source).toBe("prometheus");
  });
});

describe("the history of a controller with a Prometheus", () => {
  const recorder = () => {
    const warnings: unknown[] = [];
    const log = { warn: (...said: unknown[]) => void warnings.push(said) } as never;
    const store = new MemoryHistory();
    const at = NOW - (NOW % MINUTE) - MINUTE;
    void store.write([{ step: MINUTE, at, count: 1, values: { running: 7 } }]);
    const parts = { store, clock: new SteadyClock(time), log, elsewhere: historyFrom() };
    return { recorder: new HistoryRecorder(parts), warnings };
  };
  const runningIn = ({ series }: { series: { name: string; values: (number | null)[] }[] }) =>
    series.find(({ name }) => name === "running")!.values.at(-2);

  test("is Prometheus's, and without a word", async () => {
    const found = await recorder().recorder.read("hour");
    expect([runningIn(found), found.source, found.problem]).toEqual([2, "prometheus", undefined]);
  });

  test("is its own with a word about it while Prometheus is away, and Prometheus's again", async () => {
    const { recorder: history, warnings } = recorder();
    await prometheus.close();
    for (const range of ["hour", "hour"] as const) {
      const found = await history.read(range);
      expect([runningIn(found), found.source]).toEqual([7, "controller"]);
      expect(found.problem).toMatch(/controller's own history.*cannot be reached \(ECONNREFUSED\)/);
    }
    expect(warnings.length).toBe(1);
  });

  test("is its own of a shard that Prometheus does not know, and Prometheus's of all others", async () => {
    prometheus.valueOf = (query) => (query.includes("1.163.2-9") ? undefined : "2");
    const { recorder: history } = recorder();
    expect(await history.read("hour", "1.163.2-9")).toMatchObject({ source: "controller", series: [] });
    expect(await history.read("hour", "1.163.2-0")).toMatchObject({ source: "prometheus" });
  });

  test("is its own where Prometheus knows nothing of this cluster", async () => {
    prometheus.valueOf = () => undefined;
    const found = await recorder().recorder.read("hour");
    expect([runningIn(found), found.source]).toEqual([7, "controller"]);
    expect(found.problem).toMatch(/history\.prometheus\.labels/);
  });
});

test.each([
  [{ prometheus: { url: "ftp://x" } }, "url"],
  [{ prometheus: { url: "http://user:pass@x" } }, "tokenFile"],
  [{ prometheus: { url: "http://x", labels: { "a-b": "c" } } }, "labels"],
  [{ prometheus: {} }, "url"],
  [{ prometheus: { url: "http://x", query: "up" } }, "query"],
])("the configuration %j is refused", (config, words) => {
  const { success, error } = HistoryConfigSchema.safeParse(config);
  expect([success, JSON.stringify(error?.issues)]).toEqual([false, expect.stringContaining(words)]);
});
