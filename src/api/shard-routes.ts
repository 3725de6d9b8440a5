import { z } from "zod";
import { failures, type Api, type RouteContext } from "./api.ts";
import { ShardResourceSchema, ShardSchema } from "./schemas.ts";
import { LogQuery } from "./tenant-routes.ts";
import { viewOfShard, withDrainShown } from "./views.ts";

const Params = z.object({ name: z.string() });
const tags = ["shards"];

export function shardRoutes(app: Api, { service, sendLines }: RouteContext): void {
  app.get(
    "/v1/shards",
    {
      schema: {
        operationId: "listShards",
        summary: "All shards, by name",
        tags,
        response: { 200: z.object({ items: z.array(ShardSchema) }).describe("The shards."), ...failures() },
      },
    },
    async () => ({ items: (await service.listShards()).map(viewOfShard) }),
  );

  app.get(
    "/v1/shards/:name",
    {
      schema: {
        operationId: "getShard",
        summary: "One shard",
        tags,
        params: Params,
        response: { 200: ShardSchema.describe("The shard."), ...failures(404) },
      },
    },
    async ({ params }) => viewOfShard(await service.getShard(params.name)),
  );

  app.post(
    "/v1/shards/:name/drain",
    {
      schema: {
        operationId: "drainShard",
        summary: "Moves every tenant of the shard away, then stops it; it is gone when it is not found any more",
        tags,
        params: Params,
        response: { 202: ShardResourceSchema.describe("The shard, being drained."), ...failures(404, 409) },
      },
    },
    async ({ params }, reply) => reply.code(202).send(withDrainShown(await service.drainShard(params.name))),
  );

  app.get(
    "/v1/shards/:name/logs",
    {
      config: { access: "operator" },
      schema: {
        operationId: "shardLogs",
        summary: "Lines of the shard's log, oldest first",
        tags,
        params: Params,
        querystring: LogQuery,
        response: {
          200: { description: "Lines of text.", content: { "text/plain": { schema: z.string() } } },
          ...failures(404, 422),
        },
      },
    },
    async ({ params, query }, reply) => {
      await service.getShard(params.name);
      await sendLines(reply, {
        contentType: "text/plain; charset=utf-8",
        lines: (signal) => service.shardLog(params.name, { ...query, signal }),
      });
    },
  );
}
