import { storageOf } from "../model/storage-name.ts";
import type pg from "pg";
import { messageOf, UserError } from "../model/errors.ts";
import type { ServerLoad } from "../model/database-servers.ts";
import type { Tenant } from "../model/tenant.ts";
import type { TenantSecretData } from "../model/tenant-secrets.ts";
import { HalfMoved, type CopyProgress, type DatabaseMoves, type MovedDatabase } from "../ports/database-moves.ts";
import type { DatabaseLogin } from "../ports/databases.ts";
import { asAdmin, DEFAULT_BOUNDS, withConnection, type AdminLogin } from "./connection.ts";
import { contentsOf, differences, totalOf, type Contents } from "./contents.ts";
import {
  commentOf,
  drop,
  emptyBeside,
  exists,
  lockedOn,
  loginOn,
  open,
  readyBeside,
  rename,
  SNAPSHOT_BOUNDS,
} from "./copies.ts";
import { fenceAgainstAll } from "./fence.ts";
import { besideNames, MOVED_HERE, movedHere, tenantDatabaseName } from "./names.ts";
import { copiedWithin, COPY_MS, pgDump, type PgPrograms } from "./pg-programs.ts";
import { restoreDump } from "./restore-dump.ts";
import { dropRole } from "./roles.ts";
import { Followers } from "./online/followers.ts";
import type { FollowStage } from "./online/follower.ts";
import type { DatabaseServers } from "./servers.ts";

/** What is left between two crashes, in this order: a test ends the process at each. */
export type MoveStage = FollowStage | "fenced" | "copied" | "ready" | "aside" | "exchanged";

/**
 * Moves databases by pg_dump and pg_restore, while the tenant is parked or, with what is written meanwhile, while it runs. On the new server the
 * copy is made under another name; complete, it is `restored_…`. Then the former one becomes `moved_…`, and the copy takes the name of the tenant's database: there are never two of that name, and each step shows what comes next.
 */
export class PostgresMoves implements DatabaseMoves {
  readonly #servers: DatabaseServers;
  readonly #programs: PgPrograms;
  readonly #reached: (stage: MoveStage) => void;
  readonly #online: Followers;
  readonly #copyMs: number;

  /** @param reached told after each stage @param copyMs rows are copied within that */
  constructor(
    servers: DatabaseServers,
    programs: PgPrograms,
    reached: (stage: MoveStage) => void = () => {},
    copyMs = COPY_MS,
  ) {
    this.#copyMs = copyMs;
    this.#servers = servers;
    this.#programs = programs;
    this.#reached = reached;
    this.#online = new Followers(servers, programs, reached, copyMs);
  }

  servers(): Promise<ServerLoad[]> {
    return this.#servers.loads();
  }

  async bytes({ metadata, status }: Tenant): Promise<number> {
    const name = tenantDatabaseName(storageOf({ metadata, status }));
    return asAdmin(this.#servers.of({ metadata, status }), DEFAULT_BOUNDS, async (client) => {
      const sql = "SELECT pg_database_size(oid)::text AS bytes FROM pg_database WHERE datname = $1";
      return Number((await client.query<{ bytes: string }>(sql, [name])).rows[0]?.bytes ?? 0);
    });
  }

  async move(
    tenant: Tenant,
    secrets: TenantSecretData,
    options: { to: string; epoch: number; online?: boolean },
  ): Promise<MovedDatabase> {
    try {
      return await this.#move(tenant, secrets, options);
    } catch (error) {
      // What it was for is over, or begins again. The tenant does not wait for what is removed; what cannot be is looked for later (`cleanCopies`).
      if (!(error instanceof HalfMoved)) this.leave(storageOf(tenant)).catch(() => {});
      throw error;
    }
  }

  async #move(
    tenant: Tenant,
    { databasePassword: password }: TenantSecretData,
    { to, epoch, online = false }: { to: string; epoch: number; online?: boolean },
  ): Promise<MovedDatabase> {
    const name = storageOf(tenant);
    const own = tenantDatabaseName(name);
    const { restored, moved } = besideNames(name);
    const begun = performance.now();
    // One that is taken back has the same place on the other server.
    if (!online) await this.leave(name).catch(() => {});
    // Until it is known where the database is, it may be half on its way, and a start would find none.
    const { source, place } = await this.#finished(async () => {
      const server = this.#servers.of(tenant);
      return { source: server, place: await lockedOn(server, name, (client) => placeOf(client, own, moved)) };
    });
    if (place === "nowhere") throw new UserError("NotFound", `there is no database ${own}`);
    const target =
      place === "here" ? this.#servers.named(to) : await this.#finished(async () => this.#servers.named(to));
    const former: DatabaseLogin = { ...loginOn(source, own, password), database: own };
    let copied: { tables: number; rows: number } | undefined;
    if (place === "here") {
      await lockedOn(target, name, (client) => clearPlace(client, own, to));
      copied = online
        ? await this.#online.finish(name, epoch)
        : totalOf(await this.#copy(name, { former, target, password }, epoch));
      this.#reached("ready");
    }
    await this.#exchange(name, source, target);
    return this.#finished(async () => {
      const there = loginOn(target, own, password);
      const contents =
        copied ?? totalOf(await withConnection(there, own, (client) => contentsOf(client), SNAPSHOT_BOUNDS));
      // One that was set aside there by a move the other way is older than both.
      await lockedOn(target, name, async (client) => {
        for (const left of [moved, restored]) await drop(client, left);
      });
      return { ...contents, seconds: (performance.now() - begun) / 1000 };
    });
  }

  /** What has to be repeated, whatever it fails of. @throws HalfMoved */
  async #finished<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      throw new HalfMoved(`the database is on its way, which is not finished: ${messageOf(error)}`, { cause: error });
    }
  }

  /** @returns what is in it @throws UserError where it is not what is in the former one */
  async #copy(
    name: string,
    { former, target, password }: { former: DatabaseLogin; target: AdminLogin; password: string },
    epoch: number,
  ): Promise<Contents> {
    const { signal } = new AbortController();
    const comment = movedHere(former.host, await this.#servers.installation());
    await fenceAgainstAll(former, epoch, DEFAULT_BOUNDS);
    this.#reached("fenced");
    const filling = await lockedOn(target, name, (client) => emptyBeside(client, target, name, password));
    const expected = await withConnection(
      former,
      former.database,
      async (client) => {
        await client.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
        const { rows } = await client.query<{ id: string }>("SELECT pg_catalog.pg_export_snapshot() AS id");
        // On its way it would be compressed for nothing.
        await copiedWithin(this.#copyMs, signal, (until) => {
          const dump = pgDump(this.#programs, former, rows[0]?.id ?? "", until, ["--compress=0"]);
          return restoreDump(this.#programs, filling, dump, until);
        });
        return contentsOf(client);
      },
      SNAPSHOT_BOUNDS,
    ).catch(async (error: unknown) => {
      // What runs in there goes on without the one that has begun it.
      await lockedOn(target, name, (client) => drop(client, filling.database)).catch(() => {});
      throw error;
    });
    this.#reached("copied");
    const found = await withConnection(filling, filling.database, (client) => contentsOf(client), SNAPSHOT_BOUNDS);
    const different = differences(expected, found);
    if (different.length > 0)
      throw new UserError(
        "Environment",
        `the copy of ${former.database} is not what the database is: ${different.slice(0, 5).join(", ")}`,
      );
    await lockedOn(target, name, (client) => readyBeside(client, name, comment));
    return found;
  }

  /** @throws HalfMoved */
  async #exchange(name: string, source: AdminLogin, target: AdminLogin): Promise<void> {
    const own = tenantDatabaseName(name);
    const { restored, moved } = besideNames(name);
    await this.#finished(() =>
      lockedOn(source, name, async (client) => {
        if (!(await exists(client, own))) return;
        await drop(client, moved);
        await rename(client, own, moved, { closed: true });
      }),
    );
    this.#reached("aside");
    try {
      await lockedOn(target, name, async (client) => {
        if (await exists(client, restored)) await rename(client, restored, own);
        if (!(await exists(client, own))) throw new UserError("NotFound", `there is no copy ${restored}`);
        await open(client, own);
      });
    } catch (error) {
      await this.#putBack(name, source, error);
      throw error;
    }
    this.#reached("exchanged");
  }

  async #putBack(name: string, source: AdminLogin, why: unknown): Promise<void> {
    const own = tenantDatabaseName(name);
    const { moved } = besideNames(name);
    try {
      await lockedOn(source, name, async (client) => rename(client, moved, own));
    } catch (error) {
      const words = `the copy of ${own} cannot be put into its place (${messageOf(why)}), nor the former one put back (${messageOf(error)})`;
      throw new HalfMoved(words, { cause: error });
    }
  }

  whyNotOnline(tenant: Tenant, secrets: TenantSecretData, to: string) {
    return this.#online.whyNot(tenant, secrets, to);
  }

  async follow(
    tenant: Tenant,
    secrets: TenantSecretData,
    options: { to: string; onProgress: (progress: CopyProgress) => void; signal: AbortSignal },
  ): Promise<void> {
    const name = storageOf(tenant);
    const own = tenantDatabaseName(name);
    await lockedOn(this.#servers.named(options.to), name, (client) => clearPlace(client, own, options.to));
    await this.#online.follow(tenant, secrets, options);
  }

  leave(tenant: string): Promise<void> {
    return this.#online.leave(tenant);
  }

  cleanCopies(tenants: Iterable<Tenant>, secretsOf: (storage: string) => Promise<TenantSecretData>): Promise<void> {
    return this.#online.clean(tenants, secretsOf);
  }

  async forget(tenant: string, server: string): Promise<void> {
    const { moved } = besideNames(tenant);
    const own = tenantDatabaseName(tenant);
    await lockedOn(this.#servers.named(server), tenant, async (client) => {
      await drop(client, moved);
      if (await exists(client, own)) return;
      await dropRole(client, own);
    });
  }
}

/** Where the former database is: the tenant's still, or set aside. A renaming that was cut off left it closed. */
async function placeOf(client: pg.Client, own: string, moved: string): Promise<"here" | "aside" | "nowhere"> {
  if (!(await exists(client, own))) return (await exists(client, moved)) ? "aside" : "nowhere";
  await open(client, own);
  return "here";
}

/** A move that was taken back may have left its copy there; whatever else has the name is not ours to remove. @throws UserError Conflict */
async function clearPlace(client: pg.Client, own: string, to: string): Promise<void> {
  if (!(await exists(client, own))) return;
  if ((await commentOf(client, own)).startsWith(MOVED_HERE)) return drop(client, own);
  throw new UserError(
    "Conflict",
    `${to} has a database ${own} already, which no record names: find out what it is, and drop it`,
  );
}
