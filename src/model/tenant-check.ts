export const SEVERITIES = ["ok", "info", "warning", "error"] as const;
export type Severity = (typeof SEVERITIES)[number];

/** One thing that a check found out about a tenant. */
export interface Finding {
  /** Stable, for machines; docs/checks.md lists them. */
  code: FindingCode;
  severity: Severity;
  /** What it is about: a name, an address, a URL. */
  subject: string;
  /** One sentence. */
  message: string;
  /** What to do about it; absent where there is nothing to do. */
  remedy?: string;
}

export interface CheckReport {
  tenant: string;
  serverName: string;
  /** The tenant's URL for clients. */
  url: string;
  checkedAt: string;
  /** The worst of the findings. */
  result: Severity;
  findings: Finding[];
}

/** What each code stands for; the order is that of a report. */
export const FINDING_CODES = {
  "tenant-running": "the tenant serves requests",
  "tenant-not-running": "the tenant does not serve requests now; the rest is checked all the same",
  "name-not-public":
    "the server name or URL is one that only this machine or network knows, so nothing about it can be seen from outside",
  "dns-ok": "the name leads to the gateway",
  "dns-missing": "the name has no address in DNS",
  "dns-elsewhere": "the name leads to other addresses than the gateway's",
  "dns-private": "the name leads to an address that the world cannot reach, and to which nothing is sent",
  "dns-failed": "DNS does not answer",
  "delegation-ok": "other servers are led to the homeserver",
  "delegation-missing": "nothing at the server name leads to the homeserver",
  "delegation-wrong": "the server name leads other servers elsewhere",
  "delegation-invalid": "/.well-known/matrix/server is there, and is not as the specification has it",
  "client-discovery-ok": "clients that are given the server name find the homeserver",
  "client-discovery-missing":
    "clients that are given the server name do not find the homeserver, and have to be given its URL",
  "client-discovery-wrong": "clients that are given the server name are led elsewhere",
  "srv-present": "there is an SRV record for federation",
  "srv-deprecated": "there is an SRV record _matrix._tcp, which the specification has given up",
  "certificate-ok": "the certificate is valid for the name, and the world trusts it",
  "certificate-own-authority": "the certificate is of the cluster's own authority, which nobody outside trusts",
  "certificate-untrusted": "the certificate's chain does not lead to an authority that the world trusts",
  "certificate-wrong-name": "the certificate is not for this name",
  "certificate-expired": "the certificate is over, or not valid yet",
  "certificate-ends-soon": "the certificate ends soon",
  "client-api-ok": "the client API answers",
  "client-api-unreachable": "the client API does not answer",
  "federation-ok": "the federation API answers where other servers look for it",
  "federation-unreachable": "the federation API does not answer where other servers look for it",
  "keys-ok": "the server's keys are its own, and signed by it",
  "keys-invalid": "what is published as the server's keys would be refused by other servers",
  "keys-foreign": "another homeserver answers in the place of this tenant",
} as const;
export type FindingCode = keyof typeof FINDING_CODES;

export function worstOf(findings: readonly Finding[]): Severity {
  const worst = Math.max(0, ...findings.map(({ severity }) => SEVERITIES.indexOf(severity)));
  return SEVERITIES[worst] ?? "ok";
}
