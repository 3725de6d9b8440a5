import { z } from "zod";
import { failures, type Api, type RouteContext } from "./api.ts";
import { DeletedTenantSchema, PurgeProofSchema, TenantSchema, wholeNumber } from "./schemas.ts";
import { viewOfDeleted, viewOfTenant } from "./views.ts";

const Params = z.object({ name: z.string() });
const tags = ["tenants"];
const MOST_PROOFS = 10_000;

/** Deleted tenants whose data is kept, and what remains of those whose data is gone. */
export function deletedRoutes(app: Api, { service }: RouteContext): void {
  app.get(
    "/v1/deleted-tenants",
    {
      schema: {
        operationId: "listDeletedTenants",
        summary: "Deleted tenants whose data is kept, by name",
        tags,
        response: { 200: z.object({ items: z.array(DeletedTenantSchema) }).describe("They."), ...failures() },
      },
    },
    async ({ scope }) => ({
      items: (await service.listDeleted()).filter(({ spec }) => scope.includes(spec)).map(viewOfDeleted),
    }),
  );

  app.post(
    "/v1/deleted-tenants/:name/undelete",
    {
      schema: {
        operationId: "undeleteTenant",
        summary: "Has a deleted tenant back, with its database, media and keys",
        tags,
        params: Params,
        response: { 202: TenantSchema.describe("The tenant; it is started in the background."), ...failures(404, 409) },
      },
    },
    async ({ params }, reply) => {
      const tenant = await service.undeleteTenant(params.name);
      return reply.code(202).send(viewOfTenant(tenant, service.urlOf(tenant)));
    },
  );

  app.delete(
    "/v1/deleted-tenants/:name",
    {
      config: { access: "admin" },
      schema: {
        operationId: "purgeTenant",
        summary: "Removes what is kept of a deleted tenant for good",
        tags,
        params: Params,
        response: { 200: PurgeProofSchema.describe("What remains of it."), ...failures(404, 409) },
      },
    },
    async ({ params }) => service.purgeTenant(params.name),
  );

  app.get(
    "/v1/purges",
    {
      schema: {
        operationId: "listPurges",
        summary: "What remains of tenants whose data was removed, oldest first",
        tags,
        querystring: z.object({ limit: wholeNumber(MOST_PROOFS).optional().describe("Only the newest ones.") }),
        response: { 200: z.object({ items: z.array(PurgeProofSchema) }).describe("The proofs."), ...failures(422) },
      },
    },
    async ({ query }) => ({ items: await service.listPurges(query.limit ?? MOST_PROOFS) }),
  );
}
