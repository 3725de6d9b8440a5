import { afterEach, beforeEach, expect, test } from "vitest";
import { type ApiUnderTest, API_TOKEN, GATEWAY_TOKEN, startApiUnderTest } from "./api-under-test.ts";

let api: ApiUnderTest;
beforeEach(async () => void (api = await startApiUnderTest()));
afterEach(() => api.close());

/** Every call of the document, with its path filled in. */
async function documentedCalls(): Promise<{ method: string; path: string; security: Record<string, unknown>[] }[]> {
  const document = (await (await api.request("/v1/openapi.json")).json()) as {
    security: Record<string, unknown>[];
    paths: Record<string, Record<string, { security?: Record<string, unknown>[] }>>;
  };
  return Object.entries(document.paths).flatMap(([path, calls]) =>
    Object.entries(calls).map(([method, { security = document.security }]) => ({
      method: method.toUpperCase(),
      path: path.replaceAll(/\{\w+\}/g, "clinic-a"),
      security,
    })),
  );
}

test("every route asks for its own token, and takes no other", async () => {
  const calls = await documentedCalls();
  expect(calls.length).toBeGreaterThan(15);
  for (const { method, path, security } of calls) {
    const ask = async (token: string | null) => (await api.request(path, { method, token })).status;
    const wrong = security.length === 0 ? [] : [null, "", "x", `${API_TOKEN}x`, API_TOKEN.slice(0, -1)];
    if (security.some((scheme) => "apiToken" in scheme)) wrong.push(GATEWAY_TOKEN);
    if (security.some((scheme) => "gatewayToken" in scheme)) wrong.push(API_TOKEN);
    for (const token of wrong) expect([method, path, token, await ask(token)]).toEqual([method, path, token, 401]);
  }
  expect(calls.filter(({ security }) => security.length === 0).map(({ path }) => path)).toEqual([
    "/healthz",
    "/metrics",
    "/v1/session/methods",
    "/v1/session",
    "/v1/session/oidc",
    "/v1/session/oidc/callback",
    "/v1/enrolment",
    "/v1/enrolment/passkey",
    "/v1/enrolment/password",
    "/v1/session/passkey/options",
    "/v1/session/passkey",
    "/v1/session/password",
  ]);
});

test("does not tell a stranger which paths exist", async () => {
  const stranger = await api.request("/v1/nothing", { token: null });
  expect(stranger.status).toBe(401);
  expect(stranger.headers.get("www-authenticate")).toContain("Bearer");
  expect((await api.request("/v1/nothing")).status).toBe(404);
});

test("keeps tokens out of the log", async () => {
  await api.request("/v1/tenants");
  await api.request("/v1/tenants", { token: "guessed-token" });
  api.service.failure = new Error("broken");
  await api.request("/v1/tenants");
  expect(api.logged()).toContain("/v1/tenants");
  expect(api.logged()).not.toContain(API_TOKEN);
  expect(api.logged()).not.toContain("guessed-token");
});

test("accepts bearer tokens in any spelling of the scheme, and nothing else", async () => {
  for (const [authorization, status] of [
    [`bearer ${API_TOKEN}`, 200],
    [`Basic ${API_TOKEN}`, 401],
    [API_TOKEN, 401],
    [`Bearer ${API_TOKEN} ${API_TOKEN}`, 401],
  ] as const) {
    const answer = await api.request("/v1/tenants", { token: null, headers: { authorization } });
    expect([authorization, answer.status]).toEqual([authorization, status]);
  }
});
