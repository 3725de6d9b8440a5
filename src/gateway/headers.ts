import type { IncomingHttpHeaders, IncomingMessage } from "node:http";
import type { Route } from "../model/routes.ts";
import type { Client } from "./trusted-proxies.ts";

/** Of one connection, not of the message (RFC 9110, 7.6.1); `expect` is answered here. */
const HOP_BY_HOP = new Set([
  "connection",
  "keep-alive",
  "proxy-connection",
  "proxy-authenticate",
  "proxy-authorization",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
  "expect",
]);

/** Names the tenant that a request is meant for (docs/control-api.md): a shard that has another one at that port by now turns it away. */
const TENANT_HEADER = "X-Synapse-Shards-Tenant";
/** Proves to a shard that a request comes from a gateway. */
const SECRET_HEADER = "X-Synapse-Shards-Secret";
/** Says that the tenant is over its budget: its shard lets its neighbours go first (docs/control-api.md). */
const THROTTLED_HEADER = "X-Synapse-Shards-Throttled";

/** What only a proxy may say; a client that says it would be believed by Synapse (rate limits, login by address). */
const FORWARDING = new Set([
  TENANT_HEADER.toLowerCase(),
  SECRET_HEADER.toLowerCase(),
  THROTTLED_HEADER.toLowerCase(),
  "forwarded",
  "x-forwarded-for",
  "x-forwarded-proto",
  "x-forwarded-host",
  "x-forwarded-port",
  "x-real-ip",
]);

/** `Connection` may name further headers to drop, but not these: dropping them would change what the request means. */
const NOT_BY_CONNECTION = new Set(["host", "content-length", "content-type", "authorization"]);

/** Of a request, what the homeserver does not get as the client sent it; the length is set by how the body is sent. */
const NOT_PASSED_ON = new Set(["content-length", ...HOP_BY_HOP, ...FORWARDING]);

/** Flat name, value, … for the homeserver. @param host of a server that goes by a name of its own */
export function requestHeaders(
  request: IncomingMessage,
  client: Client,
  { tenant, secret, share = 1 }: Pick<Route, "tenant" | "secret" | "share">,
  host?: string,
): string[] {
  const dropped = namedByConnection(request.headers.connection);
  const { rawHeaders } = request;
  const headers: string[] = [];
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i]!.toLowerCase();
    if (NOT_PASSED_ON.has(name) || dropped?.has(name)) continue;
    headers.push(rawHeaders[i]!, name === "host" && host !== undefined ? host : rawHeaders[i + 1]!);
  }
  headers.push(
    "X-Forwarded-For",
    client.address,
    "X-Forwarded-Proto",
    client.protocol,
    "X-Forwarded-Host",
    request.headers.host ?? "",
    TENANT_HEADER,
    tenant,
  );
  if (secret !== undefined) headers.push(SECRET_HEADER, secret);
  if (share < 1) headers.push(THROTTLED_HEADER, "1");
  return headers;
}

/**
 * Flat name, value, … for the client. Names are in lower case: the HTTP client has parsed them anyway, and its raw ones are bytes, whose
 * second decoding would be a twentieth of the gateway's time. Values are latin1, as Node writes them.
 */
export function responseHeaders(parsed: IncomingHttpHeaders): string[] {
  const { connection } = parsed;
  const dropped = namedByConnection(Array.isArray(connection) ? connection.join(",") : connection);
  const headers: string[] = [];
  for (const name in parsed) {
    if (HOP_BY_HOP.has(name) || name === SHARD_WORD || dropped?.has(name)) continue;
    const value = parsed[name];
    if (typeof value === "string") headers.push(name, value);
    else for (const one of value ?? []) headers.push(name, one);
  }
  return headers;
}

/** A shard's word about an answer, which is not for clients. */
const SHARD_WORD = "x-synapse-shards";

/** Whether a gateway has passed the request on. A client that says so of itself harms nobody but itself. */
export function isFromGateway({ headers }: IncomingMessage): boolean {
  return headers[TENANT_HEADER.toLowerCase()] !== undefined;
}

/** Whether the answer is no homeserver's but a shard's: the tenant that was asked for does not live at this port. */
export function isMisdirected(status: number, headers: IncomingHttpHeaders): boolean {
  return status === 421 && headers[SHARD_WORD] === "misdirected";
}

/** Whether the homeserver could not act because its database is away (docs/control-api.md). */
export function isDatabaseAway(status: number, headers: IncomingHttpHeaders): boolean {
  return status === 503 && headers[SHARD_WORD] === "database-away";
}

/** A browser's question whether it may send a request; a refused one hides the answer to the request from the web client. */
export function isPreflight({ method, headers }: IncomingMessage): boolean {
  return method === "OPTIONS" && headers["access-control-request-method"] !== undefined;
}

function namedByConnection(value: string | undefined): Set<string> | undefined {
  if (value === undefined || value === "keep-alive" || value === "close") return undefined;
  const names = value.split(",").map((name) => name.trim().toLowerCase());
  return new Set(names.filter((name) => !NOT_BY_CONNECTION.has(name)));
}

/** Roughly what a request's head takes in memory, in bytes. */
export function headBytes(request: IncomingMessage): number {
  let bytes = (request.url ?? "").length;
  for (const part of request.rawHeaders) bytes += part.length;
  return bytes;
}
