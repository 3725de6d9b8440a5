import { z } from "zod";
import { AdminAccessSchema, type AdminAccessView, type AdminSession } from "../model/admin-access.ts";
import { UserError } from "../model/errors.ts";
import type { Scope } from "./access/scope.ts";
import { failures, type Api, type RouteContext } from "./api.ts";
import { UserParams } from "./user-routes.ts";

const ViewSchema = z
  .object({
    open: z.boolean().describe("Whether its administrators may come in."),
    allowedNetworks: z.array(z.string()).describe("Where they may come from; none: anywhere."),
    address: z
      .string()
      .optional()
      .describe("Where an admin UI finds the homeserver; absent where there is no entrance."),
    ui: z.string().optional().describe("The admin UI of the configuration, with that address filled in."),
    tenantAdmins: z.boolean().describe("Whether tenant admins may open and close it."),
  })
  .meta({ id: "AdminAccess" }) satisfies z.ZodType<AdminAccessView>;

const SessionSchema = z
  .object({
    userId: z.string(),
    token: z.string().describe("Of the session, to be given to the admin UI; it is shown here alone."),
    expiresAt: z.string(),
    woken: z.boolean().describe("Whether the tenant slept, and was woken for it."),
    address: z.string().describe("Where an admin UI finds the homeserver."),
    ui: z.string().optional().describe("The admin UI of the configuration, with that address filled in."),
  })
  .meta({ id: "AdminSession" }) satisfies z.ZodType<AdminSession>;

const Params = z.object({ name: z.string() });
const PATH = "/v1/tenants/:name/admin-access";
const tags = ["tenants"];

/** A tenant's own administrators, with Synapse's admin API. */
export function adminAccessRoutes(app: Api, { service }: RouteContext): void {
  app.get(
    PATH,
    {
      schema: {
        operationId: "getAdminAccess",
        summary: "Whether a tenant's own administrators reach its admin API, and where",
        tags,
        params: Params,
        response: { 200: ViewSchema.describe("What holds."), ...failures(404) },
      },
    },
    async ({ params }) => service.adminAccessOf(params.name),
  );

  app.put(
    PATH,
    {
      schema: {
        operationId: "openAdminAccess",
        summary: "Opens a tenant to its own administrators, from these networks in place of those before",
        description: "A tenant admin may do so where the operator allows it (`gateway.adminAccess.tenantAdmins`).",
        tags,
        params: Params,
        body: AdminAccessSchema,
        response: { 200: ViewSchema.describe("What holds now, at all gateways."), ...failures(404, 409, 422) },
      },
    },
    async ({ params, body, scope }) => {
      await refuseTenantAdmin(params.name, scope);
      return service.changeAdminAccess(params.name, body);
    },
  );

  app.delete(
    PATH,
    {
      schema: {
        operationId: "closeAdminAccess",
        summary: "Closes a tenant to its own administrators; requests under way end",
        tags,
        params: Params,
        response: { 200: ViewSchema.describe("What holds now, at all gateways."), ...failures(404, 409) },
      },
    },
    async ({ params, scope }) => {
      await refuseTenantAdmin(params.name, scope);
      return service.changeAdminAccess(params.name, undefined);
    },
  );

  app.post(
    "/v1/tenants/:name/users/:user/admin-session",
    {
      schema: {
        operationId: "openAdminSession",
        summary:
          "Signs in to a tenant's admin UI as one of its administrators, for an hour; wakes the tenant, if it sleeps",
        description: "The tenant has to be open to its administrators, and keep its accounts itself.",
        tags,
        params: UserParams,
        response: { 200: SessionSchema.describe("The session."), ...failures(404, 409, 422, 503, 504) },
      },
    },
    async ({ params, scope }, reply) => {
      await refuseTenantAdmin(params.name, scope);
      return reply.header("cache-control", "no-store").send(await service.openAdminSession(params.name, params.user));
    },
  );

  async function refuseTenantAdmin(name: string, scope: Scope): Promise<void> {
    if (scope.isAll || (await service.adminAccessOf(name)).tenantAdmins) return;
    throw new UserError(
      "Forbidden",
      "whether a tenant is open to its administrators is the operator's to say: gateway.adminAccess.tenantAdmins is not set",
    );
  }
}
