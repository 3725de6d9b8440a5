import { messageOf, UserError } from "../../model/errors.ts";
import { storageOf } from "../../model/storage-name.ts";
import type { Tenant } from "../../model/tenant.ts";
import type { TenantSecretData } from "../../model/tenant-secrets.ts";
import { NotFollowed, type CopyProgress } from "../../ports/database-moves.ts";
import type { DatabaseLogin } from "../../ports/databases.ts";
import { asAdmin, DEFAULT_BOUNDS, identifier, withConnection, type AdminLogin } from "../connection.ts";
import { drop, exists, lockedOn, loginOn } from "../copies.ts";
import { besideNames, streamName, tenantDatabaseName } from "../names.ts";
import type { PgPrograms } from "../pg-programs.ts";
import type { DatabaseServers } from "../servers.ts";
import { Follower, type FollowStage } from "./follower.ts";
import { closeSource } from "./source.ts";
import { dropStreamRole, streamRoles } from "./stream-role.ts";
import { backgroundUpdates, whyNotFollowed } from "./tables.ts";

const MAKES_STREAM_ROLES = 160_000;

interface Following {
  follower: Follower;
  target: AdminLogin;
}

/** Copies that are made while their tenants run, by this process. */
export class OnlineCopies {
  readonly #servers: DatabaseServers;
  readonly #programs: PgPrograms;
  readonly #reached: (stage: FollowStage) => void;
  readonly #following = new Map<string, Following>();

  constructor(servers: DatabaseServers, programs: PgPrograms, reached: (stage: FollowStage) => void) {
    this.#servers = servers;
    this.#programs = programs;
    this.#reached = reached;
  }

  async whyNot(
    tenant: Tenant,
    { databasePassword }: TenantSecretData,
    to: string,
  ): Promise<{ words: string; isPassing: boolean } | undefined> {
    const source = this.#servers.of(tenant);
    const words = (await whyNoStream(source)) ?? (await whyNoCopy(this.#servers.named(to)));
    if (words !== undefined) return { words, isPassing: false };
    const former = loginOf(source, tenant, databasePassword);
    return withConnection(former, former.database, async (client) => {
      const never = await whyNotFollowed(client);
      if (never !== undefined) return { words: never, isPassing: false };
      const updates = await backgroundUpdates(client);
      if (updates.length === 0) return undefined;
      const names = `background updates of Synapse are under way in it (${updates.join(", ")})`;
      return { words: `${names}: its tables and indexes may change`, isPassing: true };
    });
  }

  async follow(
    tenant: Tenant,
    { databasePassword }: TenantSecretData,
    { to, onProgress }: { to: string; onProgress: (progress: CopyProgress) => void },
  ): Promise<void> {
    const name = storageOf(tenant);
    await this.leave(name);
    const source = this.#servers.of(tenant);
    const target = this.#servers.named(to);
    const follower = new Follower({
      tenant: name,
      source,
      target,
      former: loginOf(source, tenant, databasePassword),
      programs: this.#programs,
      onProgress,
      reached: this.#reached,
    });
    this.#following.set(name, { follower, target });
    try {
      await follower.ready;
    } catch (error) {
      // Asked for again meanwhile, the next one has taken its place.
      if (this.#following.get(name)?.follower === follower) await this.leave(name).catch(() => {});
      throw error;
    }
  }

  /** @throws NotFollowed; UserError where the database stays where it is */
  async finish(name: string, epoch: number): Promise<{ tables: number; rows: number }> {
    const following = this.#following.get(name);
    if (!following) throw new NotFollowed("no copy follows it");
    const { failure } = following.follower;
    if (failure) throw new NotFollowed(`its copy has come to nothing: ${messageOf(failure)}`, { cause: failure });
    const contents = await following.follower.finish(epoch);
    this.#following.delete(name);
    return contents;
  }

  async leave(name: string): Promise<void> {
    const following = this.#following.get(name);
    if (!following) return;
    this.#following.delete(name);
    try {
      await following.follower.end();
    } finally {
      await discard(following.target, name);
    }
  }

  async clean(tenants: Iterable<Tenant>, secretsOf: (storage: string) => Promise<TenantSecretData>): Promise<void> {
    const known = new Map([...tenants].map((tenant) => [streamName(storageOf(tenant)), tenant]));
    let failure: unknown;
    for (const { login: server } of this.#servers.all)
      try {
        for (const role of await asAdmin(server, DEFAULT_BOUNDS, streamRoles)) {
          const tenant = known.get(role);
          if (tenant && this.#following.has(storageOf(tenant))) continue;
          await this.#cleanRole(server, role, tenant, secretsOf);
        }
      } catch (error) {
        failure ??= error;
      }
    if (failure) throw failure;
  }

  async #cleanRole(
    server: AdminLogin,
    role: string,
    tenant: Tenant | undefined,
    secretsOf: (storage: string) => Promise<TenantSecretData>,
  ): Promise<void> {
    try {
      if (!tenant || this.#servers.of(tenant) !== server)
        return await asAdmin(server, DEFAULT_BOUNDS, (client) => dropStreamRole(client, role));
      const name = storageOf(tenant);
      await closeSource(server, name, loginOf(server, tenant, (await secretsOf(name)).databasePassword));
    } catch (error) {
      // Its database is set aside, or nobody is let in: what is in there is removed before the next copy.
      if (!(error instanceof UserError) || !["NotFound", "Unauthorized"].includes(error.code)) throw error;
      await asAdmin(server, DEFAULT_BOUNDS, (client) => dropStreamRole(client, role));
    }
  }
}

function loginOf(server: AdminLogin, tenant: Tenant, password: string): DatabaseLogin {
  const database = tenantDatabaseName(storageOf(tenant));
  return { ...loginOn(server, database, password), database };
}

/** Removes what there is of a copy, and the role that has nothing else there. */
async function discard(target: AdminLogin, name: string): Promise<void> {
  const own = tenantDatabaseName(name);
  const { filling, restored, replaced, moved } = besideNames(name);
  await lockedOn(target, name, async (client) => {
    await drop(client, filling);
    for (const database of [own, restored, replaced, moved]) if (await exists(client, database)) return;
    await client.query(`DROP ROLE IF EXISTS ${identifier(own)}`);
  });
}

/** Why changes cannot be streamed from a server, or undefined. */
async function whyNoStream(server: AdminLogin): Promise<string | undefined> {
  const { level, version, may, slots, senders } = await asAdmin(server, DEFAULT_BOUNDS, async (client) => {
    const { rows } = await client.query<{
      level: string;
      version: number;
      may: boolean;
      slots: boolean;
      senders: boolean;
    }>(
      `SELECT current_setting('wal_level') AS level, current_setting('server_version_num')::int AS version,
              rolsuper OR (rolreplication AND current_setting('server_version_num')::int >= $1) AS may,
              (SELECT count(*) FROM pg_replication_slots) < current_setting('max_replication_slots')::int AS slots,
              (SELECT count(*) FROM pg_stat_replication) < current_setting('max_wal_senders')::int AS senders
       FROM pg_roles WHERE rolname = current_user`,
      [MAKES_STREAM_ROLES],
    );
    const [found] = rows;
    if (!found) throw new UserError("Environment", `there is no role ${server.user}`);
    return found;
  });
  return streamProblem({
    level,
    version,
    may,
    slots,
    senders,
    user: server.user,
    where: `${server.host}:${server.port}`,
  });
}

export interface StreamFacts {
  level: string;
  version: number;
  /** Make roles with REPLICATION. */
  may: boolean;
  /** Are left. */
  slots: boolean;
  senders: boolean;
  user: string;
  where: string;
}

/** What to do about a server that streams no changes, or undefined. */
export function streamProblem({ level, version, may, slots, senders, user, where }: StreamFacts): string | undefined {
  const server = `the server that has it (${where})`;
  if (level !== "logical") return `${server} has wal_level ${level}: set it to logical, and restart that server`;
  if (!may && version < MAKES_STREAM_ROLES)
    return `${user} is no superuser on ${server}, and PostgreSQL before 16 lets nobody else make roles with REPLICATION`;
  if (!may) return `${user} may make no roles with REPLICATION on ${server}: ALTER ROLE ${user} REPLICATION`;
  if (!slots) return `${server} has no replication slot left: raise max_replication_slots`;
  return senders ? undefined : `${server} has no connection left for replication: raise max_wal_senders`;
}

/** Why changes cannot be made again on a server, or undefined. */
async function whyNoCopy(server: AdminLogin): Promise<string | undefined> {
  const may = await asAdmin(server, DEFAULT_BOUNDS, async (client) => {
    const { rows } = await client.query<{ may: boolean }>(
      `SELECT rolsuper OR has_parameter_privilege(current_user, 'session_replication_role', 'SET') AS may
       FROM pg_roles WHERE rolname = current_user`,
    );
    return rows[0]?.may ?? false;
  });
  if (may) return undefined;
  const grant = `GRANT SET ON PARAMETER session_replication_role TO ${server.user}`;
  return `${server.user} may not keep triggers from running on ${server.host}:${server.port}: ${grant}`;
}
