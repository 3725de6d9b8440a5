import { z } from "zod";
import { INSTALLING, type Tenant } from "../model/tenant.ts";
import { failures, type Api, type RouteContext } from "./api.ts";
import { requireRole } from "./access/authorization.ts";
import {
  CreateTenantBody,
  flag,
  MoveSchema,
  MoveTenantBody,
  RegisterUserBody,
  TenantRestSchema,
  TenantSchema,
  TenantUsageSchema,
  UpdateTenantBody,
  wholeNumber,
} from "./schemas.ts";
import { TenantPages, TenantsQuery } from "./tenant-pages.ts";
import { viewOfTenant } from "./views.ts";

/** As many lines of a log as one call gives. */
const MAX_TAIL = 100_000;

export const LogQuery = z.object({
  tail: wholeNumber(MAX_TAIL).optional().describe("Lines from the end to begin with."),
  follow: flag.describe("Go on with new lines as they come."),
});

const Params = z.object({ name: z.string() });
const tags = ["tenants"];

export function tenantRoutes(app: Api, { service, sendLines }: RouteContext): void {
  const view = (tenant: Tenant, includeConfig = false) => viewOfTenant(tenant, service.urlOf(tenant), includeConfig);
  const pages = new TenantPages(() => service.listTenants());

  app.get(
    "/v1/tenants",
    {
      schema: {
        operationId: "listTenants",
        summary: "Tenants: all, by name, or those that are asked for",
        tags,
        querystring: TenantsQuery,
        response: {
          200: z
            .object({ items: z.array(TenantSchema), total: z.int().describe("With those beyond the limit.") })
            .describe("The tenants."),
          ...failures(422),
        },
      },
    },
    async ({ query, scope }) => {
      const { tenants, total } = await pages.page(query, scope);
      return { items: tenants.map((tenant) => view(tenant)), total };
    },
  );

  app.post(
    "/v1/tenants",
    {
      schema: {
        operationId: "createTenant",
        summary: "Creates a tenant; it is placed and started in the background",
        tags,
        body: CreateTenantBody,
        response: {
          201: TenantSchema.describe("The new tenant."),
          202: TenantSchema.describe("The new tenant, whose release is being installed."),
          ...failures(409, 422),
        },
      },
    },
    async ({ body }, reply) => {
      const tenant = await service.createTenant(body);
      return reply.code(isInstalling(tenant) ? 202 : 201).send(view(tenant));
    },
  );

  app.get(
    "/v1/tenants/:name",
    {
      schema: {
        operationId: "getTenant",
        summary: "One tenant",
        tags,
        params: Params,
        querystring: z.object({ includeConfig: flag.describe("Show spec.config, which may hold secrets.") }),
        response: { 200: TenantSchema.describe("The tenant."), ...failures(404, 422) },
      },
    },
    async ({ params, query, actor, scope }) => {
      // A tenant admin writes it, and so may read it.
      if (query.includeConfig && scope.isAll)
        requireRole(actor, "operator", "a configuration may hold secrets; reading one");
      return view(await service.getTenant(params.name), query.includeConfig);
    },
  );

  app.get(
    "/v1/tenants/:name/usage",
    {
      schema: {
        operationId: "tenantUsage",
        summary: "What the tenant takes of its shard and of the database server",
        tags,
        params: Params,
        response: { 200: TenantUsageSchema.describe("What is known by now."), ...failures(404) },
      },
    },
    async ({ params }) => service.tenantUsage(params.name),
  );

  app.patch(
    "/v1/tenants/:name",
    {
      schema: {
        operationId: "updateTenant",
        summary: "Changes the wished release or configuration; the controller then makes it so",
        tags,
        params: Params,
        body: UpdateTenantBody,
        response: {
          200: TenantSchema.describe("The changed tenant."),
          202: TenantSchema.describe("The changed tenant, whose new release is being installed."),
          ...failures(404, 409, 422),
        },
      },
    },
    async ({ params, body }, reply) => {
      const tenant = await service.updateTenant(params.name, body);
      return reply.code(isInstalling(tenant) ? 202 : 200).send(view(tenant));
    },
  );

  app.delete(
    "/v1/tenants/:name",
    {
      config: { access: "admin" },
      schema: {
        operationId: "deleteTenant",
        summary: "Asks for deletion; the tenant is gone when it is not found any more",
        tags,
        params: Params,
        querystring: z.object({ purge: flag.describe("Remove its database and media too; else they are kept.") }),
        response: { 202: TenantSchema.describe("The tenant, being deleted."), ...failures(404, 422) },
      },
    },
    async ({ params, query }, reply) => {
      const tenant = await service.deleteTenant(params.name, { purge: query.purge });
      return reply.code(202).send(view(tenant));
    },
  );

  app.post(
    "/v1/tenants/:name/move",
    {
      schema: {
        operationId: "moveTenant",
        summary: "Asks for a move; its result is the tenant's status.lastMove of the same id",
        tags,
        params: Params,
        body: MoveTenantBody,
        response: { 202: MoveSchema.describe("The move that begins."), ...failures(404, 409, 422) },
      },
    },
    async ({ params, body }, reply) => reply.code(202).send(await service.moveTenant(params.name, body)),
  );

  for (const lift of [false, true])
    app[lift ? "delete" : "put"](
      "/v1/tenants/:name/quarantine",
      {
        schema: {
          operationId: lift ? "liftQuarantine" : "quarantineTenant",
          summary: lift
            ? "Lets a quarantined tenant share a shard again"
            : "Gives a tenant a shard of its own, until this is lifted",
          tags,
          params: Params,
          response: { 200: TenantSchema.describe("The tenant."), ...failures(404) },
        },
      },
      async ({ params }) => view(await service.quarantineTenant(params.name, { lift })),
    );

  for (const [verb, summary, lift] of [
    ["suspend", "Suspends a tenant: it runs nowhere, its requests are refused, and its data and keys stay", false],
    ["resume", "Takes a suspension back; the tenant is placed and started in the background", true],
  ] as const)
    app.post(
      `/v1/tenants/:name/${verb}`,
      {
        schema: {
          operationId: `${verb}Tenant`,
          summary,
          tags,
          params: Params,
          response: { 202: TenantSchema.describe("The tenant."), ...failures(404, 409) },
        },
      },
      async ({ params }, reply) => reply.code(202).send(view(await service.suspendTenant(params.name, { lift }))),
    );

  for (const [verb, summary, act] of [
    ["sleep", "Puts a tenant to sleep, if it owes nothing to anybody", (name: string) => service.sleepTenant(name)],
    ["wake", "Wakes a tenant", (name: string) => service.wakeTenant(name)],
  ] as const)
    app.post(
      `/v1/tenants/:name/${verb}`,
      {
        schema: {
          operationId: `${verb}Tenant`,
          summary,
          tags,
          params: Params,
          response: { 202: TenantSchema.describe("The tenant."), ...failures(404, 409, 503) },
        },
      },
      async ({ params }, reply) => reply.code(202).send(view(await act(params.name))),
    );

  app.get(
    "/v1/tenants/:name/rest",
    {
      schema: {
        operationId: "getTenantRest",
        summary: "Whether a tenant may sleep, what keeps it awake, and when it is woken",
        tags,
        params: Params,
        response: { 200: TenantRestSchema.describe("How it is."), ...failures(404) },
      },
    },
    async ({ params }) => service.restOf(params.name),
  );

  app.post(
    "/v1/tenants/:name/users",
    {
      schema: {
        operationId: "registerUser",
        summary: "Registers a user of the tenant",
        tags,
        params: Params,
        body: RegisterUserBody,
        response: {
          201: z.object({ userId: z.string() }).describe("The new user."),
          ...failures(404, 409, 422, 503),
        },
      },
    },
    async ({ params, body }, reply) => reply.code(201).send(await service.registerUser(params.name, body)),
  );

  app.get(
    "/v1/tenants/:name/logs",
    {
      config: { access: "operator" },
      schema: {
        operationId: "tenantLogs",
        summary: "Lines of the log that concern the tenant, oldest first",
        tags,
        produces: ["text/plain"],
        params: Params,
        querystring: LogQuery,
        response: {
          200: { description: "Lines of text.", content: { "text/plain": { schema: z.string() } } },
          ...failures(404, 422),
        },
      },
    },
    async ({ params, query, scope }, reply) => {
      await service.getTenant(params.name);
      await sendLines(reply, {
        contentType: "text/plain; charset=utf-8",
        lines: (signal) => service.tenantLog(params.name, { ...query, signal, isOwnOnly: !scope.isAll }),
      });
    },
  );
}

function isInstalling({ status }: Tenant): boolean {
  return status.reason === INSTALLING;
}
