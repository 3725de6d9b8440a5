import type { FastifyBaseLogger, FastifyInstance, RawServerDefault } from "fastify";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import type { ClusterService } from "../controller/service/cluster-service.ts";
import type { AnsweredRequests, RouteAck, RouteFeedLine } from "../model/routes.ts";
import { ErrorSchema } from "./schemas.ts";
import type { SendLines } from "./streams.ts";

/** Fastify with routes typed by their zod schemas. */
export type Api = FastifyInstance<
  RawServerDefault,
  IncomingMessage,
  ServerResponse,
  FastifyBaseLogger,
  ZodTypeProvider
>;

/** Where routes come from; docs/route-feed.md. */
export interface RouteFeedSource {
  subscribe(gateway: string, options?: { wakes?: boolean }): AsyncIterable<RouteFeedLine> & { close(): void };
  acknowledge(ack: RouteAck): void;
  answered(requests: AnsweredRequests): void;
}

/** What the routes of every file need. */
export interface RouteContext {
  service: ClusterService;
  sendLines: SendLines;
}

const DESCRIPTIONS = {
  401: "The token is missing or wrong.",
  403: "The token's role is not enough.",
  404: "There is no such object.",
  409: "The state of things does not allow it: it exists already, there is no place, the release cannot read the schema, …",
  422: "The request is wrong; the details name each path, what was given and what is allowed.",
  429: "Too often.",
  503: "Not now.",
  504: "It took too long.",
} as const;

/** Documents how a call may fail, besides with 401, 403 and 500. */
export function failures(...statuses: (keyof typeof DESCRIPTIONS)[]) {
  return Object.fromEntries(
    [401 as const, 403 as const, ...statuses].map((status) => [status, ErrorSchema.describe(DESCRIPTIONS[status])]),
  );
}
