import type { AdminAccess } from "./admin-access.ts";
import type { DedicatedTransition, Move, MoveResult } from "./move.ts";
import type { DatabaseMove } from "./database-move.ts";
import type { ConfigMeaning } from "./config-meaning.ts";
import type { Labels } from "./labels.ts";
import type { Placement } from "./placement.ts";
import type { MeasuredQuota, Quotas, QuotaState } from "./quota.ts";
import type { Resource } from "./resource.ts";
import type { Sleep, TenantHibernation, Wake, WakeReason } from "./sleep.ts";

export const TENANT_PHASES = {
  Pending: "no shard has a place for it yet; the reason says why",
  Provisioning: "its keys, database and schema are being made",
  Starting: "it is being started on its shard",
  Running: "it serves requests on its shard",
  Moving: "it is on its way from one shard to another (or restarts with a new configuration); its requests are parked",
  FallingAsleep: "nobody uses it: its requests are parked, and its shard stops it",
  Asleep: "it is on no shard, and holds nothing; a request wakes it, or what is due",
  Suspended: "an operator has suspended it: it is on no shard, its requests are refused, its data and keys stay",
  Failed: "it could not be started; the reason says why, and it is tried again with backoff",
  Deleting: "it is being stopped and removed",
} as const;
export type TenantPhase = keyof typeof TENANT_PHASES;

export interface TenantSpec {
  /** The Matrix server name: what comes after the colon in its user ids. Never changes. */
  serverName: string;
  /** The Synapse release that shall run it (the image tag). Empty: the fleet's, see `wantedRelease`. */
  release: string;
  /** The user's part of homeserver.yaml, as given: YAML text, checked when the tenant starts. Empty: none. */
  config: string;
  /** What deletion does with the database and media. */
  reclaimPolicy: "Retain" | "Delete";
  /** Counts up with each change of where its owner wants it to run; orders claims of the fence (docs/kubernetes-design.md). Default 0. */
  revision?: number;
  /** Set where a dedicated Synapse serves it, outside shards: gateways route to its `host:port`. At the same host it may tell its metrics. */
  dedicated?: { address: string; metricsPort?: number };
  /** Whether it sleeps when nobody uses it; absent: as the cluster has it. */
  hibernation?: TenantHibernation;
  /** Its operator's own words about it, to select tenants by. On Kubernetes those of the object. */
  labels?: Labels;
  /** It is to run nowhere until this is taken back; nothing of it is removed. */
  suspended?: boolean;
  /** Where its operator wants it; absent: anywhere. */
  placement?: Placement;
  /** It has a shard for itself, as far as one can be had; absent: it shares one. */
  isolation?: "dedicated";
  /** The plan whose quotas it has; absent: none. */
  plan?: string;
  /** Quotas of its own, which go before those of its plan. */
  quotas?: Quotas;
  /** Families of metrics that its shard exports of it, besides those of each tenant; absent: none. */
  metrics?: string[];
  /** URL of the authentication service that keeps its accounts, to which gateways send logins (docs/authentication-service.md). */
  authenticationService?: string;
  /** Its own administrators may come in (docs/admin-access.md); absent: they may not. */
  adminAccess?: AdminAccess;
}

export interface OpenAdminSession {
  userId: string;
  /** When it ends automatically: to the millisecond, as the homeserver has it. */
  until: string;
  /** It is to be ended as soon as the tenant runs. */
  ending?: true;
}

export interface TenantStatus {
  phase: TenantPhase;
  /** One CamelCase word for machines, e.g. `MaxShardsReached`; empty when all is well. */
  reason: string;
  /** One sentence for people; empty when all is well. */
  message: string;
  /** The shard that has, or shall have, the tenant. */
  shard?: string;
  /**
   * The last epoch handed out for its database, or of the tenant that had its name before; 0 before the first start (see `hasStarted`). Only ever
   * rises.
   */
  epoch: number;
  /** `host:port` of its listener on its shard, while it runs. */
  address?: string;
  /** The release that last brought its database schema up to date. */
  schemaRelease?: string;
  /** The generation of the spec that was last acted upon. */
  observedGeneration: number;
  /** Hash of the configuration and keys that the last epoch was handed out for. */
  configHash?: string;
  /** The configuration asked for, where it is refused, and why. It stays until another one is asked for. */
  refusedConfig?: RefusedConfig;
  /**
   * The configuration it runs with, or last ran with: its hash (as `configHash`), what the shard says it means, and what in it is probably a
   * mistake, a sentence each.
   */
  inEffect?: { hash: string; meaning: ConfigMeaning; warnings?: string[] };
  /** Its database as the server itself identifies it: `SYSTEM_IDENTIFIER/OID`. Several names can lead to one database. */
  databaseId?: string;
  provisioned: boolean;
  /** Until it is provisioned: its database was kept, and no empty one is made in its place. */
  databaseKept?: true;
  /** When the first tenant of its data was created, where that data was kept while it was deleted. */
  dataSince?: string;
  /** What its data are named by, where that is not its name (`storageOf`). Written before any of it is made; never changes. */
  storage?: string;
  /** Names that it had, the latest last. */
  formerNames?: { name: string; until: string }[];
  /** It is to have another name. */
  rename?: TenantRename;
  /** The server of ours that has its database; absent: the cluster's own. */
  databaseServer?: string;
  /** Its next start, or one that comes when a copy has been made, is with its database on another server. */
  databaseMove?: DatabaseMove;
  lastDatabaseMove?: DatabaseMoveResult;
  /** Servers that keep its database from before it was moved, and until when. */
  formerDatabases?: FormerDatabase[];
  /** The release that the fleet's rollout has for it; counts where the spec names none. */
  fleetRelease?: string;
  /** Since when it has it. */
  fleetReleaseSince?: string;
  /** When it got its present shard. */
  assignedAt?: string;
  /** The dedicated Synapse that has it, while it is on no shard. */
  dedicated?: { address: string };
  transition?: DedicatedTransition;
  /** While it falls asleep, and sleeps. */
  sleep?: Sleep;
  /** What it said of itself before it was last stopped for a while, which gateways say for it while it is suspended. */
  lastWords?: LastWords;
  /** Since it is wanted awake, until it runs. */
  wake?: Wake;
  /** Since when it has been awake, and why it was woken; absent where it never slept. */
  awake?: { since: string; reason: WakeReason };
  /**
   * Its next start is with the database that was restored beside its own, or with that backup in the database that it brings along. `exchanged`: it is in
   * its place. `storage`: what the target keeps the backup by; its own if not given.
   */
  restore?: {
    id: string;
    backup: string;
    requestedAt: string;
    storage?: string;
    schemaRelease?: string;
    exchanged?: true;
  };
  /** The last restore; `schemaRelease` is of the database that it put aside. */
  restored?: { backup: string; at: string; schemaRelease?: string };
  /** Somebody asked for a backup, which is not done yet: the job that makes it, and how many controllers were at it that ended without a word. */
  backupAsked?: { id: string; requestedAt: string; byTenantAdmin?: true; attempts?: number };
  move?: Move;
  lastMove?: MoveResult;
  /** Failures in a row, and when the next attempt is due. */
  failures: number;
  retryAt?: string;
  /** Moves rolled back in a row. */
  moveFailures?: number;
  /** Moves in a row that were interrupted by what is not the tenant's. */
  moveInterruptions?: number;
  /** Until when the planner leaves it where it is. */
  moveNotBefore?: string;
  /** Where somebody moved it to, and until when consolidation leaves it there. */
  pin?: { shard: string; until: string };
  /** When it was last moved for the load of its shard. */
  balanced?: { at: string; from: string; to: string };
  /** How often its code held up its shard's reactor, and which stalls those were. */
  stalls?: { count: number; ids: string[]; lastAt: string; where: string };
  /** It runs on a shard of its own until somebody lifts this. */
  quarantine?: { since: string; message: string };
  /** Sessions that were opened at its admin UI for somebody, in an administrator's name. */
  adminSessions?: OpenAdminSession[];
  /** It takes more than its CPU budget: the part of its requests in flight that gateways let through. */
  throttle?: { part: number; since: string; changedAt: string };
  /** It was throttled for long: it gets a shard of its own where there is room for it, and stays alone there while this is set. */
  heavy?: { since: string; message: string };
  /** A release it cannot be moved to, and why; tried again when the spec changes. */
  refusedRelease?: { release: string; reason: string; message: string };
  /** Of its quotas those whose soft or hard limit is reached, and since when. */
  quotas?: Partial<Record<MeasuredQuota, { state: QuotaState; since: string }>>;
}

/** Whether it was ever started on a shard. Its epoch alone does not tell: a tenant begins with that of the one that had its name before. */
export function hasStarted({ provisioned, epoch }: Pick<TenantStatus, "provisioned" | "epoch">): boolean {
  return provisioned && epoch > 0;
}

/** Of a tenant that was just created. */
export function newTenantStatus(): TenantStatus {
  return {
    phase: "Pending",
    reason: "",
    message: "",
    epoch: 0,
    observedGeneration: 0,
    provisioned: false,
    failures: 0,
  };
}

/** Reason of a tenant that waits for its release to be installed. */
export const INSTALLING = "InstallingRelease";

/** Carried out in one write of the store, as soon as nobody runs the tenant. */
export interface TenantRename {
  id: string;
  to: string;
  requestedAt: string;
  /** It ran, and was put to sleep for this: it is woken under its new name. */
  wakes?: boolean;
}

export interface DatabaseMoveResult {
  id: string;
  from: string;
  to: string;
  /** Failed: it stays where it was. */
  outcome: "Succeeded" | "Failed";
  /** One sentence. */
  message: string;
  finishedAt: string;
  /** That it took, while the tenant was parked. */
  seconds?: number;
}

export interface FormerDatabase {
  server: string;
  keptUntil: string;
}

/** By path: JSON, as the homeserver sent it. */
export type PublicAnswers = Record<string, string>;

/** What a tenant said of itself before it was stopped. */
export interface LastWords {
  at: string;
  /** As `inEffect.hash` at that time. */
  hash?: string;
  answers: PublicAnswers;
}

export interface RefusedConfig {
  /** As `configHash`; empty where the tenant's keys cannot be read. */
  hash: string;
  reason: string;
  message: string;
}

export type Tenant = Resource<"Tenant", TenantSpec, TenantStatus>;

/** Whether it is suspended, is about to be, or is about to be resumed: neither the planner nor a gateway may do anything for it. */
export function isSuspended({ spec, status }: Pick<Tenant, "spec" | "status">): boolean {
  return spec.suspended === true || status.phase === "Suspended";
}

/** Whether the planner has to leave it alone: it is suspended, or is to stay asleep until it has its new name. */
export function isHeld(tenant: Pick<Tenant, "spec" | "status">): boolean {
  return isSuspended(tenant) || tenant.status.rename !== undefined;
}

/** The release a tenant shall run: its own choice, else the fleet's; empty while the rollout has not come to it. */
export function wantedRelease({ spec, status }: Pick<Tenant, "spec" | "status">): string {
  return spec.release === "" ? (status.fleetRelease ?? "") : spec.release;
}

/** What is to be said of a tenant that runs: nothing, or what of its specification is not in effect, and why. */
export function reasonOfRunning(status: Pick<TenantStatus, "refusedRelease" | "refusedConfig">): {
  reason: string;
  message: string;
} {
  const refused = status.refusedConfig ?? status.refusedRelease;
  if (!refused) return { reason: "", message: "" };
  return { reason: refused.reason, message: `the change is not made, and it runs on as before: ${refused.message}` };
}

/** What was found out about a release says nothing of another one, nor of the same one with another configuration. */
export function forgetRefusedRelease(status: TenantStatus): void {
  const refused = status.refusedRelease;
  if (!refused) return;
  delete status.refusedRelease;
  if (status.phase === "Running" && status.reason === refused.reason) Object.assign(status, reasonOfRunning(status));
}
