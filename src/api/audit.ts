import type { FastifyInstance, FastifyRequest } from "fastify";
import type { Actor } from "../model/role.ts";

/** One line of the audit log: who asked for what, and what came of it. Nothing of a request's body is in it. */
export interface AuditEntry {
  time: string;
  /** The name of the token; null where none was given, or it is not known. */
  actor: string | null;
  role: Actor["role"] | null;
  /** What was asked for, e.g. `deleteTenant`. */
  action: string;
  method: string;
  /** With the object's name and the query. */
  path: string;
  status: number;
  /** Who called, as far as the connection tells. */
  client: string;
}

/** Where audit entries are kept. Written in order, never changed. */
export interface AuditLog {
  append(entry: AuditEntry): void;
  /** Oldest first; the newest `tail` where that is given. */
  read(options: { tail?: number }): AsyncIterable<AuditEntry>;
}

/** Longer than any honest path; a longer one is cut. */
const LONGEST_PATH = 500;

/**
 * Records each request that changes something, or would have, and each one that is refused for its token. Those of gateways and of Prometheus,
 * and what only reads, would hide them.
 */
export function registerAudit(app: FastifyInstance, log: AuditLog, now: () => Date = () => new Date()): void {
  app.addHook("onResponse", async (request, reply) => {
    const status = reply.statusCode;
    const changes = request.method !== "GET" && request.method !== "HEAD" && isPeoples(request);
    if (!changes && status !== 401 && status !== 403) return;
    const { schema } = request.routeOptions;
    log.append({
      time: now().toISOString(),
      actor: request.actor?.name ?? null,
      role: request.actor?.role ?? null,
      action: schema?.operationId ?? "unknown",
      method: request.method,
      path: request.url.slice(0, LONGEST_PATH),
      status,
      client: request.ip,
    });
  });
}

function isPeoples({ routeOptions, actor }: FastifyRequest): boolean {
  const { access } = routeOptions.config;
  // Whoever signs in is somebody from then on.
  return access !== "gateway" && (access !== "anybody" || actor !== undefined);
}
