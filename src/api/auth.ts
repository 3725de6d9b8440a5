import { createHash, timingSafeEqual } from "node:crypto";
import type { FastifyInstance } from "fastify";
import { UserError } from "../model/errors.ts";

/** Who may call a route: people (and the CLI), gateways, or anybody who can reach the port. */
export type Access = "user" | "gateway" | "anybody";

declare module "fastify" {
  interface FastifyContextConfig {
    /** Default: user. */
    access?: Access;
  }
}

/** A token, or those that are good at the moment: while one is being replaced, the one before may be, too. */
export type TokenSource = string | (() => readonly string[]);

export interface Tokens {
  apiToken: TokenSource;
  gatewayToken: TokenSource;
}

/** Asks for a bearer token before anything of a request is read; also where there is no such route. */
export function registerAuthentication(app: FastifyInstance, tokens: Tokens): void {
  const digests = { user: digestsOf(tokens.apiToken), gateway: digestsOf(tokens.gatewayToken) };
  app.addHook("onRequest", async (request) => {
    const access = request.routeOptions.config.access ?? "user";
    if (access === "anybody") return;
    const given = /^Bearer +(\S+) *$/i.exec(request.headers.authorization ?? "")?.[1];
    if (given === undefined)
      throw new UserError("Unauthorized", "the header `Authorization: Bearer TOKEN` is missing or malformed");
    // Digests have one length, so the time of the comparison tells nothing of the token, not even its length.
    const digest = digestOf(given);
    if (!digests[access]().some((good) => timingSafeEqual(digest, good)))
      throw new UserError("Unauthorized", refusal(access));
  });
}

function refusal(access: Access): string {
  return access === "gateway" ? "this call needs the gateways' token" : "the token is wrong";
}

function digestsOf(source: TokenSource): () => Buffer[] {
  if (typeof source !== "string") return () => source().map(digestOf);
  const digests = [digestOf(source)];
  return () => digests;
}

function digestOf(token: string): Buffer {
  return createHash("sha256").update(token).digest();
}
