import { isIPv4 } from "node:net";
import { CLIENT_WELL_KNOWN, delegateOf, isDelegable, SERVER_WELL_KNOWN } from "./delegation.ts";
import { hostOf } from "./names.ts";
import type { PublicAccess } from "./public-access.ts";

export interface DnsRecord {
  name: string;
  type: "A" | "AAAA";
  /** An address; empty where the configuration does not say which one the gateway has. */
  value: string;
  /** What it is for, one clause. */
  purpose: string;
}

export interface WellKnownFile {
  url: string;
  content: Record<string, unknown>;
}

/** What has to be published so that clients and other servers find a tenant. */
export interface TenantDns {
  serverName: string;
  /** The homeserver's own host. */
  host: string;
  url: string;
  /** Where other servers are led to; null where the server name itself is the place. */
  delegate: string | null;
  records: DnsRecord[];
  /** Where a web site keeps the server name for itself: what it has to serve, or to redirect to the same path at `host`. */
  wellKnown: WellKnownFile[];
  /** In place of the file for servers, for those who cannot serve one: needs a certificate for the server name at the gateway. */
  srv: string | null;
}

const FOR_HOST = "clients and other servers reach the homeserver";
const FOR_NAME = "clients and other servers find it; not where a web site has this name";

/** @param url the tenant's URL for clients */
export function dnsOf(serverName: string, url: string, { addresses }: Pick<PublicAccess, "addresses">): TenantDns {
  const { hostname } = new URL(url);
  const host = hostname.toLowerCase();
  const name = hostOf(serverName);
  const delegate = delegateOf(serverName, url) ?? null;
  const purposes: [string, string][] = [[host, FOR_HOST]];
  if (name !== host) purposes.push([name, FOR_NAME]);
  const values = addresses.length > 0 ? addresses : [""];
  const records = purposes.flatMap(([of, purpose]) =>
    values.map((value): DnsRecord => ({
      name: of,
      type: value === "" || isIPv4(value) ? "A" : "AAAA",
      value,
      purpose,
    })),
  );
  const port = delegate?.split(":").at(-1) ?? "443";
  return {
    serverName,
    host,
    url,
    delegate,
    records,
    wellKnown:
      delegate !== null && name !== host
        ? [
            { url: `https://${name}${SERVER_WELL_KNOWN}`, content: { "m.server": delegate } },
            { url: `https://${name}${CLIENT_WELL_KNOWN}`, content: { "m.homeserver": { base_url: url } } },
          ]
        : [],
    srv:
      delegate !== null && name !== host && isDelegable(serverName)
        ? `_matrix-fed._tcp.${name}. 3600 IN SRV 10 5 ${port} ${host}.`
        : null,
  };
}
