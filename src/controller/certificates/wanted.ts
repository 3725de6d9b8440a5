import { isIP } from "node:net";
import type { CertificateRecord } from "../../model/certificates.ts";
import type { OrderEntry } from "../../ports/certificates.ts";

const NEVER_PUBLIC = /(^|\.)(localhost|local|internal|lan|home\.arpa|invalid|onion)$/;
const NAME = /^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?$/;

/** Whether an authority of the world could vouch for a host at all. */
export function isCertifiable(host: string): boolean {
  return isIP(host) === 0 && host.length <= 253 && NAME.test(host) && !NEVER_PUBLIC.test(host);
}

/**
 * The certificates that a cluster wants, each with the tenant that has its name.
 * @param hosts by tenant @param wildcardOf the domain that has one certificate for all names in it
 */
export function wantedNames(
  hosts: Iterable<{ tenant: string; hosts: readonly string[] }>,
  wildcardOf: string | undefined,
): Map<string, string | null> {
  const wanted = new Map<string, string | null>();
  const wildcard = wildcardOf !== undefined && isCertifiable(wildcardOf) ? `*.${wildcardOf}` : undefined;
  for (const { tenant, hosts: own } of hosts)
    for (const host of own) {
      if (!isCertifiable(host)) continue;
      if (wildcard !== undefined && covers(wildcard, host)) wanted.set(wildcard, null);
      else wanted.set(host, tenant);
    }
  return wanted;
}

/** A wildcard stands for one label. */
export function covers(name: string, host: string): boolean {
  return name === host || (name.startsWith("*.") && host.slice(host.indexOf(".")) === name.slice(1));
}

const HOUR_MS = 3_600_000;
export const ACCOUNT_WINDOW_MS = 3 * HOUR_MS;
export const DOMAIN_WINDOW_MS = 7 * 24 * HOUR_MS;

export interface Limits {
  ordersPerThreeHours: number;
  ordersPerDomainAndWeek: number;
}

/**
 * When an order may be sent. Renewals that the authority suggested do not count for the domain, as authorities have it.
 * @param orders of the longest window @returns milliseconds since the epoch; `now` or before it: at once
 */
export function mayOrderAt(
  orders: readonly OrderEntry[],
  { domain, isRenewal }: Pick<OrderEntry, "domain" | "isRenewal">,
  limits: Limits,
  now: number,
): number {
  const within = (window: number, which: (entry: OrderEntry) => boolean) =>
    orders.filter((entry) => which(entry) && Date.parse(entry.at) > now - window).map(({ at }) => Date.parse(at));
  const free = (times: number[], most: number, window: number) =>
    times.length < most ? now : times.toSorted((a, b) => a - b)[times.length - most]! + window;
  const account = free(
    within(ACCOUNT_WINDOW_MS, () => true),
    limits.ordersPerThreeHours,
    ACCOUNT_WINDOW_MS,
  );
  if (isRenewal) return account;
  const ofDomain = within(DOMAIN_WINDOW_MS, (entry) => entry.domain === domain && !entry.isRenewal);
  return Math.max(account, free(ofDomain, limits.ordersPerDomainAndWeek, DOMAIN_WINDOW_MS));
}

/** Renewals without a suggestion of the authority: after two thirds of the life, or in the tenth before, so that they do not come all at once. */
const RENEW_PART = 2 / 3;
const SPREAD_PART = 1 / 10;

/** When a certificate is to be renewed. @param part in [0, 1), the same for one name each time @returns milliseconds since the epoch */
export function renewAt(
  { notBefore, notAfter, suggested }: NonNullable<CertificateRecord["issued"]>,
  part: number,
): number {
  const [begins, ends] = [Date.parse(notBefore), Date.parse(notAfter)];
  if (suggested) {
    const [start, end] = [Date.parse(suggested.start), Date.parse(suggested.end)];
    // A window that makes no sense is none (RFC 9773, 4.2).
    if (end > start) return start + part * (end - start);
  }
  return begins + (RENEW_PART - part * SPREAD_PART) * (ends - begins);
}

/** Of all its life, the part that is left when somebody has to be told. */
const WARN_PART = 0.2;

export function endsSoon({ notBefore, notAfter }: NonNullable<CertificateRecord["issued"]>, now: number): boolean {
  const [begins, ends] = [Date.parse(notBefore), Date.parse(notAfter)];
  return now > ends - WARN_PART * (ends - begins);
}
