import { z } from "zod";
import { windowProblem } from "./windows.ts";

/** A maintenance window as people write it. */
export const MaintenanceWindowSchema = z
  .strictObject({ schedule: z.string(), durationMinutes: z.number(), timezone: z.string().default("UTC") })
  .superRefine((window, context) => {
    const problem = windowProblem(window);
    if (problem !== undefined) context.addIssue({ code: "custom", message: problem });
  });
