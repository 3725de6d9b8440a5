import { isIP } from "node:net";

const DNS_LABEL = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;

/** What is wrong with a tenant's name, or undefined. It becomes part of database, directory and host names. */
export function tenantNameProblem(name: string): string | undefined {
  if (DNS_LABEL.test(name)) return undefined;
  return `tenant name ${quoted(name)} is not a DNS label: 1 to 63 of a-z, 0-9 and "-", not beginning or ending with "-"`;
}

/**
 * What is wrong with a Matrix server name, or undefined. The grammar is the specification's (appendix "Server Name"):
 * a DNS name, an IPv4 address or a bracketed IPv6 address, then optionally a port; at most 230 characters here, so that user
 * ids stay within 255.
 */
export function serverNameProblem(name: string): string | undefined {
  const wrong = (why: string) => `server name ${quoted(name)} ${why}`;
  if (name.length > 230) return wrong("is longer than 230 characters");
  const match = /^(\[[0-9A-Fa-f:.]{2,45}\]|[^:[\]]+)(?::(\d{1,5}))?$/.exec(name);
  if (!match)
    return wrong("is not HOST or HOST:PORT, HOST being a domain name, an IPv4 address or an IPv6 address in brackets");
  const [, host = "", port] = match;
  if (port !== undefined && (Number(port) < 1 || Number(port) > 65535)) return wrong("has a port outside 1 to 65535");
  if (host.startsWith("["))
    return isIP(host.slice(1, -1)) === 6 ? undefined : wrong("has no valid IPv6 address in its brackets");
  if (/^[\d.]+$/.test(host)) return isIP(host) === 4 ? undefined : wrong("looks like an IPv4 address but is none");
  if (host !== host.toLowerCase())
    return wrong("has upper-case letters, which make distinct servers of one host; use lower case");
  const bad = host.split(".").find((label) => !DNS_LABEL.test(label));
  return bad === undefined ? undefined : wrong(`has the part ${quoted(bad)}, which is not a DNS label`);
}

/** The host in a server name or `Host` header: lower case, without the port. */
export function hostOf(serverName: string): string {
  return serverName.toLowerCase().replace(/:\d*$/, "");
}

function quoted(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 77)}…` : text);
}
