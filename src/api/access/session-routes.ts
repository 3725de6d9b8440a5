import rateLimit from "@fastify/rate-limit";
import { z } from "zod";
import { UserError } from "../../model/errors.ts";
import { failures, type Api } from "../api.ts";
import { accountSignInRoutes } from "./accounts/sign-in-routes.ts";
import type { Authentication } from "./authentication.ts";
import { refuseForeignPages } from "./browser-guard.ts";
import { oidcRoutes } from "./oidc-routes.ts";
import { SIGN_IN, signIn, SignedInSchema } from "./signing-in.ts";
import { sessionCookieOf, setSessionCookie } from "./session-cookie.ts";
import type { ConsoleAccess } from "./console-access.ts";

const tags = ["access"];

/**
 * Tokens for cookies: a page must not keep a token where its scripts can read it.
 * @param personOf whose token it is
 */
export async function sessionRoutes(
  app: Api,
  access: ConsoleAccess,
  personOf: Authentication["personOf"],
): Promise<void> {
  const { sessions, hosts } = access;
  await app.register(rateLimit, { global: false });
  app.get(
    "/v1/session/methods",
    {
      config: { access: "anybody" },
      schema: {
        operationId: "listSignInMethods",
        summary: "How people sign in to the console, besides with tokens",
        tags,
        security: [],
        response: {
          200: z
            .object({
              oidc: z.object({ label: z.string() }).optional().describe("At GET /v1/session/oidc."),
              accounts: z.boolean().describe("Whether anybody has an account here."),
            })
            .describe("The ways."),
          ...failures(),
        },
      },
    },
    async () => ({
      ...(access.oidc ? { oidc: { label: access.oidc.label } } : {}),
      accounts: access.accounts !== undefined && !access.accounts.accounts.isEmpty,
    }),
  );
  app.post(
    "/v1/session",
    {
      config: SIGN_IN,
      schema: {
        operationId: "signIn",
        summary: "Exchanges a token for a session cookie, for browsers",
        tags,
        security: [],
        body: z.strictObject({ token: z.string().min(1).max(10_000) }),
        response: { 201: SignedInSchema, ...failures(422, 429) },
      },
    },
    async (request, reply) => {
      refuseForeignPages(request, hosts);
      const found = await personOf(request.body.token.trim());
      if (!found) throw new UserError("Unauthorized", "the token is wrong, has expired, or has been revoked");
      return reply.code(201).send(await signIn(request, reply, { access, ...found }));
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
        response: {
          200: z
            .object({
              continueAt: z.string().optional().describe("Where the browser signs out of the identity provider, too."),
            })
            .describe("It has ended here."),
          ...failures(),
        },
      },
    },
    async (request, reply) => {
      const session = await sessions.open(sessionCookieOf(request, { url: access.url() }) ?? "");
      if (session) await sessions.end(session);
      setSessionCookie(request, reply, { session: undefined, url: access.url() });
      const continueAt = session?.subject.kind === "oidc" ? await access.oidc?.signOutUrl() : undefined;
      return continueAt === undefined ? {} : { continueAt };
    },
  );
  oidcRoutes(app, access);
  accountSignInRoutes(app, access);
}
