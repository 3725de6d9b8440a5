import type { FastifyInstance, FastifyRequest } from "fastify";
import type { Actor } from "../model/role.ts";
import { changesBetween, type AuditChange, type Snapshot } from "./audit-changes.ts";
import { ChangeBudget, Refusals } from "./audit-refusals.ts";

/** One line of the audit log: who asked for what, and what came of it. */
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
  /** What it changed; absent where that is nothing, or not of an object's wishes. */
  changes?: AuditChange[];
  /** How many more were refused in that minute, of the same caller, or of all that nobody knows. */
  omitted?: number;
}

/** What a check of a log's chain found. */
export interface ChainVerification {
  entries: number;
  /** The hash of the newest entry: kept elsewhere, it shows later that nothing was cut off at the end. */
  head: string;
  /** Entries from before there was a chain; nothing can be said of them. */
  unchained: number;
  /** Where an entry was changed, removed or put in, or (entry 0) a part of the log is missing; empty: nowhere. */
  breaks: { entry: number; time: string; problem: string }[];
}

/**
 * Where audit entries are kept. Written in the order in which they were given, in one chain, and never changed, also over restarts of the process and
 * where another one takes over: whoever was taken over from can add nothing.
 */
export interface AuditLog {
  /** @returns whether it is kept; what is not, or not yet, is said elsewhere. Never throws. */
  append(entry: AuditEntry): boolean | Promise<boolean>;
  /** Oldest first; the newest `tail` where that is given. */
  read(options: { tail?: number }): AsyncIterable<AuditEntry>;
  /** Whether what is kept is what was written. */
  verify(): Promise<ChainVerification>;
}

/** How an object is looked at before and after a request. Undefined: it is not there. */
export type Look = (kind: "tenants" | "shards" | "fleet", name: string) => Promise<Snapshot | undefined>;

declare module "fastify" {
  interface FastifyContextConfig {
    /** By this, somebody signs in: it is recorded whatever comes of it. */
    isSignIn?: boolean;
  }
  interface FastifyRequest {
    auditedBefore?: Snapshot;
    isAudited?: boolean;
  }
}

/** Longer than any honest path; a longer one is cut. */
const LONGEST_PATH = 500;
/** Of what is refused anybody can make a long one. */
const LONGEST_REFUSED_PATH = 200;

/**
 * Records each request that changes something, or would have, and each one that is refused for its token. Those of gateways and of Prometheus,
 * and what only reads, would hide them.
 */
export function registerAudit(
  app: FastifyInstance,
  log: AuditLog,
  look: Look,
  now: () => Date = () => new Date(),
): void {
  const budget = new ChangeBudget(now);
  app.addHook("preHandler", async (request) => {
    const { actor } = request;
    if (actor?.role === "tenant-admin" && isChange(request)) budget.ask(actor.name);
    const object = isChange(request) ? objectOf(request) : undefined;
    const before = object && (await lookAt(look, object));
    if (before) request.auditedBefore = before;
  });
  const refusals = new Refusals<AuditEntry>((entry) => log.append(entry));
  const record = async (request: FastifyRequest, status: number) => {
    if (request.isAudited) return;
    request.isAudited = true;
    const isAsked = isChange(request);
    const { isSignIn = false } = request.routeOptions.config;
    if (!isAsked && !isSignIn && status !== 401 && status !== 403) return;
    const { schema } = request.routeOptions;
    const object = isAsked && status < 400 ? objectOf(request) : undefined;
    const changes = object ? changesBetween(request.auditedBefore, await lookAt(look, object)) : [];
    const entry: AuditEntry = {
      time: now().toISOString(),
      actor: request.actor?.name ?? null,
      role: request.actor?.role ?? null,
      action: schema?.operationId ?? "unknown",
      method: request.method,
      // What a provider sends along lets in whoever has it.
      path: (isSignIn ? (request.url.split("?", 1)[0] ?? "") : request.url).slice(
        0,
        status < 400 ? LONGEST_PATH : LONGEST_REFUSED_PATH,
      ),
      status,
      client: request.ip,
      ...(changes.length === 0 ? {} : { changes }),
    };
    if (request.actor?.role === "tenant-admin") budget.charge(request.actor.name, entry);
    if (refusals.admits(entry)) await log.append(entry);
  };
  // Before the answer: whoever has heard that something was changed finds it in the log, whatever becomes of this process.
  app.addHook("onSend", (request, reply) => record(request, reply.statusCode));
  // Streams of lines are answered without it.
  app.addHook("onResponse", (request, reply) => record(request, reply.statusCode));
}

function isChange(request: FastifyRequest): boolean {
  return request.method !== "GET" && request.method !== "HEAD" && isPeoples(request);
}

interface ObjectNamed {
  kind: Parameters<Look>[0];
  name: string;
}

/** What a request is about, where that is one object with wishes of its own. */
function objectOf({ routeOptions, params, body }: FastifyRequest): ObjectNamed | undefined {
  const [, version, kind] = routeOptions.url?.split("/") ?? [];
  if (version !== "v1") return undefined;
  if (kind === "fleet") return { kind, name: "fleet" };
  if (kind !== "tenants" && kind !== "shards") return undefined;
  const { name } = { ...Object(body), ...Object(params) } as { name?: unknown };
  return typeof name === "string" ? { kind, name } : undefined;
}

async function lookAt(look: Look, { kind, name }: ObjectNamed): Promise<Snapshot | undefined> {
  // What cannot be looked at has been said, or will be, by the request itself.
  return look(kind, name).catch(() => undefined);
}

function isPeoples({ routeOptions, actor }: FastifyRequest): boolean {
  const { access } = routeOptions.config;
  // Whoever signs in is somebody from then on.
  return access !== "gateway" && (access !== "anybody" || actor !== undefined);
}
