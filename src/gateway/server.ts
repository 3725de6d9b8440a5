import {
  createServer as createHttpServer,
  type IncomingMessage,
  type Server,
  type ServerOptions,
  type ServerResponse,
} from "node:http";
import { createServer as createHttpsServer } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import type { SecureContext } from "node:tls";
import { errors, rawErrorResponse, sendError, type GatewayError } from "./errors.ts";
import type { Connections } from "./connections.ts";
import { answerBeforeBody, endAndDiscard } from "./discard.ts";
import type { Certificates } from "./tls.ts";

/** A request's head has to arrive within this, from the connection's beginning or the first byte: against slow-loris. */
const HEADERS_TIMEOUT_MS = 30_000;
/** How exactly that is kept. */
const CHECK_INTERVAL_MS = 5_000;
/** Longer than the minute after which common clients and load balancers drop idle connections: the client closes first, and races with no close. */
const KEEP_ALIVE_MS = 75_000;
const TLS_HANDSHAKE_MS = 20_000;
/** Connections that wait to be accepted, as in the moment after a restart when all clients come back; the kernel may allow fewer. */
const BACKLOG = 4_096;
const MAX_HEADER_BYTES = 16 * 1024;

export type RequestHandler = (input: {
  request: IncomingMessage;
  response: ServerResponse;
  protocol: "http" | "https";
  expectsContinue: boolean;
}) => void;

/** For tests: what would take minutes otherwise. */
export interface Timeouts {
  headersMs?: number;
  checkMs?: number;
  bodyStallMs?: number;
  bodyGraceMs?: number;
  wakeAgainMs?: number;
  senderMs?: number;
  authenticationMs?: number;
  tellAnsweredMs?: number;
}

export interface ServerParts {
  handle: RequestHandler;
  /** Whether an answer has begun on a connection, and has not ended. Asked only when something unreadable comes there. */
  isAnswering: (socket: Socket) => boolean;
  connections: Connections;
  limits: { maxBodyBytes: number };
  certificates?: Certificates;
  timeouts?: Timeouts;
}

/** Node's HTTP server with our limits, and our words where Node has none. Bodies have no overall deadline: `RequestBody` watches them. */
export function createServer(parts: ServerParts): Server {
  const { handle, isAnswering, connections, limits, certificates, timeouts = {} } = parts;
  const options: ServerOptions = {
    headersTimeout: timeouts.headersMs ?? HEADERS_TIMEOUT_MS,
    connectionsCheckingInterval: timeouts.checkMs ?? CHECK_INTERVAL_MS,
    requestTimeout: 0,
    keepAliveTimeout: KEEP_ALIVE_MS,
    maxHeaderSize: MAX_HEADER_BYTES,
    insecureHTTPParser: false,
    // Answered by `admit`, in words.
    requireHostHeader: false,
    noDelay: true,
    keepAlive: true,
  };
  const server = certificates
    ? createHttpsServer({
        ...options,
        handshakeTimeout: TLS_HANDSHAKE_MS,
        minVersion: "TLSv1.2",
        SNICallback: sniOf(certificates),
      })
    : createHttpServer(options);
  const protocol = certificates ? "https" : "http";
  // Node would silently drop lines beyond its own maximum; `admit` refuses the request instead.
  server.maxHeadersCount = 0;
  server.on("request", (request, response) => handle({ request, response, protocol, expectsContinue: false }));
  server.on("checkContinue", (request, response) => handle({ request, response, protocol, expectsContinue: true }));
  server.on("checkExpectation", (request, response) => refuseExpectation(request, response, limits.maxBodyBytes));
  server.on("clientError", (error, socket: Socket) => {
    refuseUnparsable(error, socket, isAnswering(socket), limits.maxBodyBytes);
  });
  connections.watch(server);
  return server;
}

type SniDone = (error: Error | null, context?: SecureContext) => void;

function sniOf(certificates: Certificates): (name: string, done: SniDone) => void {
  return (name, done) => {
    // Without a context, the handshake fails with an alert that says so.
    const answer = async (): Promise<void> => done(null, await certificates.contextFor(name));
    void answer();
  };
}

function refuseExpectation(request: IncomingMessage, response: ServerResponse, maxBodyBytes: number): void {
  request.on("error", () => {});
  answerBeforeBody(request, response, maxBodyBytes);
  sendError(response, errors.unsupportedExpectation(), { close: true });
}

/** What Node could not parse has no response object: the answer is written on the bare connection, if none has begun there. */
function refuseUnparsable(error: NodeJS.ErrnoException, socket: Socket, begun: boolean, maxBodyBytes: number): void {
  if (socket.destroyed || begun || error.code === "ECONNRESET") {
    socket.destroy();
    return;
  }
  endAndDiscard(socket, rawErrorResponse(answerTo(error)), maxBodyBytes);
}

function answerTo(error: NodeJS.ErrnoException): GatewayError {
  if (error.code === "HPE_HEADER_OVERFLOW") return errors.headersTooLarge();
  if (error.code === "ERR_HTTP_REQUEST_TIMEOUT") return errors.headersStalled();
  return errors.badRequest("The request is not valid HTTP");
}

/** @returns the port, which the system chose if 0 was asked for */
export function listen(server: Server, host: string, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen({ host, port, backlog: BACKLOG }, () => {
      server.off("error", reject);
      resolve((server.address() as AddressInfo).port);
    });
  });
}
