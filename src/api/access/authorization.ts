import type { FastifyInstance, FastifyRequest } from "fastify";
import { UserError } from "../../model/errors.ts";
import { mayActAs, type Actor, type ClusterRole, type Role } from "../../model/role.ts";
import type { Tenant } from "../../model/tenant.ts";
import { Scope } from "./scope.ts";
import { ruleOf } from "./tenant-admin-rules.ts";
import { withoutOthers } from "./without-others.ts";

/** Who may call a route: people with a role, gateways, or anybody who can reach the port. */
export type Access = ClusterRole | "gateway" | "anybody";

declare module "fastify" {
  interface FastifyContextConfig {
    /** Default: viewer for what only reads, operator for the rest. What a tenant admin may: `tenant-admin-rules.ts`. */
    access?: Access;
  }
  interface FastifyRequest {
    /** The tenants that whoever asks may see. */
    scope: Scope;
  }
}

/** What a token may call that a Prometheus has: whoever reads it there shall have no more of it. */
const OF_METRICS: ReadonlySet<string> = new Set(["whoAmI", "getTenantMetrics"]);

/**
 * Decides for every route whether whoever asks may call it, and for which tenants: for roles of the whole cluster by `config.access`, for tenant
 * admins by the table of rules. A tenant that is not theirs is answered like one that is not there.
 * @param tenantOf undefined: there is none
 */
export function registerAuthorization(
  app: FastifyInstance,
  tenantOf: (name: string) => Promise<Tenant | undefined>,
): void {
  app.decorateRequest("scope", null as unknown as Scope);
  app.addHook("onRequest", async (request) => {
    const { actor } = request;
    request.scope = Scope.of(actor);
    const access = accessTo(request);
    if (access === "anybody" || access === "gateway") return;
    if (request.scope.isAll) {
      requireRole(actor, access, "this call");
      return;
    }
    // What there is not is there for nobody.
    if (request.is404) return;
    const { operationId } = request.routeOptions.schema ?? {};
    if (actor?.role === "tenant-metrics" && !OF_METRICS.has(operationId ?? ""))
      refuse(actor, "this call is not about metrics: it", "tenant-admin");
    const rule = ruleOf(operationId);
    if (rule === "never") refuse(actor, "this call is for the whole cluster: it");
    if (rule === "everybody" || rule === "filtered") return;
    const { name } = request.params as { name: string };
    const tenant = await tenantOf(name);
    if (!tenant || !request.scope.includes(tenant.spec)) throw notFound(name);
    const { isStillGood, scope } = request;
    request.isStillGood = async () => {
      if ((await isStillGood?.()) === false) return false;
      // It may have become another customer's, or its name another tenant's. Who cannot be told it may ask again.
      const now = await tenantOf(name).catch(() => undefined);
      return now?.metadata.creationTimestamp === tenant.metadata.creationTimestamp && scope.includes(now.spec);
    };
  });
  app.addHook("preHandler", async ({ scope, routeOptions, body, actor }) => {
    if (!scope || scope.isAll) return;
    const rule = ruleOf(routeOptions.schema?.operationId);
    if (typeof rule !== "object") return;
    for (const field of Object.keys(Object(body) as object))
      if (!rule.own.includes(field)) refuse(actor, `${field} is not a tenant admin's to set: it`);
    const { labels } = Object(body) as { labels?: Record<string, unknown> };
    for (const key of Object.keys(labels ?? {}))
      if (scope.isLimitedBy(key)) refuse(actor, `the label ${key} says whose the tenant is: to change it`);
  });
  app.addHook("preSerialization", async ({ scope }, _reply, payload) =>
    !scope || scope.isAll ? payload : withoutOthers(payload),
  );
}

/** @param what what needs the role, in words @throws UserError Forbidden */
export function requireRole(actor: Actor | undefined, needed: ClusterRole, what: string): void {
  if (!actor || !mayActAs(actor.role, needed)) refuse(actor, what, needed);
}

export function accessTo({ method, routeOptions }: FastifyRequest): Access {
  return routeOptions.config.access ?? (method === "GET" || method === "HEAD" ? "viewer" : "operator");
}

/** The words of the service, so that the two cannot be told apart. */
export function notFound(name: string): UserError {
  return new UserError("NotFound", `there is no tenant ${name}`);
}

function refuse(actor: Actor | undefined, what: string, needed?: Role): never {
  const has = actor ? `the token ${actor.name} has the role ${actor.role}` : "nobody is known to ask";
  const needs = needed === undefined ? "a role of the cluster" : `the role ${needed}`;
  throw new UserError("Forbidden", `${what} needs ${needs}, and ${has}`);
}
