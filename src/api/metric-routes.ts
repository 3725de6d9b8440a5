import { z } from "zod";
import { failures, type Api, type RouteContext } from "./api.ts";

const TEXT = "text/plain; version=0.0.4; charset=utf-8";

/** What a Prometheus gets that may see some tenants alone; docs/metrics.md, *A customer's Prometheus*. */
export function metricRoutes(app: Api, { service }: RouteContext): void {
  app.get(
    "/v1/tenants/:name/metrics",
    {
      schema: {
        operationId: "getTenantMetrics",
        summary: "A tenant's metrics, and no other's, in Prometheus' text format; wakes nobody",
        tags: ["tenants"],
        params: z.object({ name: z.string() }),
        response: {
          200: {
            description: "Its phase, and while it runs on a shard, what that exports of it.",
            content: { "text/plain": { schema: z.string() } },
          },
          ...failures(404, 503),
        },
      },
    },
    async ({ params }, reply) => reply.type(TEXT).send(await service.tenantMetrics(params.name)),
  );
}
