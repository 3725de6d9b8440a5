import type { ControllerContext } from "./context.ts";

/** Brings the gauges up to date with the store. */
export async function updateGauges({ store, metrics, policy, feed }: ControllerContext): Promise<void> {
  const tenants = await store.list("Tenant");
  const shards = await store.list("Shard");
  const { maxShardsPerSynapseImageTag, maxTenantsPerShard } = policy;
  for (const gauge of [metrics.tenants, metrics.shards, metrics.shardTenants, metrics.capacity, metrics.saturated])
    gauge.reset();
  for (const { spec, status } of tenants)
    metrics.tenants.inc({ image_tag: spec.synapseVersion, phase: status.phase, reason: status.reason });
  const held = Map.groupBy(tenants, ({ status }) => status.shard ?? "");
  for (const { metadata, spec, status } of shards) {
    metrics.shards.inc({ image_tag: spec.synapseVersion, phase: status.phase });
    metrics.shardTenants.set(
      { shard: metadata.name, image_tag: spec.synapseVersion },
      held.get(metadata.name)?.length ?? 0,
    );
  }
  for (const [tag, own] of Map.groupBy(shards, ({ spec }) => spec.synapseVersion)) {
    const full = own.every(({ metadata }) => (held.get(metadata.name)?.length ?? 0) >= maxTenantsPerShard);
    metrics.capacity.set({ image_tag: tag }, maxShardsPerSynapseImageTag * maxTenantsPerShard);
    metrics.saturated.set({ image_tag: tag }, full && own.length >= maxShardsPerSynapseImageTag ? 1 : 0);
  }
  metrics.movesInProgress.set(tenants.filter(({ status }) => status.move).length);
  metrics.gateways.set(feed.gateways().length);
}
