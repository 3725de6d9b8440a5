import { z } from "zod";
import type { ConfigVerdict } from "../model/config-verdict.ts";
import { CallsPerMinute } from "./access/tenant-admin-limits.ts";
import { failures, type Api, type RouteContext } from "./api.ts";

/** A configuration may name any host as its database's, which is asked from the controller's network. */
const CHECKS_PER_MINUTE = 10;

const VerdictSchema = z
  .object({
    verdict: z
      .enum(["Accepted", "Refused", "Unknown"])
      .describe("Unknown: nobody can judge it now; the message says why."),
    reason: z.string().optional().describe("Of a refusal, a code of the reference."),
    message: z.string().optional(),
    warnings: z.array(z.string()).describe("What is probably a mistake in an accepted one."),
  })
  .meta({ id: "ConfigVerdict" }) satisfies z.ZodType<ConfigVerdict>;

/** What would become of a configuration. */
export function configRoutes(app: Api, { service }: RouteContext): void {
  const checks = new CallsPerMinute(CHECKS_PER_MINUTE, "checks of configurations");
  app.post(
    "/v1/tenants/:name/config/check",
    {
      schema: {
        operationId: "checkConfig",
        summary: "What would become of a configuration, by the shard's check before a start; changes nothing",
        tags: ["tenants"],
        params: z.object({ name: z.string() }),
        body: z.strictObject({ config: z.string().describe("The tenant's own part of homeserver.yaml, as YAML.") }),
        response: { 200: VerdictSchema.describe("The verdict."), ...failures(404, 422, 429) },
      },
    },
    async ({ params, body, scope, actor }) => {
      if (!scope.isAll) checks.count(actor?.name ?? "");
      return service.checkConfig(params.name, body.config);
    },
  );
}
