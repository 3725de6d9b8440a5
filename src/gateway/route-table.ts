import type { Route } from "../model/routes.ts";

/** What became of one tenant's route; a side is missing where the tenant was not, or is no more. */
export interface RouteChange {
  tenant: string;
  before?: Route;
  after?: Route;
}

/** Which tenant a host names, and where it is. Holds only what the controller said: asking for an unknown host leaves no trace. */
export class RouteTable {
  readonly #byTenant = new Map<string, Route>();
  /** Claimants in the order they came: the first owns the host, so that a later tenant cannot take a name that is in use. */
  readonly #byHost = new Map<string, string[]>();
  /** Tenants by the names that they had before. */
  readonly #byFormer = new Map<string, string>();

  get size(): number {
    return this.#byTenant.size;
  }

  routes(): Route[] {
    return [...this.#byTenant.values()];
  }

  tenant(name: string): Route | undefined {
    return this.#byTenant.get(name);
  }

  /** The route that a tenant has under another name; not another one's that had its name before. */
  renamed({ tenant, hosts }: Route): Route | undefined {
    const route = this.#byTenant.get(this.#byFormer.get(tenant) ?? "");
    return route && hosts.some((host) => route.hosts.includes(host)) ? route : undefined;
  }

  /** @param host lower case, with or without port; a name with its port goes before the name alone */
  lookup(host: string): Route | undefined {
    const owner = this.#byHost.get(host)?.[0] ?? this.#byHost.get(host.replace(/:\d*$/, ""))?.[0];
    return owner === undefined ? undefined : this.#byTenant.get(owner);
  }

  /** Makes `routes` the whole table. */
  replace(routes: readonly Route[]): RouteChange[] {
    const stays = new Set(routes.map((route) => route.tenant));
    return this.update(
      routes,
      [...this.#byTenant.keys()].filter((tenant) => !stays.has(tenant)),
    );
  }

  /** Removals first: a host may pass from a removed tenant to a new one in the same update. */
  update(routes: readonly Route[], removed: readonly string[]): RouteChange[] {
    const changes: RouteChange[] = [];
    for (const tenant of removed) {
      const before = this.#byTenant.get(tenant);
      if (!before) continue;
      this.#disclaim(before);
      this.#forget(before);
      this.#byTenant.delete(tenant);
      changes.push({ tenant, before });
    }
    for (const heard of routes) {
      const known = this.#byTenant.get(heard.tenant);
      const before = known && !areOfOthers(known.hosts, heard.hosts) ? known : undefined;
      const route = withKnownSecret(heard, before);
      if (known) {
        this.#disclaim(known, route.hosts);
        this.#forget(known);
      }
      // Another tenant has the name.
      if (known && !before) changes.push({ tenant: known.tenant, before: known });
      if (route.formerly !== undefined) this.#byFormer.set(route.formerly, route.tenant);
      this.#byTenant.set(route.tenant, route);
      this.#claim(route);
      changes.push(before ? { tenant: route.tenant, before, after: route } : { tenant: route.tenant, after: route });
    }
    return changes;
  }

  #forget({ tenant, formerly }: Route): void {
    if (formerly !== undefined && this.#byFormer.get(formerly) === tenant) this.#byFormer.delete(formerly);
  }

  #claim(route: Route): void {
    for (const host of route.hosts) {
      const claimants = this.#byHost.get(host);
      if (!claimants) this.#byHost.set(host, [route.tenant]);
      else if (!claimants.includes(route.tenant)) claimants.push(route.tenant);
    }
  }

  #disclaim(route: Route, keep: readonly string[] = []): void {
    for (const host of route.hosts) {
      if (keep.includes(host)) continue;
      const left = (this.#byHost.get(host) ?? []).filter((tenant) => tenant !== route.tenant);
      if (left.length > 0) this.#byHost.set(host, left);
      else this.#byHost.delete(host);
    }
  }
}

/** A tenant keeps its server name, and with it a host, unless it has none at the time. */
function areOfOthers(hosts: readonly string[], others: readonly string[]): boolean {
  return hosts.length > 0 && others.length > 0 && !hosts.some((host) => others.includes(host));
}

/** A controller that has just started tells routes before it has asked the shards: what an address wanted before, it still wants. */
function withKnownSecret(route: Route, before: Route | undefined): Route {
  if (route.secret !== undefined || before?.secret === undefined) return route;
  const known = [before.address, before.draining];
  const address = route.address ?? route.draining;
  return address !== undefined && known.includes(address) ? { ...route, secret: before.secret } : route;
}
