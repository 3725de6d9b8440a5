import type { Logger } from "pino";
import type { Clock } from "../model/clock.ts";
import type { Launcher } from "../ports/launcher.ts";
import type { CpuBudget } from "../model/cpu-budget.ts";
import type { Policy } from "../model/policy.ts";
import type { Plans } from "../model/quota.ts";
import type { ClusterEvent } from "../model/event.ts";
import type { PublicAnswers, Tenant, TenantStatus } from "../model/tenant.ts";
import type { CachedReader } from "./cached-reader.ts";
import type { Store } from "../ports/store.ts";
import type { TenantEnvironment } from "../model/homeserver-config.ts";
import type { Claims } from "./claims/claims.ts";
import type { ControllerMetrics } from "./metrics.ts";
import type { ProcessTime } from "./usage/process-time.ts";
import type { UsageBook } from "./usage/usage-book.ts";
import type { UsageRecorder } from "./usage/usage-recorder.ts";
import type { LoadBook } from "./shards/load-book.ts";
import type { MaintenanceWindow } from "../model/fleet.ts";
import type { HistoryRecorder } from "./history/history-recorder.ts";
import type { IdleTenants } from "./sleep/idle-tenants.ts";
import type { RouteFeed } from "./routes/route-feed.ts";
import type { ShardControl } from "../ports/shard-control.ts";
import type { TenantDatabases } from "../ports/databases.ts";
import type { DeletedTenant, RemovedData } from "../model/deleted-tenant.ts";
import type { DeletedTenants } from "../ports/deleted-tenants.ts";
import type { Turns } from "./turns.ts";
import type { ReservedNames } from "./tenants/reserved-names.ts";
import type { DatabaseMoves } from "../ports/database-moves.ts";
import type { TenantCounts } from "../model/backup.ts";
import type { BackupMeans, Bytes, OwnDatabases } from "../ports/backups.ts";
import type { Listener } from "./shards/listener.ts";

/** What every reconciler works with; made once, in the composition root. */
export interface ControllerContext {
  store: Store;
  /** The store in memory; opened and closed by the `Controller`. */
  reader: CachedReader;
  launcher: Launcher;
  databases: TenantDatabases;
  feed: RouteFeed;
  usage: UsageBook;
  /** Absent where the platform keeps no history of what tenants take. */
  recorder?: UsageRecorder;
  /** For the plots; absent where nobody keeps one. */
  history?: HistoryRecorder;
  /** Which tenant has which host and database; kept current by the `Controller`. */
  claims: Claims;
  /** Shards that answer, by name; kept current by the `Controller`. */
  shardClients: Map<string, ShardControl>;
  /** Which tenants nobody uses; kept current by the `Controller`. */
  idle: IdleTenants;
  /** What shards and tenants take, for the planner. */
  loads: LoadBook;
  policy: Policy;
  /** When tenants may be moved only to tidy up; none: at any time. */
  maintenanceWindows: readonly MaintenanceWindow[];
  cpuBudget: CpuBudget;
  /** Named sets of quotas. */
  plans: Plans;
  timing: Timing;
  clock: Clock;
  metrics: ControllerMetrics;
  log: Logger;
  /** What the platform gives a tenant: database address, media directory, URL. */
  environment(tenant: Tenant): TenantEnvironment;
  /** Whether a dedicated Synapse answers at `host:port`. */
  answers(address: string): Promise<boolean>;
  /** What processor time a dedicated Synapse has taken, by its metrics at `host:port`. @throws where they do not tell */
  processTime(address: string): Promise<ProcessTime>;
  /** What a homeserver of ours answers to what anybody may ask; empty where it does not answer. */
  asks(listener: Listener): Promise<PublicAnswers>;
  /** Where deleted tenants are kept for a time; absent: their data is kept until somebody removes it. */
  deletions?: Deletions;
  /** What was restored beside a tenant's own; absent where the platform restores nothing. */
  restored?: Pick<BackupMeans, "copies" | "media">;
  /** Restores into databases that tenants bring along; absent where the platform does not. */
  ownRestores?: OwnRestores;
  /** Absent where the platform has no database servers to move databases between. */
  databaseMoves?: DatabaseMoves;
  /** The long work that is done with a tenant's database, in a word. */
  workFor?(tenant: string): string | undefined;
  /** Whether media that are in no bucket are lost by a move: shards have no disk in common. */
  mediaNeedBuckets?: boolean;
  /** Removes the media of a tenant that is deleted with `reclaimPolicy: Delete`. */
  removeMedia(tenant: string): Promise<void>;
}

export interface Deletions {
  records: DeletedTenants;
  /** For how long data is kept. */
  keepDays: number;
  /** Whoever creates, has back or purges does so alone. */
  lock: Turns;
  /** What long work has, until there is its tenant. */
  reserved: ReservedNames;
  /** What there is of a tenant's media; undefined where there are none. */
  mediaOf(tenant: string): Promise<RemovedData["media"]>;
  /** The signing key that a purge removes; absent: the one in the store. */
  keyOf?(tenant: string): Promise<string | undefined>;
  /** Makes a deleted tenant's object again where the platform has more of it than its `spec`; absent: the store makes it. */
  recreate?(record: DeletedTenant, status: TenantStatus): Promise<Tenant>;
}

export interface OwnRestores {
  databases: OwnDatabases;
  /** What a backup has, of the cluster's own target. @param storage whose @throws UserError */
  read(storage: string, backup: string): Promise<{ counts: TenantCounts; dump: Bytes }>;
}

/** In seconds. */
export interface Timing {
  /** How often a shard is asked how it is, as long as there are not more than… */
  shardPoll: number;
  /** …at most this many questions a second altogether: beyond it shards that are well are asked less often, 4,000 of them every 40 s. Not in seconds. */
  shardPollsPerSecond: number;
  /** How often a shard is asked what its tenants take, at most, when it is asked how it is. */
  loadEvery: number;
  /** How often a few of the tenants' databases are looked at; a round of all takes ten times as long, or longer. */
  databaseUsageEvery: number;
  /** How long a shard whose process lives may be silent before it is Lost. */
  shardLostAfter: number;
  /** How long until a Lost shard is killed, which frees its place. */
  shardGiveUpAfter: number;
  /** How long a shard's process may take to announce itself before it is killed. */
  shardStartWithin: number;
  /** A tenant that was away unplanned for longer than this tells other servers that it is back. */
  absentAfter: number;
  /** How long a tenant may take to finish what is in flight when it is moved, before it is cut off. */
  drain: number;
  /** How often it is looked for deleted tenants whose time is over. */
  expiryEvery: number;
  /** How long one of them is still kept after that was seen first. */
  expiryGrace: number;
  /** How often it is looked whether a database is to be copied while its tenant runs. */
  copiesEvery: number;
  /**
   * How long a restore into the database that a tenant brings along may take, while the tenant is away and has one of the places for moves. Several times
   * as long as a dump may take: indexes are made again.
   */
  ownRestoreWithin: number;
  /** First and longest delay between attempts to start a tenant. */
  retryFirst: number;
  retryMost: number;
}

export const DEFAULT_TIMING: Timing = {
  shardPoll: 1,
  shardPollsPerSecond: 100,
  loadEvery: 10,
  databaseUsageEvery: 60,
  shardLostAfter: 15,
  shardGiveUpAfter: 300,
  shardStartWithin: 90,
  absentAfter: 60,
  drain: 10,
  expiryEvery: 600,
  expiryGrace: 3_600,
  copiesEvery: 1,
  ownRestoreWithin: 12 * 3_600,
  retryFirst: 1,
  retryMost: 60,
};

/** Records an event for people. Never fails: an event that cannot be written is logged. */
export async function recordEvent(context: ControllerContext, event: Omit<ClusterEvent, "id" | "time">): Promise<void> {
  try {
    await context.store.appendEvent(event);
  } catch (error) {
    context.log.error({ err: error, event }, "cannot record an event");
  }
}
