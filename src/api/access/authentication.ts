import { createHash, timingSafeEqual } from "node:crypto";
import type { FastifyInstance, FastifyRequest } from "fastify";
import { UserError } from "../../model/errors.ts";
import type { Actor } from "../../model/role.ts";
import { accessTo } from "./authorization.ts";
import { refuseForeignPages } from "./browser-guard.ts";
import { sessionCookieOf } from "./session-cookie.ts";
import type { ConsoleAccess } from "./console-access.ts";
import type { Subject } from "./sessions.ts";

declare module "fastify" {
  interface FastifyRequest {
    /** Who makes it; undefined where a route is open to anybody, or the token is not known. */
    actor?: Actor;
    /** Whether they still are who they were, and may do the same; for answers that go on for hours. */
    isStillGood?: () => Promise<boolean>;
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
  /** Whose token it is, where another system gave it. */
  reviewToken?: (token: string) => Promise<Actor | undefined>;
  /** Where browsers sign in; absent: cookies count for nothing. */
  console?: ConsoleAccess;
}

export interface Authentication {
  /** Who bears a token, among people. */
  personOf(token: string): Promise<{ actor: Actor; subject: Subject } | undefined>;
}

const OWNER: Actor = { name: "owner", role: "admin" };
const GATEWAY: Actor = { name: "gateway", role: "viewer" };

/** A stream goes on for this long after it was last said to be its reader's. */
const LONGEST_AWAY_MS = 120_000;

/** Whether it is the cluster's own token, and not somebody who is called like it. */
export function isOwner(actor: Actor | undefined): boolean {
  return actor === OWNER;
}

/** Asks who makes a request before anything of it is read; also where there is no such route. */
export function registerAuthentication(app: FastifyInstance, tokens: Tokens): Authentication {
  const owners = digestsOf(tokens.apiToken);
  const gateways = digestsOf(tokens.gatewayToken);
  const ofDigest = (digest: Buffer): Actor | undefined => {
    if (isAmong(digest, owners())) return OWNER;
    if (isAmong(digest, gateways())) return GATEWAY;
    return tokens.actorOf?.(digest.toString("hex"));
  };
  /** What a subject may do now. */
  const actorOf = async (subject: Subject): Promise<Actor | undefined> => {
    if (subject.kind === "token") return ofDigest(Buffer.from(subject.digest, "hex"));
    if (subject.kind === "kubernetes") return tokens.reviewToken?.(subject.token);
    if (subject.kind === "oidc") return tokens.console?.oidc?.actorOf(subject.person);
    return tokens.console?.accounts?.accounts.actorOf(subject.name, subject.generation);
  };
  const subjectOfToken = (token: string): Subject => {
    const digest = digestOf(token);
    return tokens.reviewToken && !ofDigest(digest)
      ? { kind: "kubernetes", token }
      : { kind: "token", digest: digest.toString("hex") };
  };
  /** Who asks, of those who are known. @throws UserError Unauthorized where a request does not say who it is from */
  const actorAsking = async (request: FastifyRequest): Promise<Actor | undefined> => {
    const given = /^Bearer +(\S+) *$/i.exec(request.headers.authorization ?? "")?.[1];
    if (given !== undefined) return actorOf(subjectOfToken(given));
    const cookie = tokens.console && sessionCookieOf(request, { url: tokens.console.url() });
    if (!tokens.console || cookie === undefined)
      throw new UserError("Unauthorized", "the header `Authorization: Bearer TOKEN` is missing or malformed");
    refuseForeignPages(request, tokens.console.hosts);
    const session = await tokens.console.sessions.open(cookie);
    const actor = session && (await actorOf(session.subject));
    if (!actor) throw new UserError("Unauthorized", "the session has ended: sign in again");
    return actor;
  };
  app.addHook("onRequest", async (request) => {
    const access = accessTo(request);
    if (access === "anybody") return;
    const actor = await actorAsking(request);
    if (actor && actor !== GATEWAY) request.actor = actor;
    if ((actor === GATEWAY) !== (access === "gateway") || !actor)
      throw new UserError(
        "Unauthorized",
        access === "gateway" ? "this call needs the gateways' token" : "the token is wrong, or has expired",
      );
    let goodAt = performance.now();
    request.isStillGood = async () => {
      try {
        // Of a cookie, the session may have been signed out.
        const again = await actorAsking(request);
        goodAt = performance.now();
        return again?.role === actor.role && again.tenants === actor.tenants;
      } catch (error) {
        // Whoever can say is away for a moment, and has not said no.
        const isAway = error instanceof UserError && error.code === "Unavailable";
        return isAway && performance.now() - goodAt < LONGEST_AWAY_MS;
      }
    };
  });
  return {
    async personOf(token) {
      const subject = subjectOfToken(token);
      const actor = await actorOf(subject);
      return actor && actor !== GATEWAY ? { actor, subject } : undefined;
    },
  };
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
