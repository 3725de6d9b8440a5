import { z } from "zod";
import type { AppServicePing } from "../model/app-service.ts";
import type { ConfigMeaning } from "../model/config-meaning.ts";
import { withPresentNames } from "../model/renamed-fields.ts";
import type { OpenedSession, SessionToEnd, UserChange } from "../model/user.ts";
import type { AssignmentPolicy } from "../model/tenant-policy.ts";

/** What a configuration means to Synapse; docs/control-api.md, *Meaning*. */
export const ConfigMeaningSchema = z.object({
  database: z.object({ host: z.string(), port: z.int(), name: z.string(), user: z.string() }).nullable(),
  hosts: z.array(z.string()),
  publicBaseUrl: z.string(),
  bucket: z.string().nullable(),
  authenticationService: z.boolean().optional(),
}) satisfies z.ZodType<ConfigMeaning>;

/** A shard's answers; docs/control-api.md is the contract. */
export const TenantStateSchema = z.object({
  name: z.string(),
  serverName: z.string(),
  epoch: z.number(),
  phase: z.enum(["starting", "running", "draining", "stopping", "failed", "fenced"]),
  address: z.string().nullable(),
  error: z.object({ code: z.string(), message: z.string() }).nullable(),
  /** Of what runs; absent from shards of an earlier version, and where nothing runs. */
  meaning: ConfigMeaningSchema.nullish(),
  /** What is probably a mistake in what runs, a sentence each. */
  warnings: z.array(z.string()).optional(),
});
export type TenantState = z.infer<typeof TenantStateSchema>;

/** A reactor that stood still until the process was ended: docs/control-api.md, *Stalls*. */
export const StallSchema = z.object({
  id: z.string(),
  /** Seconds since the epoch. */
  at: z.number(),
  seconds: z.number(),
  serverName: z.string().nullable(),
  /** Whose code ran; null where it was nobody's, or the tenant is not there any more. */
  tenant: z.string().nullable(),
  /** The innermost call first. */
  stack: z.array(z.string()),
});
export type Stall = z.infer<typeof StallSchema>;

/** Shards of an earlier version are still there while the controller is upgraded. */
export const ShardStateSchema = z.preprocess(
  withPresentNames,
  z.object({
    name: z.string(),
    release: z.string(),
    instance: z.string(),
    schemaVersion: z.number(),
    schemaCompatVersion: z.number(),
    /** For the routes of its tenants; an earlier version's listeners ask for none. */
    gatewaySecret: z.string().optional(),
    tenants: z.array(TenantStateSchema),
    /** Of former processes of the shard; a shard of an earlier version tells of none. */
    stalls: z.array(StallSchema).default([]),
  }),
);
export type ShardState = z.infer<typeof ShardStateSchema>;

/** Totals since a tenant's start; what a shard of an earlier version does not tell is 0. */
const TenantLoadSchema = z.object({
  /** Another one after each start; a shard of an earlier version does not say. */
  run: z.string().optional(),
  epoch: z.number().optional(),
  cpuSeconds: z.number(),
  requests: z.number(),
  responseBytes: z.number().default(0),
  databaseRows: z.number().default(0),
  imageSeconds: z.number().default(0),
  /** For how long its work was kept for the sake of its neighbours, while it was throttled. */
  heldBackSeconds: z.number().default(0),
  /** Now. */
  cacheEntries: z.number().default(0),
  /** How often something was refused for a quota, by its name. */
  refused: z.record(z.string(), z.number()).optional(),
  /** Requests that are open, and seconds since the last that was a use of the tenant; a shard of an earlier version does not say. */
  inFlight: z.int().optional(),
  lastUse: z.number().optional(),
});
export type TenantLoad = z.infer<typeof TenantLoadSchema>;

export const StopResultSchema = z.object({
  absent: z.boolean(),
  released: z.boolean().default(false),
  /** Where its streams ended, as `/sync` gives positions; null where that is not known. */
  position: z.string().nullish(),
  /** Its last figures; none from a shard of an earlier version, and where nothing ran. */
  used: TenantLoadSchema.nullish(),
});
export type StopResult = z.infer<typeof StopResultSchema>;
export interface StopOptions {
  release: boolean;
}

export const LoadSchema = z.object({
  tenants: z.record(z.string(), TenantLoadSchema),
  process: z.object({
    cpuSeconds: z.number(),
    uptimeSeconds: z.number(),
    /** For how long it was ready to run and the machine had no processor for it. */
    starvedSeconds: z.number().default(0),
    /** Of the limit that is nearer. */
    memory: z.object({ bytes: z.number(), limitBytes: z.number().nullable() }).optional(),
  }),
});
export type ShardLoad = z.infer<typeof LoadSchema>;

/** Whether a tenant may sleep; docs/control-api.md, *Idle*. */
export const TenantIdleSchema = z.object({
  inFlight: z.int(),
  lastUse: z.number(),
  /** What it owes to anybody, in words; empty: it may sleep. */
  keepsAwake: z.array(z.string()),
  /** When it must run again though nobody asks (seconds since the epoch), and why. */
  nextDue: z.object({ at: z.number(), reason: z.string() }).nullable(),
});
export type TenantIdle = z.infer<typeof TenantIdleSchema>;

export interface Assignment {
  serverName: string;
  epoch: number;
  /** Our part of homeserver.yaml. */
  base: Record<string, unknown>;
  /** The user's part, as YAML text. */
  overrides: string;
  signingKey: string;
  /** What the operator allows it beyond the table of options; absent: nothing. */
  policy?: AssignmentPolicy;
  /** To listen on if it is free. */
  port?: number;
}

/** What a shard says of a configuration that could be started there. */
export interface TenantCheck {
  /** What it means; undefined from a shard of an earlier version. */
  meaning?: ConfigMeaning;
  /** What is probably a mistake, a sentence each. */
  warnings: string[];
}

export const PreparerStateSchema = z.object({
  state: z.enum(["starting", "ready", "working", "ended"]),
  /** What it said last, as it would on its output: docs/control-api.md, *The preparer*. */
  event: z.record(z.string(), z.unknown()).nullable(),
});
export type PreparerState = z.infer<typeof PreparerStateSchema>;

/** Preparers inside a shard's machine or pod. A preparer that nobody asks about for half a minute is ended. */
export interface PreparerCalls {
  /** @throws ShardRefusal TooManyPreparers, ShardUnreachable */
  create(): Promise<string>;
  /** How it is; waits up to this long for another state than `not`. @throws ShardRefusal NotFound, ShardUnreachable */
  state(id: string, not: PreparerState["state"], waitSeconds: number): Promise<PreparerState>;
  /** Gives a ready one its command. @throws ShardRefusal NotFound, NotReady, ShardUnreachable */
  command(id: string, command: object): Promise<void>;
  end(id: string): Promise<void>;
}

/** The shard answered, and it was a no. `code` is one of docs/control-api.md. */
export class ShardRefusal extends Error {
  readonly code: string;
  readonly status: number;
  constructor(status: number, code: string, message: string) {
    super(message);
    this.name = "ShardRefusal";
    this.status = status;
    this.code = code;
  }
}

/** The shard did not answer in time, or not at all; what it did is not known. */
export class ShardUnreachable extends Error {
  constructor(shard: string, cause: unknown) {
    super(`shard ${shard} does not answer`, { cause });
    this.name = "ShardUnreachable";
  }
}

/** What the controller asks of a shard. Every call is bounded in time. */
export interface ShardControl {
  state(): Promise<ShardState>;
  /** Starts a tenant and waits until it serves. @throws ShardRefusal, ShardUnreachable */
  startTenant(name: string, assignment: Assignment): Promise<TenantState>;
  /**
   * Whether the configuration could be started here; starts nothing.
   * @throws ShardRefusal with the reason, ShardUnreachable
   */
  checkTenant(name: string, assignment: Assignment): Promise<TenantCheck>;
  /**
   * Drains and stops a tenant; fine if it is not there. `release`: no shard shall have it next, so its database is released.
   * @throws ShardRefusal, ShardUnreachable
   */
  stopTenant(name: string, drainSeconds: number, options?: StopOptions): Promise<StopResult>;
  /**
   * Whether a tenant that runs here may sleep.
   * @returns undefined from a shard of an earlier version @throws ShardRefusal NotFound, ShardUnreachable
   */
  idle(name: string): Promise<TenantIdle | undefined>;
  /**
   * Has a tenant that runs here tell the servers that it shares rooms with that it is back, spread over that time.
   * @returns how many; undefined from a shard of an earlier version @throws ShardRefusal NotFound, ShardUnreachable
   */
  greet(name: string, spreadSeconds: number): Promise<number | undefined>;
  /**
   * Changes an account of a tenant that runs here.
   * @returns the user's id; undefined from a shard of an earlier version @throws ShardRefusal NotFound, UserNotFound, UserRefused; ShardUnreachable
   */
  changeUser(name: string, localpart: string, change: UserChange): Promise<string | undefined>;
  /**
   * Opens a session of an administrator of a tenant that runs here, which ends after that time.
   * @returns undefined from a shard of an earlier version @throws as `changeUser`
   */
  openSession(name: string, localpart: string, seconds: number): Promise<OpenedSession | undefined>;
  /**
   * Ends sessions that `openSession` opened, of a tenant that runs here; others are left alone.
   * @returns how many there were still; undefined from a shard of an earlier version @throws as `changeUser`
   */
  endSessions(name: string, sessions: readonly SessionToEnd[]): Promise<number | undefined>;
  /**
   * Asks an application service of a tenant that runs here whether it is there, and has it sent what it has not got yet.
   * @returns undefined from a shard of an earlier version @throws ShardRefusal NotFound, AppServiceNotFound; ShardUnreachable
   */
  pingAppService(name: string, id: string): Promise<AppServicePing | undefined>;
  /**
   * Metrics of a tenant that runs here, and of nothing else, in Prometheus' text format.
   * @returns undefined from a shard of an earlier version @throws ShardRefusal NotFound, ShardUnreachable
   */
  metricsOf(name: string): Promise<string | undefined>;
  load(): Promise<ShardLoad>;
  readonly preparers: PreparerCalls;
  close(): Promise<void>;
}
