import { createRootRoute, createRoute, createRouter, lazyRouteComponent, redirect } from "@tanstack/react-router";
import type { TenantsSearch } from "./api/queries.ts";
import { Frame } from "./ui/frame.tsx";
import { NotFound } from "./ui/states.tsx";

const root = createRootRoute({ component: Frame, notFoundComponent: NotFound });

const home = createRoute({
  getParentRoute: () => root,
  path: "/",
  beforeLoad: () => {
    throw redirect({ to: "/overview", replace: true });
  },
});
// What it shows is there without a session, and so the frame's.
const enrol = createRoute({ getParentRoute: () => root, path: "/enrol", component: () => null });
const overview = createRoute({
  getParentRoute: () => root,
  path: "/overview",
  component: lazyRouteComponent(() => import("./screens/overview.tsx"), "Overview"),
});
const events = createRoute({
  getParentRoute: () => root,
  path: "/events",
  component: lazyRouteComponent(() => import("./screens/events.tsx"), "Events"),
});
const TABS = ["state", "timeline", "configuration", "users", "backups", "check", "log"] as const;
const SORTS = ["name", "serverName", "phase", "shard", "release", "created"] as const;
const ORDERS = ["ascending", "descending"] as const;

const oneOf = <T extends string>(known: readonly T[], value: unknown): T | undefined =>
  known.find((one) => one === value);
const textOf = (value: unknown): string | undefined =>
  typeof value === "string" && value !== "" ? value : typeof value === "number" ? String(value) : undefined;

const tenants = createRoute({
  getParentRoute: () => root,
  path: "/tenants",
  component: lazyRouteComponent(() => import("./screens/tenants.tsx"), "Tenants"),
  validateSearch: (given: Record<string, unknown>): TenantsSearch => ({
    search: textOf(given["search"]),
    phase: textOf(given["phase"]),
    shard: textOf(given["shard"]),
    release: textOf(given["release"]),
    selector: textOf(given["selector"]),
    sort: oneOf(SORTS, given["sort"]),
    order: oneOf(ORDERS, given["order"]),
  }),
});
const tenant = createRoute({
  getParentRoute: () => root,
  path: "/tenants/$name",
  component: lazyRouteComponent(() => import("./screens/tenant.tsx"), "Tenant"),
  validateSearch: (given: Record<string, unknown>): { tab?: (typeof TABS)[number] } => ({
    tab: oneOf(TABS, given["tab"]),
  }),
});
const shards = createRoute({
  getParentRoute: () => root,
  path: "/shards",
  component: lazyRouteComponent(() => import("./screens/shards.tsx"), "Shards"),
});
const shard = createRoute({
  getParentRoute: () => root,
  path: "/shards/$name",
  component: lazyRouteComponent(() => import("./screens/shards.tsx"), "Shard"),
  validateSearch: (given: Record<string, unknown>): { tab?: "log" } => ({ tab: oneOf(["log"] as const, given["tab"]) }),
});
const rollouts = createRoute({
  getParentRoute: () => root,
  path: "/rollouts",
  component: lazyRouteComponent(() => import("./screens/rollouts.tsx"), "Rollouts"),
});
const audit = createRoute({
  getParentRoute: () => root,
  path: "/audit",
  component: lazyRouteComponent(() => import("./screens/audit.tsx"), "Audit"),
});
const settings = createRoute({
  getParentRoute: () => root,
  path: "/settings",
  component: lazyRouteComponent(() => import("./screens/settings.tsx"), "Settings"),
});
const runbook = createRoute({
  getParentRoute: () => root,
  path: "/runbooks/$name",
  component: lazyRouteComponent(() => import("./screens/runbook.tsx"), "Runbook"),
});

export const router = createRouter({
  routeTree: root.addChildren([
    home,
    enrol,
    overview,
    tenants,
    tenant,
    shards,
    shard,
    rollouts,
    events,
    audit,
    settings,
    runbook,
  ]),
  defaultPreload: "intent",
  scrollRestoration: false,
});

declare module "@tanstack/react-router" {
  interface Register {
    router: typeof router;
  }
}
