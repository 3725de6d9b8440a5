import { z } from "zod";
import { GrantFields, refineGrant } from "./grant.ts";

const LOOPBACK = new Set(["localhost", "127.0.0.1", "[::1]"]);

/** What a provider says of people decides what they may do, so nobody on the way may change it. */
function httpsOrLoopback(text: string): boolean {
  if (!URL.canParse(text)) return false;
  const { protocol, hostname } = new URL(text);
  return protocol === "https:" || (protocol === "http:" && LOOPBACK.has(hostname));
}

const Url = z
  .string()
  .refine(httpsOrLoopback, "an https URL such as https://id.example, or an http one on this machine");

/** Names of claims as providers have them; one with a URL as a prefix is one name. */
const Claim = z.string().min(1).max(200);

export const OidcSchema = z.strictObject({
  /** As the provider calls itself: `/.well-known/openid-configuration` is below it. */
  issuer: Url,
  clientId: z.string().min(1).max(500),
  /** The file with the client's secret; absent: a public client, which PKCE alone protects. */
  clientSecretFile: z.string().min(1).optional(),
  /** What the button says. */
  label: z.string().min(1).max(40).default("Single sign-on"),
  scopes: z.array(z.string().min(1).max(100)).max(20).default(["openid", "profile", "email"]),
  /** Whose value is the person's name in the audit log; else the subject. */
  nameClaim: Claim.default("preferred_username"),
  groupsClaim: Claim.default("groups"),
  /** What groups may do: the first of these that somebody is in counts. Nobody else gets in. */
  roles: z
    .array(z.strictObject({ group: z.string().min(1).max(200), ...GrantFields }).superRefine(refineGrant))
    .min(1)
    .max(1000),
});
export type OidcConfig = z.infer<typeof OidcSchema>;

export const KubernetesSignInSchema = z.strictObject({
  /** What users and groups of the API server may do: the first that fits counts. Nobody else gets in. */
  roles: z
    .array(
      z
        .strictObject({
          user: z.string().min(1).max(300).optional(),
          group: z.string().min(1).max(300).optional(),
          ...GrantFields,
        })
        .superRefine(refineGrant)
        .refine(({ user, group }) => (user === undefined) !== (group === undefined), "give user or group"),
    )
    .min(1)
    .max(1000),
});
export type KubernetesSignIn = z.infer<typeof KubernetesSignInSchema>;

/** How people sign in to the console, besides with tokens; docs/access.md. */
export const SignInSchema = z.strictObject({
  /** The console's address as browsers have it, without a path. Default on one machine: http://localhost and the API's port. */
  consoleUrl: Url.refine(
    (url) => URL.canParse(url) && new URL(url).pathname === "/",
    "a URL without a path",
  ).optional(),
  oidc: OidcSchema.optional(),
  /** On Kubernetes: with tokens of the API server, such as `kubectl create token` prints. */
  kubernetes: KubernetesSignInSchema.optional(),
});
export type SignInConfig = z.infer<typeof SignInSchema>;
