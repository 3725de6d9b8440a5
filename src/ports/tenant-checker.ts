import type { Finding } from "../model/tenant-check.ts";

/** What is to be checked, as the controller knows it. */
export interface CheckSubject {
  serverName: string;
  /** The tenant's URL for clients. */
  url: string;
  /** Public keys that the tenant signs with, by id; undefined: not known. */
  keys?: Readonly<Record<string, string>>;
}

/**
 * Looks at a tenant from outside. Connects to what the tenant's own names lead to, and never to private addresses but those that the
 * operator has named as the gateway's. What is found there is judged, never passed on.
 */
export interface TenantChecker {
  /** Never throws: what cannot be found out is a finding. */
  check(subject: CheckSubject): Promise<Finding[]>;
}
