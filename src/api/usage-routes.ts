import { z } from "zod";
import { failures, type Api, type RouteContext } from "./api.ts";
import { notFound } from "./access/authorization.ts";
import { ownedWithin, tenantsWithin } from "./access/limited-views.ts";
import { monthText, UsageMonthSchema } from "./schemas.ts";

/** What tenants took, by month. */
export function usageRoutes(app: Api, { service }: RouteContext): void {
  app.get(
    "/v1/usage",
    {
      schema: {
        operationId: "listUsage",
        summary: "What tenants took: a row per tenant and month",
        tags: ["tenants"],
        querystring: z.object({
          tenant: z.string().optional().describe("Only tenants of this name, also deleted ones: all months of 13."),
          month: monthText.optional().describe("In UTC, such as 2026-01; default: this month, or all of one tenant."),
        }),
        response: {
          200: z.object({ items: z.array(UsageMonthSchema) }).describe("The rows."),
          ...failures(404, 409, 422),
        },
      },
    },
    async ({ query, scope }) => {
      if (!scope.isAll && query.tenant !== undefined && !(await tenantsWithin(service, scope)).has(query.tenant))
        throw notFound(query.tenant);
      return { items: await ownedWithin(service, scope, await service.usageHistory(query)) };
    },
  );
}
