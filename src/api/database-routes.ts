import { z } from "zod";
import { DATABASE_MOVE_WAYS } from "../model/database-move.ts";
import type { ServerLoad } from "../model/database-servers.ts";
import { failures, type Api, type RouteContext } from "./api.ts";
import { TenantSchema } from "./schemas.ts";
import { viewOfTenant } from "./views.ts";

const DatabaseServerSchema = z
  .object({
    name: z.string(),
    weight: z.number().describe("Of new databases it gets a part in proportion; 0: none."),
    maxDatabases: z.int().optional(),
    databases: z.int().describe("Of tenants, with those of deleted ones that are kept."),
  })
  .meta({ id: "DatabaseServer" }) satisfies z.ZodType<ServerLoad>;

const MoveDatabaseBody = z
  .strictObject({
    to: z.string().min(1).max(63).describe("The name of the server, of databaseServers."),
    way: z
      .enum(DATABASE_MOVE_WAYS)
      .optional()
      .describe(
        "online: copied while the tenant runs, with a short switch at the end; parked: copied while it does not answer. Default: by size.",
      ),
  })
  .meta({ id: "MoveDatabase" });

export function databaseRoutes(app: Api, { service }: RouteContext): void {
  app.get(
    "/v1/database-servers",
    {
      schema: {
        operationId: "listDatabaseServers",
        summary: "PostgreSQL servers that new tenants' databases are shared among",
        tags: ["cluster"],
        response: {
          200: z
            .object({ items: z.array(DatabaseServerSchema) })
            .describe("The servers; none where tenants bring theirs."),
          ...failures(503),
        },
      },
    },
    async () => ({ items: await service.listDatabaseServers() }),
  );

  app.post(
    "/v1/tenants/:name/move-database",
    {
      schema: {
        operationId: "moveDatabase",
        summary: "Asks for the tenant's database to be moved; its result is status.lastDatabaseMove of the same id",
        tags: ["tenants"],
        params: z.object({ name: z.string() }),
        body: MoveDatabaseBody,
        response: { 202: TenantSchema.describe("The tenant."), ...failures(404, 409, 422, 503) },
      },
    },
    async ({ params, body }, reply) => {
      const tenant = await service.moveDatabase(params.name, body);
      return reply.code(202).send(viewOfTenant(tenant, service.urlOf(tenant), false));
    },
  );

  app.delete(
    "/v1/tenants/:name/move-database",
    {
      schema: {
        operationId: "cancelDatabaseMove",
        summary: "Takes back a move of the tenant's database, while it is being copied",
        tags: ["tenants"],
        params: z.object({ name: z.string() }),
        response: { 200: TenantSchema.describe("The tenant."), ...failures(404, 409, 503) },
      },
    },
    async ({ params }) => {
      const tenant = await service.cancelDatabaseMove(params.name);
      return viewOfTenant(tenant, service.urlOf(tenant), false);
    },
  );
}
