import {
  chooseServer,
  fullServersWords,
  OWN_SERVER,
  type ServerLoad,
  type ServerShare,
} from "../model/database-servers.ts";
import { StartFailure } from "../model/errors.ts";
import type { Tenant } from "../model/tenant.ts";
import type { Placed } from "../ports/databases.ts";
import { asAdmin, DEFAULT_BOUNDS, type AdminLogin } from "./connection.ts";
import { besideNames, MOVED_HERE, tenantDatabaseName } from "./names.ts";
import { databasesAmong, keptWords } from "./stranded.ts";
import { listTenantDatabases } from "./tenant-database.ts";

export interface DatabaseServer extends ServerShare {
  login: AdminLogin;
}

/** What a tenant's record says of its database. */
export type Recorded = Pick<Tenant, "status">;

/** Longer than it takes from being chosen to being made, where that happens at all. */
const TO_COME_MS = 3_600_000;

/**
 * The PostgreSQL servers that are ours. A tenant's record names the one that has its database; absent: the cluster's own, which is the first. Where
 * there is no record (a tenant that was deleted, or is to be made; a store that was lost), the databases themselves tell.
 */
export class DatabaseServers {
  readonly all: readonly DatabaseServer[];
  readonly #recorded: (storage: string) => Recorded | undefined;
  /** Databases that are to be made: a server does not count them yet. */
  readonly #toCome = new Map<string, { server: string; since: number }>();
  #turn: Promise<unknown> = Promise.resolve();
  #installation: string | undefined;

  /** @param recorded the record of the tenant whose data are named so (`storageOf`) */
  constructor(
    servers: readonly DatabaseServer[],
    recorded: (storage: string) => Recorded | undefined = () => undefined,
  ) {
    if (servers.length === 0) throw new Error("there is no server");
    this.all = servers;
    this.#recorded = recorded;
  }

  static single(login: AdminLogin): DatabaseServers {
    return new DatabaseServers([{ name: OWN_SERVER, weight: 1, login }]);
  }

  /** Tells what is this installation's on a server that others use as well: the number that its own server was made with. */
  async installation(): Promise<string> {
    this.#installation ??= await asAdmin(this.main, DEFAULT_BOUNDS, async (client) => {
      const may = "SELECT has_function_privilege('pg_control_system()', 'EXECUTE') AS may";
      if (!(await client.query<{ may: boolean }>(may)).rows[0]?.may) return `${this.main.host}:${this.main.port}`;
      const { rows } = await client.query<{ id: string }>(
        "SELECT system_identifier::text AS id FROM pg_control_system()",
      );
      return rows[0]!.id;
    });
    return this.#installation;
  }

  get main(): AdminLogin {
    return this.all[0]!.login;
  }

  /** @throws StartFailure DatabaseServerUnknown */
  named(name: string): AdminLogin {
    const found = this.all.find((server) => server.name === name);
    if (found) return found.login;
    const known = this.all.map((server) => server.name).join(", ");
    throw new StartFailure(
      "DatabaseServerUnknown",
      `its database is on the server ${name}, which databaseServers does not name (there are: ${known}): put that server back`,
    );
  }

  /** @throws StartFailure DatabaseServerUnknown */
  of({ status }: Placed): AdminLogin {
    return status.databaseServer === undefined ? this.main : this.named(status.databaseServer);
  }

  /** The server that has a tenant's database, or is to have it. @throws StartFailure, UserError */
  async forTenant(tenant: string): Promise<AdminLogin> {
    return this.named(await this.placeFor(tenant));
  }

  /**
   * The same by its name. One that is chosen for a new database is counted from then on.
   * @throws UserError Unavailable where a server does not answer that might have it; StartFailure DatabaseServersFull
   */
  placeFor(tenant: string): Promise<string> {
    const known = this.#known(tenant);
    if (known !== undefined) return Promise.resolve(known);
    const mine = this.#turn.then(async () => (await this.#holderOf(tenant)) ?? (await this.#choose(tenant)));
    this.#turn = mine.catch(() => {});
    return mine;
  }

  /** Where its database is, if there is one. @throws UserError Unavailable */
  async holderOf(tenant: string): Promise<AdminLogin | undefined> {
    const known = this.#known(tenant) ?? (await this.#holderOf(tenant));
    return known === undefined ? undefined : this.named(known);
  }

  #known(tenant: string): string | undefined {
    if (this.all.length === 1) return this.all[0]!.name;
    const record = this.#recorded(tenant);
    // One that was not provisioned yet is nowhere, or where it was found.
    return record?.status.databaseServer ?? (record?.status.provisioned ? this.all[0]!.name : undefined);
  }

  async #holderOf(tenant: string): Promise<string | undefined> {
    const { restored, replaced, moved } = besideNames(tenant);
    const names = [tenantDatabaseName(tenant), restored, replaced, moved];
    const found = await Promise.all(
      this.all.map(async ({ login, name }) => {
        const there = await asAdmin(login, DEFAULT_BOUNDS, (client) => databasesAmong(client, names));
        // A copy whose move was taken back has the name as well.
        const ranks = there.map((row) => names.indexOf(row.name) + (row.comment.startsWith(MOVED_HERE) ? 0.5 : 0));
        return { name, rank: Math.min(...ranks) };
      }),
    );
    const [best] = found.filter(({ rank }) => Number.isFinite(rank)).toSorted((a, b) => a.rank - b.rank);
    return best?.name;
  }

  /** How many databases each has, with those that are to come. @throws UserError Unavailable */
  loads(): Promise<ServerLoad[]> {
    return Promise.all(
      this.all.map(async ({ login, ...share }) => {
        const there = new Set(await listTenantDatabases(login));
        for (const [name, { server }] of this.#toCome)
          if (server === share.name) {
            // It is counted as what it is, once it is there.
            if (there.has(tenantDatabaseName(name))) this.#toCome.delete(name);
            else there.add(tenantDatabaseName(name));
          }
        return { ...share, databases: there.size };
      }),
    );
  }

  async #choose(tenant: string): Promise<string> {
    if (this.#recorded(tenant)?.status.databaseKept)
      throw new StartFailure("DatabaseMissing", keptWords(tenant, this.all.map(({ name }) => name).join(", ")));
    const now = performance.now();
    for (const [name, { since }] of this.#toCome) if (now - since > TO_COME_MS) this.#toCome.delete(name);
    const chosenBefore = this.#toCome.get(tenant);
    if (chosenBefore) return chosenBefore.server;
    const loads = await this.loads();
    const chosen = chooseServer(loads);
    if (chosen === undefined) throw new StartFailure("DatabaseServersFull", fullServersWords(loads));
    this.#toCome.set(tenant, { server: chosen, since: now });
    return chosen;
  }

  /** Asks each; one that does not answer keeps nobody from the others' answers. @throws UserError where none answers */
  async fromAll<T>(ask: (login: AdminLogin, name: string) => Promise<T>): Promise<T[]> {
    const answers = await Promise.allSettled(this.all.map(({ login, name }) => ask(login, name)));
    const good = answers.filter((answer) => answer.status === "fulfilled").map(({ value }) => value);
    const bad = answers.find((answer) => answer.status === "rejected");
    if (good.length === 0 && bad) throw bad.reason;
    return good;
  }
}
