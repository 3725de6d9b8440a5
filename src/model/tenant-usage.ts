/** What a tenant's database takes of its server. */
export interface DatabaseUsage {
  bytes: number;
  connections: number;
  /** Rows inserted, changed and deleted since the server's statistics began. */
  rowsWritten: number;
  /** Written to temporary files since then. */
  tempBytes: number;
}

/** What a tenant made its shard do and hold since its start there; docs/isolation.md, *Memory*. */
export interface Holdings {
  responseBytes: number;
  /** Read and written. */
  databaseRows: number;
  /** Of workers that decode its images. */
  imageSeconds: number;
  /** Now. */
  cacheEntries: number;
}

/** What is known of what a tenant takes; parts are missing until they were asked for. */
export interface TenantUsage {
  /** Smoothed share of a core that it took of late. */
  cpuShare?: number;
  /** Smoothed share of the time in which our own database server ran its statements; 1: one connection that is always busy. */
  databaseShare?: number;
  /** The share it may take for long; 0: any. */
  cpuBudget: number;
  /** None from a shard of an earlier version, and of a dedicated Synapse. */
  holdings?: Holdings;
  database?: DatabaseUsage & { at: string };
}

/** About what a row is in Python until it has been made into an answer. */
const BYTES_OF_ROW = 400;
/** A guess between a number and an event. */
const BYTES_OF_CACHE_ENTRY = 2_000;

/** Bytes that went through the process for a tenant: the part of its memory that comes and goes. */
export function bytesPassed({ responseBytes, databaseRows }: Holdings): number {
  return responseBytes + databaseRows * BYTES_OF_ROW;
}

export interface Suspect {
  tenant: string;
  /** Of all tenants' weight, 0 to 1. */
  part: number;
}

/**
 * Who probably made a shard grow: the tenant with most in its caches and most that passed in the last minute. Python's memory has no owners, so
 * this is a comparison, not a measurement.
 * @param tenants `passing`: bytes a second
 */
export function suspectOf(
  tenants: Iterable<readonly [string, { holdings: Holdings; passing: number }]>,
): Suspect | undefined {
  let [sum, most, name] = [0, 0, ""];
  for (const [tenant, { holdings, passing }] of tenants) {
    const weight = holdings.cacheEntries * BYTES_OF_CACHE_ENTRY + passing * 60;
    sum += weight;
    if (weight > most) [most, name] = [weight, tenant];
  }
  return most > 0 ? { tenant: name, part: most / sum } : undefined;
}
