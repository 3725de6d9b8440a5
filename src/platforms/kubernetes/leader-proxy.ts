import httpProxy from "@fastify/http-proxy";
import fastify, { type FastifyInstance } from "fastify";
import type { Logger } from "pino";
import type { Registry } from "prom-client";
import { gentleClose } from "../../api/gentle-close.ts";
import { REPLICA_HEADER, type ReplicaProof } from "./replica-proof.ts";

/** Set on what is passed to the leader: it must not travel on from there. */
const FORWARDED = "x-synapse-shards-forwarded";
/** Under which name a browser reached the replica that passes its request on. */
const BROWSED = "x-synapse-shards-browsed";
const RETRY_AFTER_SECONDS = 1;

export interface LeaderProxyOptions {
  host: string;
  port: number;
  metrics: Registry;
  logger: Logger;
  /** Base URL of the API: this process's own while it leads, the leader's while another does. */
  upstream: () => { url: string; own: boolean } | undefined;
  /** Whether another replica passed a request on: then its word for who asks counts, and under which name. */
  proof?: ReplicaProof;
}

/**
 * What every replica of the controller shows to the outside: its own health and metrics; API requests go on to the leader, which alone
 * decides. So a Service may send a gateway or a person to any replica.
 */
export async function startLeaderProxy(options: LeaderProxyOptions): Promise<{ port: number; close(): Promise<void> }> {
  const { host, port, metrics, upstream } = options;
  const app = fastify({ logger: false });
  const close = gentleClose(app);
  app.get("/healthz", () => ({ ok: true }));
  // Ready without a leader too: otherwise the Service would have no endpoints, and nobody would be told to retry.
  app.get("/readyz", () => ({ ok: true, leader: upstream()?.own ?? false }));
  app.get("/metrics", async (_request, reply) => reply.type(metrics.contentType).send(await metrics.metrics()));
  await forwardToLeader(app, options);
  await app.listen({ host, port });
  const address = app.server.address();
  return { port: typeof address === "object" && address ? address.port : port, close };
}

export interface ForwardOptions extends Pick<LeaderProxyOptions, "logger" | "upstream" | "proof"> {
  /** The address of whoever asks, for the audit log. Default: the connection's word, not the client's. */
  clientOf?: (request: { ip: string; socket: { remoteAddress?: string } }) => string | undefined;
  /** Tells the leader under which name it was reached, as browsers are let in by it. */
  keepsHost?: boolean;
}

/** Passes what is asked of the API on to the controller that leads. */
export async function forwardToLeader(
  app: FastifyInstance,
  { logger, upstream, proof, clientOf = ({ socket }) => socket.remoteAddress, keepsHost = false }: ForwardOptions,
): Promise<void> {
  await app.register(httpProxy, {
    upstream: "",
    prefix: "/v1",
    rewritePrefix: "/v1",
    undici: { connections: 512, pipelining: 1, bodyTimeout: 0, headersTimeout: 300_000 },
    preHandler: (request, reply, done) => {
      const target = upstream();
      // The lease is changing hands: the replica that forwarded this believed that it was still ours.
      if (target && (target.own || request.headers[FORWARDED] === undefined)) return done();
      reply
        .code(503)
        .header("retry-after", RETRY_AFTER_SECONDS)
        .send({
          error: { code: "Unavailable", message: "no controller leads at the moment; try again in a few seconds" },
        });
    },
    replyOptions: {
      getUpstream: () => upstream()?.url ?? "",
      rewriteRequestHeaders: (request, { [REPLICA_HEADER]: given, [BROWSED]: browsed, ...headers }) => {
        const isOfReplica = proof?.isGood(given) ?? false;
        const host = keepsHost
          ? request.headers.host
          : isOfReplica && typeof browsed === "string"
            ? browsed
            : undefined;
        const client = isOfReplica ? headers["x-forwarded-for"] : clientOf(request);
        const passed = { ...headers, [FORWARDED]: "1", "x-forwarded-for": client };
        if (upstream()?.own) return host === undefined ? passed : { ...passed, host };
        const own = proof?.make();
        if (own === undefined) return passed;
        return { ...passed, [REPLICA_HEADER]: own, ...(host === undefined ? {} : { [BROWSED]: host }) };
      },
      onError: (reply, { error }) => {
        logger.warn({ err: error }, "the leader's API does not answer");
        reply
          .code(503)
          .header("retry-after", RETRY_AFTER_SECONDS)
          .send({
            error: {
              code: "Unavailable",
              message: "the controller that leads does not answer; try again in a few seconds",
            },
          });
      },
    },
  });
}
