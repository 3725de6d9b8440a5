/**
 * The resources of the system, shaped like Kubernetes objects (metadata, spec, status) so that both stores hold the
 * same thing. `spec` is what a user wants, `status` is where things stand; only the controller writes a status.
 * Times are ISO 8601 strings in UTC.
 */

export interface Metadata {
  /** Unique within the kind. A tenant's is a DNS label, a shard's is `<version>-<index>`, the fleet's is `fleet`. */
  name: string;
  /** Opaque. Changes with every write; an update that names an older one is refused (optimistic concurrency). */
  resourceVersion: string;
  /** Counts the changes of `spec`. */
  generation: number;
  creationTimestamp: string;
  /** Set when deletion was asked for; the controller removes the object when its clean-up is done. */
  deletionTimestamp?: string;
}

export interface Resource<Kind extends string, Spec, Status> {
  kind: Kind;
  metadata: Metadata;
  spec: Spec;
  status: Status;
}

export const TENANT_PHASES = {
  Pending: "no shard has a place for it yet; the reason says why",
  Provisioning: "its keys, database and schema are being made",
  Starting: "it is being started on its shard",
  Running: "it serves requests on its shard",
  Moving: "it is on its way from one shard to another (or restarts with a new configuration); its requests are parked",
  Failed: "it could not be started; the reason says why, and it is tried again with backoff",
  Deleting: "it is being stopped and removed",
} as const;
export type TenantPhase = keyof typeof TENANT_PHASES;

export interface TenantSpec {
  /** The Matrix server name: what comes after the colon in its user ids. Never changes. */
  serverName: string;
  /** The Synapse release that shall run it (the image tag). Empty: the fleet's, see `wantedVersion`. */
  synapseVersion: string;
  /** The user's part of homeserver.yaml, as given: YAML text, checked when the tenant starts. Empty: none. */
  config: string;
  /** What deletion does with the database and media. */
  reclaimPolicy: "Retain" | "Delete";
  /** Counts up with each change of where its owner wants it to run; orders claims of the fence (docs/kubernetes-design.md). Default 0. */
  revision?: number;
  /** Set where a Synapse of its own serves it, outside shards: gateways route to its `host:port`. */
  dedicated?: { address: string };
}

/** The steps of a move, in order; each is written to the store before it is carried out. */
export const MOVE_STEPS = {
  Preparing: "waiting for the target shard, and checking that its release can take the database",
  Parking: "gateways are told to hold the tenant's requests",
  Draining: "the old shard finishes what is in flight, answers long polls, and stops the tenant",
  Starting: "the epoch is raised, the schema brought up to date, and the new shard starts the tenant",
  Releasing: "gateways are told the new address, and send what they held",
} as const;
export type MoveStep = keyof typeof MOVE_STEPS;

/** `Migration`: between a shard and a Synapse of its own, which is a handover, and stands among the moves that are over. */
export type MoveReason =
  | "Requested"
  | "Drain"
  | "Consolidation"
  | "Upgrade"
  | "ConfigChanged"
  | "ShardLost"
  | "Migration";

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
}

/** The steps of a tenant's way between a shard and a Synapse of its own; each is written to the store before it is carried out. */
export const HANDOVER_STEPS = {
  Preparing: "the shard serves it until the Synapse of its own has everything ready",
  Parking: "gateways are told to hold the tenant's requests",
  Draining: "who has it finishes what is in flight, and releases the database",
  Starting: "its new owner claims the database, and starts",
} as const;
export type HandoverStep = keyof typeof HANDOVER_STEPS;

export interface Handover {
  id: string;
  to: "shard" | "dedicated";
  /** The shard, or the address, that had it before; empty where none had. */
  from: string;
  step: HandoverStep;
  requestedAt: string;
  /** When the gateways had parked; the blackout counts from here. */
  parkedAt?: string;
}

export interface MoveResult {
  id: string;
  from: string;
  to: string;
  reason: MoveReason;
  outcome: "Succeeded" | "RolledBack" | "Refused";
  /** Why it did not succeed, in one sentence. */
  message?: string;
  finishedAt: string;
  /** Seconds in which neither shard served the tenant. */
  blackoutSeconds: number;
  /** Requests that waited in gateways, and those of them that were answered with an error. */
  parkedRequests: number;
  failedRequests: number;
}

export interface TenantStatus {
  phase: TenantPhase;
  /** One CamelCase word for machines, e.g. `MaxShardsReached`; empty when all is well. */
  reason: string;
  /** One sentence for people; empty when all is well. */
  message: string;
  /** The shard that has, or shall have, the tenant. */
  shard?: string;
  /** The last epoch handed out for its database; 0 before the first start. Only ever rises. */
  epoch: number;
  /** `host:port` of its listener on its shard, while it runs. */
  address?: string;
  /** The release that last brought its database schema up to date. */
  schemaSynapseVersion?: string;
  /** The generation of the spec that was last acted upon. */
  observedGeneration: number;
  /** Hash of the configuration and the secrets that were last started. */
  configHash?: string;
  /** Hash of a configuration that was found wrong before anything was stopped for it. */
  refusedConfigHash?: string;
  provisioned: boolean;
  /** The release that the fleet's rollout has for it; counts where the spec names none. */
  fleetVersion?: string;
  /** Since when it has it. */
  fleetVersionSince?: string;
  /** When it got its present shard. */
  assignedAt?: string;
  /** The Synapse of its own that has it, while it is on no shard. */
  dedicated?: { address: string };
  handover?: Handover;
  move?: Move;
  lastMove?: MoveResult;
  /** Failures in a row, and when the next attempt is due. */
  failures: number;
  retryAt?: string;
  /** Moves rolled back in a row, and until when the planner leaves it where it is. */
  moveFailures?: number;
  moveNotBefore?: string;
  /** A release it cannot be moved to, and why; tried again when the spec changes. */
  refusedVersion?: { version: string; reason: string; message: string };
}

export type Tenant = Resource<"Tenant", TenantSpec, TenantStatus>;

/** The release a tenant shall run: its own choice, else the fleet's; empty while the rollout has not come to it. */
export function wantedVersion({ spec, status }: Pick<Tenant, "spec" | "status">): string {
  return spec.synapseVersion === "" ? (status.fleetVersion ?? "") : spec.synapseVersion;
}

/** What was found out about a release says nothing of another one, nor of the same one with another configuration. */
export function forgetRefusedVersion(status: TenantStatus): void {
  const refused = status.refusedVersion;
  if (!refused) return;
  delete status.refusedVersion;
  const isAboutIt = status.reason === refused.reason && status.refusedConfigHash === undefined;
  if (status.phase === "Running" && isAboutIt) Object.assign(status, { reason: "", message: "" });
}

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
  synapseVersion: string;
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
  /** When a tenant was last assigned to it or left it. */
  lastAssignmentChange?: string;
  /** When it last answered. */
  lastSeen?: string;
  /** Share of one core that it used of late, 0 to 1 (it cannot use more than about one). */
  load?: number;
  failures: number;
  retryAt?: string;
}

export type Shard = Resource<"Shard", ShardSpec, ShardStatus>;

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
  /** The first wave: these tenants, and so many more. */
  canaries: { count: number; names: string[] };
  /** Tenants in each wave after the first. */
  waveSize: number;
  /** Moves of the rollout under way at once. */
  maxConcurrentMoves: number;
  /** A wave must have been well for so long before the next begins. */
  soakSeconds: number;
  /** A tenant that has not arrived so long after its turn came has failed, if anything but a full cluster keeps it. */
  progressDeadlineSeconds: number;
  /** None: at any time. */
  windows: MaintenanceWindow[];
  /** So many tenants of the rollout that failed, or were moved back, end it. */
  maxFailures: number;
  onFailure: "Halt" | "RollBack";
  paused: boolean;
}

export interface FleetSpec {
  /** The release of tenants that name none. */
  synapseVersion: string;
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
  synapseVersion: string;
  previousSynapseVersion?: string;
  /** The wave under way, from 0 (canaries), of so many. */
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

/** How the tenants that name no release get one; there is at most one, named `fleet`. */
export type Fleet = Resource<"Fleet", FleetSpec, FleetStatus>;

/** What must not be seen: one per tenant, same name. Never logged, never in an event, never in an API answer. */
export interface TenantSecretData {
  /** Whose keys these are: they outlive a tenant that was deleted without its data. */
  serverName: string;
  /** Content of Synapse's signing key file: `ed25519 a_XXXX <base64 seed>`. */
  signingKey: string;
  macaroonSecretKey: string;
  formSecret: string;
  registrationSharedSecret: string;
  databasePassword: string;
}

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
