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

export interface Tokens {
  apiToken: string;
  gatewayToken: string;
}

/** Asks for a bearer token before anything of a request is read; also where there is no such route. */
export function registerAuthentication(app: FastifyInstance, tokens: Tokens): void {
  const digests = { user: digestOf(tokens.apiToken), gateway: digestOf(tokens.gatewayToken) };
  app.addHook("onRequest", async (request) => {
    const access = request.routeOptions.config.access ?? "user";
    if (access === "anybody") return;
    const given = /^Bearer +(\S+) *$/i.exec(request.headers.authorization ?? "")?.[1];
    if (given === undefined)
      throw new UserError("Unauthorized", "the header `Authorization: Bearer TOKEN` is missing or malformed");
    // Digests have one length, so the time of the comparison tells nothing of the token, not even its length.
    if (!timingSafeEqual(digestOf(given), digests[access])) throw new UserError("Unauthorized", refusal(access));
  });
}

function refusal(access: Access): string {
  return access === "gateway" ? "this call needs the gateways' token" : "the token is wrong";
}

function digestOf(token: string): Buffer {
  return createHash("sha256").update(token).digest();
}
