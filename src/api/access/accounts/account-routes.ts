import { z } from "zod";
import { UserError } from "../../../model/errors.ts";
import { GrantFields, grantOf, PrincipalName, refineGrant } from "../../../model/grant.ts";
import { failures, type Api } from "../../api.ts";
import type { ConsoleAccess } from "../console-access.ts";
import type { AccountSignIn } from "./sign-in.ts";
import type { AccountView } from "./accounts.ts";

const tags = ["access"];
const config = { access: "admin" } as const;
const Params = z.object({ name: z.string() });

const AccountSchema = z
  .object({
    name: z.string(),
    ...GrantFields,
    createdAt: z.string(),
    signsInWith: z.enum(["passkey", "password"]).optional().describe("Absent: the link has not been used yet."),
    enrolmentExpiresAt: z.string().optional().describe("Until when the link is good that has not been used yet."),
    lastSignInAt: z.string().optional(),
  })
  .meta({ id: "Account" }) satisfies z.ZodType<AccountView>;

const LinkSchema = z
  .object({ name: z.string(), url: z.string(), expiresAt: z.string() })
  .describe("The link, which is shown this once: whoever opens it first is that person.");

/** Who has an account; for admins. */
export function accountRoutes(app: Api, access: ConsoleAccess | undefined): void {
  const accounts = (): AccountSignIn["accounts"] => {
    if (access?.accounts) return access.accounts.accounts;
    throw new UserError(
      "Conflict",
      "this platform keeps no accounts: docs/access.md says how people sign in with an identity provider, or with the tokens of Kubernetes",
    );
  };
  const linkOf = (name: string, { secret, expiresAt }: { secret: string; expiresAt: string }) => ({
    name,
    // Behind the #, so that it is in nobody's log.
    url: `${access?.url()}/enrol#${secret}`,
    expiresAt,
  });

  app.get(
    "/v1/accounts",
    {
      config,
      schema: {
        operationId: "listAccounts",
        summary: "The accounts of people, by name",
        tags,
        response: { 200: z.object({ items: z.array(AccountSchema) }).describe("The accounts."), ...failures(409) },
      },
    },
    async () => ({ items: accounts().list() }),
  );
  app.post(
    "/v1/accounts",
    {
      config,
      schema: {
        operationId: "createAccount",
        summary: "Makes an account; its person chooses by a link how they sign in",
        tags,
        body: z.strictObject({ name: PrincipalName, ...GrantFields }).superRefine(refineGrant),
        response: { 201: LinkSchema, ...failures(409, 422) },
      },
    },
    async ({ body }, reply) => reply.code(201).send(linkOf(body.name, accounts().create(body.name, grantOf(body)))),
  );
  app.post(
    "/v1/accounts/:name/reset",
    {
      config,
      schema: {
        operationId: "resetAccount",
        summary: "Ends the account's sessions and its ways to sign in; its person begins again by a link",
        tags,
        params: Params,
        response: { 200: LinkSchema, ...failures(404, 409) },
      },
    },
    async ({ params: { name } }) => linkOf(name, accounts().reset(name)),
  );
  app.delete(
    "/v1/accounts/:name",
    {
      config,
      schema: {
        operationId: "removeAccount",
        summary: "Removes an account, and ends its sessions at once",
        tags,
        params: Params,
        response: { 204: z.undefined().describe("It is gone."), ...failures(404, 409) },
      },
    },
    async ({ params }, reply) => {
      accounts().remove(params.name);
      return reply.code(204).send();
    },
  );
}
