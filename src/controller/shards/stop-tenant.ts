import { ShardRefusal, ShardUnreachable } from "../../ports/shard-control.ts";
import type { ControllerContext } from "../context.ts";
import type { ShardReconciler } from "./shard-reconciler.ts";

export interface Stopped {
  /** The shard says so; else it is lost or gone, and the fence has to shut it out. */
  confirmed: boolean;
  /** Where the tenant's streams ended, as far as that can be known. */
  position?: string;
}

/**
 * Stops a tenant on its shard for good, and releases its database: a shard with a stale order to start it is refused, and the next owner need
 * not wait. Can be repeated. @returns undefined where somebody may still have it, and it is to be tried again
 */
export async function stopTenant(
  context: ControllerContext,
  shards: ShardReconciler,
  name: string,
  shard: string,
): Promise<Stopped | undefined> {
  const { store, log, timing } = context;
  try {
    const client = shards.observation(shard)?.client;
    if (client) {
      const { position } = await client.stopTenant(name, timing.drain, { release: true });
      return { confirmed: true, ...(position ? { position } : {}) };
    }
  } catch (error) {
    if (!(error instanceof ShardUnreachable || error instanceof ShardRefusal)) throw error;
    log.warn({ tenant: name, shard, err: error }, "the shard does not confirm the stop of a tenant");
  }
  const present = await store.get("Shard", shard);
  const isGone = present?.status.phase === undefined || present.status.phase === "Lost";
  return isGone ? { confirmed: false } : undefined;
}
