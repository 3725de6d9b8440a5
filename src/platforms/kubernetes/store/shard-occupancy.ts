import type { SynapseShard, SynapseTenant } from "./resources.ts";

/** Tenants come and go in bursts, of which each shard gets one write. */
const SETTLE_MS = 500;

export interface ShardOccupancyOptions {
  tenants: () => Iterable<SynapseTenant>;
  shards: () => Iterable<SynapseShard>;
  /** Writes a shard's status. */
  write: (shard: SynapseShard) => Promise<unknown>;
}

/** Keeps `status.tenants` of shards, which `kubectl get` shows, a moment behind the tenants. */
export class ShardOccupancy {
  readonly #options: ShardOccupancyOptions;
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(options: ShardOccupancyOptions) {
    this.#options = options;
  }

  /** A tenant has changed. */
  touch(): void {
    if (this.#closed) return;
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      void this.#write();
    }, SETTLE_MS).unref();
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
  }

  async #write(): Promise<void> {
    for (const shard of outdatedShards(this.#options.tenants(), this.#options.shards())) {
      if (this.#closed) return;
      // Overtaken by the controller's own write, or not reached: once more, from what there is then.
      await this.#options.write(shard).catch(() => this.touch());
    }
  }
}

/** The shards whose number of tenants is not what it says, with the right one. */
export function outdatedShards(tenants: Iterable<SynapseTenant>, shards: Iterable<SynapseShard>): SynapseShard[] {
  const counts = new Map<string, number>();
  for (const { status } of tenants) {
    if (status?.shard !== undefined) counts.set(status.shard, (counts.get(status.shard) ?? 0) + 1);
  }
  return [...shards].flatMap((shard) => {
    const count = counts.get(shard.spec.name) ?? 0;
    const isRight = shard.status?.tenants === count || shard.metadata?.deletionTimestamp !== undefined;
    return isRight ? [] : [{ ...shard, status: { ...shard.status, tenants: count } }];
  });
}
