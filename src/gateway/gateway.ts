import { randomBytes } from "node:crypto";
import { createServer as createPlainServer, type Server } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "pino";
import { messageOf } from "../model/errors.ts";
import type { RouteAck, RouteFeedLine } from "../model/routes.ts";
import { admit } from "./admission.ts";
import type { GatewayConfig } from "./config.ts";
import { errors, sendError, sendPreflight, type GatewayError } from "./errors.ts";
import { discardRest, Exchange, type ExchangeContext } from "./exchange.ts";
import { FairShare } from "./fair-share.ts";
import { RouteFeedClient } from "./feed.ts";
import { GatewayMetrics } from "./metrics.ts";
import { Parking } from "./parking.ts";
import { readRoutesFile, RoutesWriter, writeFileAtomically } from "./routes-file.ts";
import { RouteTable, type RouteChange } from "./route-table.ts";
import { createServer, listen, type RequestHandler, type Timeouts } from "./server.ts";
import { Certificates } from "./tls.ts";
import { TrustedProxies } from "./trusted-proxies.ts";
import { Upstreams } from "./upstreams.ts";

export interface GatewayReady {
  pid: number;
  id: string;
  http: string;
  https: string | null;
  metrics: string;
}

/** The gateway of one process: routes, waiting requests, servers, and the controller's feed. */
export class Gateway {
  readonly id: string;
  readonly #config: GatewayConfig;
  readonly #log: Logger;
  readonly #table = new RouteTable();
  readonly #upstreams = new Upstreams();
  /**
   * No `Set`: one that is added to and deleted from at each request is made anew again and again, and V8's dead tables, once they are old, keep
   * their successors with all requests in them alive until the next full collection. Measured: pauses of 20 ms instead of 3.
   */
  readonly #exchanges: { exchange: Exchange; index: number }[] = [];
  readonly #metrics: GatewayMetrics;
  readonly #parking: Parking;
  readonly #share: FairShare;
  readonly #context: ExchangeContext;
  readonly #feed: RouteFeedClient;
  readonly #writer: RoutesWriter;
  readonly #servers: Server[] = [];
  readonly #timeouts: Timeouts;
  #synced = false;
  /** Heard from the controller, or from the last run. */
  #hasRoutes = false;
  #stopping = false;
  #retiring = false;

  constructor(config: GatewayConfig, log: Logger, timeouts: Timeouts = {}) {
    this.#config = config;
    this.#log = log;
    this.#timeouts = timeouts;
    this.id = `${config.id}-${randomBytes(4).toString("hex")}`;
    this.#metrics = new GatewayMetrics({
      parked: () => this.#parking.sizes(),
      parkedSeconds: () => this.#parking.durations(),
      oldestParkSeconds: () => this.#parking.oldestSeconds(),
      queued: () => this.#share.sizes(),
      inFlight: () => this.#exchanges.length,
      routes: () => this.#table.size,
    });
    this.#parking = new Parking(config.parking, {
      refused: (tenant, bound) => this.#metrics.parkRejected.inc({ tenant, bound }),
      waited: (seconds, outcome) => this.#metrics.parked(outcome, seconds),
    });
    // Who was parked must find room afterwards: the bounds are the same.
    const limits = { maxInFlight: config.maxInFlightPerTenant, ...config.parking };
    this.#share = new FairShare(limits, {
      refused: (tenant, bound) => this.#metrics.shareRejected.inc({ tenant, bound }),
      waited: (seconds) => this.#metrics.shareSeconds.observe(seconds),
    });
    this.#context = {
      table: this.#table,
      parking: this.#parking,
      share: this.#share,
      upstreams: this.#upstreams,
      metrics: this.#metrics,
      log,
      trusted: new TrustedProxies(config.trustedProxies),
      maxBodyBytes: config.maxBodyBytes,
      bodyStallMs: timeouts.bodyStallMs,
      stopping: () => this.#stopping,
    };
    this.#writer = new RoutesWriter(
      config.routesFile,
      () => this.#table.routes(),
      (error) => log.error({ problem: messageOf(error) }, "the routes file could not be written"),
    );
    this.#feed = new RouteFeedClient({
      gateway: this.id,
      url: config.controller.url,
      tokenFile: config.controller.tokenFile,
      log,
      apply: (line) => this.#apply(line),
      onConnected: (connected) => this.#metrics.feedConnected.set(connected ? 1 : 0),
    });
  }

  /**
   * Listens, follows the feed, and writes the ready file.
   * @throws UserError for a wrong certificate authority; Error when a port is taken
   */
  async start(): Promise<GatewayReady> {
    const { http, https, metrics, readyFile } = this.#config;
    const certificates = https && (await this.#certificates(https));
    await this.#loadRoutes();
    const serverOf = (certs?: Certificates): Server =>
      createServer({
        handle: this.#handle,
        isAnswering: (socket) => this.#exchanges.some(({ exchange }) => exchange.isAnswering(socket)),
        certificates: certs,
        timeouts: this.#timeouts,
      });
    const urlOf = async (server: Server, scheme: string, at: { host: string; port: number }): Promise<string> => {
      this.#servers.push(server);
      const port = await listen(server, at.host, at.port);
      return `${scheme}://${at.host.includes(":") ? `[${at.host}]` : at.host}:${port}`;
    };
    const ready: GatewayReady = {
      pid: process.pid,
      id: this.id,
      http: await urlOf(serverOf(), "http", http),
      https: https && certificates ? await urlOf(serverOf(certificates), "https", https) : null,
      metrics: await urlOf(this.#metricsServer(), "http", metrics),
    };
    this.#feed.start();
    await writeFileAtomically(readyFile, `${JSON.stringify(ready)}\n`);
    this.#log.info({ id: ready.id, http: ready.http, https: ready.https, routes: this.#table.size }, "gateway listens");
    return ready;
  }

  /** Goes on as before, but says that it is not ready, so that load balancers send nothing new; then stops. */
  async retire(): Promise<void> {
    this.#retiring = true;
    await sleep(this.#config.shutdown.delaySeconds * 1000);
    await this.stop();
  }

  /**
   * Accepts no more, lets what is in flight end within `graceMs`, cuts the rest off with an answer: long polls seldom make it, and are asked to
   * come again.
   */
  async stop(graceMs = this.#config.shutdown.graceSeconds * 1000): Promise<void> {
    if (this.#stopping) return;
    this.#stopping = true;
    this.#log.info({ inFlight: this.#exchanges.length }, "gateway stops");
    const closed = Promise.all(this.#servers.map((server) => new Promise((resolve) => server.close(resolve))));
    for (const server of this.#servers) server.closeIdleConnections();
    const cutOff = setTimeout(() => {
      for (const { exchange } of this.#exchanges.slice()) exchange.cutOff();
      // A moment for those answers to leave.
      setTimeout(() => this.#servers.forEach((server) => server.closeAllConnections()), 200);
    }, graceMs);
    await closed;
    clearTimeout(cutOff);
    await this.#feed.stop();
    await this.#writer.flush();
    await this.#upstreams.destroy();
  }

  readonly #handle: RequestHandler = ({ request, response, protocol, expectsContinue }) => {
    const admitted = admit(request, this.#config);
    if ("status" in admitted) return this.#refuse(request, response, admitted);
    const route = this.#table.lookup(admitted.host);
    if (!route) return this.#refuse(request, response, this.#synced ? errors.unknownHost() : errors.noRoutesYet());
    const input = { request, response, protocol, expectsContinue, contentLength: admitted.contentLength };
    const exchange = new Exchange(this.#context, route, input, () => this.#remove(entry));
    const entry = { exchange, index: this.#exchanges.length };
    this.#exchanges.push(entry);
    exchange.resume();
  };

  /** The last one takes the place that becomes free. */
  #remove({ index }: { index: number }): void {
    const last = this.#exchanges.pop()!;
    if (last.index === index) return;
    this.#exchanges[index] = last;
    last.index = index;
  }

  #refuse(
    request: Parameters<RequestHandler>[0]["request"],
    response: Parameters<RequestHandler>[0]["response"],
    error: GatewayError,
  ): void {
    this.#metrics.refused.inc({ status: String(error.status) });
    response.once("finish", () => discardRest(request, this.#config.maxBodyBytes));
    request.on("error", () => {});
    const preflight = request.method === "OPTIONS" && request.headers["access-control-request-method"] !== undefined;
    if (preflight && error.status >= 403) sendPreflight(response);
    else sendError(response, error, { close: this.#stopping || error.status === 400 });
  }

  /** All at once, in one turn of the loop: when it returns, no request acts on an older route. */
  #apply(line: Exclude<RouteFeedLine, { type: "ping" }>): RouteAck["parks"] {
    const changes =
      line.type === "snapshot" ? this.#table.replace(line.routes) : this.#table.update(line.routes, line.removed);
    this.#synced = true;
    this.#hasRoutes = true;
    this.#metrics.routesVersion.set(line.version);
    this.#writer.schedule();
    return this.#follow(changes);
  }

  #follow(changes: readonly RouteChange[]): RouteAck["parks"] {
    const parks: RouteAck["parks"] = {};
    this.#upstreams.follow(changes);
    for (const { tenant, after } of changes) {
      if (after?.state === "parked") {
        this.#parking.beginEpisode(tenant);
        continue;
      }
      this.#parking.release(tenant);
      const counts = this.#parking.endEpisode(tenant);
      if (counts) parks[tenant] = counts;
      if (after) continue;
      this.#metrics.forget(tenant);
      this.#share.forget(tenant);
    }
    return parks;
  }

  async #loadRoutes(): Promise<void> {
    try {
      const routes = await readRoutesFile(this.#config.routesFile);
      if (!routes) return;
      this.#follow(this.#table.replace(routes));
      this.#hasRoutes = true;
    } catch (error) {
      // The controller will send them again; not to start would be worse.
      this.#log.error({ problem: messageOf(error) }, "starting without the last routes");
    }
  }

  #certificates(https: NonNullable<GatewayConfig["https"]>): Promise<Certificates> {
    return Certificates.load({
      directory: https.certificates,
      authority: https.ca,
      isRouted: (host) => this.#table.lookup(host) !== undefined,
      onProblem: (host, error) => this.#log.error({ host, problem: messageOf(error) }, "no certificate for this host"),
    });
  }

  #metricsServer(): Server {
    return createPlainServer((request, response) => {
      if (request.url === "/healthz") return void response.end("ok\n");
      if (request.url === "/readyz") {
        const why = this.#retiring ? "it stops" : this.#hasRoutes ? undefined : "it has heard no routes yet";
        return void response.writeHead(why === undefined ? 200 : 503).end(`${why ?? "ok"}\n`);
      }
      if (request.url !== "/metrics") return void response.writeHead(404).end();
      this.#metrics.registry.metrics().then(
        (text) => response.writeHead(200, { "Content-Type": this.#metrics.registry.contentType }).end(text),
        () => response.writeHead(500).end(),
      );
    });
  }
}
