import { isIP } from "node:net";
import { parseCookie, stringifySetCookie } from "cookie";
import type { FastifyReply, FastifyRequest } from "fastify";
import { hostNameIn } from "./browser-guard.ts";

/** The session; or what a browser carries while its person is at an identity provider. */
type Purpose = "session" | "flow";

/**
 * Over HTTPS the browser itself sees to it that no other host set it (`__Host-`). On plain HTTP it would not take such a cookie everywhere: the
 * name then has the port, since cookies do not, and two clusters on one machine would sign each other's users out.
 */
function nameOf(purpose: Purpose, isSecure: boolean, host: string): string {
  const name = purpose === "session" ? "synapse-shards" : "synapse-shards-flow";
  return isSecure ? `__Host-${name}` : `${name}-${/:(\d+)$/.exec(host)?.[1] ?? "80"}`;
}

/** The sealed session that a request carries. @param url the console's, as it is configured */
export function sessionCookieOf(
  request: FastifyRequest,
  { url, purpose = "session" }: { url: string; purpose?: Purpose },
): string | undefined {
  const { cookie, host = "" } = request.headers;
  if (cookie === undefined) return undefined;
  const cookies = parseCookie(cookie);
  const secure = cookies[nameOf(purpose, true, "")];
  // Pages of sibling domains can set cookies of all other names here, and so would have people work in a session of theirs.
  return isOverHttps(request, url) ? secure : (secure ?? cookies[nameOf(purpose, false, host)]);
}

/** Whether a browser came by HTTPS, as far as can be told behind a proxy. Pages at an address or at localhost have no sibling domains. */
function isOverHttps({ headers, protocol }: FastifyRequest, url: string): boolean {
  const { host = "", origin } = headers;
  const name = hostNameIn(host);
  if (isIP(name) > 0 || /(^|\.)localhost$/.test(name)) return false;
  const isConsole = url.startsWith("https:") && new URL(url).host === host.toLowerCase();
  if (protocol === "https" || isConsole) return true;
  // On plain HTTP, browsers send the second to this machine alone.
  return origin === undefined ? headers["sec-fetch-site"] !== undefined : origin.startsWith("https:");
}

/** The browser's word, where it gives one: a proxy that ends TLS need not tell us. @param url the console's, for who follows a link */
function isSecure({ headers: { origin }, protocol }: FastifyRequest, url: string): boolean {
  return protocol === "https" || (origin ?? url).startsWith("https:");
}

/** @param url of the console, as it is configured */
export function setSessionCookie(
  request: FastifyRequest,
  reply: FastifyReply,
  {
    session,
    url,
    purpose = "session",
  }: {
    session: { sealed: string; expiresAt: Date } | undefined;
    url: string;
    purpose?: Purpose;
  },
): void {
  const secure = isSecure(request, url);
  const text = stringifySetCookie({
    name: nameOf(purpose, secure, request.headers.host ?? ""),
    value: session?.sealed ?? "",
    expires: session?.expiresAt ?? new Date(0),
    path: "/",
    httpOnly: true,
    // It comes back by a link of the provider's pages.
    sameSite: purpose === "flow" ? "lax" : "strict",
    secure,
  });
  reply.header("set-cookie", text);
}
