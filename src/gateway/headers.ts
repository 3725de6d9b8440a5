import type { IncomingHttpHeaders, IncomingMessage } from "node:http";
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

/** Names the tenant that a request is meant for (docs/control-api.md): a shard that has its port no longer turns it away. */
const TENANT_HEADER = "X-Synapse-Shards-Tenant";

/** What only a proxy may say; a client that says it would be believed by Synapse (rate limits, login by address). */
const FORWARDING = new Set([
  TENANT_HEADER.toLowerCase(),
  "forwarded",
  "x-forwarded-for",
  "x-forwarded-proto",
  "x-forwarded-host",
  "x-forwarded-port",
  "x-real-ip",
]);

/** `Connection` may name further headers to drop, but not these: dropping them would change what the request means. */
const NOT_BY_CONNECTION = new Set(["host", "content-length", "content-type", "authorization"]);

/** Flat name, value, … for the homeserver. The length is left out: it is set by how the body is sent. */
export function requestHeaders(request: IncomingMessage, client: Client, tenant: string): string[] {
  const dropped = namedByConnection(request.headers.connection);
  const { rawHeaders } = request;
  const headers: string[] = [];
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i]!.toLowerCase();
    if (name === "content-length" || HOP_BY_HOP.has(name) || FORWARDING.has(name) || dropped?.has(name)) continue;
    headers.push(rawHeaders[i]!, rawHeaders[i + 1]!);
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
  return headers;
}

/** Flat name, value, … for the client, from the homeserver's raw ones. */
export function responseHeaders(
  raw: readonly (Buffer | string)[],
  parsedConnection: string | string[] | undefined,
): string[] {
  const dropped = namedByConnection(Array.isArray(parsedConnection) ? parsedConnection.join(",") : parsedConnection);
  const headers: string[] = [];
  for (let i = 0; i < raw.length; i += 2) {
    const name = text(raw[i]!);
    const lower = name.toLowerCase();
    if (HOP_BY_HOP.has(lower) || dropped?.has(lower)) continue;
    headers.push(name, text(raw[i + 1]!));
  }
  return headers;
}

/** Whether the answer is no homeserver's but a shard's: the tenant that was asked for does not live at this port. */
export function isMisdirected(status: number, headers: IncomingHttpHeaders): boolean {
  return status === 421 && headers["x-synapse-shards"] === "misdirected";
}

/** Header bytes are kept as they are: Node writes them as latin1 too. */
function text(value: Buffer | string): string {
  return typeof value === "string" ? value : value.toString("latin1");
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
