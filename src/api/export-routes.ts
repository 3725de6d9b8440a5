import { z } from "zod";
import { packed } from "../archives/tar.ts";
import type { ExportService } from "../controller/service/export-service.ts";
import { UserError } from "../model/errors.ts";
import { failures, type Api } from "./api.ts";

const TAR = "application/x-tar";

/**
 * @param exports absent where the platform exports nothing
 * @param stopping aborts when the API closes
 */
export function exportRoutes(app: Api, exports: ExportService | undefined, stopping: AbortSignal): void {
  // It reads only, and yet belongs into the audit log: whoever has the archive has the keys.
  app.post(
    "/v1/tenants/:name/export",
    {
      config: { access: "admin" },
      schema: {
        operationId: "exportTenant",
        summary: "Everything of a tenant as a tar from which a plain Synapse starts; docs/import-export.md",
        tags: ["tenants"],
        produces: [TAR],
        params: z.object({ name: z.string() }),
        response: {
          200: {
            description: "The archive, as it is made. It is complete if its last file is manifest.json.",
            content: { [TAR]: { schema: z.string() } },
          },
          ...failures(404, 409, 503),
        },
      },
    },
    async ({ params: { name } }, reply) => {
      if (!exports)
        throw new UserError(
          "Conflict",
          "this platform exports no tenants: database and media are their owner's (docs/backups.md, On Kubernetes)",
        );
      const gone = new AbortController();
      reply.raw.once("close", () => gone.abort());
      const files = await exports.export(name, AbortSignal.any([gone.signal, stopping]));
      // Kept alive, the connection would hold up the end of the API.
      void reply.type(TAR).header("cache-control", "no-store").header("connection", "close");
      return reply.send(packed(name, files) as never);
    },
  );
}
