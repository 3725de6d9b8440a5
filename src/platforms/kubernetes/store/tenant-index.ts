interface Entry {
  secrets: readonly string[];
  shard?: string | undefined;
}

/**
 * Answers about all tenants, updated as each changes: to look through 100,000 of them whenever one Secret or one status changes
 * would take longer than the next change takes to come.
 */
export class TenantIndex {
  readonly #entries = new Map<string, Entry>();
  readonly #bySecret = new Map<string, Set<string>>();
  readonly #onShard = new Map<string, number>();

  /** @param entry the Secrets that the tenant is made from, NAMESPACE/NAME, and its shard */
  set(tenant: string, entry: Entry): void {
    this.remove(tenant);
    this.#entries.set(tenant, entry);
    for (const secret of entry.secrets) {
      const of = this.#bySecret.get(secret);
      if (of) of.add(tenant);
      else this.#bySecret.set(secret, new Set([tenant]));
    }
    this.#count(entry.shard, 1);
  }

  remove(tenant: string): void {
    const entry = this.#entries.get(tenant);
    if (!entry) return;
    this.#entries.delete(tenant);
    for (const secret of entry.secrets) {
      const of = this.#bySecret.get(secret);
      of?.delete(tenant);
      if (of?.size === 0) this.#bySecret.delete(secret);
    }
    this.#count(entry.shard, -1);
  }

  /** The tenants that are made from a Secret. */
  madeFrom(secret: string): string[] {
    return [...(this.#bySecret.get(secret) ?? [])];
  }

  shardOf(tenant: string): string | undefined {
    return this.#entries.get(tenant)?.shard;
  }

  /** How many tenants each shard has; those that have none are not named. */
  get counts(): ReadonlyMap<string, number> {
    return this.#onShard;
  }

  #count(shard: string | undefined, by: 1 | -1): void {
    if (shard === undefined) return;
    const count = (this.#onShard.get(shard) ?? 0) + by;
    if (count === 0) this.#onShard.delete(shard);
    else this.#onShard.set(shard, count);
  }
}
