import { z } from "zod";
import { failures, type Api, type RouteContext } from "./api.ts";

const PingSchema = z.object({
  milliseconds: z.int().min(0).optional().describe("Until it answered; absent where it did not."),
  problem: z.string().optional().describe("Why it is not there, in words."),
  woken: z.boolean().describe("Whether the tenant slept, and was woken for it."),
});

/** Bridges and bots of a tenant; which there are is in its configuration. */
export function appServiceRoutes(app: Api, { service }: RouteContext): void {
  app.post(
    "/v1/tenants/:name/app-services/:id/ping",
    {
      schema: {
        operationId: "pingAppService",
        summary:
          "Asks an application service whether it is there, and sends what it has not got; wakes the tenant, if it sleeps",
        tags: ["tenants"],
        params: z.object({ name: z.string(), id: z.string().max(255).describe("As in its registration.") }),
        response: { 200: PingSchema.describe("What it answered."), ...failures(404, 409, 503, 504) },
      },
    },
    async ({ params }) => service.pingAppService(params.name, params.id),
  );
}
