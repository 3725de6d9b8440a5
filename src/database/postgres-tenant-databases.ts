import { storageOf } from "../model/storage-name.ts";
import { randomUUID } from "node:crypto";
import type { Bounds, Login } from "./connection.ts";
import { tenantDatabaseName } from "./names.ts";
import type { Preparers, WarmPreparer } from "../ports/preparers.ts";
import {
  describeDatabase,
  identifyDatabase,
  dropTenantDatabase,
  shutOut,
  provisionTenantDatabase,
} from "./tenant-database.ts";
import { grantFence, readFence, releaseFence } from "./fence.ts";
import { readKeptData, writeKeepsake, type Seal } from "./keepsakes.ts";
import { endOverdue } from "./overdue.ts";
import { databaseSeconds, databaseUsage } from "./usage.ts";
import { readUsers } from "./users-reading.ts";
import { readTenantUsage } from "./usage-reading.ts";
import {
  DatabaseTrouble,
  loginTo,
  type DatabasePlace,
  type Placed,
  type FenceState,
  type KeptData,
  type Migration,
  type StoredSchema,
  type TenantDatabases,
  type UsageQuestion,
} from "../ports/databases.ts";
import type { DatabaseServers } from "./servers.ts";
import { refuseEmptyOne } from "./stranded.ts";
import { ensureTemplate } from "./template.ts";
import type { ReleaseFacts } from "../ports/launcher.ts";
import { UserError, StartFailure } from "../model/errors.ts";
import { wantedRelease, type Tenant } from "../model/tenant.ts";
import type { TenantSecretData } from "../model/tenant-secrets.ts";
import type { DatabaseUsage } from "../model/tenant-usage.ts";
import type { UserPage, UserQuery } from "../model/user.ts";
import type { UsageReading } from "../model/usage-month.ts";
import type { Assignment } from "../ports/shard-control.ts";
import { ownDatabase } from "../model/homeserver-config.ts";

export interface PostgresTenantDatabasesOptions {
  /** The servers that are ours; absent where each tenant brings its own database. */
  servers?: DatabaseServers;
  preparers: Preparers;
  /** Seals the keys that are kept beside tenants' databases. */
  seal?: Seal;
}

/** Each preparer is a Python that imports Synapse: more of them at once only take each other's time. */
const PREPARERS_AT_ONCE = 4;
/** An empty schema takes seconds, on a very busy machine a minute; a migration of a large database may take longer than this. */
const TEMPLATE_MS = 180_000;
/** A tenant's own database may be anywhere, or nowhere: asked before a process is started for it. */
const DESCRIBE_BOUNDS: Bounds = { connectMs: 5_000, statementMs: 5_000 };

const NOWHERE: Pick<Login, "host" | "port" | "sslMode"> = { host: "", port: 5432 };

/** Tenants' databases on PostgreSQL servers that are ours; or elsewhere, where a tenant brings its own. */
export class PostgresTenantDatabases implements TenantDatabases {
  readonly #options: PostgresTenantDatabasesOptions;
  readonly #facts = new Map<string, ReleaseFacts>();
  readonly #preparers = new Set<WarmPreparer>();
  readonly #queue: (() => void)[] = [];
  #running = 0;

  constructor(options: PostgresTenantDatabasesOptions) {
    this.#options = options;
  }

  learn(facts: ReleaseFacts): void {
    this.#facts.set(facts.release, facts);
  }

  facts(version: string): ReleaseFacts | undefined {
    return this.#facts.get(version);
  }

  address({ metadata, status }: Placed): DatabasePlace {
    const name = tenantDatabaseName(storageOf({ metadata, status }));
    const { servers } = this.#options;
    const { host, port, sslMode } = servers ? servers.of({ metadata, status }) : NOWHERE;
    return { host, port, name, user: name, ...(sslMode === undefined ? {} : { sslMode }) };
  }

  async placeFor(tenant: string): Promise<string | undefined> {
    const { servers } = this.#options;
    return servers && servers.all.length > 1 ? servers.placeFor(tenant) : undefined;
  }

  async provision(tenant: Tenant, secrets: TenantSecretData): Promise<{ epoch: number; kept: boolean }> {
    const name = storageOf(tenant);
    const { servers } = this.#options;
    if (!servers)
      throw new StartFailure(
        "DatabaseMissing",
        `its homeserver.yaml names no database, and this cluster has none to give; set \`database\` (in the chart matrix-stack: synapse.postgres)`,
      );
    const server = servers.of(tenant);
    // Also before its keepsake is written over.
    await refuseEmptyOne(server, name, { kept: tenant.status.databaseKept === true });
    const version = wantedRelease(tenant);
    await ensureTemplate(server, version, async (database) => {
      const { preparer, release } = await this.#prepare(version, TEMPLATE_MS);
      try {
        await preparer.template(database);
      } finally {
        await release();
      }
    });
    const { serverName, config } = tenant.spec;
    // Before there is data that needs them.
    await writeKeepsake(server, this.#options.seal, name, { serverName, secrets, config });
    const { kept } = await provisionTenantDatabase(server, { name, password: secrets.databasePassword, version });
    if (!kept) return { kept, epoch: 0 };
    const found = await describeDatabase(this.#login(tenant, secrets), DESCRIBE_BOUNDS);
    return { kept: found.epoch > 0, epoch: found.epoch };
  }

  async keep(tenant: Tenant, secrets: TenantSecretData): Promise<void> {
    const { servers, seal } = this.#options;
    const { serverName, config } = tenant.spec;
    if (servers) await writeKeepsake(servers.of(tenant), seal, storageOf(tenant), { serverName, secrets, config });
  }

  async keptData(tenant: string): Promise<KeptData> {
    const { servers, seal } = this.#options;
    if (!servers) return { hasDatabase: false };
    const found = await Promise.all(servers.all.map(({ login }) => readKeptData(login, seal, tenant)));
    // Where its database was before it was moved, an older one may be kept.
    const whole = found.find(({ hasDatabase }) => hasDatabase);
    if (whole) return whole;
    const stranded = found.flatMap((each) => each.stranded ?? []);
    const best = found.find(({ keepsake }) => keepsake) ?? { hasDatabase: false };
    return stranded.length > 0 ? { ...best, stranded } : best;
  }

  async drop(tenant: string): Promise<void> {
    for (const { login } of this.#options.servers?.all ?? []) await dropTenantDatabase(login, tenant);
  }

  async fenceOff(tenant: Tenant): Promise<void> {
    const { servers } = this.#options;
    if (servers && !ownDatabase(tenant.spec.config)) await shutOut(servers.of(tenant), storageOf(tenant));
  }

  fence(tenant: Tenant, secrets: TenantSecretData): Promise<FenceState | undefined> {
    return explained(() => readFence(this.#login(tenant, secrets), DESCRIBE_BOUNDS));
  }

  release(tenant: Tenant, secrets: TenantSecretData, owner: string): Promise<boolean> {
    return explained(() => releaseFence(this.#login(tenant, secrets), owner, tenant.status.epoch, DESCRIBE_BOUNDS));
  }

  grant(tenant: Tenant, secrets: TenantSecretData): Promise<void> {
    return explained(() => grantFence(this.#login(tenant, secrets), DESCRIBE_BOUNDS));
  }

  describe(tenant: Tenant, secrets: TenantSecretData): Promise<StoredSchema | undefined> {
    const login = this.#login(tenant, secrets);
    return explained(async () => {
      const found = await describeDatabase(login, DESCRIBE_BOUNDS);
      if (!found.exists)
        throw new StartFailure(
          "DatabaseMissing",
          `PostgreSQL at ${login.host}:${login.port} has no database ${login.database}`,
        );
      const { schemaVersion, schemaCompatVersion, epoch } = found;
      return schemaVersion === undefined
        ? undefined
        : { schemaVersion, schemaCompatVersion: schemaCompatVersion ?? schemaVersion, epoch };
    });
  }

  identify(tenant: Tenant, secrets: TenantSecretData): Promise<string | undefined> {
    return explained(() => identifyDatabase(this.#login(tenant, secrets), DESCRIBE_BOUNDS));
  }

  async usage(tenants: readonly string[]): Promise<Map<string, DatabaseUsage>> {
    const found = (await this.#options.servers?.fromAll((login) => databaseUsage(login, tenants))) ?? [];
    return new Map(found.flatMap((figures) => [...figures]));
  }

  async activeSeconds(tenants: readonly string[]): Promise<Map<string, number>> {
    const found = (await this.#options.servers?.fromAll((login) => databaseSeconds(login, tenants))) ?? [];
    return new Map(found.flatMap((figures) => [...figures]));
  }

  readUsage(tenant: Tenant, secrets: TenantSecretData, question: UsageQuestion): Promise<UsageReading> {
    return explained(() => readTenantUsage(this.#login(tenant, secrets), tenant.spec.serverName, question));
  }

  listUsers(tenant: Tenant, secrets: TenantSecretData, query: UserQuery): Promise<UserPage> {
    return explained(() => readUsers(this.#login(tenant, secrets), query));
  }

  async endOverdue(): Promise<string[]> {
    return ((await this.#options.servers?.fromAll((login) => endOverdue(login))) ?? []).flat();
  }

  async migration(version: string): Promise<Migration> {
    const { preparer, release } = await this.#prepare(version);
    return {
      run: async (tenant: string, shard: string, assignment: Assignment) => {
        await preparer.migrate({ name: tenant, shard, instance: `migration-${randomUUID()}`, assignment });
      },
      close: release,
    };
  }

  async close(): Promise<void> {
    await Promise.all([...this.#preparers].map((preparer) => preparer.close()));
  }

  #login(tenant: Tenant, secrets: TenantSecretData) {
    const own = ownDatabase(tenant.spec.config);
    if (own) return loginTo(own);
    const { name, ...place } = this.address(tenant);
    return { ...place, password: secrets.databasePassword, database: name };
  }

  async #prepare(version: string, commandMs?: number): Promise<{ preparer: WarmPreparer; release(): Promise<void> }> {
    if (this.#running >= PREPARERS_AT_ONCE) await new Promise<void>((go) => this.#queue.push(go));
    else this.#running += 1;
    const next = () => {
      const go = this.#queue.shift();
      if (go) go();
      else this.#running -= 1;
    };
    try {
      const preparer = await this.#options.preparers.start(version, commandMs);
      this.#preparers.add(preparer);
      const release = async () => {
        if (!this.#preparers.delete(preparer)) return;
        next();
        await preparer.close();
      };
      return { preparer, release };
    } catch (error) {
      next();
      throw error;
    }
  }
}

/** @throws StartFailure for what a tenant's owner can fix */
async function explained<T>(ask: () => Promise<T>): Promise<T> {
  try {
    return await ask();
  } catch (error) {
    if (!(error instanceof UserError) || error instanceof DatabaseTrouble) throw error;
    const reason =
      error.code === "Unauthorized"
        ? "DatabaseAuthenticationFailed"
        : error.code === "NotFound"
          ? "DatabaseMissing"
          : "DatabaseUnreachable";
    throw new StartFailure(reason, error.message, { cause: error });
  }
}
