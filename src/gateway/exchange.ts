import type { TrustedProxies } from "./trusted-proxies.ts";
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Logger } from "pino";
import type { Dispatcher } from "undici";
import type { Route } from "../model/routes.ts";
import { errors, sendError, sendPreflight, type GatewayError } from "./errors.ts";
import { countsForShare, type FairShare, type SharePlace, type ShareRequest } from "./fair-share.ts";
import { headBytes, isMisdirected, requestHeaders, responseHeaders } from "./headers.ts";
import type { GatewayMetrics } from "./metrics.ts";
import type { Parking, ParkingTicket } from "./parking.ts";
import { RequestBody, UpstreamBody } from "./request-body.ts";
import type { RouteTable } from "./route-table.ts";
import { faultOf } from "./upstream-fault.ts";
import type { Connection, Upstreams } from "./upstreams.ts";

/** By HTTP's definition; and Matrix's PUTs carry transaction ids. */
const IDEMPOTENT = new Set(["GET", "HEAD", "OPTIONS", "PUT", "DELETE"]);
/** A request that kills its homeserver must not kill it again and again. */
const MAX_CUTS = 3;
/** Until a client takes what it was sent (at most some 64 KiB): slower than 0.5 KiB/s is not reading. */
const DOWNLOAD_STALL_MS = 120_000;
/** How long the rest of an unread body may take after the answer, before the connection is closed. */
const DISCARD_MS = 30_000;
/** Larger ones are not worth a copy. */
const MAX_WHOLE_BYTES = 16 * 1024;
const STATUS_CLASSES = ["", "1xx", "2xx", "3xx", "4xx", "5xx", "6xx", "7xx", "8xx", "9xx"];
/** Ends an attempt whose end has been dealt with. */
const MISDIRECTED = new Error("the homeserver is not at this address");

export interface ExchangeContext {
  table: RouteTable;
  parking: Parking;
  share: FairShare;
  upstreams: Upstreams;
  metrics: GatewayMetrics;
  log: Logger;
  trusted: TrustedProxies;
  maxBodyBytes: number;
  bodyStallMs?: number;
  /** Answers then end their connection. */
  stopping(): boolean;
}

export interface ExchangeInput {
  request: IncomingMessage;
  response: ServerResponse;
  protocol: "http" | "https";
  /** The client waits for "100 Continue". */
  expectsContinue: boolean;
  contentLength: number | undefined;
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
  readonly #tenant: string;
  readonly #body: RequestBody;
  readonly #startedAt = performance.now();
  /** For the fair share, and whether it is counted as computing. */
  readonly #computes: boolean;
  readonly #onDone: () => void;
  #ticket: ParkingTicket | undefined;
  /** In the tenant's share; undefined as well for requests that do not count. */
  #place: SharePlace | undefined;
  #connection: Connection | undefined;
  #controller: Dispatcher.DispatchController | undefined;
  #address = "";
  #stream: UpstreamBody | undefined;
  #sending = false;
  #bytesToCome = Number.NaN;
  /** An answer's body that came in one piece: it is sent with the header at the end, which follows at once. */
  #whole: Buffer | undefined;
  #cuts = 0;
  /** When somebody else was first met at the tenant's address; waiting from then on is bounded as a whole. */
  #misdirectedAt: number | undefined;
  #done = false;
  #stall: NodeJS.Timeout | undefined;

  constructor(context: ExchangeContext, route: Route, input: ExchangeInput, onDone: () => void) {
    this.#context = context;
    this.#tenant = route.tenant;
    this.#request = input.request;
    this.#response = input.response;
    this.#protocol = input.protocol;
    this.#onDone = onDone;
    this.#computes = countsForShare(input.request.method ?? "GET", input.request.url ?? "/");
    this.#body = new RequestBody(input.request, {
      contentLength: input.contentLength,
      maxBytes: context.maxBodyBytes,
      stallMs: context.bodyStallMs,
      onWanted: () => {
        if (input.expectsContinue) input.response.writeContinue();
      },
      onFault: (error) => this.#fail(error),
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

  /** Decides by the route as it is at this moment. */
  #advance(): void {
    if (this.#done) return;
    const route = this.#context.table.tenant(this.#tenant);
    if (!route) return this.#fail(errors.unknownHost());
    if (route.state === "unavailable") return this.#fail(errors.unavailable(route.reason));
    if (route.state === "parked" || route.address === undefined) {
      // What waits for the tenant takes nothing of its time.
      this.#leaveShare();
      return this.#hold();
    }
    if (!this.#body.ready) {
      // Reading takes time: the route is looked at again afterwards. A place among the waiting is for who waits for the tenant.
      this.#leavePark("sent");
      return this.#body.prepare(() => this.#advance());
    }
    if (this.#mayGo()) this.#dispatch(route.address);
  }

  /** Whether it is its turn in the tenant's share. If not, it waits there, or has been answered. */
  #mayGo(): boolean {
    const { share } = this.#context;
    if (!share.enabled || !this.#computes || this.#place?.state === "counted") return true;
    this.#place = share.enter(this);
    if (this.#place?.state === "counted") return true;
    // It waits for its turn now, no longer for the tenant.
    if (this.#place) this.#leavePark("sent");
    else this.#fail(errors.shareFull());
    return false;
  }

  #leaveShare(): void {
    if (!this.#place) return;
    const place = this.#place;
    this.#place = undefined;
    this.#context.share.leave(place);
  }

  #hold(): void {
    if (this.#isPreflight()) return this.#fail(errors.parkFull());
    if (this.#ticket) return this.#context.parking.waitAgain(this.#ticket);
    this.#ticket = this.#context.parking.enter({
      tenant: this.#tenant,
      bytes: this.bytes,
      since: this.#misdirectedAt,
      resume: () => this.#advance(),
      expire: () => {
        this.#ticket = undefined;
        this.#fail(errors.parkTimeout());
      },
    });
    if (!this.#ticket) this.#fail(errors.parkFull());
  }

  #leavePark(outcome: "sent" | "failed" | "left"): void {
    if (!this.#ticket) return;
    this.#context.parking.leave(this.#ticket, outcome);
    this.#ticket = undefined;
  }

  #dispatch(address: string): void {
    const { body, contentLength } = this.#body.attempt();
    const headers = requestHeaders(
      this.#request,
      this.#context.trusted.clientOf(this.#request, this.#protocol),
      this.#tenant,
    );
    if (contentLength !== undefined) headers.push("Content-Length", String(contentLength));
    this.#stream = body instanceof UpstreamBody ? body : undefined;
    this.#address = address;
    this.#sending = false;
    const { method = "GET", url = "/" } = this.#request;
    this.#connection = this.#context.upstreams.take(address);
    this.#connection.dispatch({ path: url, method, headers, body }, this);
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    const route = this.#context.table.tenant(this.#tenant);
    if (this.#done || route?.state !== "serving" || route.address !== this.#address) {
      controller.abort(new Error("the route changed before the request was sent"));
      return;
    }
    this.#controller = controller;
    this.#sending = true;
    this.#leavePark("sent");
    this.#stream?.start();
  }

  onResponseStart(
    controller: Dispatcher.DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    text?: string,
  ): void {
    // Interim answers (103 and the like) are of this connection's making; the client did not ask for any.
    if (status < 200) return;
    if (isMisdirected(status, headers)) {
      this.#misdirected(controller);
      return;
    }
    const out = responseHeaders(headers);
    if (this.#context.stopping()) out.push("Connection", "close");
    this.#response.writeHead(status, text ?? "", out);
    this.#bytesToCome = Number(headers["content-length"]);
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
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
    const whole = this.#whole;
    // As text of one byte each, Node sends it with the header in one piece; as bytes, in two.
    this.#finish(() => (whole ? this.#response.end(whole.toString("latin1"), "latin1") : this.#response.end()));
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    this.#release(false);
    if (this.#done || error === MISDIRECTED) return;
    this.#leaveShare();
    const wasSending = this.#sending;
    this.#controller = undefined;
    this.#sending = false;
    if (this.#response.headersSent) {
      // The client must see that this is not the whole: a broken connection is the only sign left.
      this.#context.metrics.upstreamErrors.inc({ tenant: this.#tenant, reason: "half" });
      this.#response.destroy();
      return;
    }
    const route = this.#context.table.tenant(this.#tenant);
    if (!wasSending && (route?.state !== "serving" || route.address !== this.#address)) return this.#advance();
    switch (faultOf(error)) {
      case "timeout":
        this.#context.metrics.upstreamErrors.inc({ tenant: this.#tenant, reason: "timeout" });
        return this.#fail(errors.upstreamTimeout());
      case "request":
        return this.#fail(errors.badRequest("The request cannot be passed on to the homeserver"));
      case "response":
        return this.#broke(error);
      case "connection":
        if (!wasSending) return this.#refused();
        this.#cuts += 1;
        if (!IDEMPOTENT.has(this.#request.method ?? "") || !this.#body.repeatable || this.#cuts > MAX_CUTS)
          return this.#broke(error);
        this.#context.metrics.retries.inc({ tenant: this.#tenant, reason: "cut" });
        // An idle connection that the homeserver just closed: another is made at once. Whatever else it is shows then.
        if (this.#cuts === 1) return this.#advance();
        return this.#refused();
    }
  }

  #release(intact: boolean): void {
    this.#connection?.release(intact);
    this.#connection = undefined;
  }

  /** Nothing listens there: the tenant restarts, or moved and its new route is on its way. */
  #refused(): void {
    this.#context.metrics.retries.inc({ tenant: this.#tenant, reason: "refused" });
    this.#hold();
    if (this.#ticket) this.#context.parking.retryLater(this.#tenant);
  }

  /** The port is another tenant's by now. Nobody acted on the request, so even a `POST` is sent again. */
  #misdirected(controller: Dispatcher.DispatchController): void {
    this.#misdirectedAt ??= performance.now();
    this.#controller = undefined;
    this.#sending = false;
    this.#release(false);
    controller.abort(MISDIRECTED);
    this.#leaveShare();
    if (!this.#body.repeatable) return this.#fail(errors.justMoved());
    this.#context.metrics.retries.inc({ tenant: this.#tenant, reason: "misdirected" });
    const route = this.#context.table.tenant(this.#tenant);
    if (route?.state !== "serving" || route.address !== this.#address) return this.#advance();
    this.#hold();
    if (this.#ticket) this.#context.parking.retryLater(this.#tenant);
  }

  #broke(error: Error): void {
    this.#context.metrics.upstreamErrors.inc({ tenant: this.#tenant, reason: "cut" });
    this.#context.log.warn(
      { tenant: this.#tenant, address: this.#address, code: (error as NodeJS.ErrnoException).code },
      "homeserver broke off",
    );
    this.#fail(errors.upstreamCut());
  }

  #drained(): void {
    clearTimeout(this.#stall);
    this.#stall = undefined;
    if (this.#controller?.paused) this.#controller.resume();
  }

  #fail(error: GatewayError): void {
    if (this.#done) return;
    this.#leavePark("failed");
    this.#finish(() => {
      if (this.#response.headersSent) this.#response.destroy();
      else if (this.#isPreflight() && error.status >= 404) sendPreflight(this.#response);
      else sendError(this.#response, error, { close: this.#context.stopping() });
    });
  }

  /** The answer is known to its end, or there will be none; `send` puts the end of it on the wire. */
  #finish(send: () => void): void {
    this.#done = true;
    this.#leaveShare();
    this.#body.abandon();
    if (this.#sending) this.#controller?.abort(new Error("the exchange is over"));
    if (this.#response.destroyed) return;
    if (!this.#request.complete)
      this.#response.once("finish", () => discardRest(this.#request, this.#context.maxBodyBytes));
    send();
  }

  /** The connection is gone, or the answer was sent whole. */
  #closed(): void {
    clearTimeout(this.#stall);
    const complete = this.#response.writableFinished;
    if (!this.#done) {
      this.#leavePark("left");
      this.#finish(() => {});
    }
    const { statusCode } = this.#response;
    const { metrics } = this.#context;
    metrics.answered(this.#tenant, complete ? STATUS_CLASSES[Math.floor(statusCode / 100)]! : "aborted");
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

  #isPreflight(): boolean {
    return this.#request.method === "OPTIONS" && this.#request.headers["access-control-request-method"] !== undefined;
  }
}

/**
 * Reads on for a while after an answer that came before the body's end. Closing at once would reset the connection, and the
 * client, which is still sending, would lose the answer.
 */
export function discardRest(request: IncomingMessage, maxBytes: number): void {
  if (request.complete || request.socket.destroyed) return;
  let bytes = 0;
  const timer = setTimeout(() => request.socket.destroy(), DISCARD_MS);
  request.on("data", (chunk: Buffer) => {
    bytes += chunk.length;
    if (bytes > maxBytes) request.socket.destroy();
  });
  request.once("close", () => clearTimeout(timer));
  request.once("end", () => clearTimeout(timer));
  request.resume();
}
