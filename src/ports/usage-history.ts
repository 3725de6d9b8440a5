import type { UsageMonth, UsageOwner, UsagePosition } from "../model/usage-month.ts";

/** One tenant's open account, as it is written. */
export interface UsageEntry {
  position: UsagePosition;
  /** Those that changed. */
  months: UsageMonth[];
}

/**
 * What tenants took, by month. Bounded: a row per tenant and month, and a place per tenant from which it is counted on. What `write` has answered
 * survives a crash of process and machine, at once or from within an hour on, as the platform says; a tenant's place and rows survive together.
 */
export interface UsageHistory {
  /** By tenant, then by month; all that is kept, or only that of tenants of this name. */
  list(tenant?: string): Promise<UsageMonth[]>;
  /** Of each tenant the newest row up to this month, and the first after it: what is needed to fill that month in. */
  around(month: string): Promise<UsageMonth[]>;
  position(owner: UsageOwner): Promise<UsagePosition | undefined>;
  /** All of whom it has a place. */
  owners(): Promise<UsageOwner[]>;
  /** Those that were used since their databases were asked. */
  unread(): Promise<UsageOwner[]>;
  /** All of it or nothing. */
  write(entries: readonly UsageEntry[]): Promise<void>;
  /**
   * Removes months before `oldest`, and places of tenants that have none left. Of tenants that are there, the newest row stays however old
   * it is: by it months are filled in which they sleep.
   */
  prune(oldest: string, isThere: (owner: UsageOwner) => boolean): Promise<void>;
}
