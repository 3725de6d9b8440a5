import { parseCookie, stringifySetCookie } from "cookie";
import type { FastifyReply, FastifyRequest } from "fastify";

/**
 * Over HTTPS the browser itself sees to it that no other host set it (`__Host-`). On plain HTTP it would not take such a cookie everywhere: the
 * name then has the port, since cookies do not, and two clusters on one machine would sign each other's users out.
 */
function nameOf(isSecure: boolean, host: string): string {
  return isSecure ? "__Host-synapse-shards" : `synapse-shards-${/:(\d+)$/.exec(host)?.[1] ?? "80"}`;
}

/** The sealed session that a request carries. */
export function sessionCookieOf({ headers }: FastifyRequest): string | undefined {
  if (headers.cookie === undefined) return undefined;
  const cookies = parseCookie(headers.cookie);
  return cookies[nameOf(true, "")] ?? cookies[nameOf(false, headers.host ?? "")];
}

export function setSessionCookie(
  request: FastifyRequest,
  reply: FastifyReply,
  session: { sealed: string; expiresAt: Date } | undefined,
): void {
  const { origin, host = "" } = request.headers;
  // The browser's word: a proxy that ends TLS need not tell us.
  const secure = request.protocol === "https" || (origin?.startsWith("https:") ?? false);
  const common = { path: "/", httpOnly: true, sameSite: "strict", secure } as const;
  const text = stringifySetCookie({
    name: nameOf(secure, host),
    value: session?.sealed ?? "",
    expires: session?.expiresAt ?? new Date(0),
    ...common,
  });
  reply.header("set-cookie", text);
}
