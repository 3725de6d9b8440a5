/** The steps of a move, in order; each is written to the store before it is carried out. */
export const MOVE_STEPS = {
  Preparing: "waiting for the target shard, and checking that its release can take the database",
  Parking: "gateways are told to hold the tenant's requests",
  Draining: "the old shard finishes what is in flight, answers long polls, and stops the tenant",
  Starting: "the epoch is raised, the schema brought up to date, and the new shard starts the tenant",
  Releasing: "gateways are told the new address, and send what they held",
} as const;
export type MoveStep = keyof typeof MOVE_STEPS;

/** `Dedicated`: between a shard and a dedicated Synapse, which is a transition, and stands among the moves that are over. */
export const MOVE_REASONS = [
  "Requested",
  "Drain",
  "Consolidation",
  "Upgrade",
  "ConfigChanged",
  "Restored",
  "DatabaseMoved",
  "ShardLost",
  "CpuBudgetExceeded",
  "Balance",
  "Placement",
  "Dedicated",
] as const;
export type MoveReason = (typeof MOVE_REASONS)[number];

export interface Move {
  id: string;
  /** The same shard as `to` when a tenant is only restarted with a new configuration. */
  from: string;
  to: string;
  reason: MoveReason;
  step: MoveStep;
  requestedAt: string;
  /** When the gateways had parked; the blackout counts from here. */
  parkedAt?: string;
  /** Until when consolidation is to leave the tenant where it is moved to. */
  pinnedUntil?: string;
  /** The hash of the configuration that it goes on with, once that has been checked. */
  configHash?: string;
  /** Set when it is known that it does not end as it was meant to, and why. */
  unsuccessful?: { outcome: Exclude<MoveOutcome, "Succeeded">; message: string };
}

/** How moves end. */
export const MOVE_OUTCOMES = {
  Succeeded: "it runs where, and with what, it was meant to",
  RolledBack: "it could not be started, because of itself or its release; it runs as before where that is possible",
  Refused: "nothing was stopped, because it was known beforehand that it would not work",
  Interrupted: "something was away that is not the tenant's (a shard, a database server, the store); it is retried",
} as const;
export type MoveOutcome = keyof typeof MOVE_OUTCOMES;

/** The steps of a tenant's way between a shard and a dedicated Synapse; each is written to the store before it is carried out. */
export const TRANSITION_STEPS = {
  Preparing: "the shard serves it until the dedicated Synapse has everything ready",
  Parking: "gateways are told to hold the tenant's requests",
  Draining: "who has it finishes what is in flight, and releases the database",
  Starting: "its new owner claims the database, and starts",
} as const;
export type TransitionStep = keyof typeof TRANSITION_STEPS;

export interface DedicatedTransition {
  id: string;
  to: "shard" | "dedicated";
  /** The shard, or the address, that had it before; empty where none had. */
  from: string;
  step: TransitionStep;
  requestedAt: string;
  /** When the gateways had parked; the blackout counts from here. */
  parkedAt?: string;
}

export interface MoveResult {
  id: string;
  from: string;
  to: string;
  reason: MoveReason;
  outcome: MoveOutcome;
  /** Why it did not succeed, in one sentence. */
  message?: string;
  finishedAt: string;
  /** Seconds in which neither shard served the tenant. */
  blackoutSeconds: number;
  /** Requests that waited in gateways. */
  parkedRequests: number;
  /** Requests that were answered with an error because of the move, as clients saw it: also those that never waited. */
  failedRequests: number;
}
