import { UserError } from "../../model/errors.ts";
import type { Tenant } from "../../model/tenant.ts";
import type { AppServicePing } from "../../model/app-service.ts";
import { localpartOf, type OpenedSession, type UserChange, type UserPage, type UserQuery } from "../../model/user.ts";
import { ShardRefusal, ShardUnreachable, type ShardControl } from "../../ports/shard-control.ts";
import type { ControllerContext } from "../context.ts";
import { asItRuns } from "../start/configs.ts";
import type { ChangedUser } from "./cluster-service.ts";
import type { SleepService } from "./sleep-service.ts";

/** What operators do with a tenant's accounts: they are read in its database, and changed by the shard that runs it. */
export class TenantUsers {
  readonly #context: ControllerContext;
  readonly #sleep: SleepService;

  constructor(context: ControllerContext, sleep: SleepService) {
    this.#context = context;
    this.#sleep = sleep;
  }

  /** Wakes nobody. */
  async list(tenant: Tenant, query: UserQuery): Promise<UserPage> {
    const runs = tenant.status.provisioned ? await asItRuns(this.#context, tenant) : undefined;
    if (!runs) throw new UserError("Conflict", `tenant ${tenant.metadata.name} has no database yet, and so no users`);
    return this.#context.databases.listUsers(runs.tenant, runs.secrets, query);
  }

  /** Wakes the tenant if it sleeps. */
  change(tenant: Tenant, user: string, change: UserChange): Promise<ChangedUser> {
    return this.#ofUser(tenant, user, "changes no users", async (shard, localpart) => {
      const userId = await shard.changeUser(tenant.metadata.name, localpart, change);
      return userId === undefined ? undefined : { userId };
    });
  }

  /** Wakes the tenant if it sleeps. @param user an administrator of it */
  openSession(tenant: Tenant, user: string, seconds: number): Promise<OpenedSession & ChangedUser> {
    return this.#ofUser(tenant, user, "opens no sessions", (shard, localpart) =>
      shard.openSession(tenant.metadata.name, localpart, seconds),
    );
  }

  /** Wakes the tenant if it sleeps. */
  pingAppService(tenant: Tenant, id: string): Promise<AppServicePing & { woken: boolean }> {
    return this.#atShard(tenant, "pings no application services", (shard) =>
      shard.pingAppService(tenant.metadata.name, id),
    );
  }

  #ofUser<T extends object>(
    tenant: Tenant,
    user: string,
    lacks: string,
    ask: (shard: ShardControl, localpart: string) => Promise<T | undefined>,
  ): Promise<T & { woken: boolean }> {
    const { name } = tenant.metadata;
    const { serverName } = tenant.spec;
    const localpart = localpartOf(user, serverName);
    if (localpart === undefined)
      throw new UserError(
        "InvalidInput",
        `${JSON.stringify(user.slice(0, 300))} is no user of tenant ${name}; allowed is NAME or @NAME:${serverName}`,
      );
    return this.#atShard(tenant, lacks, (shard) => ask(shard, localpart));
  }

  /** @param ask has no answer from a shard that `lacks` it @throws UserError */
  async #atShard<T extends object>(
    tenant: Tenant,
    lacks: string,
    ask: (shard: ShardControl) => Promise<T | undefined>,
  ): Promise<T & { woken: boolean }> {
    const { name } = tenant.metadata;
    const woken = tenant.status.sleep !== undefined;
    const { phase, shard } = (await this.#sleep.awake(tenant)).status;
    const client = shard === undefined ? undefined : this.#context.shardClients.get(shard);
    if (phase !== "Running" || !client)
      throw new UserError("Unavailable", `tenant ${name} is ${phase}; this can be done while it runs on a shard`);
    try {
      const found = await ask(client);
      if (found) return { ...found, woken };
    } catch (error) {
      throw refusalOf(error, name);
    }
    throw new UserError("Unavailable", `shard ${shard} is of a version that ${lacks}: move tenant ${name}`);
  }
}

function refusalOf(error: unknown, tenant: string): unknown {
  if (error instanceof ShardUnreachable)
    return new UserError("Unavailable", `${error.message}; try again`, { cause: error });
  if (!(error instanceof ShardRefusal)) return error;
  const { code, message } = error;
  if (code === "UserNotFound" || code === "AppServiceNotFound")
    return new UserError("NotFound", message, { cause: error });
  // It has left the shard meanwhile.
  if (code === "NotFound")
    return new UserError("Unavailable", `tenant ${tenant} is on its way; try again`, { cause: error });
  return new UserError(code === "InvalidArgument" ? "InvalidInput" : "Conflict", message, { cause: error });
}
