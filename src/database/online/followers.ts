import { OWN_SERVER } from "../../model/database-servers.ts";
import { UserError } from "../../model/errors.ts";
import { storageOf } from "../../model/storage-name.ts";
import type { Tenant } from "../../model/tenant.ts";
import type { TenantSecretData } from "../../model/tenant-secrets.ts";
import { NotFollowed, type CopyProgress } from "../../ports/database-moves.ts";
import type { DatabaseLogin } from "../../ports/databases.ts";
import { asAdmin, DEFAULT_BOUNDS, withConnection, type AdminLogin } from "../connection.ts";
import { drop, exists, lockedOn, loginOn, open } from "../copies.ts";
import { besideNames, isMovedBy, streamName, tenantDatabaseName } from "../names.ts";
import type { PgPrograms } from "../pg-programs.ts";
import { dropRole } from "../roles.ts";
import type { DatabaseServers } from "../servers.ts";
import { databasesAmong } from "../stranded.ts";
import { Follower, type FollowStage } from "./follower.ts";
import { closeSource } from "./source.ts";
import { dropStreamRole, streamRoles } from "./stream-role.ts";
import { whyNotFollowed } from "./shape.ts";
import { backgroundUpdates } from "./tables.ts";

const MAKES_STREAM_ROLES = 160_000;

interface Following {
  follower: Follower;
  target: AdminLogin;
}

/** Copies that are made while their tenants run, by this process. */
export class Followers {
  readonly #servers: DatabaseServers;
  readonly #programs: PgPrograms;
  readonly #reached: (stage: FollowStage) => void;
  readonly #copyMs: number;
  readonly #following = new Map<string, Following>();
  /** What is being removed of copies, by their tenants. */
  readonly #leaving = new Map<string, Promise<void>>();

  constructor(servers: DatabaseServers, programs: PgPrograms, reached: (stage: FollowStage) => void, copyMs: number) {
    this.#servers = servers;
    this.#copyMs = copyMs;
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
    { to, onProgress, signal }: { to: string; onProgress: (progress: CopyProgress) => void; signal: AbortSignal },
  ): Promise<void> {
    const name = storageOf(tenant);
    await this.leave(name);
    const installation = await this.#servers.installation();
    const source = this.#servers.of(tenant);
    const target = this.#servers.named(to);
    // Nothing is awaited between this and where `leave` finds it.
    signal.throwIfAborted();
    if (this.#following.has(name)) throw new UserError("Conflict", "it is being copied already");
    const follower = new Follower({
      tenant: name,
      installation,
      source,
      target,
      former: loginOf(source, tenant, databasePassword),
      programs: this.#programs,
      onProgress,
      copyMs: this.#copyMs,
      reached: this.#reached,
    });
    this.#following.set(name, { follower, target });
    const leaveMine = async () => {
      // Asked for again meanwhile, the next one has taken its place.
      if (this.#following.get(name)?.follower === follower) await this.leave(name).catch(() => {});
    };
    signal.addEventListener("abort", () => void leaveMine(), { once: true });
    try {
      await follower.ready;
    } catch (error) {
      await leaveMine();
      throw error;
    }
  }

  /** @throws NotFollowed; UserError where the database stays where it is; HalfMoved */
  async finish(name: string, epoch: number): Promise<{ tables: number; rows: number }> {
    const following = this.#following.get(name);
    if (!following) throw new NotFollowed("no copy follows it");
    const contents = await following.follower.finish(epoch);
    if (this.#following.get(name) === following) this.#following.delete(name);
    return contents;
  }

  /** One after the other, so that what is removed is never what another one has begun. */
  async leave(name: string): Promise<void> {
    const before = this.#leaving.get(name);
    const following = this.#following.get(name);
    if (!following) return before;
    this.#following.delete(name);
    const mine = (async () => {
      await before?.catch(() => {});
      try {
        await following.follower.end();
      } finally {
        await discard(following.target, name);
      }
    })();
    this.#leaving.set(name, mine);
    try {
      await mine;
    } finally {
      if (this.#leaving.get(name) === mine) this.#leaving.delete(name);
    }
  }

  async clean(tenants: Iterable<Tenant>, secretsOf: (storage: string) => Promise<TenantSecretData>): Promise<void> {
    const known = new Map([...tenants].map((tenant) => [streamName(storageOf(tenant)), tenant]));
    const installation = await this.#servers.installation();
    let failure: unknown;
    const attempt = (work: Promise<void>) => work.catch((error: unknown) => void (failure ??= error));
    for (const { login: server, name } of this.#servers.all) {
      // One that cannot be cleaned keeps nobody else's from it.
      const roles = await asAdmin(server, DEFAULT_BOUNDS, (client) => streamRoles(client, installation)).catch(
        (error: unknown) => {
          failure ??= error;
          return [];
        },
      );
      for (const { role, may, isOurs } of roles) {
        const owner = known.get(role);
        // Another installation's, or nobody's that we know: its own cleans it.
        if (!(isOurs ?? (owner !== undefined && this.#servers.of(owner) === server))) continue;
        // One that only stays until it can be removed has nothing in the database, which a switch may have closed just now.
        const tenant = may ? owner : undefined;
        if (!this.#busy().some((each) => streamName(each) === role))
          await attempt(this.#cleanRole(server, role, tenant, secretsOf));
      }
      await attempt(this.#cleanCopies(server, name, known.values(), installation));
    }
    if (failure) throw failure;
  }

  /** Tenants with a copy of this process, or with one that is being removed. */
  #busy(): string[] {
    return [...this.#following.keys(), ...this.#leaving.keys()];
  }

  /** Copies on a server that has no database of their tenant, and is to get none. */
  async #cleanCopies(
    server: AdminLogin,
    serverName: string,
    tenants: Iterable<Tenant>,
    installation: string,
  ): Promise<void> {
    const there = await asAdmin(server, DEFAULT_BOUNDS, async (client) => {
      const sql = "SELECT datname AS name FROM pg_database WHERE datname ~ '^(filling|restored)_'";
      const { rows } = await client.query<{ name: string }>(sql);
      return databasesAmong(
        client,
        rows.map(({ name }) => name),
      );
    });
    const left = new Set(there.filter(({ comment }) => isMovedBy(comment, installation)).map(({ name }) => name));
    for (const name of this.#busy()) for (const database of Object.values(besideNames(name))) left.delete(database);
    if (left.size === 0) return;
    for (const tenant of tenants) {
      const name = storageOf(tenant);
      const { filling, restored } = besideNames(name);
      const found = [filling, restored].filter((database) => left.delete(database));
      const { databaseServer = OWN_SERVER, databaseMove } = tenant.status;
      if (found.length === 0 || databaseServer === serverName || databaseMove || this.#busy().includes(name)) continue;
      // One that is whole is kept where the tenant's own is not to be found.
      if (found.includes(restored) && (await this.#isInPlace(tenant)))
        await lockedOn(server, name, (client) => drop(client, restored));
      await discard(server, name);
    }
    // Of tenants that are gone; of one that is only deleted, a whole one may be the only one.
    for (const database of left) {
      if (!database.startsWith("filling_")) continue;
      await asAdmin(server, DEFAULT_BOUNDS, async (client) => {
        await drop(client, database);
        const role = database.slice("filling_".length);
        if (!(await exists(client, role))) await dropRole(client, role);
      });
    }
  }

  #isInPlace(tenant: Tenant): Promise<boolean> {
    const own = tenantDatabaseName(storageOf(tenant));
    return asAdmin(this.#servers.of(tenant), DEFAULT_BOUNDS, (client) => exists(client, own));
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
      const login = loginOf(server, tenant, (await secretsOf(name)).databasePassword);
      // A switch that a crash has ended left it closed.
      await lockedOn(server, name, async (client) => {
        if (await exists(client, login.database)) await open(client, login.database);
      });
      await closeSource(server, name, login);
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
    await dropRole(client, own);
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
