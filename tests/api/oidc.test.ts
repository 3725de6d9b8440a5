import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { OidcSignIn, type OidcOptions } from "../../src/api/access/oidc.ts";
import { Sessions } from "../../src/api/access/sessions.ts";
import { OidcSchema, SignInSchema } from "../../src/model/sign-in.ts";
import { type ApiUnderTest, startApiUnderTest } from "./api-under-test.ts";
import {
  Browser,
  CLIENT_ID,
  CLIENT_SECRET,
  type IdentityProvider,
  startIdentityProvider,
} from "./identity-provider.ts";

const ROLES = [
  { group: "matrix-admins", role: "admin" },
  { group: "acme-it", role: "tenant-admin", tenants: "customer=acme" },
];

let provider: IdentityProvider;
let api: ApiUnderTest;
let url: string;
let warnings: string[];
let secret: string | undefined;

const configOf = (more: object = {}) =>
  OidcSchema.parse({
    issuer: provider.issuer,
    clientId: CLIENT_ID,
    scopes: ["openid", "profile"],
    roles: ROLES,
    ...more,
  });

beforeEach(async () => {
  warnings = [];
  secret = CLIENT_SECRET;
  provider = await startIdentityProvider({ ada: ["matrix-admins", "staff"], carl: ["acme-it"], eve: ["staff"] });
  api = await startApiUnderTest(undefined, {
    signIn: (sessions) => {
      const options = { config: configOf(), consoleUrl: () => url, sessions, log };
      return { oidc: new OidcSignIn({ ...options, secret }) };
    },
  });
  url = api.url.replace("127.0.0.1", "localhost");
  provider.allow(url);
});
afterEach(async () => {
  await api.close();
  await provider.close();
});

const log = { warn: (message: string) => void warnings.push(message) };

/** What the console's pages send. */
const own = (browser: Browser) => ({ cookie: browser.cookiesFor(url), "sec-fetch-site": "same-origin", origin: url });
const whoAmI = async (browser: Browser) => {
  const answer = await fetch(`${url}/v1/whoami`, { headers: own(browser) });
  return { status: answer.status, who: await answer.json() };
};
const isCallback = (at: string) => at.includes("/v1/session/oidc/callback");
const begin = (returnTo = "/tenants?phase=Failed") => `${url}/v1/session/oidc?returnTo=${encodeURIComponent(returnTo)}`;

describe("signing in at an identity provider", () => {
  test("gives a person the role of their group, and leads them to where they were", async () => {
    const browser = new Browser();
    const { url: at } = await browser.signInAt(begin(), "ada");
    expect(at).toBe(`${url}/tenants?phase=Failed`);
    expect(await whoAmI(browser)).toEqual({ status: 200, who: { name: "oidc:ada", role: "admin" } });
    const [asked] = provider.attempts;
    expect(asked?.get("code_challenge_method")).toBe("S256");
    for (const parameter of ["state", "nonce", "code_challenge"]) expect(asked?.get(parameter)).toMatch(/.{20,}/);
    expect(api.audited).toMatchObject([{ actor: "oidc:ada", role: "admin", action: "finishOidc" }]);
    expect(api.audited[0]?.path).toBe("/v1/session/oidc/callback");
  });

  test("limits a tenant admin to the tenants of their group", async () => {
    const browser = new Browser();
    await browser.signInAt(begin(), "carl");
    const who = { name: "oidc:carl", role: "tenant-admin", tenants: "customer=acme" };
    expect(await whoAmI(browser)).toEqual({ status: 200, who });
    expect((await fetch(`${url}/v1/shards`, { headers: own(browser) })).status).toBe(403);
  });

  test("lets nobody in whose groups have no role, and says so", async () => {
    const browser = new Browser();
    const { url: at } = await browser.signInAt(begin(), "eve");
    expect(at).toBe(`${url}/overview?sign-in=no-role`);
    expect((await whoAmI(browser)).status).toBe(401);
    expect(warnings[0]).toContain("eve");
  });

  test("takes an answer only from the browser that asked, only once, and only unchanged", async () => {
    const asker = new Browser();
    const { location = "" } = await asker.signInAt(begin(), "ada", isCallback);
    // Somebody is led to an answer that is another's: nobody is to work in an account that is not theirs.
    expect((await new Browser().go(location)).url).toBe(`${url}/overview?sign-in=expired`);
    const other = new Browser();
    await other.signInAt(begin(), "carl", isCallback);
    expect((await other.go(location)).url).toBe(`${url}/overview?sign-in=failed`);
    expect((await whoAmI(other)).status).toBe(401);
    const flow = { headers: { cookie: asker.cookiesFor(url) } };
    expect((await asker.go(location.replace(/state=[^&]+/, "state=other"))).url).toContain("sign-in=failed");
    expect((await new Browser().go(location, flow)).url).toBe(`${url}/tenants?phase=Failed`);
    expect((await new Browser().go(location, flow)).url).toContain("sign-in=failed");
  });

  test("leads nobody to another site", async () => {
    for (const path of ["https://evil.example", "//evil.example", "/\\evil.example", "evil", "/a b"]) {
      const answer = await fetch(begin(path), { redirect: "manual" });
      expect([path, answer.status]).toEqual([path, 422]);
    }
  });

  test("begins at the console's own address, where the cookie is to be when the browser comes back", async () => {
    const answer = await fetch(`${api.url}/v1/session/oidc?returnTo=/tenants`, { redirect: "manual" });
    expect(answer.headers.get("location")).toBe(`${url}/v1/session/oidc?returnTo=/tenants`);
    expect(answer.headers.getSetCookie()).toEqual([]);
  });

  test("a person who refuses at the provider is back without a session", async () => {
    const browser = new Browser();
    const page = await browser.go(begin());
    const [, abort = ""] = /href="([^"]+abort)"/.exec(page.text) ?? [];
    expect((await browser.go(new URL(abort, page.url).href)).url).toBe(`${url}/overview?sign-in=refused`);
  });

  test("a person whose provider does not answer is led back to the page of the way in", async () => {
    await provider.close();
    const answer = await fetch(begin(), { redirect: "manual" });
    expect(answer.headers.get("location")).toBe("/overview?sign-in=away");
    expect(answer.headers.getSetCookie()).toEqual([]);
    expect(warnings.join()).toContain("cannot sign in by OIDC");
  });

  test("signing out ends the session, and leads to the provider to end it there as well", async () => {
    const browser = new Browser();
    await browser.signInAt(begin(), "ada");
    const headers = own(browser);
    const answer = await fetch(`${url}/v1/session`, { method: "DELETE", headers });
    expect(answer.status).toBe(200);
    const { continueAt } = (await answer.json()) as { continueAt: string };
    expect(continueAt).toContain(`${provider.issuer}/session/end?`);
    expect((await fetch(`${url}/v1/whoami`, { headers })).status).toBe(401);
    const { text } = await browser.go(continueAt);
    const [, xsrf = ""] = /name="xsrf" value="([^"]+)"/.exec(text) ?? [];
    const { url: at } = await browser.go(`${provider.issuer}/session/end/confirm`, { body: `xsrf=${xsrf}&logout=yes` });
    expect(at).toBe(`${url}/overview`.replace("/overview", "/"));
  });

  test("a wrong secret is told in the log, with the setting that it may be", async () => {
    const sessions = new Sessions(() => ["key"]);
    const wrong = new OidcSignIn({ config: configOf(), secret: "wrong", consoleUrl: () => url, sessions, log });
    const begun = await wrong.begin("/");
    if ("refusal" in begun) throw new Error(begun.refusal);
    const { url: at, sealed } = begun;
    const { location = "" } = await new Browser().signInAt(at, "ada", isCallback);
    expect(await wrong.finish(new URL(location).search, sealed)).toEqual({ refusal: "failed" });
    expect(warnings.at(-1)).toMatch(/refuses signIn.oidc.clientId or the secret/);
  });
});

describe("wrong settings are known at the start", () => {
  const check = async (more: object, options: Partial<OidcOptions> = {}) => {
    const sessions = new Sessions(() => ["key"]);
    const config = configOf(more);
    const oidc = new OidcSignIn({ config, secret: undefined, consoleUrl: () => url, sessions, log, ...options });
    await oidc.check();
    return { problem: oidc.problems().join(), oidc };
  };

  test("nobody listens there, there is no provider, or it calls itself otherwise", async () => {
    const closed = await startIdentityProvider({});
    await closed.close();
    const { problem, oidc } = await check({ issuer: closed.issuer });
    expect(problem).toMatch(/signIn.oidc.issuer.*ECONNREFUSED/);
    expect(await oidc.begin("/")).toEqual({ refusal: "away" });
    expect((await check({ issuer: `${provider.issuer}/realm` })).problem).toContain(
      "there is no OpenID Connect provider",
    );
    const other = await startIdentityProvider({}, { claimedIssuer: "http://127.0.0.1:1" });
    other.allow(url);
    expect((await check({ issuer: other.issuer })).problem).toContain("calls itself otherwise");
    await other.close();
  });

  test("scopes that the provider does not name are pointed out, and a provider that is well is not", async () => {
    expect((await check({ scopes: ["openid", "groups"] })).problem).toMatch(/asks for groups as well/);
    expect((await check({ scopes: ["profile"] })).problem).toContain("scope openid");
    expect((await check({})).problem).toBe("");
  });

  test("a provider that comes up later is found", async () => {
    let clock = Date.parse("2026-01-01T00:00:00Z");
    const late = await startIdentityProvider({});
    const { problem, oidc } = await check({ issuer: late.issuer }, { now: () => new Date(clock) });
    expect(problem).toContain("answers with 503");
    late.allow(url);
    clock += 6_000;
    expect(await oidc.begin("/")).toMatchObject({ url: expect.stringContaining(late.issuer) });
    expect(oidc.problems()).toEqual([]);
    await late.close();
  });

  test("a configuration is refused with what is allowed", () => {
    const oidc = { issuer: "https://id.example", clientId: "x", roles: [{ group: "a", role: "admin" }] };
    const problemsOf = (config: object) =>
      SignInSchema.safeParse(config)
        .error?.issues.map(({ message }) => message)
        .join();
    expect(problemsOf({ oidc })).toBeUndefined();
    const wrong: [object, string][] = [
      [{ oidc: { ...oidc, issuer: "http://id.example" } }, "https URL"],
      [{ oidc: { ...oidc, roles: [] } }, ">=1"],
      [{ oidc: { ...oidc, roles: [{ group: "a", role: "tenant-admin" }] } }, "needs a selector"],
      [{ oidc: { ...oidc, roles: [{ group: "a", role: "viewer", tenants: "a=b" }] } }, "whole cluster"],
      [{ consoleUrl: "https://console.example/path" }, "without a path"],
    ];
    for (const [config, words] of wrong) expect(problemsOf(config)).toContain(words);
  });
});
