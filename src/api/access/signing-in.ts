import type { FastifyReply, FastifyRequest } from "fastify";
import { z } from "zod";
import { UserError } from "../../model/errors.ts";
import { grantOf, GrantFields } from "../../model/grant.ts";
import { mayUseConsole, type Actor } from "../../model/role.ts";
import { setSessionCookie } from "./session-cookie.ts";
import type { ConsoleAccess } from "./console-access.ts";
import type { Subject } from "./sessions.ts";

/** A person mistypes a few times; a token of 256 bits is not guessed by more either, but its use is kept off the log. */
const SIGN_INS_PER_MINUTE = 10;

/** A cookie has 4 KiB, and sealing makes a third more of it. */
const LONGEST_SEALED = 2400;

/** For routes by which somebody signs in. */
export const SIGN_IN = {
  access: "anybody",
  isSignIn: true,
  rateLimit: {
    max: SIGN_INS_PER_MINUTE,
    timeWindow: 60_000,
    errorResponseBuilder: () => new UserError("RateLimited", "too many attempts to sign in: wait a minute"),
  },
} as const;

export const SignedInSchema = z
  .object({ name: z.string(), ...GrantFields, expiresAt: z.string().describe("ISO 8601, UTC.") })
  .describe("Who is signed in, and until when.");

/** Begins the session of somebody who has shown who they are. @throws UserError Forbidden for a role that is not for people */
export async function signIn(
  request: FastifyRequest,
  reply: FastifyReply,
  { access, actor, subject }: { access: ConsoleAccess; actor: Actor; subject: Subject },
): Promise<z.infer<typeof SignedInSchema>> {
  if (!mayUseConsole(actor.role))
    throw new UserError(
      "Forbidden",
      `the role ${actor.role} is for what collects metrics, and nobody signs in with it; take a token of another role`,
    );
  if (subject.kind === "kubernetes" && subject.token.length > LONGEST_SEALED)
    throw new UserError(
      "InvalidInput",
      `the token is too long for a cookie: ${subject.token.length} characters, of ${LONGEST_SEALED}; take one of a service account (kubectl create token)`,
    );
  request.actor = actor;
  const session = await access.sessions.begin(subject);
  setSessionCookie(request, reply, { session, url: access.url() });
  return { name: actor.name, ...grantOf(actor), expiresAt: session.expiresAt.toISOString() };
}
