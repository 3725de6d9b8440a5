import * as client from "openid-client";
import { messageOf, UserError } from "../../model/errors.ts";
import { grantOf } from "../../model/grant.ts";
import type { Actor } from "../../model/role.ts";
import type { OidcConfig } from "../../model/sign-in.ts";
import type { Sessions } from "./sessions.ts";

/** Long enough to type a password and find the phone; the provider's own pages have such a limit, too. */
const FLOW_SECONDS = 10 * 60;
const TIMEOUT_SECONDS = 10;
/** A provider that does not answer is asked again at the next sign-in, but not more often than this. */
const ASK_AGAIN_MS = 5_000;
/** More groups than anybody's mapping gives one person; a cookie has 4 KiB. */
const MOST_GROUPS = 20;
const LONGEST_NAME = 100;
const PURPOSE = "synapse-shards sign-in by OIDC";

/** Who signed in, as the provider said; what their groups may do is looked up at each request. */
export interface OidcPerson {
  name: string;
  groups: string[];
}

/** Why somebody did not get in; the console has the words. */
export type OidcRefusal = "away" | "expired" | "refused" | "failed" | "no-role";

export interface OidcOptions {
  config: OidcConfig;
  secret: string | undefined;
  /** Where the browser comes back to is below it. */
  consoleUrl: () => string;
  /** Seals what a browser carries while it is at the provider. */
  sessions: Pick<Sessions, "seal" | "unseal">;
  log: { warn(message: string): void };
  now?: () => Date;
}

interface Flow {
  state: string;
  nonce: string;
  verifier: string;
  returnTo: string;
}

/** Sign-in at an OpenID Connect provider: authorization code with PKCE, state and nonce. */
export class OidcSignIn {
  readonly #options: OidcOptions;
  readonly #now: () => Date;
  #provider: Promise<client.Configuration> | undefined;
  #problem: string | undefined;
  #askedAt = Number.NEGATIVE_INFINITY;

  constructor(options: OidcOptions) {
    this.#options = options;
    this.#now = options.now ?? (() => new Date());
  }

  get label(): string {
    return this.#options.config.label;
  }

  /** What is wrong with the settings or the provider, as far as it was asked. */
  problems(): string[] {
    return this.#problem === undefined ? [] : [this.#problem];
  }

  /** Asks the provider, so that wrong settings are known before somebody wants in. Never throws. */
  async check(): Promise<void> {
    await this.#discovered().catch(() => {});
  }

  /** @param returnTo path of the console @returns where the browser goes, and what it carries meanwhile */
  async begin(returnTo: string): Promise<{ url: string; sealed: string; expiresAt: Date } | { refusal: OidcRefusal }> {
    const provider = await this.#discovered().catch(() => undefined);
    if (!provider) return { refusal: "away" };
    const flow: Flow = {
      state: client.randomState(),
      nonce: client.randomNonce(),
      verifier: client.randomPKCECodeVerifier(),
      returnTo,
    };
    const url = client.buildAuthorizationUrl(provider, {
      redirect_uri: this.#redirectUri(),
      scope: this.#options.config.scopes.join(" "),
      state: flow.state,
      nonce: flow.nonce,
      code_challenge: await client.calculatePKCECodeChallenge(flow.verifier),
      code_challenge_method: "S256",
    });
    const expiresAt = new Date(this.#now().getTime() + FLOW_SECONDS * 1000);
    const sealed = await this.#options.sessions.seal({ ...flow }, { purpose: PURPOSE, expiresAt });
    return { url: url.href, sealed, expiresAt };
  }

  /** @param query of the browser's return, with its `?` @param sealed what it carried */
  async finish(
    query: string,
    sealed: string | undefined,
  ): Promise<{ person: OidcPerson; returnTo: string } | { refusal: OidcRefusal }> {
    const flow = sealed === undefined ? undefined : await this.#options.sessions.unseal(sealed, PURPOSE);
    if (!flow) return { refusal: "expired" };
    const { state, nonce, verifier, returnTo } = flow as unknown as Flow;
    try {
      const provider = await this.#discovered();
      const tokens = await client.authorizationCodeGrant(provider, new URL(this.#redirectUri() + query), {
        expectedState: state,
        expectedNonce: nonce,
        pkceCodeVerifier: verifier,
        idTokenExpected: true,
      });
      const person = this.#personOf(await this.#claims(provider, tokens));
      if (this.actorOf(person)) return { person, returnTo };
      this.#options.log.warn(`${person.name} is known to the provider, and in no group that signIn.oidc.roles has`);
      return { refusal: "no-role" };
    } catch (error) {
      if (error instanceof client.AuthorizationResponseError) return { refusal: "refused" };
      this.#options.log.warn(`signing in by OIDC failed: ${this.#inWords(error)}`);
      return { refusal: "failed" };
    }
  }

  actorOf({ name, groups }: OidcPerson): Actor | undefined {
    const grant = this.#options.config.roles.find(({ group }) => groups.includes(group));
    return grant && { name: `oidc:${name}`, ...grantOf(grant) };
  }

  /** Where a browser signs out of the provider as well; undefined where that has no such page. */
  async signOutUrl(): Promise<string | undefined> {
    const provider = await this.#discovered().catch(() => undefined);
    if (provider?.serverMetadata().end_session_endpoint === undefined) return undefined;
    return client.buildEndSessionUrl(provider, {
      client_id: this.#options.config.clientId,
      post_logout_redirect_uri: `${this.#options.consoleUrl()}/`,
    }).href;
  }

  #redirectUri(): string {
    return `${this.#options.consoleUrl()}/v1/session/oidc/callback`;
  }

  async #claims(
    provider: client.Configuration,
    tokens: Awaited<ReturnType<typeof client.authorizationCodeGrant>>,
  ): Promise<Record<string, unknown>> {
    const said = tokens.claims();
    if (!said) throw new Error("the provider gave no ID token");
    const { nameClaim, groupsClaim } = this.#options.config;
    const isComplete = nameClaim in said && groupsClaim in said;
    if (isComplete || provider.serverMetadata().userinfo_endpoint === undefined) return said;
    // Many providers keep all but the subject for this.
    const more = await client.fetchUserInfo(provider, tokens.access_token, said.sub);
    return { ...more, ...said };
  }

  #personOf(claims: Record<string, unknown>): OidcPerson {
    const { nameClaim, groupsClaim, roles } = this.#options.config;
    const name = [claims[nameClaim], claims["sub"]].find((one) => typeof one === "string" && one !== "");
    const given = claims[groupsClaim];
    const said = new Set(Array.isArray(given) ? given : [given]);
    const known = [...new Set(roles.map(({ group }) => group))];
    return {
      name: String(name).slice(0, LONGEST_NAME),
      groups: known.filter((group) => said.has(group)).slice(0, MOST_GROUPS),
    };
  }

  #discovered(): Promise<client.Configuration> {
    const now = this.#now().getTime();
    if (this.#provider) return this.#provider;
    if (Math.abs(now - this.#askedAt) < ASK_AGAIN_MS)
      return Promise.reject(new UserError("Unavailable", this.#problem ?? "the provider has just been asked"));
    this.#askedAt = now;
    const provider = this.#discover();
    this.#provider = provider;
    provider.then(
      (found) => (this.#problem = doubtsOf(found.serverMetadata(), this.#options.config)),
      (error: unknown) => {
        this.#provider = undefined;
        const problem = messageOf(error);
        if (problem !== this.#problem) this.#options.log.warn(problem);
        this.#problem = problem;
      },
    );
    return provider;
  }

  async #discover(): Promise<client.Configuration> {
    const { config, secret } = this.#options;
    const issuer = new URL(config.issuer);
    const insecure = issuer.protocol === "http:" ? [client.allowInsecureRequests] : [];
    const found = await client
      .discovery(issuer, config.clientId, undefined, client.None(), { timeout: TIMEOUT_SECONDS, execute: insecure })
      .catch((error: unknown) => {
        throw new UserError("Unavailable", `people cannot sign in by OIDC: ${this.#inWords(error)}`, { cause: error });
      });
    const metadata = found.serverMetadata();
    const problem = lacksOf(metadata, config);
    if (problem !== undefined)
      throw new UserError("Unavailable", `people cannot sign in by OIDC: ${config.issuer} ${problem}`);
    const provider = new client.Configuration(metadata, config.clientId, undefined, authOf(metadata, secret));
    provider.timeout = TIMEOUT_SECONDS;
    for (const allow of insecure) allow(provider);
    return provider;
  }

  /** What is wrong, and which setting it may be. */
  #inWords(error: unknown): string {
    const { issuer } = this.#options.config;
    const refusesUs = "the provider refuses signIn.oidc.clientId or the secret of clientSecretFile";
    if (error instanceof client.WWWAuthenticateChallengeError) return refusesUs;
    if (error instanceof client.ResponseBodyError) {
      const why = error.error_description ?? error.error;
      if (error.error === "invalid_client" || error.error === "unauthorized_client") return `${refusesUs}: ${why}`;
      return `the provider refuses the code (${why}); ${this.#redirectUri()} must be among the client's redirect URIs`;
    }
    const { code, cause } = error as { code?: string; cause?: unknown };
    if (cause instanceof Response && cause.status >= 500) return `${issuer} answers with ${cause.status}`;
    if (code === "OAUTH_JSON_ATTRIBUTE_COMPARISON_FAILED")
      return `the provider at ${issuer} calls itself otherwise: set signIn.oidc.issuer to exactly what its /.well-known/openid-configuration has as issuer`;
    if (
      code === "OAUTH_RESPONSE_IS_NOT_CONFORM" ||
      code === "OAUTH_RESPONSE_IS_NOT_JSON" ||
      code === "OAUTH_PARSE_ERROR"
    )
      return `there is no OpenID Connect provider at ${issuer}: signIn.oidc.issuer is to be the URL above its /.well-known/openid-configuration`;
    const reason = cause instanceof Error ? (causeOf(cause) ?? messageOf(cause)) : messageOf(error);
    return `${issuer} (signIn.oidc.issuer) does not answer as it should: ${reason}`;
  }
}

/** The innermost reason, such as a refused connection. */
function causeOf(error: Error): string | undefined {
  return error.cause instanceof Error ? (causeOf(error.cause) ?? (error.cause.message || undefined)) : undefined;
}

/** What the provider says that it cannot do and we need; undefined: nothing. */
function lacksOf(metadata: client.ServerMetadata, { scopes }: OidcConfig): string | undefined {
  const { code_challenge_methods_supported: challenges } = metadata;
  const responses = metadata.response_types_supported ?? ["code"];
  if (!responses.includes("code")) return `offers no authorization codes, but ${responses.join(", ")}`;
  if (challenges && !challenges.includes("S256")) return `offers PKCE with ${challenges.join(", ")}, and not with S256`;
  if (!scopes.includes("openid")) return "gives an ID token only for the scope openid, which signIn.oidc.scopes lacks";
  return undefined;
}

/** Providers need not name all scopes that they know, so this keeps nobody out. */
function doubtsOf(
  { scopes_supported: known }: client.ServerMetadata,
  { issuer, scopes }: OidcConfig,
): string | undefined {
  const unknown = known ? scopes.filter((scope) => !known.includes(scope)) : [];
  if (unknown.length === 0) return undefined;
  return `${issuer} names the scopes ${known?.join(", ")}, and signIn.oidc.scopes asks for ${unknown.join(", ")} as well`;
}

function authOf(metadata: client.ServerMetadata, secret: string | undefined): client.ClientAuth {
  if (secret === undefined) return client.None();
  const methods = metadata.token_endpoint_auth_methods_supported ?? ["client_secret_basic"];
  return methods.includes("client_secret_basic") ? client.ClientSecretBasic(secret) : client.ClientSecretPost(secret);
}
