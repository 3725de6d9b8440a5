import { isIP } from "node:net";
import { tryReadConfig } from "./config-reading.ts";
import type { Tenant } from "./tenant.ts";

const HTTPS_PORT = "443";

/** Where other servers are to go for a server name, as `m.server` of its `/.well-known/matrix/server` says it. */
export const SERVER_WELL_KNOWN = "/.well-known/matrix/server";
export const CLIENT_WELL_KNOWN = "/.well-known/matrix/client";

/**
 * Where other servers reach a tenant, `HOST:PORT`: at its URL, if that is https. Undefined where a server name says so itself, by a port or an
 * address: nobody asks for a delegation then.
 */
export function delegateOf(serverName: string, publicUrl: string | undefined): string | undefined {
  if (publicUrl === undefined || !isDelegable(serverName)) return undefined;
  const { protocol, hostname, port } = new URL(publicUrl);
  return protocol === "https:" ? `${hostname.toLowerCase()}:${port || HTTPS_PORT}` : undefined;
}

/** Whether other servers ask a server name where its homeserver is. */
export function isDelegable(serverName: string): boolean {
  return !/:\d+$/.test(serverName) && !serverName.startsWith("[") && isIP(serverName) === 0;
}

/** The URL that a tenant has in its configuration: in the one in effect, else in the one asked for. */
export function configuredUrlOf({ spec, status }: Pick<Tenant, "spec" | "status">): string | undefined {
  return status.inEffect?.meaning.publicBaseUrl ?? tryReadConfig(spec.config)?.publicBaseUrl;
}
