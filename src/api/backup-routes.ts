import { z } from "zod";
import {
  noJob,
  type BackupEntry,
  type BackupService,
  type PointInTimeState,
} from "../controller/service/backup-service.ts";
import { UserError } from "../model/errors.ts";
import {
  BackupManifestSchema,
  BackupTargetSchema,
  JOB_KINDS,
  VerificationSchema,
  type BackupTargetConfig,
  type Job,
} from "../model/backup.ts";
import { OptionVerdictSchema } from "../model/import.ts";
import { tenantNameProblem } from "../model/names.ts";
import type { Actor } from "../model/role.ts";
import { failures, type Api, type RouteContext } from "./api.ts";
import { isOwner } from "./access/authentication.ts";
import { refuseSoonAgain } from "./access/tenant-admin-limits.ts";
import { backupsWithin, jobsWithin } from "./access/limited-views.ts";

const Time = z.iso.datetime();
export const JobSchema = z
  .object({
    id: z.string(),
    kind: z.enum(JOB_KINDS),
    tenant: z.string(),
    state: z.enum(["Waiting", "Running", "Succeeded", "Failed"]),
    message: z.string().describe("What it is at, or how it ended."),
    requestedAt: Time,
    finishedAt: Time.optional(),
    backup: z.string().optional().describe("The backup that it made, or worked with."),
    options: z
      .array(OptionVerdictSchema)
      .optional()
      .describe("Of an import: what becomes of each option of its homeserver.yaml."),
  })
  .meta({ id: "Job" }) satisfies z.ZodType<Job>;

const Entry = z.object({ backup: BackupManifestSchema, verification: VerificationSchema.optional() });
const BackupSchema = Entry.meta({ id: "Backup" }) satisfies z.ZodType<BackupEntry>;
const NewestSchema = Entry.extend({
  count: z
    .int()
    .optional()
    .describe("How many there are; not for tenant admins, as an earlier tenant's are among them."),
}).meta({ id: "NewestBackup" });

const PointInTimeSchema = z
  .object({
    place: z.string(),
    keepDays: z.number(),
    spans: z.array(z.object({ from: Time, to: Time })).describe("Oldest first; any moment within one can be had."),
    until: Time.optional().describe("Everything that was committed until then is in the target."),
    waitingSegments: z.int().describe("Files of the databases' log that wait for the target."),
    baseUnderWay: z.string().optional().describe("How far a copy of the database server is that is being made."),
    bases: z.array(z.object({ id: z.string(), finishedAt: Time, bytes: z.int() })).describe("Copies, oldest first."),
    problems: z.array(z.string()),
  })
  .meta({ id: "PointInTime" }) satisfies z.ZodType<PointInTimeState>;

export const backupId = z.string().regex(/^\d{8}T\d{6}\.\d{3}Z$/, "the id of a backup such as 20260101T020000.000Z");
const tenantName = z.string().refine((name) => tenantNameProblem(name) === undefined, {
  error: (issue) => tenantNameProblem(String(issue.input)) ?? "",
});
const RestoreBody = z.strictObject({
  backup: backupId.optional().describe("Default: the newest."),
  at: z.iso
    .datetime({ offset: true })
    .optional()
    .describe(
      "The moment; where only backups are kept, the tenant is gone, or `from` is given, the newest backup from before it.",
    ),
  from: BackupTargetSchema.optional().describe(
    "Where the backup is, on or seen from the controller's machine; needs the cluster's own token. Default: the cluster's target.",
  ),
  as: tenantName.optional().describe("The name of the tenant that is made of it, where its own is gone."),
  identity: z
    .string()
    .min(1)
    .max(10_000)
    .optional()
    .describe("The private key of the backups' recipient, where the tenant is gone. It is kept nowhere."),
});

const Params = z.object({ name: z.string() });
const tags = ["backups"];
const accepted = { 202: JobSchema.describe("The job; GET /v1/jobs/ID tells how it goes.") };

/** @throws UserError Forbidden */
export function refuseFrom(from: BackupTargetConfig | undefined, actor: Actor | undefined): void {
  if (from && !isOwner(actor))
    throw new UserError(
      "Forbidden",
      "from reads files of the controller's machine, so it needs the cluster's own token",
    );
}

/** @param backups absent where the platform makes none */
export function backupRoutes(
  app: Api,
  { service: cluster }: Pick<RouteContext, "service">,
  backups: BackupService | undefined,
): void {
  const service = (): BackupService => {
    if (backups) return backups;
    throw new UserError(
      "Conflict",
      "this platform makes no backups: docs/backups.md says how they are made with its own means",
    );
  };

  app.get(
    "/v1/backups",
    {
      schema: {
        operationId: "listNewestBackups",
        summary: "The newest backup of each tenant in the catalogue, also of those that are gone",
        tags,
        response: { 200: z.object({ items: z.array(NewestSchema) }).describe("By name."), ...failures(409, 503) },
      },
    },
    async ({ scope }) => {
      const items = await backupsWithin(cluster, scope, await service().newest());
      return {
        items: scope.isAll
          ? items
          : items.map(({ backup, verification }) => ({ backup, ...(verification && { verification }) })),
      };
    },
  );

  app.get(
    "/v1/backups/point-in-time",
    {
      schema: {
        operationId: "getPointInTime",
        summary: "Which moments tenants can be brought back to, besides those of backups",
        tags,
        response: { 200: PointInTimeSchema.describe("What there is."), ...failures(409, 503) },
      },
    },
    () => service().pointInTime(),
  );

  app.get(
    "/v1/tenants/:name/backups",
    {
      schema: {
        operationId: "listBackups",
        summary: "A tenant's backups, newest first; the tenant may be gone",
        tags,
        params: Params,
        response: {
          200: z.object({ items: z.array(BackupSchema) }).describe("The backups."),
          ...failures(409, 422, 503),
        },
      },
    },
    async ({ params, scope }) => ({
      items: await backupsWithin(cluster, scope, await service().list(params.name)),
    }),
  );

  app.post(
    "/v1/tenants/:name/backups",
    {
      schema: {
        operationId: "backUpTenant",
        summary: "Begins a backup, without downtime and without waking the tenant",
        tags,
        params: Params,
        response: { ...accepted, ...failures(404, 409, 429) },
      },
    },
    async ({ params: { name }, scope }, reply) => {
      if (!scope.isAll) {
        const entries = await service().list(name);
        refuseSoonAgain(name, { jobs: service().jobs(), entries, now: Date.now() });
      }
      return reply.code(202).send(await service().backUp(name, { byTenantAdmin: !scope.isAll }));
    },
  );

  app.post(
    "/v1/tenants/:name/backups/verify",
    {
      schema: {
        operationId: "verifyBackup",
        summary: "Restores a backup into a scratch database, and reads all that belongs to it",
        tags,
        params: Params,
        body: z.strictObject({ backup: backupId.optional().describe("Default: the newest.") }),
        response: { ...accepted, ...failures(404, 409, 422, 503) },
      },
    },
    async ({ params, body }, reply) => reply.code(202).send(await service().verify(params.name, body.backup)),
  );

  app.post(
    "/v1/tenants/:name/restore",
    {
      config: { access: "admin" },
      schema: {
        operationId: "restoreTenant",
        summary: "Brings a tenant back to a backup, or back from it",
        tags,
        params: Params,
        body: RestoreBody,
        response: { ...accepted, ...failures(404, 409, 422, 503) },
      },
    },
    async ({ params, body, actor }, reply) => {
      refuseFrom(body.from, actor);
      return reply.code(202).send(await service().restore(params.name, body));
    },
  );

  app.post(
    "/v1/tenants/:name/restore/undo",
    {
      config: { access: "admin" },
      schema: {
        operationId: "undoRestore",
        summary: "Takes the last restore back: the database from before is put into its place again",
        tags,
        params: Params,
        response: { ...accepted, ...failures(404, 409) },
      },
    },
    async ({ params }, reply) => reply.code(202).send(await service().undoRestore(params.name)),
  );

  app.delete(
    "/v1/tenants/:name/restore",
    {
      config: { access: "admin" },
      schema: {
        operationId: "forgetRestore",
        summary: "Removes the database that the last restore put aside",
        tags,
        params: Params,
        response: { 204: z.undefined().describe("It is gone."), ...failures(404, 409) },
      },
    },
    async ({ params }, reply) => {
      await service().forgetRestore(params.name);
      return reply.code(204).send();
    },
  );

  app.get(
    "/v1/jobs",
    {
      schema: {
        operationId: "listJobs",
        summary: "Jobs under way, and those that ended since the controller was started",
        tags,
        response: { 200: z.object({ items: z.array(JobSchema) }).describe("The jobs."), ...failures() },
      },
    },
    async ({ scope }) => ({ items: await jobsWithin(cluster, scope, backups?.jobs() ?? []) }),
  );

  app.get(
    "/v1/jobs/:id",
    {
      schema: {
        operationId: "getJob",
        summary: "How a job goes",
        tags,
        params: z.object({ id: z.string() }),
        response: { 200: JobSchema.describe("The job."), ...failures(404, 409) },
      },
    },
    async ({ params, scope }) => {
      if (scope.isAll) return service().job(params.id);
      const job = (await jobsWithin(cluster, scope, service().jobs())).find(({ id }) => id === params.id);
      if (!job) throw noJob(params.id);
      return job;
    },
  );
}
