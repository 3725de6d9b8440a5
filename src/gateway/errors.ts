import type { ServerResponse } from "node:http";
import type { GatewayCode } from "../model/catalogue/gateway.ts";

/** An answer of the gateway's own, in Matrix's form, so that clients show or retry it as they would a homeserver's. */
export interface GatewayError {
  /** Names the answer for operators; src/model/catalogue/gateway.ts explains it. */
  code: GatewayCode;
  status: number;
  errcode: string;
  message: string;
  /** Whole seconds, as `Retry-After` wants them. */
  retryAfterSeconds?: number;
  /** What `M_RESOURCE_LIMIT_EXCEEDED` is about, as Synapse and clients call it. */
  limitType?: string;
  /** The URI of who can help. */
  adminContact?: string | undefined;
}

/**
 * What Synapse itself sends, so that a web client can read our errors as it reads the homeserver's; and `Retry-After`,
 * which browsers hide from scripts otherwise.
 */
const CORS_HEADERS = {
  "Access-Control-Allow-Origin": "*",
  "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, DELETE, OPTIONS",
  "Access-Control-Allow-Headers": "X-Requested-With, Content-Type, Authorization, Date",
  "Access-Control-Expose-Headers": "Retry-After, Server",
} as const;

/** Tells the gateway's own answers from a homeserver's, and from each other. */
const CODE_HEADER = "X-Synapse-Shards-Error";

const RETRY_SOON_SECONDS = 2;
const RETRY_LATER_SECONDS = 10;

/**
 * `M_LIMIT_EXCEEDED` where waiting helps: matrix-js-sdk and others then wait as long as `Retry-After` says, whatever the
 * status, and try again; with other codes they guess, or give up.
 */
export const errors = {
  badRequest: (why: string): GatewayError => ({ code: "BadRequest", status: 400, errcode: "M_UNKNOWN", message: why }),
  unknownHost: (): GatewayError => ({
    code: "UnknownHost",
    status: 404,
    errcode: "M_NOT_FOUND",
    message: "No homeserver of this name is hosted here",
  }),
  noRoutesYet: (): GatewayError => ({
    code: "NoRoutesYet",
    status: 503,
    errcode: "M_LIMIT_EXCEEDED",
    message: "The gateway has just started and does not know its homeservers yet",
    retryAfterSeconds: RETRY_SOON_SECONDS,
  }),
  adminForbidden: (): GatewayError => ({
    code: "AdminForbidden",
    status: 403,
    errcode: "M_FORBIDDEN",
    message: "The admin API is not reachable from outside",
  }),
  /** The same for a tenant that is closed and for a network that may not come in: what holds is not a stranger's to know. */
  adminAccessClosed: (): GatewayError => ({
    code: "AdminAccessClosed",
    status: 403,
    errcode: "M_FORBIDDEN",
    message: "This homeserver is not open to administrators here, or not from this network",
  }),
  /** A page that a person with a way in here opens is not to use that way. */
  adminOriginRefused: (): GatewayError => ({
    code: "AdminOriginRefused",
    status: 403,
    errcode: "M_FORBIDDEN",
    message: "Pages of this origin may not call the admin API; the cluster's configuration names those that may",
  }),
  adminTooMany: (): GatewayError => ({
    code: "AdminTooMany",
    status: 429,
    errcode: "M_LIMIT_EXCEEDED",
    message: "Too many requests to the address for administrators come from this client",
    retryAfterSeconds: RETRY_SOON_SECONDS,
  }),
  adminPathRefused: (why: string): GatewayError => ({
    code: "AdminPathRefused",
    status: 403,
    errcode: "M_FORBIDDEN",
    message: `This part of the admin API is not open to a tenant's administrators: ${why}`,
  }),
  /** In the words of a host without such a file or API: an admin UI that looks for another address of the homeserver stays at this one. */
  notForAdministrators: (): GatewayError => ({
    code: "NotForAdministrators",
    status: 404,
    errcode: "M_NOT_FOUND",
    message: "This address is for the homeserver's administrators alone; clients use its public one",
  }),
  tooLarge: (maxBytes: number): GatewayError => ({
    code: "TooLarge",
    status: 413,
    errcode: "M_TOO_LARGE",
    message: `The request body is larger than ${maxBytes} bytes`,
  }),
  headersTooLarge: (): GatewayError => ({
    code: "HeadersTooLarge",
    status: 431,
    errcode: "M_TOO_LARGE",
    message: "The request's header is too large",
  }),
  headersStalled: (): GatewayError => ({
    code: "HeadersStalled",
    status: 408,
    errcode: "M_UNKNOWN",
    message: "The request's header did not arrive in time",
  }),
  bodyTooSlow: (bytesPerSecond: number): GatewayError => ({
    code: "BodyTooSlow",
    status: 408,
    errcode: "M_UNKNOWN",
    message: `The request body arrived at less than ${bytesPerSecond} bytes per second`,
  }),
  bodyStalled: (): GatewayError => ({
    code: "BodyStalled",
    status: 408,
    errcode: "M_UNKNOWN",
    message: "The request body did not arrive in time",
  }),
  unsupportedExpectation: (): GatewayError => ({
    code: "UnsupportedExpectation",
    status: 417,
    errcode: "M_UNKNOWN",
    message: 'Only "Expect: 100-continue" is known here',
  }),
  parkFull: (): GatewayError => ({
    code: "ParkFull",
    status: 503,
    errcode: "M_LIMIT_EXCEEDED",
    message: "The homeserver is being moved or started, and too many requests wait for it already",
    retryAfterSeconds: RETRY_SOON_SECONDS,
  }),
  parkTimeout: (): GatewayError => ({
    code: "ParkTimeout",
    status: 503,
    errcode: "M_LIMIT_EXCEEDED",
    message: "The homeserver is being moved or started, which takes longer than expected",
    retryAfterSeconds: RETRY_SOON_SECONDS,
  }),
  memoryFull: (): GatewayError => ({
    code: "MemoryFull",
    status: 503,
    errcode: "M_LIMIT_EXCEEDED",
    message: "Too many requests wait at the gateway already",
    retryAfterSeconds: RETRY_SOON_SECONDS,
  }),
  databaseAway: (): GatewayError => ({
    code: "DatabaseAway",
    status: 503,
    errcode: "M_LIMIT_EXCEEDED",
    message: "The homeserver's database does not answer at present",
    retryAfterSeconds: RETRY_SOON_SECONDS,
  }),
  authenticationAway: (): GatewayError => ({
    code: "AuthenticationAway",
    status: 503,
    errcode: "M_LIMIT_EXCEEDED",
    message: "The homeserver's authentication service does not answer at present",
    retryAfterSeconds: RETRY_SOON_SECONDS,
  }),
  authenticationTimeout: (): GatewayError => ({
    code: "AuthenticationTimeout",
    status: 504,
    errcode: "M_UNKNOWN",
    message: "The homeserver's authentication service did not answer in time",
  }),
  authenticationLoop: (): GatewayError => ({
    code: "AuthenticationLoop",
    status: 508,
    errcode: "M_UNKNOWN",
    message: "The homeserver's authentication service is said to be where this gateway is",
  }),
  wrongConnection: (): GatewayError => ({
    code: "WrongConnection",
    status: 421,
    errcode: "M_UNKNOWN",
    message: "This connection was made for another homeserver; open one for this name",
  }),
  shareFull: (): GatewayError => ({
    code: "ShareFull",
    status: 429,
    errcode: "M_LIMIT_EXCEEDED",
    message: "Too many requests for this homeserver wait already",
    retryAfterSeconds: RETRY_SOON_SECONDS,
  }),
  shareTimeout: (): GatewayError => ({
    code: "ShareTimeout",
    status: 429,
    errcode: "M_LIMIT_EXCEEDED",
    message: "The homeserver has more to do than it can within the time that a request may wait",
    retryAfterSeconds: RETRY_SOON_SECONDS,
  }),
  /** Other servers back off from a server that answers with 5xx or 429, or not in time; of all others they only drop the one request. */
  notInTime: (message: string): GatewayError => ({
    code: "NotInTime",
    status: 408,
    errcode: "M_UNKNOWN",
    message,
    retryAfterSeconds: RETRY_SOON_SECONDS,
  }),
  unrecognized: (): GatewayError => ({
    code: "Unrecognized",
    status: 404,
    errcode: "M_UNRECOGNIZED",
    message: "Unrecognized request",
  }),
  unavailable: (reason: string | undefined): GatewayError => ({
    code: "Unavailable",
    status: 503,
    errcode: "M_UNKNOWN",
    message: `The homeserver is not available at present${reason ? ` (${reason})` : ""}`,
    retryAfterSeconds: RETRY_LATER_SECONDS,
  }),
  /**
   * What Synapse itself answers where `hs_disabled` is set: clients show the message, and neither log out nor give up. Other servers that get 401,
   * 404, 429 or 5xx back off, in the end for a week; of another error they keep what they had to send, and try again.
   */
  suspended: (adminContact: string | undefined): GatewayError => ({
    code: "Suspended",
    status: 403,
    errcode: "M_RESOURCE_LIMIT_EXCEEDED",
    message: "This homeserver is suspended by its operator at present; nothing of it is lost",
    limitType: "hs_disabled",
    adminContact,
  }),
  /** Who wants to join a room by way of a server that is suspended may do so by way of another. */
  joinElsewhere: (): GatewayError => ({
    code: "JoinElsewhere",
    status: 400,
    errcode: "M_UNABLE_TO_GRANT_JOIN",
    message: "This homeserver is suspended by its operator at present; try another one",
  }),
  justMoved: (): GatewayError => ({
    code: "JustMoved",
    status: 503,
    errcode: "M_LIMIT_EXCEEDED",
    message: "The homeserver has just moved and did not get the request",
    retryAfterSeconds: RETRY_SOON_SECONDS,
  }),
  stopping: (): GatewayError => ({
    code: "Stopping",
    status: 503,
    errcode: "M_LIMIT_EXCEEDED",
    message: "The gateway is being restarted",
    retryAfterSeconds: RETRY_SOON_SECONDS,
  }),
  upstreamCut: (): GatewayError => ({
    code: "UpstreamCut",
    status: 502,
    errcode: "M_UNKNOWN",
    message: "The homeserver broke off; it is not known whether it acted on the request",
  }),
  upstreamTimeout: (): GatewayError => ({
    code: "UpstreamTimeout",
    status: 504,
    errcode: "M_UNKNOWN",
    message: "The homeserver did not answer in time",
  }),
} as const;

function bodyOf(error: GatewayError): string {
  const body: Record<string, unknown> = { errcode: error.errcode, error: error.message };
  if (error.errcode === "M_LIMIT_EXCEEDED" && error.retryAfterSeconds !== undefined)
    body.retry_after_ms = error.retryAfterSeconds * 1000;
  if (error.limitType !== undefined) body.limit_type = error.limitType;
  if (error.adminContact !== undefined) body.admin_contact = error.adminContact;
  return JSON.stringify(body);
}

function headersOf(error: GatewayError, body: string): Record<string, string> {
  return {
    "Content-Type": "application/json",
    "Content-Length": String(Buffer.byteLength(body)),
    "Cache-Control": "no-store",
    ...CORS_HEADERS,
    [CODE_HEADER]: error.code,
    ...(error.retryAfterSeconds === undefined ? {} : { "Retry-After": String(error.retryAfterSeconds) }),
  };
}

/** Answers with the error. Nothing of the response may have been sent. */
export function sendError(response: ServerResponse, error: GatewayError, options: { close: boolean }): void {
  const body = bodyOf(error);
  if (options.close) response.setHeader("Connection", "close");
  response.writeHead(error.status, headersOf(error, body));
  response.end(body);
}

/**
 * Answers a browser's preflight with "go ahead". A refused preflight hides the real answer from the web client, which then
 * sees a broken connection instead of an error that it can show or retry.
 */
export function sendPreflight(response: ServerResponse, options: { close: boolean }): void {
  if (options.close) response.setHeader("Connection", "close");
  response.writeHead(204, { ...CORS_HEADERS, "Cache-Control": "no-store" });
  response.end();
}

const STATUS_TEXTS: Record<number, string> = {
  400: "Bad Request",
  408: "Request Timeout",
  431: "Request Header Fields Too Large",
};

/** The error as bytes for a connection on which Node could not parse a request, and so made no response object. */
export function rawErrorResponse(error: GatewayError): string {
  const body = bodyOf(error);
  const headers = Object.entries({ ...headersOf(error, body), Connection: "close" }).map(
    ([name, value]) => `${name}: ${value}\r\n`,
  );
  return `HTTP/1.1 ${error.status} ${STATUS_TEXTS[error.status] ?? "Error"}\r\n${headers.join("")}\r\n${body}`;
}
