import { z } from "zod";
import { TenantCountsSchema } from "./backup.ts";

/** An earlier state of a tenant that can be looked at beside it. */
export const InspectionSchema = z
  .object({
    tenant: z.string(),
    database: z.string(),
    /** In words: which backup, or which moment. */
    of: z.string(),
    madeAt: z.iso.datetime(),
    /** It is removed after this. */
    until: z.iso.datetime(),
  })
  .meta({ id: "Inspection" });
export type Inspection = z.infer<typeof InspectionSchema>;

/** What is in one, without what anybody wrote. */
export const InspectionFactsSchema = z
  .object({
    inspection: InspectionSchema,
    counts: TenantCountsSchema,
    users: z
      .array(
        z.object({
          name: z.string(),
          admin: z.boolean(),
          deactivated: z.boolean(),
          lastSeenAt: z.iso.datetime().optional(),
        }),
      )
      .describe("Those that were seen last, at most 100."),
    lastEvents: z
      .array(z.object({ at: z.iso.datetime(), type: z.string(), sender: z.string(), room: z.string() }))
      .describe("At most 20, the last first."),
  })
  .meta({ id: "InspectionFacts" });
export type InspectionFacts = z.infer<typeof InspectionFactsSchema>;

/** To its database, from the controller's machine. */
export const InspectionLoginSchema = z
  .object({
    host: z.string(),
    port: z.int(),
    user: z.string(),
    password: z.string(),
    database: z.string(),
    sslMode: z.string().optional(),
  })
  .meta({ id: "InspectionLogin" });
export type InspectionLogin = z.infer<typeof InspectionLoginSchema>;
