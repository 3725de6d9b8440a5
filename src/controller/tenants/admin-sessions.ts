import { messageOf } from "../../model/errors.ts";
import { localpartOf } from "../../model/user.ts";
import type { OpenAdminSession, Tenant } from "../../model/tenant.ts";
import type { ShardControl } from "../../ports/shard-control.ts";
import { modify } from "../../ports/store.ts";
import { recordEvent, type ControllerContext } from "../context.ts";

/** That a shard ends in one go. */
const AT_ONCE = 100;
const AGAIN_MS = 30_000;
/** A session this long past its end by our clock is over by the shard's clock as well. */
const CLOCKS_DIFFER_MS = 600_000;

/** Ends the sessions that were opened for people at a tenant's admin UI, when the tenant is closed to its administrators or leaves the shards. */
export class AdminSessions {
  readonly #context: ControllerContext;

  constructor(context: ControllerContext) {
    this.#context = context;
  }

  /**
   * Of a tenant that does not run on a shard, nobody is woken for it: the sessions end automatically within their time, and when it runs again
   * before that, this is called again.
   * @returns milliseconds until it is to be tried again
   */
  async settle(tenant: Tenant): Promise<number | undefined> {
    const toEnd = this.#toEnd(tenant);
    const client = this.#shardOf(tenant);
    if (toEnd.length === 0 || tenant.status.phase !== "Running" || !client) return undefined;
    try {
      await this.#end(tenant, toEnd.slice(0, AT_ONCE), client, "it is closed");
      return toEnd.length > AT_ONCE ? 0 : undefined;
    } catch (error) {
      const { name } = tenant.metadata;
      this.#context.log.warn({ tenant: name, why: messageOf(error) }, "sessions of a closed tenant are not ended yet");
      return AGAIN_MS;
    }
  }

  /**
   * Before a tenant's shard lets it go to a dedicated process, where nobody could end them. It does not wait for a shard that does not answer:
   * what is not ended then ends with its hour.
   */
  async endAll(tenant: Tenant): Promise<void> {
    const { adminSessions = [] } = tenant.status;
    if (adminSessions.length === 0) return;
    try {
      const client = this.#shardOf(tenant);
      if (!client) throw new Error(`shard ${tenant.status.shard} does not answer`);
      for (let n = 0; n < adminSessions.length; n += AT_ONCE)
        await this.#end(tenant, adminSessions.slice(n, n + AT_ONCE), client, "it leaves the shards");
    } catch (error) {
      this.#context.log.warn(
        { tenant: tenant.metadata.name, why: messageOf(error) },
        "sessions of a tenant that leaves the shards are not ended; they end within an hour",
      );
    }
  }

  async #end(tenant: Tenant, some: OpenAdminSession[], client: ShardControl, why: string): Promise<void> {
    const { metadata, spec, status } = tenant;
    const { name } = metadata;
    const now = this.#context.clock.wall();
    const sessions = some
      .map(({ userId, until }) => ({ user: localpartOf(userId, spec.serverName) ?? "", until: Date.parse(until) }))
      .filter(({ until }) => until > now - CLOCKS_DIFFER_MS);
    const ended = sessions.length === 0 ? 0 : await client.endSessions(name, sessions);
    if (ended === undefined) throw new Error(`shard ${status.shard} is of a version that ends no sessions`);
    const keys = new Set(some.map(keyOf));
    await modify(this.#context.store, "Tenant", name, ({ status: present }) => {
      const left = (present.adminSessions ?? []).filter((one) => !keys.has(keyOf(one)));
      if (left.length === present.adminSessions?.length || !present.adminSessions) return false;
      if (left.length === 0) delete present.adminSessions;
      else present.adminSessions = left;
      return true;
    });
    if (ended > 0)
      await recordEvent(this.#context, {
        type: "Normal",
        reason: "AdminSessionsEnded",
        object: `Tenant/${name}`,
        message: `${ended} of the sessions that were opened in ${name} for its admin UI were ended, as ${why}`,
      });
  }

  #shardOf({ status: { shard } }: Tenant): ShardControl | undefined {
    return shard === undefined ? undefined : this.#context.shardClients.get(shard);
  }

  #toEnd({ spec, status: { adminSessions = [] } }: Tenant): OpenAdminSession[] {
    return adminSessions.filter(({ ending }) => ending === true || spec.adminAccess === undefined);
  }
}

function keyOf({ userId, until }: OpenAdminSession): string {
  return `${until} ${userId}`;
}
