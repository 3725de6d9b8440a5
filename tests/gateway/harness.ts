import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import {
  createServer,
  request as httpRequest,
  type IncomingMessage,
  type RequestListener,
  type Server,
  type ServerResponse,
} from "node:http";
import { connect, type AddressInfo, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pino } from "pino";
import type { SharedCertificates } from "../../src/model/certificates.ts";
import type { AnsweredRequests, Route, RouteAck, RouteFeedLine, WakeRequest } from "../../src/model/routes.ts";
import { parseGatewayConfig, type GatewayConfig } from "../../src/gateway/config.ts";
import { Gateway, type GatewayReady } from "../../src/gateway/gateway.ts";
import type { Timeouts } from "../../src/gateway/server.ts";
import { until } from "../support/patience.ts";

const TOKEN = "feed-token-for-tests";

/** Waits until `check` gives something. @throws Error naming `what` */
export async function eventually<T>(what: string, check: () => T | Promise<T>): Promise<NonNullable<T>> {
  return until(what, async () => (await check()) || undefined);
}

/** A server in the place of a tenant's listener; keeps what it was asked. */
export class Origin {
  readonly server: Server;
  readonly seen: { method: string; url: string; headers: IncomingMessage["headers"]; body: Buffer }[] = [];
  readonly #sockets = new Set<Socket>();
  connections = 0;
  port = 0;

  constructor(listener?: RequestListener) {
    this.server = createServer(listener ?? ((request, response) => this.#echo(request, response).catch(() => {})));
    this.server.keepAliveTimeout = 60_000;
    this.server.on("connection", (socket) => {
      this.connections += 1;
      this.#sockets.add(socket);
      socket.on("close", () => this.#sockets.delete(socket));
    });
  }

  get address(): string {
    return `127.0.0.1:${this.port}`;
  }

  /** Connections that are open now. */
  get open(): number {
    return this.#sockets.size;
  }

  async listen(port = 0): Promise<this> {
    this.server.listen(port, "127.0.0.1");
    await once(this.server, "listening");
    this.port = (this.server.address() as AddressInfo).port;
    return this;
  }

  /** Breaks every connection, as a killed process does. */
  cut(): void {
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  async close(): Promise<void> {
    const closed = this.server.listening ? once(this.server, "close") : undefined;
    this.server.close();
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  async #echo(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const body = Buffer.concat(chunks);
    this.seen.push({ method: request.method!, url: request.url!, headers: request.headers, body });
    response.setHeader("Content-Type", "application/json");
    response.end(JSON.stringify({ port: this.port, url: request.url, bytes: body.length }));
  }
}

/** A controller's feed, as far as gateways see it. */
export class FakeController {
  readonly acks: RouteAck[] = [];
  readonly gateways: string[] = [];
  readonly wakes: WakeRequest[] = [];
  readonly answered: AnsweredRequests[] = [];
  /** What a gateway is told of certificates; undefined: an error. */
  certificates: ((known: URLSearchParams) => Promise<SharedCertificates>) | undefined;
  /** Answers requests for wakes with an error. */
  refusesWakes = false;
  /** The same for counts of requests. */
  /** The status with which counts are refused; 0: they are taken. */
  refusesRequests = 0;
  readonly #server: Server;
  readonly #streams = new Set<ServerResponse>();
  routes: Route[] = [];
  version = 0;
  /** Of the feed. */
  unauthorized = 0;
  port = 0;

  constructor() {
    this.#server = createServer((request, response) => void this.#handle(request, response));
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  get connected(): number {
    return this.#streams.size;
  }

  async listen(port = 0): Promise<this> {
    this.#server.listen(port, "127.0.0.1");
    await once(this.#server, "listening");
    this.port = (this.#server.address() as AddressInfo).port;
    return this;
  }

  /** Sends an update, and waits for the word that it is acted upon. */
  async update(routes: Route[], removed: string[] = []): Promise<RouteAck> {
    const version = this.send(routes, removed);
    return this.acknowledged(version);
  }

  send(routes: Route[], removed: string[] = []): number {
    this.version += 1;
    const names = new Set([...removed, ...routes.map((route) => route.tenant)]);
    this.routes = [...this.routes.filter((route) => !names.has(route.tenant)), ...routes];
    this.line({ type: "update", version: this.version, routes, removed });
    return this.version;
  }

  acknowledged(version: number): Promise<RouteAck> {
    return eventually(`acknowledgement of version ${version}`, () => this.acks.find((ack) => ack.version >= version));
  }

  line(line: RouteFeedLine | object): void {
    for (const stream of this.#streams) stream.write(`${JSON.stringify(line)}\n`);
  }

  async close(): Promise<void> {
    const closed = this.#server.listening ? once(this.#server, "close") : undefined;
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (request.headers.authorization !== `Bearer ${TOKEN}`) {
      this.unauthorized += 1;
      response.writeHead(401).end();
      return;
    }
    const url = new URL(request.url!, "http://controller");
    if (request.method === "POST" && url.pathname === "/v1/routes/acks") {
      let text = "";
      for await (const chunk of request) text += String(chunk);
      this.acks.push(JSON.parse(text) as RouteAck);
      response.writeHead(204).end();
      return;
    }
    if (request.method === "POST" && url.pathname === "/v1/routes/wakes") {
      let text = "";
      for await (const chunk of request) text += String(chunk);
      this.wakes.push(JSON.parse(text) as WakeRequest);
      response.writeHead(this.refusesWakes ? 500 : 202).end();
      return;
    }
    if (request.method === "POST" && url.pathname === "/v1/routes/requests") {
      let text = "";
      for await (const chunk of request) text += String(chunk);
      this.answered.push(JSON.parse(text) as AnsweredRequests);
      response.writeHead(this.refusesRequests || 204).end();
      return;
    }
    if (url.pathname === "/v1/gateway/certificates") {
      const told = await this.certificates?.(url.searchParams);
      response.writeHead(told ? 200 : 500).end(JSON.stringify(told));
      return;
    }
    this.gateways.push(url.searchParams.get("gateway") ?? "");
    response.writeHead(200, { "Content-Type": "application/x-ndjson" });
    response.write(`${JSON.stringify({ type: "snapshot", version: this.version, routes: this.routes })}\n`);
    this.#streams.add(response);
    response.on("close", () => this.#streams.delete(response));
  }
}

export function serving(tenant: string, origin: Origin, epoch = 1): Route {
  return { tenant, hosts: [`${tenant}.example`], state: "serving", address: origin.address, epoch };
}

/** @param draining the shard that still has it, in a move */
export function parked(tenant: string, epoch = 1, draining?: Origin): Route {
  const route: Route = { tenant, hosts: [`${tenant}.example`], state: "parked", epoch, reason: "Moving" };
  return draining ? { ...route, draining: draining.address } : route;
}

/** @param position where its streams ended */
export function asleep(tenant: string, position?: string, epoch = 2): Route {
  const route: Route = { tenant, hosts: [`${tenant}.example`], state: "asleep", epoch, reason: "Asleep" };
  return position === undefined ? route : { ...route, position };
}

type Overrides = { [K in keyof GatewayConfig]?: GatewayConfig[K] };

/** Everything a test needs, on free ports and in a directory of its own. */
export class Bench {
  readonly directory: string;
  readonly controller = new FakeController();
  readonly logged: string[] = [];
  readonly #cleanups: (() => Promise<unknown>)[] = [];
  gateway!: Gateway;
  ready!: GatewayReady;

  private constructor(directory: string) {
    this.directory = directory;
  }

  /** @param routes undefined: the controller is away */
  static async start(routes: Route[] | undefined, overrides: Overrides = {}, timeouts: Timeouts = {}): Promise<Bench> {
    const bench = new Bench(await mkdtemp(join(tmpdir(), "gateway-test-")));
    await writeFile(bench.file("token"), `${TOKEN}\n`, { mode: 0o600 });
    await bench.controller.listen();
    if (routes) {
      bench.controller.routes = routes;
      bench.controller.version = 1;
    } else await bench.controller.close();
    await bench.restart(overrides, timeouts);
    if (routes) await bench.controller.acknowledged(1);
    return bench;
  }

  async restart(overrides: Overrides = {}, timeouts: Timeouts = {}): Promise<void> {
    const log = pino({ level: "trace" }, { write: (line: string) => void this.logged.push(line) });
    const gateway = new Gateway(parseGatewayConfig({ ...this.config(), ...overrides }, "test"), log, timeouts);
    this.gateway = gateway;
    this.#cleanups.push(() => gateway.stop(0));
    this.ready = await gateway.start();
  }

  config(): Record<string, unknown> {
    return {
      http: { host: "127.0.0.1", port: 0 },
      https: null,
      controller: { url: this.controller.url, tokenFile: this.file("token") },
      routesFile: this.file("routes.json"),
      readyFile: this.file("ready.json"),
      metrics: { host: "127.0.0.1", port: 0 },
      adminApi: false,
      maxBodyBytes: 1024 * 1024 * 1024,
      parking: { maxRequests: 1000, maxBytes: 8 * 1024 * 1024, maxSeconds: 20 },
      maxInFlightPerTenant: 0,
      logLevel: "trace",
    };
  }

  file(name: string): string {
    return join(this.directory, name);
  }

  get port(): number {
    return Number(new URL(this.ready.http).port);
  }

  async origin(listener?: RequestListener): Promise<Origin> {
    const origin = await new Origin(listener).listen();
    this.#cleanups.push(() => origin.close());
    return origin;
  }

  async metrics(): Promise<string> {
    const response = await fetch(`${this.ready.metrics}/metrics`);
    return response.text();
  }

  /** A series of our own metrics, without the prefix; 0 when it is not there. */
  async metric(series: string): Promise<number> {
    const line = (await this.metrics())
      .split("\n")
      .find((text) => text.startsWith(`synapse_shards_gateway_${series} `));
    return line === undefined ? 0 : Number(line.split(" ").at(-1));
  }

  parkedNow(tenant: string): Promise<number> {
    return this.metric(`parked_requests{tenant="${tenant}"}`);
  }

  /** The gateway as a process of its own, beside the one in this process. @param under a program that starts it, with its arguments */
  async spawn(overrides: Record<string, unknown> = {}, under: string[] = []): Promise<GatewayProcess> {
    const gateway = new GatewayProcess(this.file("gateway.json"), this.config(), overrides, under);
    this.#cleanups.push(() => gateway.kill());
    return gateway;
  }

  async stop(): Promise<void> {
    for (const cleanup of this.#cleanups.toReversed()) await cleanup();
    await this.controller.close();
    await rm(this.directory, { recursive: true });
  }
}

/** A gateway in a process of its own. */
export class GatewayProcess {
  readonly process: ChildProcess;
  /** As the process says to its parent. */
  readonly ready: Promise<{ port: number }>;
  readonly #config: Record<string, unknown>;
  readonly #configFile: string;
  readonly #ended: Promise<number | null>;
  #errors = "";

  constructor(configFile: string, config: object, overrides: object, under: string[]) {
    this.#configFile = configFile;
    this.#config = { ...config, readyFile: `${configFile}.ready`, logFile: `${configFile}.log` };
    this.configure(overrides);
    const command = [...under, process.execPath, "src/gateway/main.ts", "--config", configFile];
    this.process = spawn(command[0]!, command.slice(1), { stdio: ["ignore", "ignore", "pipe", "ipc"] });
    this.process.stderr!.on("data", (chunk) => (this.#errors += String(chunk)));
    this.#ended = once(this.process, "exit").then(([code]) => code as number | null);
    this.ready = Promise.race([
      once(this.process, "message").then(([{ http }]) => ({ port: Number(new URL(http as string).port) })),
      this.#ended.then(() => Promise.reject(new Error(`it ended: ${this.#errors}`))),
    ]);
    this.ready.catch(() => {});
  }

  /** Writes its configuration file again. */
  configure(overrides: object): void {
    writeFileSync(this.#configFile, JSON.stringify({ ...this.#config, ...overrides }));
  }

  errors(): string {
    return this.#errors;
  }

  /** @returns its exit code */
  async stop(): Promise<number | null> {
    this.process.kill("SIGTERM");
    return this.#ended;
  }

  async kill(): Promise<void> {
    this.process.kill("SIGKILL");
    await this.#ended;
  }
}

export interface Answer {
  status: number;
  headers: IncomingMessage["headers"];
  text: string;
  json: { errcode?: string; error?: string; port?: number; url?: string; bytes?: number; retry_after_ms?: number };
}

export interface Ask {
  method?: string;
  path?: string;
  headers?: Record<string, string | string[]>;
  body?: string | Buffer;
  signal?: AbortSignal;
}

/** One request to the gateway on a connection of its own. @throws Error when the connection breaks */
export function ask(bench: { port: number }, host: string, options: Ask = {}): Promise<Answer> {
  const { method = "GET", path = "/_matrix/client/versions", headers = {}, body, signal } = options;
  return new Promise((resolve, reject) => {
    const request = httpRequest({
      host: "127.0.0.1",
      port: bench.port,
      method,
      path,
      headers: { host, ...headers },
      agent: false,
      signal,
    });
    request.on("error", reject);
    request.on("response", (response) => {
      readText(response).then(
        (text) =>
          resolve({
            status: response.statusCode!,
            headers: response.headers,
            text,
            json: text.startsWith("{") ? JSON.parse(text) : {},
          }),
        reject,
      );
    });
    request.end(body);
  });
}

async function readText(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of response) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString("utf8");
}

/** A bare connection, for what no HTTP client would send. */
export class Wire {
  readonly socket: Socket;
  text = "";
  closed = false;

  constructor(port: number) {
    this.socket = connect(port, "127.0.0.1");
    this.socket.on("data", (chunk: Buffer) => {
      this.text += chunk.toString("latin1");
    });
    this.socket.on("error", () => {});
    this.socket.on("close", () => {
      this.closed = true;
    });
  }

  send(text: string): this {
    this.socket.write(text, "latin1");
    return this;
  }

  sees(part: string): Promise<true> {
    return eventually(`${JSON.stringify(part)} on the wire, which has ${JSON.stringify(this.text.slice(0, 300))}`, () =>
      this.text.includes(part),
    ) as Promise<true>;
  }

  isClosed(): Promise<true> {
    return eventually("the connection's end", () => this.closed) as Promise<true>;
  }

  destroy(): void {
    this.socket.destroy();
  }
}
