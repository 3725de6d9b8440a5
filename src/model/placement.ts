import { z } from "zod";
import { tenantNameProblem } from "./names.ts";

/** A shard's name is its release and a number. */
const SHARD_NAME = /^[a-z0-9][a-z0-9.-]{0,100}-\d{1,6}$/;
const TENANT_NAME = z.string().superRefine((text, context) => {
  const message = tenantNameProblem(text);
  if (message !== undefined) context.addIssue({ code: "custom", message });
});

/** Where a tenant's operator wants it, as far as there is room; docs/load.md. */
export const PlacementSchema = z
  .strictObject({
    shard: z
      .string()
      .regex(SHARD_NAME, "a shard's name such as 1.163.2-0")
      .optional()
      .describe("The shard that it is placed on, and moved to, while that can take it."),
    isolate: z.boolean().optional().describe("A shard of its own, where there is room for one."),
    spreadFrom: z.array(TENANT_NAME).max(100).optional().describe("Tenants that are to be on other shards."),
    doNotMoveUntil: z.iso
      .datetime()
      .optional()
      .describe("Until then it is moved only if its shard is lost or drained, its release changes, or somebody asks."),
  })
  .meta({ id: "Placement" });
export type Placement = z.infer<typeof PlacementSchema>;

/** Whether a tenant may share its process with others. */
export const IsolationSchema = z
  .enum(["shared", "dedicated"])
  .describe("dedicated: a process of its own. shared: among others, the default.")
  .meta({ id: "Isolation" });
export type Isolation = z.infer<typeof IsolationSchema>;
