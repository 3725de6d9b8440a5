import type { AuthenticationResponseJSON, RegistrationResponseJSON } from "@simplewebauthn/server";
import type { FastifyReply, FastifyRequest } from "fastify";
import { z } from "zod";
import { UserError } from "../../../model/errors.ts";
import { GrantFields, grantOf } from "../../../model/grant.ts";
import { failures, type Api } from "../../api.ts";
import { refuseForeignPages } from "../browser-guard.ts";
import type { ConsoleAccess } from "../console-access.ts";
import { SIGN_IN, SignedInSchema, signIn } from "../signing-in.ts";
import type { Account } from "./accounts.ts";
import type { AccountSignIn } from "./sign-in.ts";

const tags = ["access"];
const security: [] = [];
const open = { ...SIGN_IN, isSignIn: false };

const Sealed = z.string().min(1).max(4000);
const LinkSecret = z.string().min(1).max(100);
const Code = z.string().regex(/^\d{6}$/, "the six digits that the app shows");
const Password = z.string().min(12, "at least 12 characters").max(200, "at most 200 characters");
const text = z.string().max(20_000);
/** What the browser made of an authenticator's answer; the library looks into it. */
const Credential = z.looseObject({
  id: z.string().max(2000),
  rawId: z.string().max(2000),
  type: z.literal("public-key"),
  response: z.looseObject({ clientDataJSON: text, userHandle: z.string().max(200).optional() }),
});
const Options = z.looseObject({ challenge: z.string() });

/** How people of this cluster sign in, and enrol; for anybody who has the console open. */
export function accountSignInRoutes(app: Api, access: ConsoleAccess): void {
  const ways = (): AccountSignIn => {
    if (access.accounts) return access.accounts;
    throw new UserError("NotFound", "this platform keeps no accounts");
  };
  const enter = async (request: FastifyRequest, reply: FastifyReply, { name, generation }: Account) => {
    const actor = ways().accounts.actorOf(name, generation);
    if (!actor) throw new UserError("Unauthorized", "the account was changed meanwhile: begin again");
    return reply
      .code(201)
      .send(await signIn(request, reply, { access, actor, subject: { kind: "account", name, generation } }));
  };

  app.post(
    "/v1/enrolment",
    {
      config: open,
      schema: {
        operationId: "beginEnrolment",
        summary: "Whose link this is, and what is needed for a passkey, or a password with codes",
        tags,
        security,
        body: z.strictObject({ secret: LinkSecret }),
        response: {
          200: z
            .object({
              name: z.string(),
              ...GrantFields,
              flow: z.string(),
              passkey: Options,
              totp: z.object({ secret: z.string(), uri: z.string() }),
            })
            .describe("What to begin with."),
          ...failures(404, 422, 429),
        },
      },
    },
    async (request) => {
      refuseForeignPages(request, access.hosts);
      const { account, flow, passkey, totp } = await ways().beginEnrolment(request.body.secret);
      return { name: account.name, ...grantOf(account), flow, passkey: { ...passkey }, totp };
    },
  );
  app.post(
    "/v1/enrolment/passkey",
    {
      config: SIGN_IN,
      schema: {
        operationId: "enrolPasskey",
        summary: "Uses the link up: the account signs in with this passkey from now on",
        tags,
        security,
        body: z.strictObject({ secret: LinkSecret, flow: Sealed, response: Credential }),
        response: { 201: SignedInSchema, ...failures(404, 422, 429) },
      },
    },
    async (request, reply) => {
      refuseForeignPages(request, access.hosts);
      const { secret, flow, response } = request.body;
      const account = await ways().enrolPasskey(secret, flow, response as unknown as RegistrationResponseJSON);
      return enter(request, reply, account);
    },
  );
  app.post(
    "/v1/enrolment/password",
    {
      config: SIGN_IN,
      schema: {
        operationId: "enrolPassword",
        summary: "Uses the link up: the account signs in with this password and the app's codes from now on",
        tags,
        security,
        body: z.strictObject({ secret: LinkSecret, flow: Sealed, password: Password, code: Code }),
        response: { 201: SignedInSchema, ...failures(404, 422, 429) },
      },
    },
    async (request, reply) => {
      refuseForeignPages(request, access.hosts);
      const { secret, ...given } = request.body;
      return enter(request, reply, await ways().enrolPassword(secret, given));
    },
  );
  app.post(
    "/v1/session/passkey/options",
    {
      config: open,
      schema: {
        operationId: "beginPasskey",
        summary: "What a browser needs to ask for a passkey",
        tags,
        security,
        response: { 200: z.object({ flow: z.string(), options: Options }).describe("It."), ...failures(404, 429) },
      },
    },
    async (request) => {
      refuseForeignPages(request, access.hosts);
      const { flow, options } = await ways().beginPasskey();
      return { flow, options: { ...options } };
    },
  );
  app.post(
    "/v1/session/passkey",
    {
      config: SIGN_IN,
      schema: {
        operationId: "signInWithPasskey",
        summary: "Exchanges a passkey's answer for a session cookie",
        tags,
        security,
        body: z.strictObject({ flow: Sealed, response: Credential }),
        response: { 201: SignedInSchema, ...failures(404, 422, 429) },
      },
    },
    async (request, reply) => {
      refuseForeignPages(request, access.hosts);
      const { flow, response } = request.body;
      return enter(request, reply, await ways().finishPasskey(flow, response as unknown as AuthenticationResponseJSON));
    },
  );
  app.post(
    "/v1/session/password",
    {
      config: SIGN_IN,
      schema: {
        operationId: "signInWithPassword",
        summary: "Exchanges a name, a password and a code for a session cookie",
        tags,
        security,
        body: z.strictObject({ name: z.string().min(1).max(64), password: z.string().min(1).max(200), code: Code }),
        response: { 201: SignedInSchema, ...failures(404, 422, 429) },
      },
    },
    async (request, reply) => {
      refuseForeignPages(request, access.hosts);
      return enter(request, reply, await ways().finishPassword(request.body));
    },
  );
}
