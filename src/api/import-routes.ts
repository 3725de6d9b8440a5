import { z } from "zod";
import type { ImportService } from "../controller/service/import-service.ts";
import { UserError } from "../model/errors.ts";
import { ImportRequestSchema } from "../model/import.ts";
import { failures, type Api } from "./api.ts";
import { isOwner } from "./access/authentication.ts";
import { JobSchema } from "./backup-routes.ts";

/** @param imports absent where the platform imports nothing */
export function importRoutes(app: Api, imports: ImportService | undefined): void {
  app.post(
    "/v1/tenants/:name/import",
    {
      config: { access: "admin" },
      schema: {
        operationId: "importTenant",
        summary: "Makes a tenant of a homeserver on the controller's machine; docs/import-export.md",
        description: "Needs the cluster's own token: it reads files of the controller's machine.",
        tags: ["tenants"],
        params: z.object({ name: z.string() }),
        body: ImportRequestSchema,
        response: {
          202: JobSchema.describe("The job; GET /v1/jobs/ID tells how it goes."),
          ...failures(409, 422),
        },
      },
    },
    async ({ params: { name }, body, actor }, reply) => {
      if (!imports)
        throw new UserError("Conflict", "this platform imports no homeservers; docs/kubernetes.md says how one comes");
      if (!isOwner(actor))
        throw new UserError(
          "Forbidden",
          "an import reads files of the controller's machine, so it needs the cluster's own token",
        );
      return reply.code(202).send(await imports.import(name, body));
    },
  );
}
