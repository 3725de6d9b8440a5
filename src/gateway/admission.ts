import type { IncomingMessage } from "node:http";
import { errors, type GatewayError } from "./errors.ts";

/** More than any client sends; fewer than it takes to make header handling a burden. */
const MAX_HEADER_LINES = 100;
const HOST = /^(?:\[[0-9a-f:.]{2,45}\]|[a-z0-9._-]{1,253})(?::\d{0,5})?$/;
const ABSOLUTE = /^(https?):\/\/([^/?#@]+)([^#]*)$/i;
const ADMIN = /admin/i;
/** Nobody nests percent-encodings honestly; each round costs a pass over the path. */
const MAX_DECODING_ROUNDS = 8;

/** What a request is for, as far as its head tells. */
export interface Admitted {
  /** Lower case, with its port if one was given, without a trailing dot. */
  host: string;
  /** Path and query. */
  target: string;
  /** Undefined: not announced (chunked); 0: none. */
  contentLength: number | undefined;
}

/** Checks the head of a request against everything that does not need the route. */
export function admit(
  request: IncomingMessage,
  limits: { maxBodyBytes: number; adminApi: boolean },
): Admitted | GatewayError {
  const { rawHeaders, url = "" } = request;
  if (rawHeaders.length / 2 > MAX_HEADER_LINES) return errors.headersTooLarge();
  let hosts = 0;
  for (let i = 0; i < rawHeaders.length; i += 2)
    if (rawHeaders[i]!.length === 4 && rawHeaders[i]!.toLowerCase() === "host") hosts += 1;
  if (hosts !== 1)
    return errors.badRequest(hosts === 0 ? "The Host header is missing" : "There is more than one Host header");
  const host = plainHost(request.headers.host ?? "");
  if (!HOST.test(host)) return errors.badRequest("The Host header is not a host name");
  const target = url.startsWith("/") ? url : targetFor(url, host);
  if (typeof target !== "string") return target;
  const chunked = request.headers["transfer-encoding"] !== undefined;
  if (chunked && request.headers["transfer-encoding"]!.toLowerCase() !== "chunked")
    return errors.badRequest('The only transfer encoding known here is "chunked"');
  const contentLength = chunked ? undefined : Number(request.headers["content-length"] ?? 0);
  if (contentLength !== undefined && contentLength > limits.maxBodyBytes) return errors.tooLarge(limits.maxBodyBytes);
  if (!limits.adminApi && isAdminPath(target)) return errors.adminForbidden();
  return { host, target, contentLength };
}

function plainHost(host: string): string {
  return host.toLowerCase().replace(/\.(?=$|:\d*$)/, "");
}

/** The path of a target in absolute form (RFC 9112, 3.2.2), as clients send that take the gateway for a proxy. It must be of the same host. */
function targetFor(url: string, host: string): string | GatewayError {
  const [, scheme = "", authority = "", path = ""] = ABSOLUTE.exec(url) ?? [];
  if (scheme === "") return errors.badRequest("The request target has to be a path, or an http or https URL");
  const port = scheme.toLowerCase() === "https" ? /:443$/ : /:80$/;
  if (plainHost(authority).replace(port, "") !== host.replace(port, ""))
    return errors.badRequest("The request target and the Host header name different hosts");
  return path.startsWith("/") ? path : `/${path}`;
}

/**
 * Whether any server could read the target as one below `/_synapse/admin`: however often it decodes, whether or not it
 * resolves dots, joins slashes or takes backslashes for slashes.
 */
export function isAdminPath(target: string): boolean {
  const mark = target.indexOf("?");
  let path = mark === -1 ? target : target.slice(0, mark);
  // Nothing to decode, and not the word: nearly all requests are done here.
  if (!path.includes("%") && !ADMIN.test(path)) return false;
  for (let round = 0; round < MAX_DECODING_ROUNDS; round += 1) {
    if (entersAdmin(path)) return true;
    const decoded = path.replace(/%([0-9a-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
    if (decoded === path) return false;
    path = decoded;
  }
  return true;
}

function entersAdmin(path: string): boolean {
  const walked: string[] = [];
  for (const segment of path.split(/[/\\]/)) {
    const name = segment
      .replace(/[;?#].*$/s, "")
      .trim()
      .toLowerCase();
    if (name === "" || name === ".") continue;
    if (name === "..") walked.pop();
    else walked.push(name);
    if (walked.length === 2 && walked[0] === "_synapse" && walked[1] === "admin") return true;
  }
  return false;
}
