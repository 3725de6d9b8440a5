import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Logger } from "pino";
import type { Dispatcher } from "undici";
import { SUSPENDED, type Route } from "../model/routes.ts";
import { isForAuthentication, leadsToAuthentication, routeToAuthentication } from "./authentication-paths.ts";
import { answerBeforeBody } from "./discard.ts";
import { delegationAnswer } from "./delegation.ts";
import { isAnsweredWhileDraining } from "./draining.ts";
import { errors, sendError, sendPreflight, type GatewayError } from "./errors.ts";
import { AUTHENTICATION_MS, countsForShare, type FairShare, type SharePlace, type ShareRequest } from "./fair-share.ts";
import {
  headBytes,
  isDatabaseAway,
  isFromGateway,
  isMisdirected,
  isPreflight,
  requestHeaders,
  responseHeaders,
} from "./headers.ts";
import type { HeldMemory } from "./held-memory.ts";
import type { GatewayMetrics, RetryReason } from "./metrics.ts";
import type { ParkCounts } from "./park-counts.ts";
import { isShortOfPatience, SHORT_MS } from "./patience.ts";
import type { Parking, ParkingTicket } from "./parking.ts";
import { KEPT_BODY_BYTES, RequestBody, UpstreamBody } from "./request-body.ts";
import type { AnsweredCounts } from "./answered-requests.ts";
import type { RouteTable } from "./route-table.ts";
import { sendKept, type KeptAnswer } from "./sleep/answer.ts";
import { Rest } from "./sleep/rest.ts";
import { wantsWake, type Sleepers } from "./sleep/sleepers.ts";
import type { TrustedProxies } from "./trusted-proxies.ts";
import { faultOf } from "./upstream-fault.ts";
import { tlsHostOf, type Connection, type Upstreams } from "./upstreams.ts";

/** By HTTP's definition; and Matrix's PUTs carry transaction ids. */
const IDEMPOTENT = new Set(["GET", "HEAD", "OPTIONS", "PUT", "DELETE"]);
/** A request that kills its homeserver must not kill it again and again. */
const MAX_CUTS = 3;
/** Until a client takes what it was sent (at most some 64 KiB): slower than 0.5 KiB/s is not reading. */
const DOWNLOAD_STALL_MS = 120_000;
/** An answer that is on its way while the route changes arrives within this; from then on none is expected. */
const LAST_WORD_MS = 2_000;
/** Larger ones are not worth a copy. */
const MAX_WHOLE_BYTES = 16 * 1024;
/** Of other servers, whose users join a room. */
const JOINS = /^\/_matrix\/federation\/[^/]+\/(?:make|send)_join\//;
const STATUS_CLASSES = ["", "1xx", "2xx", "3xx", "4xx", "5xx", "6xx", "7xx", "8xx", "9xx"];
/** Ends an attempt whose end has been dealt with. */
const WITHDRAWN = new Error("the attempt is given up");

export interface ExchangeContext {
  table: RouteTable;
  parking: Parking;
  parks: ParkCounts;
  memory: HeldMemory;
  share: FairShare;
  /** Of what authentication services answer. */
  authenticationShare: FairShare;
  sleepers: Sleepers;
  upstreams: Upstreams;
  metrics: GatewayMetrics;
  answered: AnsweredCounts;
  log: Logger;
  trusted: TrustedProxies;
  /** As it is at present. */
  limits: { maxBodyBytes: number };
  timeouts: { bodyStallMs?: number; bodyGraceMs?: number; senderMs?: number; authenticationMs?: number };
  /** Answers then end their connection. */
  leaving(): boolean;
}

export interface ExchangeInput {
  request: IncomingMessage;
  response: ServerResponse;
  /** As it was admitted. */
  host: string;
  protocol: "http" | "https";
  /** The client waits for "100 Continue". */
  expectsContinue: boolean;
  contentLength: number | undefined;
  /** Why the tenant is not to get it, by the route as it is at the time: a route may change while a request waits. */
  refusal?(route: Route): GatewayError | undefined;
}

/**
 * One request of a tenant from its arrival to its answer: waits, is sent, is sent again. Where it goes is decided in `#advance` alone, and again
 * in `onRequestStart`, the moment before the first byte: between the two, a connection is made, and the route may have changed.
 */
export class Exchange implements Dispatcher.DispatchHandler, ShareRequest {
  readonly #context: ExchangeContext;
  readonly #request: IncomingMessage;
  readonly #response: ServerResponse;
  readonly #protocol: "http" | "https";
  readonly #host: string;
  #tenant: string;
  readonly #body: RequestBody;
  readonly #startedAt = performance.now();
  readonly #rest: Rest;
  /** How long its sender waits for sure, if that is less than what others may wait. */
  readonly #patienceMs: number | undefined;
  /** Its tenant's authentication service answers it, if there is one. */
  readonly #authenticates: boolean;
  /** For the fair share, and whether it is counted as computing. */
  readonly #computes: boolean;
  readonly #onDone: () => void;
  readonly #refusal: ExchangeInput["refusal"];
  #ticket: ParkingTicket | undefined;
  /** In the tenant's share; undefined as well for requests that do not count. */
  #place: SharePlace | undefined;
  /** Whose place that is. */
  #share: FairShare;
  #connection: Connection | undefined;
  #controller: Dispatcher.DispatchController | undefined;
  #address = "";
  /** Where the tenant drained, and no longer answered. */
  #turnedAway: string | undefined;
  /** Until an address that the route no longer names has had its last word. */
  #lastWord: NodeJS.Timeout | undefined;
  /** How long a request waits until its client is told that its turn did not come. */
  #turn: NodeJS.Timeout | undefined;
  /** Bytes taken of what may be held in memory. */
  #held = 0;
  #counted = false;
  #stream: UpstreamBody | undefined;
  #sending = false;
  #bytesToCome = Number.NaN;
  /** An answer's body that came in one piece: it is sent with the header at the end, which follows at once. */
  #whole: Buffer | undefined;
  /** What is said in the place of the homeserver's answer, which has nothing. */
  #instead: KeptAnswer | undefined;
  #cuts = 0;
  /** The epoch where it was sent to a dedicated homeserver, whose requests nobody counts but us. */
  #uncounted: number | undefined;
  /** When the tenant's address was first met without the tenant, or without its database; waiting from then on is bounded as a whole. */
  #missedAt: number | undefined;
  /** What the client is told if it has waited in vain. */
  #reason = errors.parkTimeout();
  #done = false;
  #stall: NodeJS.Timeout | undefined;

  constructor(context: ExchangeContext, route: Route, input: ExchangeInput, onDone: () => void) {
    this.#context = context;
    this.#share = context.share;
    this.#host = input.host;
    this.#tenant = route.tenant;
    this.#request = input.request;
    this.#response = input.response;
    this.#protocol = input.protocol;
    this.#onDone = onDone;
    this.#refusal = input.refusal;
    const { method = "GET", url = "/" } = input.request;
    this.#patienceMs = isShortOfPatience(url) ? (context.timeouts.senderMs ?? SHORT_MS) : undefined;
    this.#authenticates = isForAuthentication(url);
    this.#computes = countsForShare(method, url);
    this.#body = new RequestBody(input.request, {
      contentLength: input.contentLength,
      maxBytes: context.limits.maxBodyBytes,
      stallMs: context.timeouts.bodyStallMs,
      rateGraceMs: context.timeouts.bodyGraceMs,
      onWanted: () => {
        if (input.expectsContinue) input.response.writeContinue();
      },
      onFault: (error) => this.#fail(error),
    });
    this.#rest = new Rest(context.sleepers, context.metrics, {
      tenant: () => this.#tenant,
      request: this.#request,
      body: this.#body,
      startedAt: this.#startedAt,
      isParked: () => this.#ticket !== undefined,
      takeMemory: () => this.#takeMemory(),
      advance: () => this.#advance(),
      reply: (answer) => this.#reply(answer),
      refuse: (error) => this.#fail(error),
    });
    input.response.once("close", () => this.#closed());
  }

  /** At its beginning, and when it is its turn in its tenant's share. */
  resume(): void {
    this.#advance();
  }

  /** Its turn in the share did not come in time. */
  expire(): void {
    this.#fail(errors.shareTimeout());
  }

  get tenant(): string {
    return this.#tenant;
  }

  get waits(): boolean {
    return !this.#computes;
  }

  /** What it takes in memory while it waits. */
  get bytes(): number {
    return headBytes(this.#request) + this.#body.bytesInMemory;
  }

  isAnswering(socket: Socket): boolean {
    return this.#request.socket === socket && this.#response.headersSent && !this.#response.writableFinished;
  }

  /** Ends it now, with an answer if none has begun. */
  cutOff(): void {
    this.#fail(errors.stopping());
  }

  /** The gateway stops: what it holds has nothing to wait for. */
  endHeld(): void {
    this.#rest.answer();
  }

  /** Decides by the route as it is at this moment. */
  #advance(): void {
    if (this.#done) return;
    const route = this.#route() ?? this.#renamed();
    if (!route) return this.#fail(errors.unknownHost());
    const refusal = this.#refusal?.(route);
    if (refusal) return this.#fail(refusal);
    if (route.state === "unavailable") {
      const delegation = delegationAnswer(this.#request, route);
      if (route.reason === SUSPENDED && this.#rest.isKnown(route)) return;
      // A server that is told nothing here looks for the homeserver elsewhere, for hours.
      if (delegation) return this.#reply(delegation);
      if (route.reason !== SUSPENDED) return this.#fail(errors.unavailable(route.reason));
      return this.#fail(JOINS.test(this.#request.url ?? "") ? errors.joinElsewhere() : errors.suspended(route.contact));
    }
    // Sent on, it would come back here, and again.
    if (leadsToAuthentication(route) && isFromGateway(this.#request)) return this.#fail(errors.authenticationLoop());
    if (this.#rest.dealsWith(route)) return;
    const address = this.#addressIn(route);
    if (address === undefined) {
      // What waits for the tenant takes nothing of its time.
      this.#leaveShare();
      return this.#hold();
    }
    if (!this.#body.ready) {
      if (!this.#takeMemory()) return this.#fail(errors.memoryFull());
      // Reading takes time: the route is looked at again afterwards. Places among the waiting are for requests that wait for the tenant.
      this.#leavePark("sent");
      return this.#body.prepare(() => this.#advance());
    }
    // A place at an authentication service is not for who sends slowly: what it is asked is small.
    if (leadsToAuthentication(route) && this.#body.whole === undefined)
      return this.#fail(errors.tooLarge(KEPT_BODY_BYTES));
    // What a drain waits for does not wait for its turn.
    if (route.state === "parked" || this.#mayGo(route)) this.#dispatch(address, route);
  }

  /** Its tenant's. The host decides, not the name: that may be another tenant's by now. */
  #route(): Route | undefined {
    const route = this.#lookup();
    return route?.tenant === this.#tenant ? route : undefined;
  }

  #lookup(): Route | undefined {
    const route = this.#context.table.lookup(this.#host);
    return route && this.#authenticates ? routeToAuthentication(route) : route;
  }

  /** Its tenant has another name now: what it takes is taken of what that one may have. */
  #renamed(): Route | undefined {
    const { memory } = this.#context;
    const route = this.#lookup();
    if (route?.formerly !== this.#tenant) return undefined;
    this.#rest.leave("passed");
    this.#leavePark("sent");
    this.#leaveShare();
    if (this.#held > 0) memory.give(this.#tenant, this.#held);
    this.#tenant = route.tenant;
    // Where that one has no room, it is asked for again where it has to wait.
    if (this.#held > 0 && !memory.take(this.#tenant, this.#held)) this.#held = 0;
    return route;
  }

  /** Answers in the homeserver's words. */
  #reply(answer: KeptAnswer): void {
    this.#leavePark("sent");
    this.#finish(() => sendKept(this.#response, answer, this.#context.leaving()));
  }

  /** Where the request may go; undefined: it has to wait. */
  #addressIn({ state, address, draining }: Route): string | undefined {
    if (state === "serving") return address;
    if (state !== "parked" || draining === undefined || draining === this.#turnedAway) return undefined;
    const { method = "GET", url = "/" } = this.#request;
    return isAnsweredWhileDraining(method, url) ? draining : undefined;
  }

  #isAt(route: Route | undefined): boolean {
    return route !== undefined && this.#addressIn(route) === this.#address && !this.#refusal?.(route);
  }

  /** The route of its tenant has changed: no answer is to be expected from an address that it no longer names. */
  routeChanged(): void {
    if (!this.#sending || this.#response.headersSent) return;
    const route = this.#route();
    if (route?.address === this.#address || route?.draining === this.#address) return;
    if (this.#isRepeatable) return this.#withdraw("moved", () => this.#advance());
    this.#lastWord ??= setTimeout(() => {
      this.#lastWord = undefined;
      const now = this.#route();
      if (this.#sending && !this.#response.headersSent && now?.address !== this.#address)
        this.#broke(new Error("given up"));
    }, LAST_WORD_MS);
  }

  get #isRepeatable(): boolean {
    const { method = "GET", url = "/" } = this.#request;
    // What is answered while draining only reads, whatever its method.
    return this.#body.repeatable && (IDEMPOTENT.has(method) || isAnsweredWhileDraining(method, url));
  }

  /** Takes room for what it holds in memory, once. */
  #takeMemory(): boolean {
    if (this.#held > 0) return true;
    const bytes = this.bytes;
    if (!this.#context.memory.take(this.#tenant, bytes)) return false;
    this.#held = bytes;
    return true;
  }

  /** Whether it is its turn in the tenant's share. If not, it waits there, or has been answered. */
  #mayGo(route: Route): boolean {
    // An authentication service asks the homeserver in turn, and must not wait for places that those have who wait for it.
    const share = leadsToAuthentication(route) ? this.#context.authenticationShare : this.#context.share;
    if (share !== this.#share) this.#leaveShare();
    this.#share = share;
    if (this.#place?.state === "counted" || !share.counts(this.#tenant, this.#computes)) return true;
    if (isPreflight(this.#request)) return true;
    this.#place = share.enter(this);
    if (this.#place?.state === "counted") return true;
    // It waits for its turn now, no longer for the tenant.
    if (this.#place) {
      this.#leavePark("sent");
      if (this.#patienceMs !== undefined)
        this.#turn ??= setTimeout(() => {
          if (this.#place?.state === "waiting") this.#fail(errors.shareTimeout());
        }, this.#patienceLeft);
    } else this.#fail(errors.shareFull());
    return false;
  }

  get #patienceLeft(): number | undefined {
    return this.#patienceMs === undefined ? undefined : this.#patienceMs - (performance.now() - this.#startedAt);
  }

  #leaveShare(): void {
    if (!this.#place) return;
    const place = this.#place;
    this.#place = undefined;
    this.#share.leave(place);
  }

  #hold(): void {
    if (isPreflight(this.#request)) return this.#fail(errors.parkFull());
    const { parking, parks, sleepers } = this.#context;
    const route = this.#route();
    if (route && wantsWake(route)) sleepers.wakes.want(this.#tenant, this.#rest.wakeCause);
    if (this.#ticket) return parking.waitAgain(this.#ticket);
    parks.waits(this.#tenant);
    if (!this.#takeMemory()) return this.#fail(errors.memoryFull());
    this.#ticket = parking.enter({
      tenant: this.#tenant,
      bytes: this.bytes,
      since: this.#missedAt,
      patienceMs: this.#patienceLeft,
      resume: () => this.#advance(),
      expire: () => {
        this.#ticket = undefined;
        this.#fail(this.#reason);
      },
    });
    if (!this.#ticket) this.#fail(errors.parkFull());
  }

  #leavePark(outcome: "sent" | "failed" | "left"): void {
    if (!this.#ticket) return;
    this.#context.parking.leave(this.#ticket, outcome);
    this.#ticket = undefined;
  }

  #dispatch(address: string, route: Route): void {
    const { body, contentLength } = this.#body.attempt();
    const client = this.#context.trusted.clientOf(this.#request, this.#protocol);
    // A server is chosen by the name that its certificate has.
    const headers = requestHeaders(this.#request, client, route, tlsHostOf(address));
    if (contentLength !== undefined) headers.push("Content-Length", String(contentLength));
    this.#stream = body instanceof UpstreamBody ? body : undefined;
    this.#address = address;
    this.#rest.sentBy(route);
    this.#uncounted = route.dedicated ? route.epoch : undefined;
    this.#instead = undefined;
    this.#sending = false;
    const { method = "GET" } = this.#request;
    this.#connection = this.#context.upstreams.take(address);
    const patience = leadsToAuthentication(route)
      ? { headersTimeout: this.#context.timeouts.authenticationMs ?? AUTHENTICATION_MS }
      : {};
    this.#connection.dispatch({ path: this.#rest.target, method, headers, body, ...patience }, this);
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    const route = this.#route();
    if (this.#done || !this.#isAt(route)) {
      controller.abort(new Error("the route changed before the request was sent"));
      return;
    }
    this.#controller = controller;
    this.#sending = true;
    this.#leavePark("sent");
    this.#stream?.start();
  }

  onResponseStart(
    _controller: Dispatcher.DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    text?: string,
  ): void {
    // Interim answers (103 and the like) are of this connection's making; the client did not ask for any.
    if (status < 200) return;
    if (isMisdirected(status, headers)) return this.#misdirected();
    if (isDatabaseAway(status, headers) && this.#isRepeatable) return this.#databaseAway();
    clearTimeout(this.#lastWord);
    if (this.#uncounted !== undefined) this.#context.answered.count(this.#tenant, this.#uncounted);
    if (status >= 500) this.#countFailure();
    this.#rest.begin(status, headers);
    if (status === 404) this.#instead = delegationAnswer(this.#request, this.#route());
    if (this.#instead) return;
    const out = responseHeaders(headers);
    if (this.#context.leaving()) out.push("Connection", "close");
    this.#response.writeHead(status, text ?? "", out);
    this.#bytesToCome = Number(headers["content-length"]);
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    this.#rest.goOn(chunk);
    if (this.#instead) return;
    if (chunk.length === this.#bytesToCome && chunk.length <= MAX_WHOLE_BYTES) {
      this.#whole = chunk;
      return;
    }
    if (this.#response.write(chunk)) return;
    controller.pause();
    if (this.#stall) return;
    this.#stall = setTimeout(() => this.#response.destroy(), DOWNLOAD_STALL_MS);
    this.#response.once("drain", () => this.#drained());
  }

  onResponseEnd(): void {
    this.#release(true);
    this.#sending = false;
    this.#rest.end();
    if (this.#instead) return this.#reply(this.#instead);
    const whole = this.#whole;
    // As text of one byte each, Node sends it with the header in one piece; as bytes, in two.
    this.#finish(() => (whole ? this.#response.end(whole.toString("latin1"), "latin1") : this.#response.end()));
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    this.#release(false);
    if (this.#done || error === WITHDRAWN) return;
    this.#leaveShare();
    const wasSending = this.#sending;
    this.#controller = undefined;
    this.#sending = false;
    if (this.#response.headersSent) {
      // The client must see that this is not the whole: a broken connection is the only sign left.
      this.#context.metrics.upstreamErrors.inc(this.#tenant, "half");
      this.#countFailure();
      this.#response.destroy();
      return;
    }
    const route = this.#route();
    if (!wasSending && !this.#isAt(route)) return this.#advance();
    const fault = faultOf(error);
    // Nobody will say that it is back, or that its certificate has become another one.
    if (!wasSending && fault !== "request" && this.#isAtAuthentication) return this.#serviceAway(error);
    switch (fault) {
      case "timeout":
        this.#context.metrics.upstreamErrors.inc(this.#tenant, "timeout");
        return this.#fail(this.#isAtAuthentication ? errors.authenticationTimeout() : errors.upstreamTimeout());
      case "request":
        return this.#fail(errors.badRequest("The request cannot be passed on to the homeserver"));
      case "response":
        return this.#broke(error);
      case "connection":
        if (!wasSending) return this.#refused();
        this.#cuts += 1;
        if (!this.#isRepeatable || this.#cuts > MAX_CUTS) return this.#broke(error);
        this.#context.metrics.retries.inc(this.#tenant, "cut");
        // An idle connection that the homeserver just closed: another is made at once. Whatever else it is shows then.
        if (this.#cuts === 1) return this.#advance();
        return this.#isAtAuthentication ? this.#serviceAway(error) : this.#refused();
    }
  }

  #release(intact: boolean): void {
    this.#connection?.release(intact);
    this.#connection = undefined;
  }

  /** Whether it was sent to its tenant although that is parked. */
  #isDraining(route: Route | undefined): boolean {
    return route?.state === "parked" && this.#isAt(route);
  }

  /** It cannot be reached: nothing listens there, or its certificate is for another name. */
  #serviceAway(error: Error): void {
    const { code } = error as NodeJS.ErrnoException;
    const said = { tenant: this.#tenant, address: this.#address, code };
    this.#context.log.warn(said, "authentication service cannot be reached");
    this.#fail(errors.authenticationAway());
  }

  /** Nothing listens there: the tenant restarts, or moved and its new route is on its way. */
  #refused(): void {
    this.#context.metrics.retries.inc(this.#tenant, "refused");
    this.#holdAndRetry();
  }

  #holdAndRetry(): void {
    const route = this.#route();
    if (this.#isDraining(route)) {
      // It has drained: nobody will answer there again.
      this.#turnedAway = this.#address;
      return this.#hold();
    }
    if (!this.#isAt(route)) return this.#advance();
    this.#hold();
    if (this.#ticket) this.#context.parking.retryLater(this.#tenant);
  }

  /** The port is another tenant's by now. Nobody acted on the request, so even a `POST` is sent again. */
  #misdirected(): void {
    this.#missedAt ??= performance.now();
    if (this.#body.repeatable) this.#withdraw("misdirected", () => this.#holdAndRetry());
    else this.#withdraw(undefined, () => this.#fail(errors.justMoved()));
  }

  /** It can be had again when PostgreSQL has been restarted, which takes seconds. */
  #databaseAway(): void {
    this.#missedAt ??= performance.now();
    this.#reason = errors.databaseAway();
    this.#withdraw("database", () => this.#holdAndRetry());
  }

  /** Gives up the present attempt, and goes on. */
  #withdraw(reason: RetryReason | undefined, goOn: () => void): void {
    const controller = this.#controller;
    clearTimeout(this.#lastWord);
    this.#lastWord = undefined;
    this.#controller = undefined;
    this.#sending = false;
    this.#release(false);
    controller?.abort(WITHDRAWN);
    this.#leaveShare();
    if (reason) this.#context.metrics.retries.inc(this.#tenant, reason);
    goOn();
  }

  #broke(error: Error): void {
    this.#context.metrics.upstreamErrors.inc(this.#tenant, "cut");
    this.#context.log.warn(
      { tenant: this.#tenant, address: this.#address, code: (error as NodeJS.ErrnoException).code },
      this.#isAtAuthentication ? "authentication service broke off" : "homeserver broke off",
    );
    this.#fail(errors.upstreamCut());
  }

  #drained(): void {
    clearTimeout(this.#stall);
    this.#stall = undefined;
    if (this.#controller?.paused) this.#controller.resume();
  }

  /** Whether its tenant's authentication service has it, which neither moves nor wakes. */
  get #isAtAuthentication(): boolean {
    const route = this.#route();
    return route !== undefined && leadsToAuthentication(route);
  }

  /** An error that the client sees; if the tenant was parked meanwhile, the move is to blame. */
  #countFailure(): void {
    if (this.#counted || this.#isAtAuthentication) return;
    this.#counted = true;
    this.#context.parks.fails(this.#tenant, this.#startedAt);
  }

  #fail(given: GatewayError): void {
    if (this.#done) return;
    this.#leavePark("failed");
    this.#rest.leave("failed");
    const isTemporary = given.errcode === "M_LIMIT_EXCEEDED";
    const error = isTemporary && this.#patienceMs !== undefined ? errors.notInTime(given.message) : given;
    const isPreflightAnswer = isPreflight(this.#request) && (error.status >= 404 || error.limitType !== undefined);
    if (!isPreflightAnswer && (isTemporary || error.status >= 500)) this.#countFailure();
    this.#finish(() => {
      if (this.#response.headersSent) this.#response.destroy();
      else if (isPreflightAnswer) sendPreflight(this.#response, { close: this.#context.leaving() });
      else sendError(this.#response, error, { close: this.#context.leaving() });
    });
  }

  /** The answer is known to its end, or there will be none; `send` puts the end of it on the wire. */
  #finish(send: () => void): void {
    this.#done = true;
    clearTimeout(this.#lastWord);
    clearTimeout(this.#turn);
    this.#leaveShare();
    this.#body.abandon();
    if (this.#sending) this.#controller?.abort(new Error("the exchange is over"));
    if (this.#response.destroyed) return;
    answerBeforeBody(this.#request, this.#response, this.#context.limits.maxBodyBytes);
    send();
  }

  /** The connection is gone, or the answer was sent whole. */
  #closed(): void {
    clearTimeout(this.#stall);
    const complete = this.#response.writableFinished;
    if (!this.#done) {
      this.#leavePark("left");
      this.#rest.leave("left");
      this.#finish(() => {});
    }
    if (this.#held > 0) this.#context.memory.give(this.#tenant, this.#held);
    const { statusCode } = this.#response;
    const { metrics } = this.#context;
    metrics.answered.inc(this.#tenant, complete ? STATUS_CLASSES[Math.floor(statusCode / 100)]! : "aborted");
    if (complete) metrics.took(this.#computes, (performance.now() - this.#startedAt) / 1000);
    if (this.#context.log.isLevelEnabled("debug")) {
      // The query may hold an access token.
      const { method, url = "" } = this.#request;
      const path = url.split("?", 1)[0];
      const ms = Math.round(performance.now() - this.#startedAt);
      this.#context.log.debug(
        { tenant: this.#tenant, method, path, status: complete ? statusCode : null, ms },
        "request",
      );
    }
    this.#onDone();
  }
}
