import type { FastifyReply, FastifyRequest } from "fastify";
import { z } from "zod";
import { UserError } from "../../model/errors.ts";
import { mayUseConsole } from "../../model/role.ts";
import { failures, type Api } from "../api.ts";
import { refuseForeignHost } from "./browser-guard.ts";
import type { OidcPerson, OidcRefusal, OidcSignIn } from "./oidc.ts";
import { sessionCookieOf, setSessionCookie } from "./session-cookie.ts";
import { SIGN_IN, signIn } from "./signing-in.ts";
import type { ConsoleAccess } from "./console-access.ts";

const tags = ["access"];

/** Pages of the console's own: an address elsewhere would make us lead people astray. */
const ReturnTo = z
  .string()
  .max(500)
  .regex(/^\/(?![/\\])[\x21-\x5b\x5d-\x7e]*$/, "a path of the console such as /tenants")
  .default("/overview");

const redirects = { 302: z.undefined().describe("Where the browser goes next.") };

export function oidcRoutes(app: Api, access: ConsoleAccess): void {
  const { hosts } = access;
  const provider = (): OidcSignIn => {
    if (access.oidc) return access.oidc;
    throw new UserError("NotFound", "no identity provider is configured: signIn.oidc of docs/access.md does it");
  };

  app.get(
    "/v1/session/oidc",
    {
      config: { ...SIGN_IN, isSignIn: false },
      schema: {
        operationId: "beginOidc",
        summary: "Leads a browser to the identity provider",
        tags,
        security: [],
        querystring: z.object({ returnTo: ReturnTo }),
        response: { ...redirects, ...failures(404, 422, 429) },
      },
    },
    async (request, reply) => {
      const { host } = request.headers;
      refuseForeignHost(host, hosts);
      const url = access.url();
      // The cookie has to be there when the browser comes back, and that is at this address.
      if (host !== new URL(url).host) return reply.redirect(`${url}${request.url}`);
      const begun = await provider().begin(request.query.returnTo);
      if ("refusal" in begun) return refused(reply, begun.refusal);
      const { url: at, ...carried } = begun;
      setSessionCookie(request, reply, { session: carried, url, purpose: "flow" });
      return reply.redirect(at);
    },
  );
  app.get(
    "/v1/session/oidc/callback",
    {
      config: SIGN_IN,
      schema: {
        operationId: "finishOidc",
        summary: "Where the identity provider leads the browser back to",
        tags,
        security: [],
        response: { ...redirects, ...failures(404, 429) },
      },
    },
    async (request, reply) => {
      refuseForeignHost(request.headers.host, hosts);
      const query = request.url.slice(request.url.indexOf("?"));
      const flow = { url: access.url(), purpose: "flow" } as const;
      const found = await provider().finish(query.startsWith("?") ? query : "", sessionCookieOf(request, flow));
      setSessionCookie(request, reply, { session: undefined, ...flow });
      if ("refusal" in found) return refused(reply, found.refusal);
      return letIn(request, reply, found);
    },
  );

  async function letIn(
    request: FastifyRequest,
    reply: FastifyReply,
    { person, returnTo }: { person: OidcPerson; returnTo: string },
  ) {
    const actor = provider().actorOf(person);
    if (!actor || !mayUseConsole(actor.role)) return refused(reply, "no-role");
    await signIn(request, reply, { access, actor, subject: { kind: "oidc", person } });
    return reply.redirect(returnTo);
  }
}

/** The page of the way in says why, in its own words: an address must not put words into our mouth. */
function refused(reply: FastifyReply, refusal: OidcRefusal) {
  return reply.redirect(`/overview?sign-in=${refusal}`);
}
