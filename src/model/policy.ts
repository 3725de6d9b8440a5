/** What the planner decides by. The first three are the product's own names, with its defaults. */
export interface Policy {
  /** The most shards of one image tag (Synapse version). */
  maxShardsPerSynapseImageTag: number;
  /** The most tenants that a shard holds. */
  maxTenantsPerShard: number;
  /** Below this average number of tenants per shard of a tag, the least loaded shards are drained. */
  avgShardsLoadRedistributionThreshold: number;
  /** How long placement of a tag must have been quiet before its shards are consolidated; more where tenants sleep and wake all the time. */
  consolidateAfterSeconds: number;
  /** Moves under way at once, over all shards. */
  maxConcurrentMoves: number;
  hibernation: HibernationPolicy;
  balancing: BalancingPolicy;
}

/** How shards share the load; docs/load.md. */
export interface BalancingPolicy {
  /** Share of a core above which a shard sheds a tenant, and up to which it is filled; 0: load decides nothing. */
  cpuTarget: number;
  /** What counts is the average of this time; and of ten times this time what lasts. */
  averageSeconds: number;
  /** After a tenant has left it or come to it, a shard keeps its tenants for this time. */
  coolDownSeconds: number;
  /** A tenant that was moved for the load stays for this time. */
  tenantRestSeconds: number;
  /** The most moves for the load in any hour; of many tenants, 1 % of them where that is more. */
  movesPerHour: number;
}

export interface HibernationPolicy {
  /** A tenant that nobody has used for this time falls asleep; 0: only those with a time of their own. */
  afterIdleSeconds: number;
  /** A tenant that was woken stays awake for at least this time, unless it was woken only for what was due. */
  minAwakeSeconds: number;
  /** Tenants that are woken at once, and those that fall asleep at once. */
  maxConcurrentWakes: number;
}

export const DEFAULT_HIBERNATION: HibernationPolicy = {
  afterIdleSeconds: 900,
  minAwakeSeconds: 120,
  maxConcurrentWakes: 32,
};

export const DEFAULT_BALANCING: BalancingPolicy = {
  cpuTarget: 0.6,
  averageSeconds: 60,
  coolDownSeconds: 120,
  tenantRestSeconds: 3600,
  movesPerHour: 12,
};

export const DEFAULT_POLICY: Policy = {
  maxShardsPerSynapseImageTag: 5,
  maxTenantsPerShard: 25,
  avgShardsLoadRedistributionThreshold: 15,
  consolidateAfterSeconds: 30,
  maxConcurrentMoves: 4,
  hibernation: DEFAULT_HIBERNATION,
  balancing: DEFAULT_BALANCING,
};
