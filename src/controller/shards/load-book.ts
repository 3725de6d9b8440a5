import { nextLoad, type Load } from "../../model/load.ts";
import type { SnapshotLoad, SnapshotLoads, SnapshotShardLoad } from "../../planner/snapshot.ts";
import type { ShardLoad } from "../../ports/shard-control.ts";

/** `lasting` of the planner's loads is averaged over this many times as long as `share`. */
const LASTING_TIMES = 10;

interface Averages {
  share: Load;
  lasting: Load;
}

/**
 * What shards and tenants take, as the planner needs it, from what shards tell. In memory, as all of it can be asked for again; a shard
 * begins with what the store knows of it, a tenant with what it took where it was before.
 */
export class LoadBook implements SnapshotLoads {
  readonly shards = new Map<string, SnapshotShardLoad>();
  readonly tenants = new Map<string, SnapshotLoad>();
  /** Bytes that a shard's process has. */
  readonly memory = new Map<string, number>();
  readonly #shardAverages = new Map<string, Averages>();
  readonly #tenantAverages = new Map<string, Averages & { shard: string }>();

  /**
   * @param at milliseconds of the clock
   * @param averageSeconds what `share` is averaged over
   * @param before share of a core that the shard took when it was last asked, if the store knows it
   */
  measured(shard: string, at: number, { tenants, process }: ShardLoad, averageSeconds: number, before = 0): void {
    const { starvedSeconds, memory } = process;
    let images = 0;
    for (const [name, { cpuSeconds, imageSeconds }] of Object.entries(tenants)) {
      images += imageSeconds;
      const known = this.#tenantAverages.get(name);
      // Its counters begin again elsewhere; what is known of it stays.
      const last = known?.shard === shard ? known : undefined;
      const look = { at, cpuSeconds: cpuSeconds + imageSeconds, starvedSeconds };
      const averages = next(last, look, averageSeconds, this.tenants.get(name));
      this.#tenantAverages.set(name, { ...averages, shard });
      this.tenants.set(name, loadOf(averages));
    }
    const look = { at, cpuSeconds: process.cpuSeconds + images, starvedSeconds };
    const averages = next(this.#shardAverages.get(shard), look, averageSeconds, { share: before, lasting: before });
    this.#shardAverages.set(shard, averages);
    if (memory) this.memory.set(shard, memory.bytes);
    const memoryRatio = memory?.limitBytes ? memory.bytes / memory.limitBytes : undefined;
    this.shards.set(shard, { ...loadOf(averages), ...(memoryRatio === undefined ? {} : { memoryRatio }) });
  }

  /** It is not seen any more. */
  forgetShard(shard: string): void {
    this.shards.delete(shard);
    this.#shardAverages.delete(shard);
    this.memory.delete(shard);
  }

  /** Forgets tenants that are gone. */
  keepOnly(has: (tenant: string) => boolean): void {
    for (const name of this.tenants.keys()) {
      if (has(name)) continue;
      this.tenants.delete(name);
      this.#tenantAverages.delete(name);
    }
  }
}

function next(before: Averages | undefined, look: Load, averageSeconds: number, first?: SnapshotLoad): Averages {
  if (!before)
    return { share: { ...look, share: first?.share ?? 0 }, lasting: { ...look, share: first?.lasting ?? 0 } };
  return {
    share: nextLoad(before.share, look, averageSeconds),
    lasting: nextLoad(before.lasting, look, LASTING_TIMES * averageSeconds),
  };
}

function loadOf({ share, lasting }: Averages): SnapshotLoad {
  return { share: share.share ?? 0, lasting: lasting.share ?? 0 };
}
