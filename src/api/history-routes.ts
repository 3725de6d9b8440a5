import { z } from "zod";
import { RANGES, type History, type Range } from "../model/history.ts";
import { failures, type Api, type RouteContext } from "./api.ts";

const HistorySchema = z
  .object({
    from: z.iso.datetime().describe("When the first step begins."),
    stepSeconds: z.int(),
    series: z.array(
      z.object({
        name: z.string(),
        values: z.array(z.number().nullable()).describe("One of each step; null where it is not known."),
      }),
    ),
    source: z
      .enum(["controller", "prometheus"])
      .describe("Who has it: the controller, or the Prometheus of its configuration."),
    problem: z.string().optional().describe("Why it is the controller's, where the configuration names a Prometheus."),
  })
  .meta({ id: "History" }) satisfies z.ZodType<History>;

const NAMES = Object.keys(RANGES) as [Range, ...Range[]];

/** How the cluster was, for plots. */
export function historyRoutes(app: Api, { service }: RouteContext): void {
  app.get(
    "/v1/history",
    {
      schema: {
        operationId: "getHistory",
        summary: "How the cluster was, or one shard: numbers over time",
        description:
          "Of the cluster: tenants as running, asleep, suspended, failed and onTheWay; shards, places and placesTaken; load and busiest in cores; " +
          "memory in bytes; and per step moves, movesFailed, blackout (the longest, in seconds), wakes and sleeps. Of a shard: load and memory.",
        tags: ["cluster"],
        querystring: z.object({
          range: z.enum(NAMES).default("day").describe("How far back; a year is of 13 months."),
          shard: z
            .string()
            .regex(/^[a-z0-9][a-z0-9.-]{0,99}$/, "a shard's name")
            .optional()
            .describe("Only this shard; default: the cluster as a whole."),
        }),
        response: { 200: HistorySchema.describe("The series."), ...failures(404, 409, 422) },
      },
    },
    async ({ query }) => service.history(query),
  );
}
