import type { Registry } from "prom-client";
import { z } from "zod";
import type { ClusterEvent } from "../model/event.ts";
import type { Access } from "./access/authorization.ts";
import { eventsWithin, problemsWithin, statusWithin } from "./access/limited-views.ts";
import { failures, type Api, type RouteContext, type RouteFeedSource } from "./api.ts";
import {
  EventSchema,
  flag,
  GatewayId,
  ProblemSchema,
  RouteAckBody,
  StatusSchema,
  AnsweredRequestsBody,
  WakeRequestBody,
  wholeNumber,
} from "./schemas.ts";

/** More than anybody reads; a full cluster has as many as tenants. */
const MOST_PROBLEMS = 1000;

const NDJSON = "application/x-ndjson";

const SERVER_SENT = "text/event-stream";

/** A browser asks again automatically after a connection that broke, and says what it had last. */
function lastEventId(header: string | string[] | undefined): number | undefined {
  return typeof header === "string" && /^\d{1,15}$/.test(header) ? Number(header) : undefined;
}

/** Each with its id, and with the empty line that ends it when the line's own end has been added. */
async function* asServerSent(events: AsyncIterable<ClusterEvent>): AsyncGenerator<string> {
  for await (const event of events) yield `id: ${event.id}\ndata: ${JSON.stringify(event)}\n`;
}

async function* asJson(items: AsyncIterable<unknown>): AsyncGenerator<string> {
  for await (const item of items) yield JSON.stringify(item);
}

/** The cluster as a whole: how it is, what happened, how to stop it. */
export function clusterRoutes(app: Api, { service, sendLines }: RouteContext, onShutdown?: () => void): void {
  app.get(
    "/v1/status",
    {
      schema: {
        operationId: "getStatus",
        summary: "How the cluster is",
        tags: ["cluster"],
        response: { 200: StatusSchema.describe("Its status."), ...failures() },
      },
    },
    async ({ scope }) => statusWithin(service, scope, await service.status()),
  );

  app.get(
    "/v1/problems",
    {
      schema: {
        operationId: "listProblems",
        summary: "What is wrong now, and what to do about each; errors first",
        tags: ["cluster"],
        querystring: z.object({ limit: wholeNumber(MOST_PROBLEMS).default(MOST_PROBLEMS) }),
        response: {
          200: z
            .object({ items: z.array(ProblemSchema), total: z.int().describe("With those beyond the limit.") })
            .describe("The problems."),
          ...failures(422),
        },
      },
    },
    async ({ query, scope }) => {
      const problems = await problemsWithin(service, scope, await service.listProblems());
      return { items: problems.slice(0, query.limit), total: problems.length };
    },
  );

  app.get(
    "/v1/events",
    {
      schema: {
        operationId: "listEvents",
        summary: "What happened, oldest first, one JSON object a line",
        tags: ["cluster"],
        querystring: z.object({
          after: wholeNumber(Number.MAX_SAFE_INTEGER).optional().describe("Only events with a higher id."),
          object: z
            .string()
            .regex(/^(Tenant|Shard|Fleet)\/[a-z0-9.-]{1,100}$/, "Tenant/NAME, Shard/NAME or Fleet/fleet")
            .optional()
            .describe("Only events of this object, e.g. Tenant/clinic-a."),
          follow: flag.describe("Go on with new events as they come."),
        }),
        response: {
          200: {
            description: "One event a line; server-sent events with its id where the request accepts only those.",
            content: { [NDJSON]: { schema: EventSchema }, [SERVER_SENT]: { schema: z.string() } },
          },
          ...failures(422),
        },
      },
    },
    async ({ query, headers, scope }, reply) => {
      const eventsOf = (asked: Parameters<typeof service.events>[0]) =>
        eventsWithin(service, scope, service.events(asked));
      if (headers.accept === SERVER_SENT) {
        const after = lastEventId(headers["last-event-id"]) ?? query.after;
        const events = (signal: AbortSignal) => eventsOf({ ...query, after, signal });
        await sendLines(reply, { contentType: SERVER_SENT, lines: (signal) => asServerSent(events(signal)) });
        return;
      }
      await sendLines(reply, { contentType: NDJSON, lines: (signal) => asJson(eventsOf({ ...query, signal })) });
    },
  );

  if (!onShutdown) return;
  app.post(
    "/v1/shutdown",
    {
      config: { access: "admin" },
      schema: {
        operationId: "shutdown",
        summary: "Stops the cluster in order; tenants, users and messages are there at its next start",
        tags: ["cluster"],
        response: { 202: z.object({ stopping: z.literal(true) }).describe("It stops now."), ...failures() },
      },
    },
    async (_request, reply) => {
      reply.raw.once("close", onShutdown);
      return reply.code(202).send({ stopping: true });
    },
  );
}

/** For gateways only: docs/route-feed.md. */
export function routeFeedRoutes(app: Api, { service, sendLines }: RouteContext, routeFeed: RouteFeedSource): void {
  const config = { access: "gateway" } as const;
  const security = [{ gatewayToken: [] }];

  app.get(
    "/v1/routes",
    {
      config,
      schema: {
        operationId: "followRoutes",
        summary: "Where tenants are, now and from now on; one RouteFeedLine a line, without end",
        tags: ["gateways"],
        security,
        querystring: z.object({
          gateway: GatewayId,
          wakes: flag.describe("It holds requests for tenants that sleep, and asks for them to be woken."),
        }),
        response: {
          200: {
            description: "A snapshot, then updates and pings.",
            content: { [NDJSON]: { schema: z.looseObject({ type: z.enum(["snapshot", "update", "ping"]) }) } },
          },
          ...failures(422),
        },
      },
    },
    async ({ query }, reply) => {
      await sendLines(reply, {
        contentType: NDJSON,
        lines: (signal) => {
          const lines = routeFeed.subscribe(query.gateway, { wakes: query.wakes });
          signal.addEventListener("abort", () => lines.close(), { once: true });
          if (signal.aborted) lines.close();
          return asJson(lines);
        },
      });
    },
  );

  app.post(
    "/v1/routes/acks",
    {
      config,
      schema: {
        operationId: "acknowledgeRoutes",
        summary: "A gateway's word that it acts on everything up to a version",
        tags: ["gateways"],
        security,
        body: RouteAckBody,
        response: { 204: z.undefined().describe("Noted."), ...failures(422) },
      },
    },
    async ({ body }, reply) => {
      routeFeed.acknowledge(body);
      return reply.code(204).send();
    },
  );

  app.post(
    "/v1/routes/requests",
    {
      config,
      schema: {
        operationId: "countRequests",
        summary: "How many requests dedicated homeservers have answered to a gateway; docs/route-feed.md",
        tags: ["gateways"],
        security,
        body: AnsweredRequestsBody,
        response: { 204: z.undefined().describe("Noted."), ...failures(422) },
      },
    },
    async ({ body }, reply) => {
      routeFeed.answered(body);
      return reply.code(204).send();
    },
  );

  app.post(
    "/v1/routes/wakes",
    {
      config,
      schema: {
        operationId: "requestWakes",
        summary: "Asks for tenants to be woken that a gateway has requests for",
        tags: ["gateways"],
        security,
        body: WakeRequestBody,
        response: {
          202: z.undefined().describe("They are woken, each once; its route tells what comes of it."),
          ...failures(422),
        },
      },
    },
    async ({ body, log }, reply) => {
      const wishes = body.tenants.map(({ tenant, why }) => ({ tenant, reason: why }));
      // A gateway asks again while it has requests for them.
      service.wakeTenants(wishes).catch((error: unknown) => log.error({ err: error }, "tenants cannot be woken"));
      return reply.code(202).send();
    },
  );
}

/** What needs no token: liveness, and metrics the way Prometheus expects them. They have names and numbers, nothing secret. */
export function openRoutes(app: Api, metrics: Registry, metricsNeedToken = false): void {
  const config: { access: Access } = { access: "anybody" };

  app.get(
    "/healthz",
    {
      config,
      schema: {
        operationId: "getHealth",
        summary: "Whether the API answers",
        tags: ["cluster"],
        security: [],
        response: { 200: z.object({ ok: z.literal(true) }).describe("It does.") },
      },
    },
    async () => ({ ok: true as const }),
  );

  app.get(
    "/metrics",
    {
      config: metricsNeedToken ? { access: "viewer" as const } : config,
      schema: {
        operationId: "getMetrics",
        summary: "Metrics in Prometheus' text format",
        tags: ["cluster"],
        ...(metricsNeedToken ? {} : { security: [] }),
        response: { 200: { description: "Metrics.", content: { "text/plain": { schema: z.string() } } } },
      },
    },
    async (_request, reply) => reply.type(metrics.contentType).send(await metrics.metrics()),
  );
}
