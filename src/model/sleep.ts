import { WAKE_CAUSES, type WakeCause } from "./routes.ts";

/** The steps of falling asleep, in order; each is written to the store before it is carried out. */
export const SLEEP_STEPS = {
  Parking: "gateways are told to hold the tenant's requests; whatever came before is asked of its shard once more",
  Draining: "its shard finishes what is in flight, stops the tenant and releases its database",
  Asleep: "nobody has it",
} as const;
export type SleepStep = keyof typeof SLEEP_STEPS;

export const SLEEP_REASONS = {
  Idle: "nobody has used it for long enough",
  Done: "what it was woken for is done, and nobody uses it",
  PlacesNeeded: "others need its place, and nobody uses it",
  Requested: "somebody asked for it",
  Renamed: "it gets another name, and is woken under that",
} as const;
export type SleepReason = keyof typeof SLEEP_REASONS;

/** Why a tenant is woken. */
export const WAKE_REASONS = {
  ...WAKE_CAUSES,
  due: "something is due that nobody asks for",
  operator: "somebody asked for it",
} as const;
export type WakeReason = WakeCause | "due" | "operator";

/** While a tenant falls asleep, and sleeps. */
export interface Sleep {
  id: string;
  step: SleepStep;
  reason: SleepReason;
  requestedAt: string;
  /** Since when nobody has it. */
  since?: string;
  /** Where its streams ended, as `/sync` gives positions; absent where that is not known. */
  position?: string;
  /** When it is woken although nobody asks for it, and why. */
  nextWake?: { at: string; reason: string };
  /** Hash of a configuration that is to take effect when it is woken, and with which it can be started, as far as that can be said before. */
  admittedConfig?: string;
  /** When its database was last brought to another release in its sleep. */
  preparedAt?: string;
}

/** A tenant that sleeps, or falls asleep, is wanted awake; until it runs. */
export interface Wake {
  requestedAt: string;
  reason: WakeReason;
}

/** Whether a tenant sleeps when nobody uses it. */
export interface TenantHibernation {
  /** Auto: after the cluster's time, or its own. Never: it stays awake. */
  mode: "Auto" | "Never";
  /** Its own time, instead of the cluster's `hibernation.afterIdleSeconds`; 0: not for being idle. */
  afterIdleSeconds?: number;
}
