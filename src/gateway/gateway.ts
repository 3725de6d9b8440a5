import { randomBytes } from "node:crypto";
import { createServer as createPlainServer, type IncomingMessage, type Server } from "node:http";
import { setImmediate as turn, setTimeout as sleep } from "node:timers/promises";
import type { TLSSocket } from "node:tls";
import type { Logger } from "pino";
import { describeFileProblem } from "../logging/file-problem.ts";
import { messageOf } from "../model/errors.ts";
import type { Route, RouteFeedLine } from "../model/routes.ts";
import { AdminAccess } from "./admin-access.ts";
import { admit } from "./admission.ts";
import type { GatewayConfig } from "./config.ts";
import { connectionsByDescriptors, Connections, plainAddress } from "./connections.ts";
import { answerBeforeBody } from "./discard.ts";
import { errors, sendError, sendPreflight, type GatewayError } from "./errors.ts";
import { Exchange, type ExchangeContext } from "./exchange.ts";
import { AUTHENTICATION_MS, FairShare, type ShareObserver } from "./fair-share.ts";
import { RouteFeedClient } from "./feed.ts";
import { isPreflight } from "./headers.ts";
import { HeldMemory } from "./held-memory.ts";
import { GatewayMetrics } from "./metrics.ts";
import { ParkCounts } from "./park-counts.ts";
import { Parking } from "./parking.ts";
import { readRoutesFile, RoutesWriter, writeFileAtomically } from "./routes-file.ts";
import { AnsweredCounts } from "./answered-requests.ts";
import { RouteTable, type RouteChange } from "./route-table.ts";
import { takeUp } from "./settings.ts";
import { GatewayCertificates } from "./shared-certificates.ts";
import { Sleepers } from "./sleep/sleepers.ts";
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
  /** Where administrators come in. */
  admin: string | null;
}

/** For everybody, or for administrators of tenants that are open for them. */
type Entrance = "public" | "admin";

/** The gateway of one process: routes, waiting requests, servers, and the controller's feed. */
export class Gateway {
  readonly id: string;
  readonly #config: GatewayConfig;
  readonly #log: Logger;
  readonly #table = new RouteTable();
  readonly #answered: AnsweredCounts;
  readonly #upstreams = new Upstreams();
  /**
   * No `Set`: when entries are added and deleted at each request, it is rebuilt again and again, and V8's dead tables, once they are old, keep
   * their successors with all requests in them alive until the next full collection. Measured: pauses of 20 ms instead of 3.
   */
  readonly #exchanges: { exchange: Exchange; index: number }[] = [];
  readonly #metrics: GatewayMetrics;
  readonly #parking: Parking;
  readonly #parks = new ParkCounts(() => this.#feed.report());
  readonly #memory: HeldMemory;
  readonly #connections: Connections;
  readonly #share: FairShare;
  readonly #authenticationShare: FairShare;
  readonly #sleepers: Sleepers;
  readonly #context: ExchangeContext;
  readonly #feed: RouteFeedClient;
  readonly #writer: RoutesWriter;
  readonly #servers: Server[] = [];
  readonly #timeouts: Timeouts;
  readonly #adminAccess: AdminAccess;
  #certificates: Certificates | undefined;
  /** Those that the controller gets. */
  readonly #shared: GatewayCertificates | undefined;
  #synced = false;
  /** Heard from the controller, or from the last run. */
  #hasRoutes = false;
  #stopping = false;
  /** It stops, or soon will: each answer ends its connection, so that clients are elsewhere when connections are closed. */
  #retiring = false;

  constructor(config: GatewayConfig, log: Logger, timeouts: Timeouts = {}) {
    // Its own, as it changes when it is read again.
    this.#config = structuredClone(config);
    this.#log = log;
    this.#timeouts = timeouts;
    this.#adminAccess = new AdminAccess(config.adminAccess ?? { allowedNetworks: [], origins: [] });
    this.id = `${config.id}-${randomBytes(4).toString("hex")}`;
    this.#metrics = new GatewayMetrics({
      parked: () => this.#parking.sizes(),
      parkedSeconds: () => this.#parking.durations(),
      oldestParkSeconds: () => this.#parking.oldestSeconds(),
      queued: () => [...this.#share.sizes(), ...this.#authenticationShare.sizes()],
      inFlight: () => this.#exchanges.length,
      heldBytes: () => this.#memory.total,
      connections: () => this.#connections.size,
      routes: () => this.#table.size,
      heldPolls: () => this.#sleepers.held.size,
      rememberedBytes: () => this.#sleepers.rememberedBytes,
      hasRoute: (tenant) => this.#table.tenant(tenant) !== undefined,
    });
    this.#parking = new Parking(this.#config.parking, {
      refused: (tenant, bound) => this.#metrics.parkRejected.inc(tenant, bound),
      waited: (seconds, outcome) => this.#metrics.parked(outcome, seconds),
    });
    this.#memory = new HeldMemory(this.#config);
    this.#connections = new Connections({
      max: connectionsByDescriptors(),
      limits: this.#config,
      isExempt: (address) => this.#context.trusted.trusts(address),
      onRefused: (bound) => this.#metrics.connectionsRefused.inc({ bound }),
    });
    const shareObserver: ShareObserver = {
      refused: (tenant, bound) => this.#metrics.shareRejected.inc(tenant, bound),
      waited: (seconds) => this.#metrics.shareSeconds.observe(seconds),
    };
    const partOf = (tenant: string): number => this.#table.tenant(tenant)?.share ?? 1;
    const placesOf = (tenant: string): number | undefined => this.#table.tenant(tenant)?.places;
    this.#share = new FairShare(this.#config, shareObserver, undefined, partOf, placesOf);
    const whole = (): number => 1;
    this.#authenticationShare = new FairShare(this.#config, shareObserver, AUTHENTICATION_MS, whole, placesOf);
    this.#sleepers = new Sleepers({
      limits: this.#config.sleeping,
      routeOf: (tenant) => this.#table.tenant(tenant),
      waiting: (tenant) => this.#parking.size(tenant),
      askForWakes: (tenants) => this.#feed.askForWakes(tenants),
      onAsked: (why) => this.#metrics.wakes.inc({ why }),
      onProblem: (error, tenants) =>
        log.warn({ tenants, problem: messageOf(error) }, "the controller could not be asked for wakes"),
      wakeAgainMs: timeouts.wakeAgainMs,
    });
    this.#answered = new AnsweredCounts({
      send: (answered) => this.#feed.tellAnswered(answered),
      onProblem: (error) =>
        log.warn(
          { problem: messageOf(error) },
          "the controller could not be told of requests; it is told the next time",
        ),
      everyMs: timeouts.tellAnsweredMs,
    });
    this.#context = {
      table: this.#table,
      answered: this.#answered,
      parking: this.#parking,
      parks: this.#parks,
      memory: this.#memory,
      share: this.#share,
      authenticationShare: this.#authenticationShare,
      sleepers: this.#sleepers,
      upstreams: this.#upstreams,
      metrics: this.#metrics,
      log,
      trusted: new TrustedProxies(config.trustedProxies),
      limits: this.#config,
      timeouts,
      leaving: () => this.#retiring,
    };
    const { certificatesFile, controller } = config;
    this.#shared =
      certificatesFile === undefined
        ? undefined
        : new GatewayCertificates({
            ...controller,
            file: certificatesFile,
            log,
            onChange: () => this.#certificates?.forgetContexts(),
          });
    this.#writer = new RoutesWriter(
      config.routesFile,
      () => this.#table.routes(),
      (error) =>
        log.error(
          { problem: describeFileProblem(error), file: config.routesFile },
          "the routes file could not be written",
        ),
    );
    this.#feed = new RouteFeedClient({
      gateway: this.id,
      url: config.controller.url,
      tokenFile: config.controller.tokenFile,
      log,
      apply: (line) => this.#apply(line),
      takeParks: () => this.#parks.take(),
      onConnected: (connected) => {
        this.#metrics.feedConnected.set(connected ? 1 : 0);
        this.#answered.connected(connected);
      },
    });
  }

  /**
   * Listens, follows the feed, and writes the ready file.
   * @throws UserError for a wrong certificate authority; Error when a port is taken
   */
  async start(): Promise<GatewayReady> {
    const { http, https, adminAccess, metrics, readyFile } = this.#config;
    const certificates = https && (await this.#loadCertificates(https));
    await this.#loadRoutes();
    await this.#shared?.start();
    const serverOf = (certs?: Certificates | null, entrance: Entrance = "public"): Server =>
      createServer({
        handle: (input) => this.#handle(input, entrance),
        isAnswering: (socket) => this.#exchanges.some(({ exchange }) => exchange.isAnswering(socket)),
        connections: this.#connections,
        limits: this.#config,
        ...(certs ? { certificates: certs } : {}),
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
      admin: adminAccess
        ? await urlOf(
            serverOf(adminAccess.tls ? certificates : undefined, "admin"),
            adminAccess.tls ? "https" : "http",
            adminAccess,
          )
        : null,
    };
    this.#answered.start();
    this.#feed.start();
    try {
      await writeFileAtomically(readyFile, `${JSON.stringify(ready)}\n`);
    } catch (error) {
      // A disk that is full must not keep it from coming back. Who started it learns it in another way as well (`main.ts`).
      this.#log.error({ problem: describeFileProblem(error), file: readyFile }, "the ready file could not be written");
    }
    this.#log.info({ id: ready.id, http: ready.http, https: ready.https, routes: this.#table.size }, "gateway listens");
    return ready;
  }

  /**
   * Goes on as before, but says that it is not ready, so that load balancers send nothing new, and lets each client go with its next answer; then
   * stops.
   */
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
    this.#retiring = true;
    this.#log.info({ inFlight: this.#exchanges.length }, "gateway stops");
    await readWhatHasCome();
    const closed = Promise.all(this.#servers.map((server) => new Promise((resolve) => server.close(resolve))));
    for (const server of this.#servers) server.closeIdleConnections();
    for (const { exchange } of this.#exchanges.slice()) exchange.endHeld();
    const cutOff = setTimeout(() => {
      for (const { exchange } of this.#exchanges.slice()) exchange.cutOff();
      // A moment for those answers to leave.
      setTimeout(() => this.#endConnections(), 200);
    }, graceMs);
    await closed;
    clearTimeout(cutOff);
    this.#sleepers.stop();
    this.#answered.stop();
    await this.#feed.stop();
    await this.#shared?.stop();
    await this.#writer.flush();
    await this.#upstreams.destroy();
  }

  /** Also those that never said anything, or are in the middle of a TLS handshake: Node's servers do not count them. */
  #endConnections(): void {
    for (const server of this.#servers) server.closeAllConnections();
    this.#connections.destroyAll();
  }

  /** Takes up a new configuration, as far as that is possible without a restart, and replaced certificates. */
  async reload(config: GatewayConfig): Promise<void> {
    const restart = takeUp(this.#config, config);
    this.#context.trusted = new TrustedProxies(config.trustedProxies);
    this.#log.level = config.logLevel;
    if (restart.length > 0) this.#log.warn({ keys: restart }, "these settings take a restart of the gateway");
    try {
      await this.#certificates?.reload();
    } catch (error) {
      this.#log.error({ problem: messageOf(error) }, "the certificates before stay in use");
    }
    this.#log.info("configuration read again");
  }

  #handle({ request, response, protocol, expectsContinue }: Parameters<RequestHandler>[0], entrance: Entrance): void {
    const { maxBodyBytes, adminApi } = this.#config;
    const client = () => this.#context.trusted.clientOf(request, protocol).address;
    const tooMany = entrance === "admin" ? this.#adminAccess.tooMany(client()) : undefined;
    if (tooMany) return this.#refuse(request, response, tooMany);
    const admitted = admit(request, { maxBodyBytes, adminApi: adminApi || entrance === "admin" });
    if ("status" in admitted) return this.#refuse(request, response, admitted);
    request.url = admitted.target;
    const route = this.#table.lookup(admitted.host);
    if (!route) return this.#refuse(request, response, this.#synced ? errors.unknownHost() : errors.noRoutesYet());
    const proof = entrance === "admin" ? undefined : this.#shared?.challengeAnswer(request.method, request.url);
    if (proof !== undefined) return this.#prove(response, proof);
    if (!this.#fitsConnection(request, route.tenant)) return this.#refuse(request, response, errors.wrongConnection());
    const refusal =
      entrance === "admin" ? (now: Route) => this.#adminAccess.refusal(request, now, client()) : undefined;
    const refused = refusal?.(route);
    if (refused) return this.#refuse(request, response, refused);
    const { contentLength, host } = admitted;
    const input = {
      request,
      response,
      host,
      protocol,
      expectsContinue,
      contentLength,
      ...(refusal ? { refusal } : {}),
    };
    const exchange = new Exchange(this.#context, route, input, () => this.#remove(entry));
    const entry = { exchange, index: this.#exchanges.length };
    this.#exchanges.push(entry);
    exchange.resume();
  }

  /** Tells a certificate authority that the host is ours, whatever state its tenant is in. */
  #prove(response: Parameters<RequestHandler>[0]["response"], proof: string): void {
    if (this.#retiring) response.setHeader("Connection", "close");
    response.writeHead(200, { "Content-Type": "application/octet-stream", "Cache-Control": "no-store" });
    response.end(proof);
  }

  /**
   * Whether the name that a TLS connection was made for is of the same tenant: the certificate was that tenant's, and so may be what stands between
   * the client and us. Proxies of ours use their connections for all.
   */
  #fitsConnection({ socket }: IncomingMessage, tenant: string): boolean {
    const { servername } = socket as Partial<TLSSocket>;
    if (typeof servername !== "string" || servername === "") return true;
    if (this.#table.lookup(servername.toLowerCase())?.tenant === tenant) return true;
    return this.#context.trusted.trusts(plainAddress(socket.remoteAddress));
  }

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
    request.on("error", () => {});
    answerBeforeBody(request, response, this.#config.maxBodyBytes);
    if (isPreflight(request) && error.status >= 403) sendPreflight(response, { close: this.#retiring });
    else sendError(response, error, { close: this.#retiring || error.status === 400 });
  }

  /** All at once, in one turn of the loop: when it returns, no request acts on an older route. */
  #apply(line: Exclude<RouteFeedLine, { type: "ping" }>): void {
    const changes =
      line.type === "snapshot" ? this.#table.replace(line.routes) : this.#table.update(line.routes, line.removed);
    this.#synced = true;
    this.#hasRoutes = true;
    this.#metrics.routesVersion.set(line.version);
    this.#writer.schedule();
    this.#follow(changes);
  }

  #follow(changes: readonly RouteChange[]): void {
    this.#upstreams.follow(changes);
    for (const { tenant, before, after } of changes) {
      const renamed = before && !after ? this.#table.renamed(before) : undefined;
      if (renamed) this.#sleepers.rename(tenant, renamed.tenant);
    }
    for (const { tenant, after } of changes)
      if (after?.state === "parked") this.#parks.begin(tenant, this.#parking.size(tenant));
    const left = new Set(changes.filter(leavesAddress).map(({ tenant }) => tenant));
    if (left.size > 0)
      for (const { exchange } of this.#exchanges.slice()) if (left.has(exchange.tenant)) exchange.routeChanged();
    for (const { tenant, after } of changes) {
      if (after?.state === "parked") continue;
      this.#parking.release(tenant);
      this.#parks.end(tenant, performance.now());
      if (after) continue;
      this.#parks.forget(tenant);
      this.#metrics.forget(tenant);
      this.#share.forget(tenant);
      this.#authenticationShare.forget(tenant);
      this.#answered.forget(tenant);
    }
    for (const change of changes) this.#sleepers.follow(change);
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

  async #loadCertificates(https: NonNullable<GatewayConfig["https"]>): Promise<Certificates> {
    this.#certificates = await Certificates.load({
      directory: https.certificates,
      authority: https.ca,
      shared: (host) => this.#shared?.find(host),
      isRouted: (host) => this.#table.lookup(host) !== undefined,
      onProblem: (host, error) => this.#log.error({ host, problem: messageOf(error) }, "no certificate for this host"),
    });
    return this.#certificates;
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

/**
 * A connection that is closed with something unread, or before it was accepted, is reset, and its request fails. One whole turn of the loop reads
 * and accepts what the machine has; this goes on right after that.
 */
async function readWhatHasCome(): Promise<void> {
  await turn();
  await turn();
}

/** Whether requests may be at an address that the route no longer names. */
function leavesAddress({ before, after }: RouteChange): boolean {
  if (!before) return false;
  return [before.address, before.draining].some(
    (address) => address !== undefined && address !== after?.address && address !== after?.draining,
  );
}
