import type { OwnDatabase } from "../model/config-reading.ts";
import { UserError } from "../model/errors.ts";
import type { DatabaseUsage } from "../model/tenant-usage.ts";
import type { UserPage, UserQuery } from "../model/user.ts";
import type { UsageReading } from "../model/usage-month.ts";
import type { ReleaseFacts } from "./launcher.ts";
import type { Tenant } from "../model/tenant.ts";
import type { TenantSecretData } from "../model/tenant-secrets.ts";
import type { Assignment } from "./shard-control.ts";

/** A login to a database of PostgreSQL. */
export interface DatabaseLogin {
  host: string;
  port: number;
  user: string;
  password: string;
  database: string;
  sslMode?: string;
  /** Whom its certificate is verified by, in PEM, where not by the authorities that everybody knows. */
  authorities?: string;
}

export function loginTo({ name, ...login }: OwnDatabase): DatabaseLogin {
  return { ...login, database: name };
}

/** Who a tenant's database belongs to (docs/control-api.md, *The fence*). */
export interface FenceState {
  epoch: number;
  /** The name of a shard, `dedicated…` for a dedicated Synapse, or empty where nobody has it. */
  owner: string;
  /** Whether a dedicated Synapse has everything ready, and waits for the database to be released. */
  waiting: boolean;
  /** Whether anybody but those that wait, and ourselves, is connected. */
  connected: boolean;
}

/** A short-lived process of one Synapse release, warmed up, that brings one database's schema up to its release. */
export interface Migration {
  /** Claims the fence for `shard`, then migrates. @throws UserError, PreparerError with a code of docs/control-api.md */
  run(tenant: string, shard: string, assignment: Assignment): Promise<void>;
  close(): Promise<void>;
}

/** What is needed to bring a tenant back beside its data: it outlives the store. */
export interface Keepsake {
  serverName: string;
  secrets: TenantSecretData;
  /** The user's part of homeserver.yaml when the database was made. */
  config: string;
}

export interface KeptData {
  /** Whether our own server has a database of a tenant of that name. */
  hasDatabase: boolean;
  /** Where it has none: databases that a move or restore has left that was cut off, and that may have the only copy. */
  stranded?: string[];
  keepsake?: Keepsake;
}

/** What is stored in a tenant's database about its schema. */
export interface StoredSchema {
  schemaVersion: number;
  /** Releases whose schemaVersion is below this cannot read it. */
  schemaCompatVersion: number;
  /** The last epoch in its fence; 0 where nobody has claimed it yet. */
  epoch: number;
}

/** The databases of tenants, as the controller uses them. */
/** What keeps PostgreSQL from its work for every client: it passes, and no tenant is to blame. The same codes as of shards (docs/control-api.md). */
export type DatabaseTroubleReason = "DatabaseFull" | "DatabaseOverloaded" | "DatabaseReadOnly";

export class DatabaseTrouble extends UserError {
  readonly reason: DatabaseTroubleReason;
  constructor(reason: DatabaseTroubleReason, message: string, options?: ErrorOptions) {
    super("Unavailable", message, options);
    this.name = "DatabaseTrouble";
    this.reason = reason;
  }
}

/** What tells where a tenant's database is. */
export interface Placed {
  metadata: Pick<Tenant["metadata"], "name">;
  status: Pick<Tenant["status"], "databaseServer" | "storage">;
}

/** Where a tenant's database is, and as whom it is used. */
export interface DatabasePlace {
  host: string;
  port: number;
  name: string;
  user: string;
  /** As libpq's `sslmode`; absent: as libpq does without a word. */
  sslMode?: string;
}

/** What is to be read of a tenant's use. */
export interface UsageQuestion {
  /** Whose active users. */
  months: readonly string[];
  /** Messages behind this place; undefined: it was never asked. */
  messagesFrom?: number | undefined;
  /** Unix time in milliseconds; later ones are left for the next time. */
  receivedBefore: number;
}

export interface TenantDatabases {
  /** Remembers what a release says of its schema. */
  learn(facts: ReleaseFacts): void;
  /**
   * Makes the tenant's role and database, complete with the schema of its release; what is there already is kept.
   * @returns the epoch found in a database that was kept from before (0 in a new one), and whether it was there
   */
  provision(tenant: Tenant, secrets: TenantSecretData): Promise<{ epoch: number; kept: boolean }>;
  /**
   * Keeps on our own server what is needed to bring a tenant back that brings its database along: the store may be lost. Nothing where there
   * is no server of ours.
   */
  keep(tenant: Tenant, secrets: TenantSecretData): Promise<void>;
  /**
   * What our own server has of a tenant of that name, from one that was deleted, or from before the store was lost.
   * @throws UserError Environment where the keys beside it cannot be opened
   */
  keptData(tenant: string): Promise<KeptData>;
  /** Removes database, role and keepsake of our own server, whatever database the tenant uses now. Nothing where there is none. */
  drop(tenant: string): Promise<void>;
  /**
   * Shuts out the processes that run the tenant, from outside its database. `provision` lets it in again, and they stay out. Nothing
   * for a database that the tenant brings along.
   */
  fenceOff(tenant: Tenant): Promise<void>;
  /**
   * The schema in the tenant's database, read with the tenant's own login; undefined where there is none yet.
   * @throws StartFailure DatabaseUnreachable, DatabaseAuthenticationFailed, DatabaseMissing; DatabaseTrouble
   */
  describe(tenant: Tenant, secrets: TenantSecretData): Promise<StoredSchema | undefined>;
  /**
   * The database that the tenant brings along, as its server identifies it: `SYSTEM_IDENTIFIER/OID`, the same by whatever name it is reached.
   * Undefined where the server does not tell. @throws as `describe`
   */
  identify(tenant: Tenant, secrets: TenantSecretData): Promise<string | undefined>;
  /** Who has the tenant's database, read with its own login; undefined where nobody ever claimed it. @throws as `describe` */
  fence(tenant: Tenant, secrets: TenantSecretData): Promise<FenceState | undefined>;
  /** Shuts out the shard that has it and does not answer, with the tenant's epoch; nothing if another has it. @throws as `describe` */
  release(tenant: Tenant, secrets: TenantSecretData, owner: string): Promise<boolean>;
  /** Lets a dedicated Synapse have the released database, also one of an older revision. @throws as `describe` */
  grant(tenant: Tenant, secrets: TenantSecretData): Promise<void>;
  /** What the databases of our own server take of it, by tenant; empty where tenants bring all of theirs. @throws UserError */
  usage(tenants: readonly string[]): Promise<Map<string, DatabaseUsage>>;
  /** For how long our own server has run statements of tenants, in seconds that only rise; empty where tenants bring all of theirs. @throws UserError */
  activeSeconds(tenants: readonly string[]): Promise<Map<string, number>>;
  /**
   * What the tenant's database says of its use, read with the tenant's own login, and bounded in time: what takes too long, or is not to be had,
   * is left out. @throws as `describe`
   */
  readUsage(tenant: Tenant, secrets: TenantSecretData, question: UsageQuestion): Promise<UsageReading>;
  /** The tenant's accounts, read with its own login, whether it runs or sleeps. @throws as `describe` */
  listUsers(tenant: Tenant, secrets: TenantSecretData, query: UserQuery): Promise<UserPage>;
  /**
   * Ends what tenants' roles run on our own server for longer than any of them may, whatever time they have set themselves: statements, and
   * transactions that stand open. @returns the databases whose connections were ended @throws UserError
   */
  endOverdue(): Promise<string[]>;
  /** What a release says of its schema, if it is known by now. */
  facts(release: string): ReleaseFacts | undefined;
  migration(release: string): Promise<Migration>;
  /** Address of the managed database, for the tenant's configuration. @throws StartFailure where its record names a server that is not ours */
  address(tenant: Placed): DatabasePlace;
  /**
   * The server that has the tenant's database, or is to have it, for its record; undefined where there is no choice.
   * @throws StartFailure DatabaseServersFull; UserError Unavailable where one that may have it does not answer
   */
  placeFor(tenant: string): Promise<string | undefined>;
}
