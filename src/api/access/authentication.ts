import { createHash, timingSafeEqual } from "node:crypto";
import type { FastifyInstance, FastifyRequest } from "fastify";
import { UserError } from "../../model/errors.ts";
import { mayActAs, type Actor, type Role } from "../../model/role.ts";
import { refuseForeignPages } from "./browser-guard.ts";
import { sessionCookieOf } from "./session-cookie.ts";
import type { ConsoleAccess } from "./sessions.ts";

/** Who may call a route: people with a role, gateways, or anybody who can reach the port. */
export type Access = Role | "gateway" | "anybody";

declare module "fastify" {
  interface FastifyContextConfig {
    /** Default: viewer for what only reads, operator for the rest. */
    access?: Access;
  }
  interface FastifyRequest {
    /** Who makes it; undefined where a route is open to anybody, or the token is not known. */
    actor?: Actor;
  }
}

/** A token, or those that are good at the moment: while one is being replaced, the one before may be, too. */
export type TokenSource = string | (() => readonly string[]);

export interface Tokens {
  /** The token that the cluster makes for its owner: an admin's, named `owner`. */
  apiToken: TokenSource;
  gatewayToken: TokenSource;
  /** Whose token has this SHA-256 digest (hexadecimal). */
  actorOf?: (digest: string) => Actor | undefined;
  /** Where browsers sign in; absent: cookies count for nothing. */
  console?: ConsoleAccess;
}

export interface Authentication {
  /** Who bears a token, among people. */
  personOf(token: string): { actor: Actor; digest: string } | undefined;
}

export const OWNER: Actor = { name: "owner", role: "admin" };
const GATEWAY: Actor = { name: "gateway", role: "viewer" };

/** Asks for a bearer token before anything of a request is read; also where there is no such route. */
export function registerAuthentication(app: FastifyInstance, tokens: Tokens): Authentication {
  const owners = digestsOf(tokens.apiToken);
  const gateways = digestsOf(tokens.gatewayToken);
  const actorOf = (digest: Buffer): Actor | undefined => {
    if (isAmong(digest, owners())) return OWNER;
    if (isAmong(digest, gateways())) return GATEWAY;
    return tokens.actorOf?.(digest.toString("hex"));
  };
  const actorOfSession = async (request: FastifyRequest): Promise<Actor | undefined> => {
    const cookie = tokens.console && sessionCookieOf(request);
    if (!tokens.console || cookie === undefined) return undefined;
    refuseForeignPages(request, tokens.console.hosts);
    const session = await tokens.console.sessions.open(cookie);
    const actor = session && actorOf(Buffer.from(session.digest, "hex"));
    if (!actor) throw new UserError("Unauthorized", "the session has ended: sign in again");
    return actor;
  };
  app.addHook("onRequest", async (request) => {
    const access = accessTo(request);
    if (access === "anybody") return;
    const given = /^Bearer +(\S+) *$/i.exec(request.headers.authorization ?? "")?.[1];
    const actor = given === undefined ? await actorOfSession(request) : actorOf(digestOf(given));
    if (given === undefined && !actor)
      throw new UserError("Unauthorized", "the header `Authorization: Bearer TOKEN` is missing or malformed");
    if (actor && actor !== GATEWAY) request.actor = actor;
    if ((actor === GATEWAY) !== (access === "gateway") || !actor)
      throw new UserError(
        "Unauthorized",
        access === "gateway" ? "this call needs the gateways' token" : "the token is wrong",
      );
    if (access !== "gateway") requireRole(actor, access, "this call");
  });
  return {
    personOf(token) {
      const digest = digestOf(token);
      const actor = actorOf(digest);
      return actor && actor !== GATEWAY ? { actor, digest: digest.toString("hex") } : undefined;
    },
  };
}

/** @param what what needs the role, in words @throws UserError Forbidden */
export function requireRole(actor: Actor | undefined, needed: Role, what: string): void {
  if (actor && mayActAs(actor.role, needed)) return;
  const has = actor ? `the token ${actor.name} has the role ${actor.role}` : "nobody is known to ask";
  throw new UserError("Forbidden", `${what} needs the role ${needed}, and ${has}`);
}

function accessTo({ method, routeOptions }: FastifyRequest): Access {
  return routeOptions.config.access ?? (method === "GET" || method === "HEAD" ? "viewer" : "operator");
}

/** Digests have one length, so the time of a comparison tells nothing of a token, not even its length. */
function isAmong(digest: Buffer, good: readonly Buffer[]): boolean {
  return good.some((one) => timingSafeEqual(digest, one));
}

function digestsOf(source: TokenSource): () => Buffer[] {
  if (typeof source !== "string") return () => source().map(digestOf);
  const digests = [digestOf(source)];
  return () => digests;
}

function digestOf(token: string): Buffer {
  return createHash("sha256").update(token).digest();
}
