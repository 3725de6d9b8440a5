import { z } from "zod";
import type { InspectionService } from "../controller/service/inspection-service.ts";
import { BackupTargetSchema } from "../model/backup.ts";
import { UserError } from "../model/errors.ts";
import { InspectionFactsSchema, InspectionLoginSchema, InspectionSchema } from "../model/inspection.ts";
import { INSPECTION_HOURS } from "../model/inspection-hours.ts";
import { failures, type Api } from "./api.ts";
import { backupId, JobSchema, refuseFrom } from "./backup-routes.ts";

const InspectBody = z.strictObject({
  backup: backupId.optional().describe("Default: the newest."),
  at: z.iso
    .datetime({ offset: true })
    .optional()
    .describe("The moment; where only backups are kept, or `from` is given, the newest backup from before it."),
  from: BackupTargetSchema.optional().describe("As for a restore."),
  hours: z
    .number()
    .min(0.1)
    .max(INSPECTION_HOURS.most)
    .default(INSPECTION_HOURS.default)
    .describe("For how long it is kept."),
});
const params = z.object({ name: z.string() });
const tags = ["backups"];

/** @param inspections absent where the platform makes none */
export function inspectionRoutes(app: Api, inspections: InspectionService | undefined): void {
  const service = (): InspectionService => {
    if (inspections) return inspections;
    throw new UserError("Conflict", "this platform restores nothing itself: docs/backups.md says how it is done there");
  };

  app.get(
    "/v1/inspections",
    {
      schema: {
        operationId: "listInspections",
        summary: "Earlier states of tenants that can be looked at",
        tags,
        response: { 200: z.object({ items: z.array(InspectionSchema) }).describe("By tenant."), ...failures(409, 503) },
      },
    },
    async () => ({ items: await service().inspections() }),
  );

  app.post(
    "/v1/tenants/:name/inspection",
    {
      config: { access: "admin" },
      schema: {
        operationId: "inspectTenant",
        summary: "Restores a backup, or a moment, beside a tenant, to be looked at; no homeserver runs with it",
        tags,
        params,
        body: InspectBody,
        response: {
          202: JobSchema.describe("The job; GET /v1/jobs/ID tells how it goes."),
          ...failures(404, 409, 422, 503),
        },
      },
    },
    async ({ params: { name }, body, actor }, reply) => {
      refuseFrom(body.from, actor);
      return reply.code(202).send(await service().inspect(name, body));
    },
  );

  app.get(
    "/v1/tenants/:name/inspection",
    {
      config: { access: "admin" },
      schema: {
        operationId: "getInspection",
        summary: "What an earlier state of a tenant has: numbers, users, last events, and nothing that anybody wrote",
        tags,
        params,
        response: { 200: InspectionFactsSchema.describe("What it has."), ...failures(404, 409, 422, 503) },
      },
    },
    ({ params: { name } }) => service().inspection(name),
  );

  app.post(
    "/v1/tenants/:name/inspection/login",
    {
      config: { access: "admin" },
      schema: {
        operationId: "getInspectionLogin",
        summary: "A login to the database with an earlier state of a tenant, from the controller's machine",
        tags,
        params,
        response: {
          200: InspectionLoginSchema.describe(
            "It is good until the inspection is removed, or the controller started again.",
          ),
          ...failures(404, 409, 422, 503),
        },
      },
    },
    ({ params: { name } }) => service().inspectionLogin(name),
  );

  app.delete(
    "/v1/tenants/:name/inspection",
    {
      config: { access: "admin" },
      schema: {
        operationId: "removeInspection",
        summary: "Removes an earlier state of a tenant that was looked at",
        tags,
        params,
        response: { 204: z.undefined().describe("It is gone."), ...failures(404, 409, 422, 503) },
      },
    },
    async ({ params: { name } }, reply) => {
      await service().removeInspection(name);
      return reply.code(204).send();
    },
  );
}
