import { z } from "zod";
import type { FleetService } from "../controller/service/fleet-service.ts";
import { UserError } from "../model/errors.ts";
import { FLEET_PHASES, type Fleet, type FleetPhase, type RolloutPolicy } from "../model/fleet.ts";
import { MaintenanceWindowSchema } from "../model/windows-schema.ts";
import { failures, type Api } from "./api.ts";
import { MetadataSchema, Release } from "./schemas.ts";

const Rollout = z.strictObject({
  canaries: z
    .strictObject({ count: z.int().min(0).max(1000), names: z.array(z.string()).max(1000) })
    .describe("The first wave: the named tenants, and `count` more."),
  waveSize: z.int().min(1).max(10_000).describe("Tenants in each wave after the first."),
  maxConcurrentMoves: z.int().min(1).max(100).describe("Moves of the rollout under way at once."),
  soakSeconds: z.number().min(0).max(604_800).describe("How long a wave must have been well before the next begins."),
  progressDeadlineSeconds: z
    .number()
    .min(1)
    .max(604_800)
    .describe("How long after its turn came a tenant that has not arrived has failed."),
  windows: z.array(MaintenanceWindowSchema).max(100).describe("When moves may begin; none: at any time."),
  maxFailures: z.int().min(1).max(10_000).describe("How many tenants that failed end the rollout."),
  onFailure: z.enum(["Halt", "RollBack"]),
  paused: z.boolean(),
}) satisfies z.ZodType<RolloutPolicy>;

const FleetSchema = z
  .object({
    metadata: MetadataSchema,
    spec: z.object({ release: z.string(), rollout: Rollout }),
    status: z.object({
      phase: z.enum(Object.keys(FLEET_PHASES) as [FleetPhase, ...FleetPhase[]]),
      reason: z.string(),
      message: z.string(),
      observedGeneration: z.number(),
      release: z.string(),
      previousRelease: z.string().optional(),
      wave: z.number().describe("The wave under way, from 0 (canaries)."),
      waves: z.number(),
      updated: z.number().describe("Tenants that have the release, of `total`."),
      total: z.number(),
      failed: z.array(z.string()),
      nextWindow: z.string().optional(),
    }),
  })
  .meta({ id: "Fleet" }) satisfies z.ZodType<Pick<Fleet, "spec" | "status">>;

const ChangeBody = z
  .strictObject({
    release: Release.optional(),
    rollout: Rollout.partial().optional().describe("Sets these and leaves the others."),
  })
  .refine(({ release, rollout }) => release !== undefined || rollout !== undefined, {
    message: "give release or rollout",
  })
  .meta({ id: "ChangeFleet" });

const tags = ["fleet"];

/** @param fleet absent where the platform has none */
export function fleetRoutes(app: Api, fleet: FleetService | undefined): void {
  const service = (): FleetService => {
    if (fleet) return fleet;
    throw new UserError("NotFound", "this platform has no fleet");
  };

  app.get(
    "/v1/fleet",
    {
      schema: {
        operationId: "getFleet",
        summary: "The release that tenants follow, and how far its rollout is",
        tags,
        response: { 200: FleetSchema.describe("The fleet."), ...failures(404) },
      },
    },
    () => service().fleet(),
  );

  app.patch(
    "/v1/fleet",
    {
      schema: {
        operationId: "changeFleet",
        summary: "Rolls out a release, or changes how; makes the fleet where there is none",
        tags,
        body: ChangeBody,
        response: { 200: FleetSchema.describe("The fleet."), ...failures(404, 409, 422) },
      },
    },
    ({ body }) => service().changeFleet(body),
  );

  app.post(
    "/v1/fleet/rollback",
    {
      schema: {
        operationId: "rollBackFleet",
        summary: "Brings back the release before the present one",
        tags,
        response: { 200: FleetSchema.describe("The fleet."), ...failures(404, 409, 422) },
      },
    },
    () => service().rollBackFleet(),
  );
}
