import { Provider, type Configuration } from "oidc-provider";

export const CLIENT_ID = "synapse-shards";
export const CLIENT_SECRET = "the-secret-of-the-client";

/** A real OpenID Connect provider. Any login works; `groups` says who is in which. @param consoles whose people sign in there */
export function identityProvider(
  issuer: string,
  consoles: readonly string[],
  groups: Record<string, string[]>,
  settings: Configuration = {},
): Provider {
  const redirects = {
    redirect_uris: consoles.map((url) => `${url}/v1/session/oidc/callback`),
    post_logout_redirect_uris: consoles.map((url) => `${url}/`),
  };
  return new Provider(issuer, {
    clients: [{ client_id: CLIENT_ID, client_secret: CLIENT_SECRET, response_types: ["code"], ...redirects }],
    pkce: { required: () => true },
    claims: { openid: ["sub"], profile: ["preferred_username", "groups"] },
    features: { devInteractions: { enabled: true }, rpInitiatedLogout: { enabled: true } },
    ttl: { AccessToken: 600, Grant: 600, IdToken: 600, Interaction: 600, Session: 600 },
    cookies: { keys: ["a key of the test"] },
    findAccount: (_context, sub) => ({
      accountId: sub,
      claims: () => ({ sub, preferred_username: sub, groups: groups[sub] ?? [] }),
    }),
    ...settings,
  });
}
