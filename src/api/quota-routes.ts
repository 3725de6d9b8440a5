import { z } from "zod";
import type { NamedPlan, TenantQuotas } from "../controller/service/cluster-service.ts";
import { QUOTA_STATES, QuotasSchema, type QuotaState } from "../model/quota.ts";
import { failures, type Api, type RouteContext } from "./api.ts";

const tags = ["tenants"];

const NamedPlanSchema = z
  .object({
    name: z.string(),
    quotas: QuotasSchema,
    tenants: z.int().describe("How many tenants have it."),
  })
  .meta({ id: "Plan" }) satisfies z.ZodType<NamedPlan>;

const TenantQuotasSchema = z
  .object({
    plan: z.string().optional(),
    quotas: z.array(
      z.object({
        quota: z.string(),
        hard: z.number().optional().describe("What would go beyond it is refused."),
        soft: z.number().optional().describe("From there on its operator is told."),
        used: z.number().optional(),
        state: z.enum(Object.keys(QUOTA_STATES) as [QuotaState, ...QuotaState[]]).optional(),
      }),
    ),
    at: z.string().optional().describe("When what can be measured was last measured."),
  })
  .meta({ id: "TenantQuotas" }) satisfies z.ZodType<TenantQuotas>;

/** Plans, and what tenants have of their quotas. */
export function quotaRoutes(app: Api, { service }: RouteContext): void {
  app.get(
    "/v1/plans",
    {
      schema: {
        operationId: "listPlans",
        summary: "Plans of the configuration: named sets of quotas",
        tags,
        response: { 200: z.object({ items: z.array(NamedPlanSchema) }).describe("They, by name."), ...failures() },
      },
    },
    async () => ({ items: await service.listPlans() }),
  );

  app.get(
    "/v1/tenants/:name/quotas",
    {
      schema: {
        operationId: "getTenantQuotas",
        summary: "A tenant's quotas, and what there is of each",
        tags,
        params: z.object({ name: z.string() }),
        response: { 200: TenantQuotasSchema.describe("Its plan's and its own."), ...failures(404) },
      },
    },
    async ({ params }) => service.quotasOf(params.name),
  );
}
