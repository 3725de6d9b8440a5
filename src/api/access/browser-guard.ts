import { isIP } from "node:net";
import type { FastifyRequest } from "fastify";
import { UserError } from "../../model/errors.ts";

/**
 * Refuses what a browser sends on behalf of another page. A request that carries a cookie comes with it whoever made it; so for those, and for
 * signing in, the host must be ours, and the page that asks as well.
 * @param hosts names besides localhost under which the console is reached @throws UserError Forbidden
 */
export function refuseForeignPages(request: FastifyRequest, hosts: readonly string[]): void {
  const { headers, method } = request;
  refuseForeignHost(headers.host, hosts);
  const site = headers["sec-fetch-site"];
  const { origin } = headers;
  const isRead = method === "GET" || method === "HEAD";
  // `none`: typed into the address bar. Browsers leave the header out on plain HTTP to other machines.
  const isOwnSite = site === undefined || site === "same-origin" || (isRead && site === "none");
  const isOwnOrigin = origin === undefined ? isRead || site === "same-origin" : hostOf(origin) === headers.host;
  if (isOwnSite && isOwnOrigin) return;
  throw new UserError(
    "Forbidden",
    "this request comes from another page than the console's; programs send `Authorization: Bearer TOKEN` instead of a cookie",
  );
}

/** A name that was pointed at this address a moment ago is another site's: the browser takes that site's pages for ours. */
export function refuseForeignHost(host: string | undefined, hosts: readonly string[]): void {
  const name = hostNameIn(host ?? "");
  // An address cannot be pointed anywhere else.
  if (isIP(name) > 0 || name === "localhost" || hosts.includes(name)) return;
  throw new UserError(
    "Forbidden",
    `the console is not served under the host name ${JSON.stringify(name.slice(0, 100))}: add it to api.consoleHosts, or use the address`,
  );
}

/** Of a `Host` header: without port and brackets, in lower case. */
export function hostNameIn(host: string): string {
  return host
    .toLowerCase()
    .replace(/:\d+$/, "")
    .replace(/^\[(.*)\]$/, "$1");
}

function hostOf(origin: string): string | undefined {
  return URL.canParse(origin) ? new URL(origin).host : undefined;
}
