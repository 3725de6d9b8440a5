import type { Resource } from "./resource.ts";

export const SHARD_PHASES = {
  Pending: "its Synapse release is being installed",
  Starting: "its process has been started and does not answer yet",
  Ready: "it answers and takes tenants",
  Draining: "its tenants are being moved away; then it is stopped",
  Lost: "its process does not answer; its tenants are started elsewhere",
  Failed: "its process cannot be started; tried again with backoff",
  Stopping: "it is being stopped and removed",
} as const;
export type ShardPhase = keyof typeof SHARD_PHASES;

export interface ShardSpec {
  release: string;
  /** Set when its tenants shall be moved away, and by what. */
  drain?: "Consolidation" | "Requested";
}

export interface ShardStatus {
  phase: ShardPhase;
  reason: string;
  message: string;
  /** Base URL of its control API. */
  address?: string;
  /** Names one run of its process; another run has another one. */
  instance?: string;
  /** When a tenant was last assigned to it or left it, sleeps and wakes aside. */
  lastAssignmentChange?: string;
  /** When a tenant last woke on it, or fell asleep there. */
  lastSleepOrWake?: string;
  /** When it was to be given up, and then was needed. */
  drainCalledOffAt?: string;
  /** When it last answered. */
  lastSeen?: string;
  /** Share of one core that it used of late, 0 to 1 (it cannot use more than about one). */
  load?: number;
  /** Why it keeps its tenants although it takes much, or could be given up. */
  keeps?: { since: string; reason: string; message: string };
  failures: number;
  retryAt?: string;
}

export function newShardStatus(): ShardStatus {
  return { phase: "Pending", reason: "", message: "", failures: 0 };
}

export type Shard = Resource<"Shard", ShardSpec, ShardStatus>;
