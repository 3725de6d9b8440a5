import type { AdminAccess, AdminAccessView, AdminSession } from "../../model/admin-access.ts";
import type { TagOccupancy } from "../../model/occupancy.ts";
import type { ClusterEvent } from "../../model/event.ts";
import type { Move, MoveResult } from "../../model/move.ts";
import type { Shard } from "../../model/shard.ts";
import type { Tenant, TenantSpec } from "../../model/tenant.ts";
import type { TenantUsage } from "../../model/tenant-usage.ts";
import type { UsageMonth } from "../../model/usage-month.ts";
import type { History, Range } from "../../model/history.ts";
import type { ConfigVerdict } from "../../model/config-verdict.ts";
import type { DatabaseMoveWay } from "../../model/database-move.ts";
import type { ServerLoad } from "../../model/database-servers.ts";
import type { Labels } from "../../model/labels.ts";
import type { CheckReport } from "../../model/tenant-check.ts";
import type { TenantDns } from "../../model/tenant-dns.ts";
import type { Isolation, Placement } from "../../model/placement.ts";
import type { Quotas, QuotaStanding } from "../../model/quota.ts";
import type { AppServicePing } from "../../model/app-service.ts";
import type { UserChange, UserPage, UserQuery } from "../../model/user.ts";
import type { TenantHibernation, WakeReason } from "../../model/sleep.ts";
import type { Policy } from "../../model/policy.ts";
import type { Problem } from "./problems.ts";
import type { DeletedTenant, PurgeProof } from "../../model/deleted-tenant.ts";
import type { TenantNames } from "../tenants/reserved-names.ts";

/**
 * What the controller offers to people, whichever way they come (HTTP API, CLI). The API is a thin layer over this;
 * everything it throws on account of the caller is a `UserError`.
 */
export interface ClusterService {
  /** @param made what its data are named by, where they are there already */
  createTenant(request: CreateTenantRequest, made?: TenantNames): Promise<Tenant>;
  /** Changes a tenant's wishes; the controller then makes it so (a new version moves it). */
  updateTenant(name: string, request: UpdateTenantRequest): Promise<Tenant>;
  /** Asks for deletion and returns at once; the tenant is gone when `getTenant` throws `NotFound`. */
  deleteTenant(name: string, options: { purge: boolean }): Promise<Tenant>;
  /** Deleted tenants whose data is kept, by name; empty where the platform keeps it without an end. */
  listDeleted(): Promise<DeletedTenant[]>;
  /** Has a deleted tenant back as it was. @throws UserError NotFound; Conflict where its data is being removed; AlreadyExists */
  undeleteTenant(name: string): Promise<Tenant>;
  /** Removes what is kept of a deleted tenant for good. @throws UserError NotFound; Conflict where the tenant is there */
  purgeTenant(name: string): Promise<PurgeProof>;
  /** What remains of those whose data was removed: the newest `limit`, oldest first. */
  listPurges(limit: number): Promise<PurgeProof[]>;
  getTenant(name: string): Promise<Tenant>;
  listTenants(): Promise<Tenant[]>;
  /** All tenants, then a mark, then each as it changes, until `signal` aborts; states in between may be left out. */
  watchTenants(options: { signal?: AbortSignal }): AsyncIterable<TenantChange>;
  /** Asks for a move to `to`, or to the best other shard, and returns at once; the result is `status.lastMove` with the returned id. */
  moveTenant(name: string, options?: MoveTenantOptions): Promise<Move>;
  /** Database servers that are ours, and how many databases of tenants each has; empty where tenants bring theirs. */
  listDatabaseServers(): Promise<ServerLoad[]>;
  /**
   * Asks for a tenant's database to be moved to another server, and returns at once: it is done when `status.lastDatabaseMove` has the id of the
   * returned `status.databaseMove`. Wakes it, if it sleeps. @throws UserError
   */
  moveDatabase(name: string, options: MoveDatabaseOptions): Promise<Tenant>;
  /** Takes it back while it is being copied with its tenant running; else nothing is done. @throws UserError Conflict while it is exchanged */
  cancelDatabaseMove(name: string): Promise<Tenant>;
  /**
   * Gives a tenant a shard of its own, or lets it among the others again (`lift`), which also forgets what it did. Does nothing where it is
   * so already.
   */
  quarantineTenant(name: string, options: { lift: boolean }): Promise<Tenant>;
  /** What it takes of its shard and of the database server, as far as that is known by now. */
  tenantUsage(name: string): Promise<TenantUsage>;
  /**
   * What tenants took, one row per tenant and month: this month of all, or all months that are kept of one.
   * @throws UserError NotFound; Conflict where the platform keeps no history
   */
  usageHistory(query: { tenant?: string; month?: string }): Promise<UsageMonth[]>;
  /** How the cluster was, or one shard, for plots. @throws UserError NotFound; Conflict where the platform keeps no history */
  history(query: HistoryQuery): Promise<History>;
  /** Named sets of quotas, by name. */
  listPlans(): Promise<NamedPlan[]>;
  /** A tenant's quotas, whether its plan's or its own, and what there is of each as far as that is known. */
  quotasOf(name: string): Promise<TenantQuotas>;
  /** Whether a tenant's own administrators may come in, and where. @throws UserError NotFound */
  adminAccessOf(name: string): Promise<AdminAccessView>;
  /** Opens a tenant to its administrators, or closes it (undefined). @throws UserError NotFound; Conflict where there is no entrance */
  changeAdminAccess(name: string, access: AdminAccess | undefined): Promise<AdminAccessView>;
  /** Signs somebody in as an administrator of a tenant that is open to them; wakes it if it sleeps. @throws UserError NotFound, Conflict, Unavailable */
  openAdminSession(name: string, user: string): Promise<AdminSession>;
  /**
   * Gives a tenant another name, and returns at once: it is done when there is a tenant of that name; where it is not done, `status.rename` is gone and
   * an event says why. Nothing of its data is moved. @throws UserError NotFound, AlreadyExists, InvalidInput; Conflict where names cannot be changed
   */
  renameTenant(name: string, options: { to: string }): Promise<Tenant>;
  /** Puts a tenant to sleep and returns at once; refused with `Conflict` that says what keeps it awake. Does nothing where it sleeps. */
  sleepTenant(name: string): Promise<Tenant>;
  /** Wakes a tenant and returns at once; does nothing where it does not sleep. */
  wakeTenant(name: string): Promise<Tenant>;
  /**
   * Suspends a tenant, or resumes it, and returns at once: it is done when its phase is `Suspended` and it has no shard, or `Running`. Does nothing
   * where it is so already. @throws UserError Conflict for one that is dedicated, or being deleted
   */
  suspendTenant(name: string, options: { lift: boolean }): Promise<Tenant>;
  /** Wakes those that sleep, each once, however often it is asked for; others are passed over. */
  wakeTenants(wishes: Iterable<{ tenant: string; reason: WakeReason }>): Promise<void>;
  /** Whether a tenant may sleep, what keeps it awake, and when it is woken. */
  restOf(name: string): Promise<TenantRest>;
  /** What has to be published so that clients and other servers find the tenant. */
  tenantDns(name: string): Promise<TenantDns>;
  /** Looks at the tenant as the world sees it, which takes seconds. @throws UserError NotFound */
  checkTenant(name: string): Promise<CheckReport>;
  /** Wakes it first, if it sleeps. */
  registerUser(name: string, request: RegisterUserRequest): Promise<{ userId: string }>;
  /** A tenant's accounts without guests, by user id; wakes nobody. @throws UserError NotFound; Conflict where it has no database yet */
  listUsers(name: string, query: UserQuery): Promise<UserPage>;
  /**
   * Changes an account as Synapse does, and wakes the tenant first, if it sleeps.
   * @param user the part of its id before the colon, or all of it
   * @throws UserError NotFound; InvalidInput; Conflict with Synapse's words; Unavailable
   */
  changeUser(name: string, user: string, change: UserChange): Promise<ChangedUser>;
  /**
   * Asks an application service that the tenant runs with whether it is there; wakes the tenant if it sleeps.
   * @throws UserError NotFound, Unavailable
   */
  pingAppService(name: string, id: string): Promise<AppServicePing & { woken: boolean }>;
  /** What its shard exports of it alone, in Prometheus' text format, and its phase; wakes nobody. @throws UserError NotFound, Unavailable */
  tenantMetrics(name: string): Promise<string>;
  /** What would become of a configuration, by the check that decides before a start; changes nothing. @throws UserError NotFound */
  checkConfig(name: string, config: string): Promise<ConfigVerdict>;
  /** Lines of the log that concern the tenant, oldest first. */
  tenantLog(name: string, options: LogOptions): AsyncIterable<string>;

  listShards(): Promise<ShardOverview[]>;
  getShard(name: string): Promise<ShardOverview>;
  /** Moves every tenant of the shard away, then stops it; refused with `NoPlace` if they do not fit elsewhere. */
  drainShard(name: string): Promise<Shard>;
  shardLog(name: string, options: LogOptions): AsyncIterable<string>;

  status(): Promise<ClusterStatus>;
  /** What is wrong now, and what to do about it; errors first. */
  listProblems(): Promise<Problem[]>;
  /** Events with an id above `after`, oldest first; with `follow` it goes on until `signal` aborts. */
  events(options: {
    after?: number;
    object?: string;
    follow?: boolean;
    signal?: AbortSignal;
  }): AsyncIterable<ClusterEvent>;
  /** The URL a client uses for the tenant. */
  urlOf(tenant: Tenant): string;
}

export type TenantChange = { type: "Present"; tenant: Tenant } | { type: "Gone"; name: string } | { type: "Synced" };

export interface HistoryQuery {
  range: Range;
  /** Default: the cluster as a whole. */
  shard?: string;
}

export interface TenantRest {
  /** Why it does not sleep now, in words; empty where it sleeps, or may. */
  keepsAwake: string[];
  openRequests?: number;
  /** Seconds since it was last used. */
  unusedSeconds?: number;
  /** When it would have to be woken next, and why. */
  nextDue?: { at: string; reason: string };
  /** When it is looked at again whether it may sleep, where it could not. */
  askedAgainAt?: string;
  /** When it is woken although nobody asks for it, while it sleeps. */
  nextWake?: { at: string; reason: string };
}

export interface NamedPlan {
  name: string;
  quotas: Quotas;
  tenants: number;
}

export interface TenantQuotas {
  plan?: string;
  quotas: QuotaStanding[];
  /** When what can be measured was last measured. */
  at?: string;
}

export interface CreateTenantRequest {
  name: string;
  /** Default: `<name>.<baseDomain>`. */
  serverName?: string;
  /** In place of `serverName`: the server name, whose homeserver is at a host of its own in it, by https. */
  domain?: string;
  /** That host. Default: `matrix.<domain>`. */
  host?: string;
  /** Default: the cluster's `release`. */
  release?: string;
  /** YAML text; default: empty. */
  config?: string;
  hibernation?: TenantHibernation;
  placement?: Placement;
  /** Default: shared. */
  isolation?: Isolation;
  labels?: Labels;
  plan?: string;
  quotas?: Quotas;
  /** URL of its authentication service, where gateways send logins to. */
  authenticationService?: string;
  /** A tenant whose release, configuration, placement, isolation, labels and quotas it takes, as far as none are given here; labels add to its. */
  fromTemplate?: string;
}

/** `placement`, `quotas`, `metrics`: take the place of those it has; empty: anywhere, none of its own. */
export interface UpdateTenantRequest extends Partial<
  Pick<TenantSpec, "release" | "config" | "hibernation" | "placement" | "quotas" | "metrics">
> {
  /** Sets these and leaves the others; null removes one. */
  labels?: Readonly<Record<string, string | null>>;
  isolation?: Isolation;
  /** Takes back a configuration that is not in effect. */
  revertConfig?: boolean;
  /** null: none. */
  plan?: string | null;
  /** null: none. */
  authenticationService?: string | null;
}

/** Long enough to look at what the move was for; a consolidation that waits costs a shard's memory. */
export const DEFAULT_PIN_SECONDS = 3_600;
export const LONGEST_PIN_SECONDS = 366 * 24 * 3_600;

export interface MoveTenantOptions {
  /** Default: the best other shard. */
  to?: string;
  /** For how long consolidation leaves it there; 0: not at all. Default: an hour. */
  pinSeconds?: number;
}

export interface MoveDatabaseOptions {
  to: string;
  /** Absent: parked, where it is small, else online. */
  way?: DatabaseMoveWay;
}

export interface RegisterUserRequest {
  username: string;
  password: string;
  admin: boolean;
}

export interface ChangedUser {
  userId: string;
  /** Whether the tenant slept. */
  woken: boolean;
}

export interface LogOptions {
  /** Lines from the end to begin with. */
  tail?: number;
  follow?: boolean;
  signal?: AbortSignal;
  /** Of a tenant: only what its own homeserver wrote, and not what mentions it. */
  isOwnOnly?: boolean;
}

export interface ShardOverview {
  shard: Shard;
  /** Names of the tenants assigned to it, sorted. */
  tenants: string[];
  capacity: number;
}

export interface ClusterStatus {
  version: string;
  startedAt: string;
  policy: Policy;
  release: string;
  tenants: { total: number; byPhase: Record<string, number> };
  /** Per image tag in use. `saturated`: every shard is full and no more may be made. */
  imageTags: TagOccupancy[];
  movesInProgress: { tenant: string; move: Move }[];
  recentMoves: { tenant: string; result: MoveResult }[];
  gateways: { id: string; routesVersion: number; connectedAt: string }[];
  /** What is wrong now, one sentence each; empty when all is well. */
  problems: string[];
}
