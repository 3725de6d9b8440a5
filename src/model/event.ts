export interface ClusterEvent {
  /** Rises by one with each event. */
  id: number;
  time: string;
  type: "Normal" | "Warning";
  /** CamelCase, e.g. `Moved`, `ShardCreated`, `MaxShardsReached`. */
  reason: string;
  /** `Tenant/clinic-a`, `Shard/1.163.2-0`. */
  object: string;
  message: string;
}
