import type { QuotaFigures } from "../../model/quota.ts";
import type { DatabaseUsage, Holdings, Suspect } from "../../model/tenant-usage.ts";

interface Entry {
  cpuShare?: number;
  /** Smoothed share of the time in which the database server ran its statements: 1 is one connection that is always busy. */
  databaseShare?: number;
  holdings?: Holdings;
  database?: DatabaseUsage & { at: string };
  /** What was refused for its quotas since its start. */
  refused?: Readonly<Record<string, number>>;
  /** What there is of what quotas are about, and when that was asked. */
  quotas?: QuotaFigures & { at: string };
}

interface ShardEntry {
  /** Of the limit of its memory. */
  memoryRatio: number;
  /** While that is high: whose doing it probably is. */
  suspect?: Suspect;
}

/** What tenants take, as last seen. In memory: all of it is asked for again by the next leader. */
export class UsageBook {
  readonly #entries = new Map<string, Entry>();
  readonly #shards = new Map<string, ShardEntry>();

  get(tenant: string): Readonly<Entry> {
    return this.#entries.get(tenant) ?? {};
  }

  /** Of a tenant that runs on a shard. */
  setRunning(tenant: string, { cpuShare, holdings, refused }: Pick<Entry, "cpuShare" | "holdings" | "refused">): void {
    const { database, databaseShare, quotas } = this.get(tenant);
    this.#entries.set(tenant, {
      ...(refused === undefined ? {} : { refused }),
      ...(quotas === undefined ? {} : { quotas }),
      ...(cpuShare === undefined ? {} : { cpuShare }),
      ...(holdings === undefined ? {} : { holdings }),
      ...(database === undefined ? {} : { database }),
      ...(databaseShare === undefined ? {} : { databaseShare }),
    });
  }

  setDatabaseShare(tenant: string, databaseShare: number): void {
    this.#entries.set(tenant, { ...this.get(tenant), databaseShare });
  }

  /** It does not run there any more. */
  endRunning(tenant: string): void {
    this.setRunning(tenant, {});
  }

  setDatabase(tenant: string, database: DatabaseUsage & { at: string }): void {
    this.#entries.set(tenant, { ...this.get(tenant), database });
  }

  setQuotas(tenant: string, quotas: QuotaFigures & { at: string }): void {
    this.#entries.set(tenant, { ...this.get(tenant), quotas });
  }

  *databases(): Generator<[tenant: string, usage: DatabaseUsage]> {
    for (const [tenant, { database }] of this.#entries) if (database) yield [tenant, database];
  }

  shard(name: string): ShardEntry | undefined {
    return this.#shards.get(name);
  }

  setShard(name: string, entry: ShardEntry): void {
    this.#shards.set(name, entry);
  }

  forgetShard(name: string): void {
    this.#shards.delete(name);
  }

  /** Forgets tenants that are gone. */
  keepOnly(has: (tenant: string) => boolean): void {
    for (const tenant of this.#entries.keys()) if (!has(tenant)) this.#entries.delete(tenant);
  }
}
