import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type ServerResponse } from "node:http";
import { connect, type AddressInfo, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Route, RouteAck, RouteFeedLine } from "../src/model/routes.ts";
import { startGateway } from "./gateway-proxies.ts";
import { onEnd } from "./lib/cleanup.ts";
import { cpuSecondsOf, memoryOf } from "./lib/processes.ts";
import type { Bench, BenchOptions, BenchResult, Figure } from "./lib/result.ts";

interface Size {
  /** Each with one client. */
  tenants: number;
  restSeconds: number;
  pollSeconds: number;
}
/** A gateway takes half of its descriptors for clients, which is 9,968 under the usual limit of 20,000. */
const FULL: Size = { tenants: 9_900, restSeconds: 60, pollSeconds: 30 };
const QUICK: Size = { tenants: 500, restSeconds: 3, pollSeconds: 3 };

const HOST = "127.0.0.1";
/** Connections that are made at once. */
const AT_ONCE = 100;
const SETTLE_MS = 5_000;
/** What opening connections left behind is collected by then. */
const REST_AFTER_MS = 20_000;
const LONG_MS = 900_000;
const POSITION = "s1042_17_0_673_10825_541_2747_2655_0_3_1_1_1_1";
const NOTHING = JSON.stringify({
  next_batch: POSITION,
  device_one_time_keys_count: { signed_curve25519: 50 },
  device_unused_fallback_key_types: ["signed_curve25519"],
});

export const bench: Bench = {
  name: "polls",
  title: "Polls that the gateway holds for tenants that sleep",
  async run({ quick, log }: BenchOptions): Promise<BenchResult> {
    const size = quick ? QUICK : FULL;
    const directory = await mkdtemp(join(tmpdir(), "polls-bench-"));
    onEnd(() => rm(directory, { recursive: true, force: true }));
    const origin = await listening((response) => {
      response.writeHead(200, { "Content-Type": "application/json", "Content-Length": NOTHING.length }).end(NOTHING);
    });
    const feed = await startFeed();
    const gateway = await startGateway(
      directory,
      {},
      {
        controller: `http://${HOST}:${feed.port}`,
        maxConnectionsPerAddress: size.tenants + 10,
      },
    );
    const names = Array.from({ length: size.tenants }, (_, index) => `tenant-${index}`);
    const routes = (state: "serving" | "asleep"): Route[] =>
      names.map((tenant) => {
        const route: Route = { tenant, hosts: [`${tenant}.example`], state, epoch: 1 };
        return state === "serving" ? { ...route, address: `${HOST}:${origin}` } : { ...route, position: POSITION };
      });
    const memory = async (): Promise<number> => {
      await sleep(SETTLE_MS);
      return (await memoryOf(gateway.pid)).pss;
    };

    log(`${size.tenants} tenants`);
    await feed.send(routes("serving"));
    const before = await memory();
    const port = Number(new URL(gateway.url).port);
    const clients: Client[] = [];
    for (let from = 0; from < names.length; from += AT_ONCE)
      clients.push(...(await Promise.all(names.slice(from, from + AT_ONCE).map((name) => Client.open(port, name)))));
    await all(clients, (client) => client.poll(1));
    const connected = await memory();
    await feed.send(routes("asleep"));

    log("each has a poll that is held");
    const held = clients.map((client) => client.poll(LONG_MS));
    const holding = await memory();
    if (!quick) await sleep(REST_AFTER_MS);
    const restFrom = await cpuSecondsOf(gateway.pid);
    await sleep(size.restSeconds * 1000);
    const rest = ((await cpuSecondsOf(gateway.pid)) - restFrom) / size.restSeconds;

    log("they are passed on, and the tenants sleep again");
    const wokenAt = performance.now();
    await feed.send(routes("serving"));
    await Promise.all(held);
    const passedMs = performance.now() - wokenAt;
    await feed.send(routes("asleep"));

    log(`they poll for ${size.pollSeconds} s each, again and again`);
    const end = performance.now() + 2 * size.pollSeconds * 1000;
    let answered = 0;
    const polling = clients.map(async (client, index) => {
      // As clients come: spread over the time of a poll.
      await sleep((index / clients.length) * size.pollSeconds * 1000);
      while (performance.now() < end) {
        await client.poll(size.pollSeconds * 1000);
        answered += 1;
      }
    });
    await sleep(size.pollSeconds * 1000);
    const [turnFrom, answeredFrom] = [await cpuSecondsOf(gateway.pid), answered];
    await sleep(size.pollSeconds * 1000);
    const turn = ((await cpuSecondsOf(gateway.pid)) - turnFrom) / size.pollSeconds;
    const perSecond = (answered - answeredFrom) / size.pollSeconds;
    await Promise.all(polling);
    for (const client of clients) client.close();

    const each = (bytes: number): number => bytes / size.tenants / 1024;
    const note = `${size.tenants} tenants that sleep, one client with a connection and a poll each`;
    const figures: Figure[] = [
      {
        what: "memory of the gateway, by tenant",
        value: each(before),
        unit: "KiB PSS",
        note: "routes alone, and the gateway itself",
      },
      {
        what: "memory of a connection, and of the answer that is remembered",
        value: each(connected - before),
        unit: "KiB PSS",
        note,
      },
      {
        what: "memory of a held poll, with its connection and its answer",
        value: each(holding - before),
        unit: "KiB PSS",
        target: { at: "most", value: 32 },
        note,
      },
      {
        what: "processor time at rest",
        value: rest * 100,
        unit: "% of a core",
        target: { at: "most", value: 1 },
        note: `${note}; none ends meanwhile`,
      },
      {
        what: `processor time while they poll for ${size.pollSeconds} s each`,
        value: turn * 100,
        unit: "% of a core",
        target: { at: "most", value: 20 },
        note: `${note}; ${perSecond.toFixed(0)} answers a second`,
      },
      { what: "all tenants wake at once: until the last poll is answered", value: passedMs, unit: "ms", note },
    ];
    return {
      name: bench.name,
      title: bench.title,
      figures,
      plots: [],
      raw: { before, connected, holding, rest, turn },
    };
  },
};

async function all<T>(items: readonly T[], act: (item: T) => Promise<void>): Promise<void> {
  for (let from = 0; from < items.length; from += AT_ONCE)
    await Promise.all(items.slice(from, from + AT_ONCE).map(act));
}

/** @returns its port */
async function listening(answer: (response: ServerResponse, url: string, body: string) => void): Promise<number> {
  const server = createServer((request, response) => {
    let body = "";
    request.on("data", (chunk) => (body += String(chunk)));
    request.once("end", () => answer(response, request.url ?? "", body));
  });
  server.keepAliveTimeout = 60_000;
  server.listen(0, HOST);
  await once(server, "listening");
  onEnd(async () => server.closeAllConnections());
  onEnd(async () => void server.close());
  return (server.address() as AddressInfo).port;
}

/** The controller, as far as a gateway sees it. */
async function startFeed(): Promise<{ port: number; send(routes: Route[]): Promise<void> }> {
  let stream: ServerResponse | undefined;
  let version = 0;
  let acknowledged = -1;
  const say = (line: RouteFeedLine): void => void stream?.write(`${JSON.stringify(line)}\n`);
  const port = await listening((response, url, body) => {
    if (!url.startsWith("/v1/routes?")) {
      response.writeHead(202).end();
      if (url.startsWith("/v1/routes/acks")) acknowledged = (JSON.parse(body) as RouteAck).version;
      return;
    }
    stream = response.writeHead(200, { "Content-Type": "application/x-ndjson" });
    say({ type: "snapshot", version, routes: [] });
  });
  const pings = setInterval(() => say({ type: "ping" }), 5_000);
  onEnd(async () => clearInterval(pings));
  return {
    port,
    async send(routes) {
      while (!stream) await sleep(50);
      version += 1;
      say({ type: "update", version, routes, removed: [] });
      while (acknowledged < version) await sleep(5);
    },
  };
}

/** One connection, with one request at a time: lighter than any HTTP client. */
class Client {
  readonly #socket: Socket;
  readonly #name: string;
  #done: (() => void) | undefined;

  private constructor(socket: Socket, name: string) {
    this.#socket = socket;
    this.#name = name;
    let text = "";
    socket.on("data", (chunk) => {
      text += chunk.toString("latin1");
      if (text.includes("\r\n\r\n") && !text.startsWith("HTTP/1.1 200 "))
        throw new Error(`not an HTTP answer: ${text.slice(0, 200)}`);
      if (!text.endsWith(NOTHING)) return;
      text = "";
      this.#done?.();
    });
  }

  static async open(port: number, name: string): Promise<Client> {
    const socket = connect(port, HOST);
    await once(socket, "connect");
    return new Client(socket, name);
  }

  poll(timeoutMs: number): Promise<void> {
    const path = `/_matrix/client/v3/sync?filter=1&timeout=${timeoutMs}&since=${POSITION}`;
    const token = `syt_${this.#name}_${"x".repeat(24)}`;
    return new Promise((resolve, reject) => {
      this.#done = resolve;
      this.#socket.once("close", reject);
      this.#socket.write(
        `GET ${path} HTTP/1.1\r\nHost: ${this.#name}.example\r\nAuthorization: Bearer ${token}\r\n` +
          "User-Agent: Mozilla/5.0 (X11; Linux x86_64) Chrome/130.0.0.0 Safari/537.36\r\nAccept: application/json\r\n" +
          "Accept-Encoding: gzip, deflate, br\r\nOrigin: https://app.example\r\nReferer: https://app.example/\r\n\r\n",
      );
      this.#socket.removeListener("close", reject);
    });
  }

  close(): void {
    this.#socket.destroy();
  }
}
