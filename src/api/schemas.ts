import { IsolationSchema, PlacementSchema } from "../model/placement.ts";
import { z } from "zod";
import {
  type ClusterStatus,
  DEFAULT_PIN_SECONDS,
  LONGEST_PIN_SECONDS,
  type TenantRest,
} from "../controller/service/cluster-service.ts";
import type { Problem } from "../controller/service/problems.ts";
import { authenticationUrlProblem } from "../model/authentication-service.ts";
import { serverNameProblem, tenantNameProblem } from "../model/names.ts";
import { CHANGE_STATES, type ChangeState } from "../model/change.ts";
import {
  TRANSITION_STEPS,
  MOVE_OUTCOMES,
  MOVE_REASONS,
  MOVE_STEPS,
  type DedicatedTransition,
  type TransitionStep,
  type Move,
  type MoveOutcome,
  type MoveResult,
  type MoveStep,
} from "../model/move.ts";
import { SHARD_PHASES, type Shard, type ShardPhase } from "../model/shard.ts";
import {
  SLEEP_REASONS,
  SLEEP_STEPS,
  WAKE_REASONS,
  type Sleep,
  type SleepReason,
  type SleepStep,
  type TenantHibernation,
  type WakeReason,
} from "../model/sleep.ts";
import { ONLINE_COPY_STEPS, type OnlineCopy } from "../model/database-move.ts";
import { labelsProblem } from "../model/labels.ts";
import { MOST_WAKES, WAKE_CAUSES, type WakeCause, type WakeRequest } from "../model/routes.ts";
import { TENANT_PHASES, type TenantPhase } from "../model/tenant.ts";
import { MetricFamiliesSchema } from "../model/metric-families.ts";
import { PLAN_NAME, QUOTA_STATES, QuotasSchema, type QuotaState } from "../model/quota.ts";
import type { TenantUsage } from "../model/tenant-usage.ts";
import { isMonth, type UsageMonth } from "../model/usage-month.ts";
import type { ClusterEvent } from "../model/event.ts";
import { ConfigMeaningSchema } from "../ports/shard-control.ts";
import type { ApiError } from "./errors.ts";
import { PURGE_REASONS, type PurgeProof, type PurgeReason } from "../model/deleted-tenant.ts";
import type { DeletedTenantView, ShardView, TenantView } from "./views.ts";

/**
 * What goes over the wire. Requests are checked against these; answers are made by typed code and only documented by
 * them, so that an answer is never lost because the document lags behind.
 */

const keysOf = <K extends string>(phases: Record<K, string>) => z.enum(Object.keys(phases) as [K, ...K[]]);
const definitions = (phases: Record<string, string>) =>
  Object.entries(phases)
    .map(([phase, definition]) => `${phase}: ${definition}`)
    .join("\n");

/** A flag in a query string. */
export const flag = z
  .enum(["true", "false"])
  .default("false")
  .transform((text) => text === "true");

/** A whole number in a query string. */
export const wholeNumber = (max: number) =>
  z
    .string()
    .regex(/^\d{1,15}$/, `a whole number from 0 to ${max}`)
    .transform(Number)
    .refine((n) => n <= max, `a whole number from 0 to ${max}`);

/** Refuses what the rule finds a problem in, in the rule's own words. */
function checkedBy(problemOf: (text: string) => string | undefined) {
  return z.string().superRefine((text, context) => {
    const message = problemOf(text);
    if (message !== undefined) context.addIssue({ code: "custom", message });
  });
}

export const Release = z
  .string()
  .regex(/^\d+\.\d+\.\d+$/, "a release of matrix-synapse such as 1.163.2")
  .describe("A release of matrix-synapse, e.g. 1.163.2.");
const ReleaseOrFleet = z
  .string()
  .regex(/^(\d+\.\d+\.\d+|fleet)$/, `a release of matrix-synapse such as 1.163.2, or "fleet"`)
  .describe('A release of matrix-synapse, e.g. 1.163.2; "fleet": that of the fleet, in its rollouts.');
const Config = z.string().describe("The user's part of homeserver.yaml as YAML text; may hold secrets.");

export const HibernationSchema = z
  .strictObject({
    mode: z
      .enum(["Auto", "Never"])
      .describe("Auto: it sleeps when nobody uses it, as the cluster has it. Never: it stays awake."),
    afterIdleSeconds: z
      .number()
      .min(0)
      .max(31_536_000)
      .optional()
      .describe("Its own time without use, instead of the cluster's; 0: it does not fall asleep for being idle."),
  })
  .meta({ id: "Hibernation" }) satisfies z.ZodType<TenantHibernation>;

const LabelsSchema = z
  .record(z.string(), z.string())
  .superRefine((labels, context) => {
    const message = labelsProblem(labels);
    if (message !== undefined) context.addIssue({ code: "custom", message });
  })
  .describe("Its operator's own words about it, with the keys and values of Kubernetes' labels.");
const LabelChangesSchema = z
  .record(z.string(), z.string().nullable())
  .superRefine((changes, context) => {
    const message = labelsProblem(
      Object.fromEntries(Object.entries(changes).map(([key, value]) => [key, value ?? ""])),
    );
    if (message !== undefined) context.addIssue({ code: "custom", message });
  })
  .describe("Sets these labels and leaves the others; null removes one.");

const Plan = z.string().regex(PLAN_NAME, "a plan of the configuration");

const AuthenticationUrl = checkedBy(authenticationUrlProblem);

export const CreateTenantBody = z
  .strictObject({
    name: checkedBy(tenantNameProblem).describe("A DNS label."),
    serverName: checkedBy(serverNameProblem).optional().describe("Default: NAME.<baseDomain>. Never changes."),
    domain: checkedBy(serverNameProblem)
      .optional()
      .describe("In place of serverName: the server name, whose homeserver is at a host of its own in it, by https."),
    host: checkedBy(serverNameProblem).optional().describe("That host. Default: matrix.DOMAIN."),
    release: ReleaseOrFleet.optional(),
    config: Config.optional(),
    hibernation: HibernationSchema.optional(),
    placement: PlacementSchema.optional(),
    isolation: IsolationSchema.optional(),
    labels: LabelsSchema.optional(),
    plan: Plan.optional().describe("The plan whose quotas it has."),
    quotas: QuotasSchema.optional().describe("Quotas of its own, which go before those of its plan."),
    authenticationService: AuthenticationUrl.optional().describe(
      "URL of the authentication service that keeps its accounts (matrix_authentication_service), where gateways send logins to.",
    ),
    fromTemplate: checkedBy(tenantNameProblem)
      .optional()
      .describe(
        "A tenant whose release, configuration, placement, isolation, hibernation, labels, plan and quotas it takes, where none are given here (labels add " +
          "to its). Not taken: keys, server name, hosts, a database or bucket of its own, bridges, data.",
      ),
  })
  .meta({ id: "CreateTenant" });

export const UpdateTenantBody = z
  .strictObject({
    release: ReleaseOrFleet.optional(),
    config: Config.optional(),
    hibernation: HibernationSchema.optional(),
    placement: PlacementSchema.optional().describe("Takes the place of the one it has; {}: anywhere."),
    isolation: IsolationSchema.optional(),
    labels: LabelChangesSchema.optional(),
    plan: Plan.nullable().optional().describe("null: none."),
    quotas: QuotasSchema.optional().describe("Take the place of its own; {}: none of its own."),
    metrics: MetricFamiliesSchema.optional().describe(
      "Families of metrics that its shard exports of it, besides those of each tenant; [all]: all; []: no more. Take the place of those it has.",
    ),
    authenticationService: AuthenticationUrl.nullable().optional().describe("null: none."),
    revertConfig: z
      .literal(true)
      .optional()
      .describe("Takes back the configuration that is not in effect: the one that runs is asked for again."),
  })
  .refine((body) => Object.values(body).some((value) => value !== undefined), {
    message:
      "give release, config, hibernation, placement, isolation, labels, plan, quotas, metrics, authenticationService or revertConfig",
  })
  .refine(({ config, revertConfig }) => config === undefined || revertConfig === undefined, {
    message: "give config or revertConfig, not both",
  })
  .meta({ id: "UpdateTenant" });

export const MoveTenantBody = z
  .strictObject({
    to: z.string().min(1).optional().describe("Default: the best other shard."),
    pinSeconds: z
      .int()
      .min(0)
      .max(LONGEST_PIN_SECONDS)
      .default(DEFAULT_PIN_SECONDS)
      .describe("For how long consolidation leaves it where it was moved to; 0: not at all."),
  })
  .prefault({});

export const RegisterUserBody = z
  .strictObject({
    username: z
      .string()
      .max(200)
      .regex(
        /^[a-z0-9.=/+-][a-z0-9._=/+-]*$/,
        'the part before the colon of a user id: a-z, 0-9 and ._=/+-, not beginning with "_"',
      ),
    password: z
      .string()
      .min(1, "a password of at least one character")
      .max(512, "a password of at most 512 characters"),
    admin: z.boolean().default(false),
  })
  .meta({ id: "RegisterUser" });

const count = z.int().min(0).max(Number.MAX_SAFE_INTEGER);

export const GatewayId = z
  .string()
  .regex(/^[A-Za-z0-9._:-]{1,100}$/, "the name of one run of a gateway: 1 to 100 of A-Z, a-z, 0-9 and ._:-");

export const RouteAckBody = z
  .strictObject({
    gateway: GatewayId,
    version: count,
    stream: z.string().max(100).optional(),
    parks: z.record(z.string(), z.strictObject({ parked: count, failed: count })),
  })
  .meta({ id: "RouteAck" });

export const AnsweredRequestsBody = z
  .strictObject({
    gateway: GatewayId,
    all: z.boolean().describe("All of the gateway's; otherwise those that have changed since."),
    tenants: z.record(z.string(), z.strictObject({ epoch: count, requests: count })),
  })
  .meta({ id: "AnsweredRequests" });

export const WakeRequestBody = z
  .strictObject({
    gateway: GatewayId,
    tenants: z
      .array(
        z.strictObject({
          tenant: z.string().min(1).max(63),
          // A gateway of a later version may have more of them.
          why: z.enum(Object.keys(WAKE_CAUSES) as WakeCause[]).catch("request"),
        }),
      )
      .max(MOST_WAKES),
  })
  .meta({ id: "WakeRequest" }) satisfies z.ZodType<WakeRequest>;

const Time = z.string().describe("ISO 8601, UTC.");

export const MetadataSchema = z
  .object({
    name: z.string(),
    resourceVersion: z.string(),
    generation: z.number().describe("Counts the changes of spec."),
    creationTimestamp: Time,
    deletionTimestamp: Time.optional(),
  })
  .meta({ id: "Metadata" });

const MoveReasonSchema = z.enum(MOVE_REASONS);

export const MoveSchema = z
  .object({
    id: z.string(),
    from: z.string(),
    to: z.string(),
    reason: MoveReasonSchema,
    step: keysOf<MoveStep>(MOVE_STEPS).describe(definitions(MOVE_STEPS)),
    requestedAt: Time,
    parkedAt: Time.optional(),
    pinnedUntil: Time.optional().describe("Until when consolidation leaves the tenant where it is moved to."),
    configHash: z.string().optional(),
    unsuccessful: z
      .object({ outcome: z.enum(["RolledBack", "Refused", "Interrupted"]), message: z.string() })
      .optional()
      .describe("Set when it is known that it does not end as it was meant to."),
  })
  .meta({ id: "Move" }) satisfies z.ZodType<Move>;

export const MoveResultSchema = z
  .object({
    id: z.string(),
    from: z.string(),
    to: z.string(),
    reason: MoveReasonSchema,
    outcome: keysOf<MoveOutcome>(MOVE_OUTCOMES).describe(definitions(MOVE_OUTCOMES)),
    message: z.string().optional(),
    finishedAt: Time,
    blackoutSeconds: z.number().describe("Seconds in which neither shard served the tenant."),
    parkedRequests: z.number().describe("Requests that waited in gateways."),
    failedRequests: z
      .number()
      .describe("Requests that were answered with an error because of the move, as clients saw it."),
  })
  .meta({ id: "MoveResult" }) satisfies z.ZodType<MoveResult>;

export const TransitionSchema = z
  .object({
    id: z.string(),
    to: z.enum(["shard", "dedicated"]),
    from: z.string(),
    step: keysOf<TransitionStep>(TRANSITION_STEPS).describe(definitions(TRANSITION_STEPS)),
    requestedAt: Time,
    parkedAt: Time.optional(),
  })
  .meta({ id: "DedicatedTransition" }) satisfies z.ZodType<DedicatedTransition>;

const WakeReasonSchema = keysOf<WakeReason>(WAKE_REASONS).describe(definitions(WAKE_REASONS));

const SleepSchema = z
  .object({
    id: z.string(),
    step: keysOf<SleepStep>(SLEEP_STEPS).describe(definitions(SLEEP_STEPS)),
    reason: keysOf<SleepReason>(SLEEP_REASONS).describe(definitions(SLEEP_REASONS)),
    requestedAt: Time,
    since: Time.optional().describe("Since when nobody has it."),
    nextWake: z
      .object({ at: Time, reason: z.string() })
      .optional()
      .describe("When it is woken although nobody asks for it, and why."),
    admittedConfig: z.string().optional().describe("Hash of a configuration that takes effect when it is woken."),
    preparedAt: Time.optional().describe("When its database was last brought to another release in its sleep."),
  })
  .meta({ id: "Sleep" }) satisfies z.ZodType<Sleep>;

const OnlineCopySchema = z
  .object({
    step: z
      .enum(ONLINE_COPY_STEPS)
      .describe(
        "Following: what was written meanwhile is copied. Switching: the tenant is restarted with the copy. Exchanging: the copy takes the database's place, which cannot be taken back.",
      ),
    since: Time,
    bytes: z.number().optional().describe("Of the copy so far, roughly."),
    totalBytes: z.number().optional().describe("Of the database."),
    behindBytes: z.number().optional().describe("Of the server's log that is not copied yet."),
    attempts: z.int().describe("Copies that were begun: one that breaks off is begun again."),
    message: z.string().optional().describe("What it waits for, or why it is begun again."),
  })
  .meta({ id: "OnlineCopy" }) satisfies z.ZodType<OnlineCopy>;

const SpecFields = {
  serverName: z.string(),
  release: z.string(),
  reclaimPolicy: z.enum(["Retain", "Delete"]),
  suspended: z.boolean().optional().describe("It is to run nowhere until this is taken back."),
  revision: z.number().optional(),
  dedicated: z
    .object({
      address: z.string(),
      metricsPort: z.number().optional().describe("Where it tells its metrics, at the same host."),
    })
    .optional()
    .describe("Where a dedicated Synapse serves it."),
  hibernation: HibernationSchema.optional(),
  placement: PlacementSchema.optional(),
  isolation: z.literal("dedicated").optional().describe("It has a shard for itself, as far as one can be had."),
  labels: z.record(z.string(), z.string()).optional(),
  plan: z.string().optional().describe("The plan whose quotas it has."),
  quotas: QuotasSchema.optional().describe("Quotas of its own, which go before those of its plan."),
  metrics: z
    .array(z.string())
    .optional()
    .describe("Families of metrics that its shard exports of it, besides those of each tenant."),
  authenticationService: z.string().optional().describe("Where gateways send its clients' logins to."),
  adminAccess: z
    .object({ allowedNetworks: z.array(z.string()) })
    .optional()
    .describe("Its own administrators may come in, from these networks; none: from any."),
};

const ReachedSchema = z.object({
  state: keysOf<QuotaState>(QUOTA_STATES).describe(definitions(QUOTA_STATES)),
  since: Time,
});

export const TenantSchema = z
  .object({
    kind: z.literal("Tenant"),
    metadata: MetadataSchema,
    spec: z.object({
      ...SpecFields,
      config: Config.optional().describe("The user's YAML; only with includeConfig=true, because it may hold secrets."),
    }),
    status: z.object({
      phase: keysOf<TenantPhase>(TENANT_PHASES).describe(definitions(TENANT_PHASES)),
      reason: z.string(),
      message: z.string(),
      shard: z.string().optional(),
      epoch: z.number(),
      address: z.string().optional(),
      schemaRelease: z.string().optional(),
      observedGeneration: z.number(),
      configHash: z.string().optional(),
      refusedConfig: z
        .object({ hash: z.string(), reason: z.string(), message: z.string() })
        .optional()
        .describe("The configuration asked for, where it is refused."),
      inEffect: z
        .object({
          hash: z.string(),
          meaning: ConfigMeaningSchema,
          warnings: z.array(z.string()).optional().describe("What in it is probably a mistake, a sentence each."),
        })
        .optional()
        .describe("The configuration it runs with, or last ran with, and what its shard reads in it."),
      databaseId: z.string().optional().describe("Its database as the server identifies it."),
      databaseKept: z
        .literal(true)
        .optional()
        .describe("Until it is provisioned: its database was kept, and no empty one is made in its place."),
      dataSince: z
        .string()
        .optional()
        .describe("When the first tenant of its data was created, where that was kept while it was deleted."),
      databaseServer: z
        .string()
        .optional()
        .describe("The database server of the cluster's that has its database; absent: the cluster's own."),
      databaseMove: z
        .object({
          id: z.string(),
          to: z.string(),
          requestedAt: Time,
          online: OnlineCopySchema.optional().describe("Absent: it is copied while the tenant is parked."),
        })
        .optional()
        .describe("Its database is on its way to that server."),
      lastDatabaseMove: z
        .object({
          id: z.string(),
          from: z.string(),
          to: z.string(),
          outcome: z.enum(["Succeeded", "Failed"]).describe("Failed: it stays where it was."),
          message: z.string(),
          finishedAt: Time,
          seconds: z.number().optional().describe("That it took, while requests waited."),
        })
        .optional(),
      formerDatabases: z
        .array(z.object({ server: z.string(), keptUntil: Time }))
        .optional()
        .describe("Servers that keep its database from before it was moved."),
      provisioned: z.boolean(),
      storage: z
        .string()
        .optional()
        .describe("What its database, media and backups are named by, where that is not its name."),
      formerNames: z
        .array(z.object({ name: z.string(), until: Time }))
        .optional()
        .describe("Names that it had, the latest last."),
      rename: z
        .object({ id: z.string(), to: z.string(), requestedAt: Time, wakes: z.boolean().optional() })
        .optional()
        .describe("It is to have another name, and gets it as soon as nobody runs it."),
      fleetRelease: z.string().optional().describe("What the fleet's rollout has for it."),
      fleetReleaseSince: z.string().optional(),
      assignedAt: Time.optional(),
      adminSessions: z
        .array(
          z.object({
            userId: z.string(),
            until: Time,
            ending: z.literal(true).optional().describe("It is to be ended as soon as the tenant runs."),
          }),
        )
        .optional()
        .describe("Sessions that were opened at its admin UI for somebody."),
      dedicated: z.object({ address: z.string() }).optional().describe("The dedicated Synapse that has it."),
      transition: TransitionSchema.optional(),
      sleep: SleepSchema.optional(),
      wake: z
        .object({ requestedAt: Time, reason: WakeReasonSchema })
        .optional()
        .describe("Since it is wanted awake, until it runs."),
      awake: z
        .object({ since: Time, reason: WakeReasonSchema })
        .optional()
        .describe("Since when it has been awake, and why it was woken."),
      restore: z
        .object({
          id: z.string(),
          backup: z.string(),
          requestedAt: Time,
          storage: z.string().optional().describe("What the target keeps the backup by; its own if not given."),
          schemaRelease: z.string().optional(),
          exchanged: z.literal(true).optional().describe("It is in its place."),
        })
        .optional()
        .describe("Its next start is with the database that was restored beside its own."),
      restored: z
        .object({ backup: z.string(), at: Time, schemaRelease: z.string().optional() })
        .optional()
        .describe("The last restore."),
      backupAsked: z
        .object({
          id: z.string(),
          requestedAt: Time,
          byTenantAdmin: z.literal(true).optional(),
          attempts: z
            .number()
            .optional()
            .describe(
              "How often it was begun without an end, this time among them; a controller that stops is no such end.",
            ),
        })
        .optional()
        .describe("Somebody asked for a backup, which is not done yet: the job that makes it, also after a restart."),
      move: MoveSchema.optional(),
      lastMove: MoveResultSchema.optional(),
      failures: z.number(),
      retryAt: Time.optional(),
      moveFailures: z.number().optional(),
      moveInterruptions: z.number().optional(),
      moveNotBefore: Time.optional(),
      pin: z
        .object({ shard: z.string(), until: Time })
        .optional()
        .describe("Until when consolidation leaves it there."),
      balanced: z
        .object({ at: Time, from: z.string(), to: z.string() })
        .optional()
        .describe("When it was last moved for the load of its shard."),
      stalls: z
        .object({ count: z.int(), ids: z.array(z.string()), lastAt: Time, where: z.string() })
        .optional()
        .describe("How often its code held up its shard's reactor."),
      quarantine: z
        .object({ since: Time, message: z.string() })
        .optional()
        .describe("It runs on a shard of its own until somebody lifts this."),
      throttle: z
        .object({ part: z.number(), since: Time, changedAt: Time })
        .optional()
        .describe("It takes more than its CPU budget: gateways let this part of its requests in flight through."),
      heavy: z
        .object({ since: Time, message: z.string() })
        .optional()
        .describe("It was throttled for long: it gets a shard of its own where there is room for it."),
      refusedRelease: z.object({ release: z.string(), reason: z.string(), message: z.string() }).optional(),
      quotas: z
        .object({
          users: ReachedSchema.optional(),
          monthlyActiveUsers: ReachedSchema.optional(),
          mediaBytes: ReachedSchema.optional(),
          databaseBytes: ReachedSchema.optional(),
        })
        .optional()
        .describe("Of its quotas those whose soft or hard limit is reached."),
    }),
    url: z.string(),
    hasConfig: z.boolean(),
    change: z
      .object({
        state: keysOf<ChangeState>(CHANGE_STATES).describe(definitions(CHANGE_STATES)),
        reason: z.string(),
        message: z.string(),
      })
      .describe("Whether what spec asks for is what runs."),
  })
  .meta({ id: "Tenant" }) satisfies z.ZodType<TenantView>;

export const TenantUsageSchema = z
  .object({
    cpuShare: z.number().optional().describe("Smoothed share of a core that it took of late."),
    databaseShare: z
      .number()
      .optional()
      .describe(
        "Smoothed share of the time in which our own database server ran its statements; 1: one busy connection.",
      ),
    cpuBudget: z.number().describe("The share that it may take for long; 0: any."),
    holdings: z
      .object({
        responseBytes: z.number().describe("Bytes of its answers."),
        databaseRows: z.number().describe("Rows read and written."),
        imageSeconds: z.number().describe("Time that workers spent with its images."),
        cacheEntries: z.number().describe("Entries of its caches, now."),
      })
      .optional()
      .describe("What it made its shard do and hold since its start there."),
    database: z
      .object({
        bytes: z.number(),
        connections: z.number(),
        rowsWritten: z.number().describe("Rows inserted, changed and deleted since the server's statistics began."),
        tempBytes: z.number().describe("Written to temporary files since then."),
        at: Time,
      })
      .optional()
      .describe("What it takes of our own database server; looked at about every ten minutes."),
  })
  .meta({ id: "TenantUsage" }) satisfies z.ZodType<TenantUsage>;

const shardFields = {
  kind: z.literal("Shard"),
  metadata: MetadataSchema,
  spec: z.object({ release: z.string(), drain: z.enum(["Consolidation", "Requested"]).optional() }),
  status: z.object({
    phase: keysOf<ShardPhase>(SHARD_PHASES).describe(definitions(SHARD_PHASES)),
    reason: z.string(),
    message: z.string(),
    address: z.string().optional(),
    instance: z.string().optional(),
    lastAssignmentChange: Time.optional().describe(
      "When a tenant was last assigned to it or left it, sleeps and wakes aside.",
    ),
    lastSleepOrWake: Time.optional().describe("When a tenant last woke on it, or fell asleep there."),
    drainCalledOffAt: Time.optional().describe("When it was to be given up, and then was needed."),
    lastSeen: Time.optional(),
    load: z.number().optional().describe("Share of one core used of late, 0 to 1."),
    keeps: z
      .object({ since: Time, reason: z.string(), message: z.string() })
      .optional()
      .describe("Why it keeps its tenants although it takes much, or could be given up."),
    failures: z.number(),
    retryAt: Time.optional(),
  }),
};

export const ShardResourceSchema = z.object(shardFields).meta({ id: "ShardResource" }) satisfies z.ZodType<Shard>;

export const ShardSchema = z
  .object({ ...shardFields, tenants: z.array(z.string()), capacity: z.number() })
  .meta({ id: "Shard" }) satisfies z.ZodType<ShardView>;

const RemovedSchema = z.object({
  database: z.object({ name: z.string(), bytes: z.number().optional() }).optional(),
  media: z
    .object({ files: z.number(), bytes: z.number(), sha256: z.string().describe("Of names and sizes of all files.") })
    .optional(),
  signingKey: z.object({ sha256: z.string() }).optional().describe("Who has a copy can tell that it was this one."),
  left: z
    .array(z.string())
    .optional()
    .describe("What was left alone, as the tenant brought it along and it is its owner's: its database, its bucket."),
});
const PurgeReasonSchema = keysOf<PurgeReason>(PURGE_REASONS).describe(definitions(PURGE_REASONS));

export const DeletedTenantSchema = z
  .object({
    name: z.string(),
    storage: z
      .string()
      .optional()
      .describe("What its database, media and backups are named by, where that is not its name."),
    spec: z.object(SpecFields),
    hasConfig: z.boolean(),
    schemaRelease: z.string().optional(),
    createdAt: z.string().describe("ISO 8601, UTC; empty where it is not known."),
    deletedAt: Time,
    keptUntil: Time.describe("When its data is removed for good. ISO 8601, UTC."),
    managedDatabase: z.boolean().describe("Whether its database is removed then: not one that it brought along."),
    brought: z
      .array(z.string())
      .optional()
      .describe("What it brought along, and is left alone: its database, its bucket."),
    databaseServer: z
      .string()
      .optional()
      .describe("The database server of the cluster's that has its database; absent: the cluster's own, or not known."),
    dataSince: z.string().optional().describe("As in a tenant's status; absent: since createdAt."),
    formerDatabases: z
      .array(z.object({ server: z.string(), keptUntil: Time }))
      .optional()
      .describe("Servers that keep its database from before it was moved."),
    purge: z
      .object({ since: Time, reason: PurgeReasonSchema, removed: RemovedSchema })
      .optional()
      .describe("Its data is being removed: it cannot be had back."),
  })
  .meta({ id: "DeletedTenant" }) satisfies z.ZodType<DeletedTenantView>;

export const monthText = z.string().refine(isMonth, "a month such as 2026-01");

export const UsageMonthSchema = z
  .object({
    tenant: z.string(),
    serverName: z.string().describe("A tenant's name may be given again; both together say whose the figures are."),
    month: z.string().describe("In UTC, such as 2026-01."),
    users: z.int().optional().describe("Accounts at the last look, without deactivated ones, guests and bridges'."),
    activeUsers: z.int().optional().describe("Of those, how many were active in the month."),
    activeUsersDailyPeak: z.int().optional().describe("Of the day with the most."),
    messages: z.int().optional().describe("Messages that its users sent."),
    mediaBytes: z.int().optional().describe("What its users uploaded, at the last look."),
    databaseBytes: z.int().optional().describe("At the last look."),
    cpuSeconds: z.number().describe("Processor time on shards, with its images'."),
    requests: z.int().describe("Requests that shards answered."),
    peakRequestsPerMinute: z.int().optional(),
    updatedAt: Time.describe("When any of them changed last."),
  })
  .meta({ id: "UsageMonth" }) satisfies z.ZodType<UsageMonth>;

export const PurgeProofSchema = z
  .object({
    name: z.string(),
    serverName: z.string(),
    createdAt: z.string(),
    deletedAt: Time,
    purgedAt: Time,
    reason: PurgeReasonSchema,
    removed: RemovedSchema.describe("What there was before."),
    previous: z.string().describe("sha256 of the proof before this one; empty for the first."),
    sha256: z.string().describe("Of all the other fields, as compact JSON in this order."),
  })
  .meta({ id: "PurgeProof" }) satisfies z.ZodType<PurgeProof>;

export const StatusSchema = z
  .object({
    version: z.string(),
    startedAt: Time,
    policy: z.object({
      maxShardsPerSynapseImageTag: z.number(),
      maxTenantsPerShard: z.number(),
      avgShardsLoadRedistributionThreshold: z.number(),
      consolidateAfterSeconds: z.number(),
      maxConcurrentMoves: z.number(),
      hibernation: z.object({
        afterIdleSeconds: z.number(),
        minAwakeSeconds: z.number(),
        maxConcurrentWakes: z.number(),
      }),
      balancing: z.object({
        cpuTarget: z.number(),
        averageSeconds: z.number(),
        coolDownSeconds: z.number(),
        tenantRestSeconds: z.number(),
        movesPerHour: z.number(),
      }),
    }),
    release: z.string(),
    tenants: z.object({ total: z.number(), byPhase: z.record(z.string(), z.number()) }),
    imageTags: z.array(
      z.object({
        version: z.string(),
        shards: z.number(),
        tenants: z.number(),
        capacity: z.number(),
        saturated: z.boolean(),
      }),
    ),
    movesInProgress: z.array(z.object({ tenant: z.string(), move: MoveSchema })),
    recentMoves: z.array(z.object({ tenant: z.string(), result: MoveResultSchema })),
    gateways: z.array(z.object({ id: z.string(), routesVersion: z.number(), connectedAt: Time })),
    problems: z.array(z.string()),
  })
  .meta({ id: "ClusterStatus" }) satisfies z.ZodType<ClusterStatus>;

export const ProblemSchema = z
  .object({
    severity: z
      .enum(["Error", "Warning"])
      .describe("Error: somebody is not served. Warning: something else is not as it should be."),
    object: z.string().optional().describe("Tenant/NAME or Shard/NAME; absent: the cluster as a whole."),
    reason: z.string(),
    message: z.string(),
    action: z.string().describe("What to do about it, in the words of the reference of codes."),
    runbook: z.string().optional().describe("The page of docs/runbooks that tells more."),
  })
  .meta({ id: "Problem" }) satisfies z.ZodType<Problem>;

const Due = z.object({ at: Time, reason: z.string() });
export const TenantRestSchema = z
  .object({
    keepsAwake: z.array(z.string()).describe("Why it does not sleep now, in words; empty where it sleeps, or may."),
    openRequests: z.number().optional(),
    unusedSeconds: z.number().optional().describe("Since it was last used."),
    nextDue: Due.optional().describe("When it would have to be woken next, and why."),
    askedAgainAt: Time.optional().describe("When it is looked at again whether it may sleep."),
    nextWake: Due.optional().describe("When it is woken although nobody asks for it, while it sleeps."),
  })
  .meta({ id: "TenantRest" }) satisfies z.ZodType<TenantRest>;

export const EventSchema = z
  .object({
    id: z.number(),
    time: Time,
    type: z.enum(["Normal", "Warning"]),
    reason: z.string(),
    object: z.string().describe("Tenant/NAME, Shard/NAME or Fleet/fleet."),
    message: z.string(),
  })
  .meta({ id: "Event" }) satisfies z.ZodType<ClusterEvent>;

export const ErrorSchema = z
  .object({ error: z.object({ code: z.string(), message: z.string(), details: z.unknown().optional() }) })
  .meta({ id: "Error" }) satisfies z.ZodType<ApiError>;
