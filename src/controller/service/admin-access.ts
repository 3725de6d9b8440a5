import {
  adminAccessView,
  type AdminAccess,
  type AdminAccessConfig,
  type AdminAccessView,
  type AdminSession,
} from "../../model/admin-access.ts";
import { defined } from "../../model/defined.ts";
import { UserError } from "../../model/errors.ts";
import { timeText } from "../../model/clock.ts";
import type { OpenAdminSession, Tenant } from "../../model/tenant.ts";
import { modify } from "../../ports/store.ts";
import { recordEvent, type ControllerContext } from "../context.ts";
import { routeOf } from "../routes/routes.ts";
import { AdminSessions } from "../tenants/admin-sessions.ts";
import type { TenantUsers } from "./tenant-users.ts";

/** Where the gateway listens for administrators. */
export type AdminEntrance = AdminAccessConfig & { listensAt: number };

export interface AdminAccessSettings {
  /** Where administrators come in; absent: nowhere. */
  adminEntrance?: AdminEntrance;
  urlOf(tenant: Tenant): string;
  /** The object of its owner that says whether a tenant is open, and overrules what is written here; undefined where nothing does. */
  accessSaidIn?(tenant: string): string | undefined;
}

/** As long as a task takes; a token that lies somewhere is of no use to others then. */
const SESSION_SECONDS = 3600;
/** Of a tenant: each is written down. */
const MOST_SESSIONS = 100;

/** Opens tenants to their own administrators, and closes them; signs people in there. */
export class AdminAccessService {
  readonly #context: ControllerContext;
  readonly #settings: AdminAccessSettings;
  readonly #users: Pick<TenantUsers, "openSession">;
  readonly #sessions: AdminSessions;

  constructor(context: ControllerContext, settings: AdminAccessSettings, users: Pick<TenantUsers, "openSession">) {
    this.#context = context;
    this.#users = users;
    this.#sessions = new AdminSessions(context);
    this.#settings = settings;
  }

  view(tenant: Tenant): AdminAccessView {
    return adminAccessView(tenant.spec.adminAccess, this.#settings.adminEntrance, this.#settings.urlOf(tenant));
  }

  /**
   * Signs somebody in as an administrator of the tenant; wakes it, if it sleeps.
   * @throws UserError Conflict where it is not open, or keeps no accounts itself
   */
  async openSession(tenant: Tenant, user: string): Promise<AdminSession> {
    const { name } = tenant.metadata;
    const { clock, store } = this.#context;
    const { open, address, ui } = this.view(tenant);
    if (!open || address === undefined)
      throw new UserError("Conflict", `tenant ${name} is closed to its administrators: open it first`);
    if (stillOpen(tenant, clock.wall()).length >= MOST_SESSIONS)
      throw new UserError("Conflict", `${MOST_SESSIONS} sessions are open in ${name}; closing it ends them`);
    const asked = clock.wall() + SESSION_SECONDS * 1000;
    const { userId, token, woken, until = asked } = await this.#users.openSession(tenant, user, SESSION_SECONDS);
    const expiresAt = timeText(until);
    // Nobody has the token yet; where this cannot be written down, nobody gets it.
    let isLost = true;
    const known = await modify(store, "Tenant", name, (now) => {
      isLost = !now.spec.adminAccess || isLeaving(now);
      const session = { userId, until: expiresAt, ...(isLost ? { ending: true as const } : {}) };
      now.status.adminSessions = [...stillOpen(now, clock.wall()), session];
    });
    if (!known || isLost) {
      if (known) await this.#sessions.settle(known);
      const why = known?.spec.adminAccess ? "left for a dedicated process" : "was closed to its administrators";
      throw new UserError("Conflict", `tenant ${name} ${why} meanwhile`);
    }
    await recordEvent(this.#context, {
      type: "Normal",
      reason: "AdminSessionOpened",
      object: `Tenant/${name}`,
      message: `somebody was signed in to ${name} as its administrator ${userId}, for ${SESSION_SECONDS / 60} minutes`,
    });
    return { userId, token, expiresAt, woken, address, ...defined({ ui }) };
  }

  /**
   * Returns when gateways act on it, or have had their time to. Closing ends the sessions that were opened here; of a tenant that runs nowhere,
   * when it runs again.
   * @param access undefined: closes it @throws UserError Conflict
   */
  async change(name: string, access: AdminAccess | undefined): Promise<AdminAccessView> {
    if (access && !this.#settings.adminEntrance)
      throw new UserError(
        "Conflict",
        "the cluster has no entrance for administrators: set gateway.adminAccess in its configuration (docs/admin-access.md)",
      );
    let changed = false;
    const tenant = await modify(this.#context.store, "Tenant", name, ({ metadata, spec, status }) => {
      if (access && metadata.deletionTimestamp !== undefined)
        throw new UserError("Conflict", `tenant ${name} is being deleted`);
      changed = JSON.stringify(spec.adminAccess) !== JSON.stringify(access);
      if (!changed) return false;
      const place = this.#settings.accessSaidIn?.(name);
      if (place !== undefined)
        throw new UserError(
          "Conflict",
          `whether tenant ${name} is open to its administrators is said in ${place}: change it there; docs/admin-access.md says how an operator closes it against its owner's word`,
        );
      if (access) spec.adminAccess = access;
      else delete spec.adminAccess;
      // Also where it is opened again before they could be ended.
      if (!access) for (const session of status.adminSessions ?? []) session.ending = true;
      return true;
    });
    if (!tenant) throw new UserError("NotFound", `there is no tenant ${name}`);
    const { feed, claims } = this.#context;
    if (changed) await feed.settled(feed.publish(routeOf(tenant, claims)));
    if (!access) await this.#sessions.settle(tenant);
    if (!changed) return this.view(tenant);
    const from = access?.allowedNetworks.length ? `from ${access.allowedNetworks.join(", ")}` : "from any network";
    await recordEvent(this.#context, {
      type: "Normal",
      reason: access ? "AdminAccessOpened" : "AdminAccessClosed",
      object: `Tenant/${name}`,
      message: access
        ? `${name} is open to its own administrators ${from}`
        : `${name} is closed to its own administrators`,
    });
    return this.view(tenant);
  }
}

/** For a dedicated process: the sessions that its shard ends before it lets it go may have been read already. */
function isLeaving({ status: { transition, dedicated } }: Tenant): boolean {
  return dedicated !== undefined || (transition?.to === "dedicated" && transition.step !== "Preparing");
}

function stillOpen({ status: { adminSessions = [] } }: Tenant, now: number): OpenAdminSession[] {
  return adminSessions.filter(({ until }) => Date.parse(until) > now);
}
