import type { Resource } from "./resource.ts";

/** What a tenant names in place of a release, to follow the fleet. */
export const FOLLOWS_FLEET = "fleet";

/** A time in which moves of a rollout may begin. */
export interface MaintenanceWindow {
  /** When it opens: a cron expression of five fields. */
  schedule: string;
  durationMinutes: number;
  /** IANA name such as `Europe/Berlin`. */
  timezone: string;
}

/** How a new release is brought to the tenants that follow the fleet. */
export interface RolloutPolicy {
  /** The first wave: the named tenants, and `count` more. */
  canaries: { count: number; names: string[] };
  /** Tenants in each wave after the first. */
  waveSize: number;
  /** Moves of the rollout under way at once. */
  maxConcurrentMoves: number;
  /** How long a wave must have been well before the next begins. */
  soakSeconds: number;
  /** How long after its turn came a tenant that has not arrived has failed, if anything but a full cluster keeps it. */
  progressDeadlineSeconds: number;
  /** None: at any time. */
  windows: MaintenanceWindow[];
  /** How many tenants that failed, or were moved back, end the rollout. */
  maxFailures: number;
  onFailure: "Halt" | "RollBack";
  paused: boolean;
}

/** What holds where the owner says nothing. */
export const DEFAULT_ROLLOUT: RolloutPolicy = {
  canaries: { count: 1, names: [] },
  waveSize: 10,
  maxConcurrentMoves: 2,
  soakSeconds: 60,
  progressDeadlineSeconds: 600,
  windows: [],
  maxFailures: 1,
  onFailure: "Halt",
  paused: false,
};

export interface FleetSpec {
  /** The release of tenants that name none. */
  release: string;
  rollout: RolloutPolicy;
}

export const FLEET_PHASES = {
  Idle: "every tenant that follows the fleet has its release",
  Canary: "the first wave is being moved, or watched",
  Progressing: "a later wave is being moved, or watched",
  WaitingForWindow: "the next maintenance window has not opened yet",
  Paused: "paused by its owner",
  Halted: "too many tenants failed; nothing more is moved until the spec changes",
  RollingBack: "too many tenants failed; those that were moved go back",
  RolledBack: "the tenants that were moved are back; nothing more is moved until the spec changes",
} as const;
export type FleetPhase = keyof typeof FLEET_PHASES;

export interface FleetStatus {
  phase: FleetPhase;
  reason: string;
  message: string;
  observedGeneration: number;
  /** The release that the rollout brings, and the one before. */
  release: string;
  previousRelease?: string;
  /** The wave under way, from 0 (canaries), and how many there are. */
  wave: number;
  waves: number;
  /** Tenants that have the release, of those that follow the fleet. */
  updated: number;
  total: number;
  /** Tenants that failed under the new release, or could not be moved to it. */
  failed: string[];
  /** When the next window opens. */
  nextWindow?: string;
}

/** Of a fleet before its first rollout. */
export function newFleetStatus(): FleetStatus {
  return {
    phase: "Idle",
    reason: "",
    message: "",
    observedGeneration: 0,
    release: "",
    wave: 0,
    waves: 0,
    updated: 0,
    total: 0,
    failed: [],
  };
}

/** How the tenants that name no release get one; there is at most one, named `fleet`. */
export type Fleet = Resource<"Fleet", FleetSpec, FleetStatus>;
