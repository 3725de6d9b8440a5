import { parseCookie, stringifySetCookie } from "cookie";
import type { FastifyReply, FastifyRequest } from "fastify";

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

/** The sealed session that a request carries. */
export function sessionCookieOf({ headers }: FastifyRequest, purpose: Purpose = "session"): string | undefined {
  if (headers.cookie === undefined) return undefined;
  const cookies = parseCookie(headers.cookie);
  return cookies[nameOf(purpose, true, "")] ?? cookies[nameOf(purpose, false, headers.host ?? "")];
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
