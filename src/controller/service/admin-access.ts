import {
  adminAccessView,
  type AdminAccess,
  type AdminAccessConfig,
  type AdminAccessView,
  type AdminSession,
} from "../../model/admin-access.ts";
import { defined } from "../../model/defined.ts";
import { UserError } from "../../model/errors.ts";
import type { Tenant } from "../../model/tenant.ts";
import { modify } from "../../ports/store.ts";
import { recordEvent, type ControllerContext } from "../context.ts";
import { routeOf } from "../routes/routes.ts";
import type { TenantUsers } from "./tenant-users.ts";

/** Where the gateway listens for administrators. */
export type AdminEntrance = AdminAccessConfig & { listensAt: number };

/** As long as a task takes; a token that lies somewhere is of no use to others then. */
const SESSION_SECONDS = 3600;

/** Opens tenants to their own administrators, and closes them; signs people in there. */
export class AdminAccessService {
  readonly #context: ControllerContext;
  readonly #entrance: AdminEntrance | undefined;
  readonly #urlOf: (tenant: Tenant) => string;
  readonly #users: Pick<TenantUsers, "openSession">;

  constructor(
    context: ControllerContext,
    settings: { adminEntrance?: AdminEntrance; urlOf(tenant: Tenant): string },
    users: Pick<TenantUsers, "openSession">,
  ) {
    this.#context = context;
    this.#users = users;
    this.#entrance = settings.adminEntrance;
    this.#urlOf = (tenant) => settings.urlOf(tenant);
  }

  view(tenant: Tenant): AdminAccessView {
    return adminAccessView(tenant.spec.adminAccess, this.#entrance, this.#urlOf(tenant));
  }

  /**
   * Signs somebody in as an administrator of the tenant; wakes it, if it sleeps.
   * @throws UserError Conflict where it is not open, or keeps no accounts itself
   */
  async openSession(tenant: Tenant, user: string): Promise<AdminSession> {
    const { name } = tenant.metadata;
    const { open, address, ui } = this.view(tenant);
    if (!open || address === undefined)
      throw new UserError("Conflict", `tenant ${name} is closed to its administrators: open it first`);
    const until = this.#context.clock.wall() + SESSION_SECONDS * 1000;
    const { userId, token, woken } = await this.#users.openSession(tenant, user, SESSION_SECONDS);
    await recordEvent(this.#context, {
      type: "Normal",
      reason: "AdminSessionOpened",
      object: `Tenant/${name}`,
      message: `somebody was signed in to ${name} as its administrator ${userId}, for ${SESSION_SECONDS / 60} minutes`,
    });
    return { userId, token, expiresAt: new Date(until).toISOString(), woken, address, ...defined({ ui }) };
  }

  /** Returns when gateways act on it, or have had their time to. @param access undefined: closes it @throws UserError Conflict */
  async change(name: string, access: AdminAccess | undefined): Promise<AdminAccessView> {
    if (access && !this.#entrance)
      throw new UserError(
        "Conflict",
        "the cluster has no entrance for administrators: set gateway.adminAccess in its configuration (docs/admin-access.md)",
      );
    let changed = false;
    const tenant = await modify(this.#context.store, "Tenant", name, ({ metadata, spec }) => {
      if (access && metadata.deletionTimestamp !== undefined)
        throw new UserError("Conflict", `tenant ${name} is being deleted`);
      changed = JSON.stringify(spec.adminAccess) !== JSON.stringify(access);
      if (!changed) return false;
      if (access) spec.adminAccess = access;
      else delete spec.adminAccess;
      return true;
    });
    if (!tenant) throw new UserError("NotFound", `there is no tenant ${name}`);
    if (!changed) return this.view(tenant);
    const { feed, claims } = this.#context;
    await feed.settled(feed.publish(routeOf(tenant, claims)));
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
