import { z } from "zod";
import { failures, type Api, type RouteContext } from "./api.ts";
import { TenantSchema } from "./schemas.ts";
import { viewOfTenant } from "./views.ts";

const RenameTenantBody = z
  .strictObject({ to: z.string().min(1).max(63).describe("The new name, a DNS label that no other tenant has.") })
  .meta({ id: "RenameTenant" });

export function renameRoutes(app: Api, { service }: RouteContext): void {
  app.post(
    "/v1/tenants/:name/rename",
    {
      schema: {
        operationId: "renameTenant",
        summary:
          "Asks for another name of the tenant; done when there is a tenant of that name. Its server name and data stay as they are",
        tags: ["tenants"],
        params: z.object({ name: z.string() }),
        body: RenameTenantBody,
        response: {
          202: TenantSchema.describe("The tenant, with status.rename until it is done."),
          ...failures(404, 409, 422, 503),
        },
      },
    },
    async ({ params, body }, reply) => {
      const tenant = await service.renameTenant(params.name, body);
      return reply.code(202).send(viewOfTenant(tenant, service.urlOf(tenant), false));
    },
  );
}
