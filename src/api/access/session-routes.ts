import rateLimit from "@fastify/rate-limit";
import { z } from "zod";
import { UserError } from "../../model/errors.ts";
import type { Authentication } from "./authentication.ts";
import { failures, type Api } from "../api.ts";
import { grantOf, GrantFields } from "./grants.ts";
import { refuseForeignPages } from "./browser-guard.ts";
import { sessionCookieOf, setSessionCookie } from "./session-cookie.ts";
import type { ConsoleAccess } from "./sessions.ts";

/** A person mistypes a few times; a token of 256 bits is not guessed by more either, but its use is kept off the log. */
const SIGN_INS_PER_MINUTE = 10;

const tags = ["access"];

/**
 * Tokens for cookies: a page must not keep a token where its scripts can read it.
 * @param personOf whose token it is
 */
export async function sessionRoutes(
  app: Api,
  { sessions, hosts }: ConsoleAccess,
  personOf: Authentication["personOf"],
): Promise<void> {
  await app.register(rateLimit, { global: false });
  app.post(
    "/v1/session",
    {
      config: {
        access: "anybody",
        rateLimit: {
          max: SIGN_INS_PER_MINUTE,
          timeWindow: 60_000,
          errorResponseBuilder: () => new UserError("RateLimited", "too many attempts to sign in: wait a minute"),
        },
      },
      schema: {
        operationId: "signIn",
        summary: "Exchanges a token for a session cookie, for browsers",
        tags,
        security: [],
        body: z.strictObject({ token: z.string().min(1).max(500) }),
        response: {
          201: z
            .object({ name: z.string(), ...GrantFields, expiresAt: z.string().describe("ISO 8601, UTC.") })
            .describe("Who is signed in, and until when."),
          ...failures(422, 429),
        },
      },
    },
    async (request, reply) => {
      refuseForeignPages(request, hosts);
      const found = await personOf(request.body.token.trim());
      if (!found) throw new UserError("Unauthorized", "the token is wrong, or has been revoked");
      request.actor = found.actor;
      const session = await sessions.begin(found.subject);
      setSessionCookie(request, reply, session);
      const { name } = found.actor;
      return reply.code(201).send({ name, ...grantOf(found.actor), expiresAt: session.expiresAt.toISOString() });
    },
  );
  app.delete(
    "/v1/session",
    {
      config: { access: "viewer" },
      schema: {
        operationId: "signOut",
        summary: "Ends the session of the cookie",
        tags,
        response: { 204: z.undefined().describe("It has ended."), ...failures() },
      },
    },
    async (request, reply) => {
      const session = await sessions.open(sessionCookieOf(request) ?? "");
      if (session) await sessions.end(session);
      setSessionCookie(request, reply, undefined);
      return reply.code(204).send();
    },
  );
}
